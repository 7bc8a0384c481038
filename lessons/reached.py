"""Which lines of the reader's file the checks reached, when the package `coverage` is there.

What it does: measures, and says so in lines of text.  What it leaves to others: everything else (check.py).
"""
from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import linecache
from collections import defaultdict
from pathlib import Path
from typing import Any


def begin(file: Path) -> Any:
    """Measure from now on; return None where coverage is missing."""
    if importlib.util.find_spec('coverage') is None:
        return None
    import coverage
    measure = coverage.Coverage(data_file=None, branch=True, include=[str(file)], config_file=False, messages=False)
    measure.exclude('if __name__ == .__main__.:')
    measure.start()
    return measure


def _end(measure: Any) -> tuple[set[int], set[int], dict[int, list[int]]]:
    """Return the lines that were reached, those that were not, and the branches not taken: from -> to."""
    import coverage
    measure.stop()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            measure.json_report(outfile='-')
        except coverage.CoverageException:  # it was never imported
            return set(), set(), {}
    (found,) = json.loads(output.getvalue())['files'].values()
    branches = defaultdict(list)
    for line, target in found['missing_branches']:
        if line not in found['missing_lines']:
            branches[line].append(target)
    return set(found['executed_lines']), set(found['missing_lines']), branches


def summary(measure: Any, file: Path) -> list[str]:
    """Return what was not reached, a line each."""
    if measure is None:
        return ['which lines they reached, coverage can tell: python3 -m pip install -r requirements-dev.txt']
    _, missing, branches = _end(measure)
    # A way that leads to such a line says no more than the line itself.
    branches = {line: rest for line, targets in branches.items() if (rest := [t for t in targets if t not in missing])}
    found = [f'  {number:>4}  {line}{_untaken(branches.get(number, []))}'
             for number, line in _lines(file) if number in missing or number in branches]
    return [f'of {file.name} no check reached:', *found] if found else ['they reached every line of yours']


def listing(measure: Any, file: Path) -> list[str]:
    """Return the whole file, each line with its mark."""
    done, missing, branches = _end(measure)
    marks = {**dict.fromkeys(done, '+'), **dict.fromkeys(missing, '-'), **dict.fromkeys(branches, '~')}
    lines = [f'{marks.get(number, " ")} {number:>4}  {line}{_untaken(branches.get(number, []))}'.rstrip()
             for number, line in _lines(file)]
    return [*lines, '', '+ reached   - not reached   ~ reached, but went on in one way only']


def _lines(file: Path) -> list[tuple[int, str]]:
    return [(number, line.rstrip()) for number, line in enumerate(linecache.getlines(str(file)), 1)]


def _untaken(targets: list[int]) -> str:
    if not targets:
        return ''
    return '  # never on to ' + ' or '.join(f'line {target}' if target > 0 else 'the end' for target in targets)

"""Checks what the reader wrote: `expect` for the tests of the chapters, a short answer instead of pytest's long one.

What it does: compares and says call, got, expected and what to read again; loads the reader's file; runs the tests of
a chapter in a process of their own, which may take LIMIT seconds, with this module as a plugin of pytest.  What it
leaves to others: which file and where the answer goes (__main__.py), what lines were reached (reached.py).

The process writes its answer into a file: what the reader's code prints, and what pytest prints, is not in the way.
"""
from __future__ import annotations

import ast
import contextlib
import faulthandler
import importlib.util
import linecache
import os
import re
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from . import chapters, reached

LIMIT = 20.0  # seconds for all tests of a chapter
LONGEST = 240  # characters of a value
PRINTED_LINES = 10  # so many of what the reader's code printed are shown, the last
INSTALL = 'python3 -m pip install -r requirements-dev.txt'


# For the tests of the chapters .......................................................................

class Wrong(AssertionError):
    """The reader's code gave a wrong answer; the text says which, and which was right."""

    def __init__(self, call: str, got: str, expected: str, read: str) -> None:
        super().__init__(f'\ncall:        {call}\ngot:         {got}\nexpected:    {expected}\nread again:  "{read}"')


def expect(call: str, got: Any, expected: Any, read: str) -> None:
    """Raise AssertionError unless `got` is `expected`.

    `call`: what was called.  `read`: the heading in the chapter's README to read again.
    """
    __tracebackhide__ = True  # by pytest: of interest is who called
    if got != expected:
        raise Wrong(call, shown(got), shown(expected), read)


def expect_raises(call: str, function: Callable[[], Any], exception_type: type[BaseException], read: str) -> None:
    """Raise AssertionError unless `function()` raises `exception_type`."""
    __tracebackhide__ = True
    try:
        got = f'{shown(function())}, and no exception'
    except exception_type:
        return
    except Exception as error:
        got = _said(error)
    raise Wrong(call, got, f'{exception_type.__name__} is raised', read)


def shown(value: Any) -> str:
    """Return the value as text: bytes in hex, what is long without its middle."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        count = len(bytes(value))
        text = f'{bytes(value).hex(" ")} ({count} byte{"s"[:count != 1]})' if count else 'no bytes'
    elif type(value) in (list, tuple):
        text = ', '.join(map(shown, value)).join('[]' if isinstance(value, list) else '()')
    else:
        text = repr(value)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f'{text[:half]} ... {text[-half:]}'


class CannotImport(Exception):
    """The reader's file fails while it is imported; the text says where and why."""


def load(file: Path, name: str) -> ModuleType:
    """Return a new module made of the file: `name` is that of the exercise, wherever the file lies.

    So `from .server import Channel` finds the chapter's.  No cache is asked: the file may have changed this second.
    """
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, file))
    sys.modules[name] = module  # dataclasses look there
    try:
        exec(compile(file.read_bytes(), str(file), 'exec'), vars(module))
    except (Exception, SystemExit) as error:
        raise CannotImport(f'{_place(error, file) or file.name} cannot be imported: {_said(error)}') from error
    return module


def _said(error: BaseException) -> str:
    kind = type(error)
    name = f'{kind.__module__}.error' if kind.__name__ == 'error' else kind.__name__  # struct's, zlib's
    return f'{name}: {error}'.rstrip(': ')


def _place(error: BaseException, file: Path) -> str:
    """Return the line of `file` in which it went wrong, '' when it was elsewhere."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f'{file.name}, line {lines[-1].lineno}: {lines[-1].line}' if lines else ''


# In the process of the tests: a plugin of pytest .....................................................

def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(_Results(Path(os.environ['LESSON_FILE']), Path(os.environ['LESSON_RESULT'])))


class _Results:
    """Collects what the tests say, and writes the reader's answer."""

    def __init__(self, file: Path, result: Path) -> None:
        self.file, self.result = file, result
        self.answer: list[str] = []  # about the first test that failed
        self.count = 0
        self.failed: set[str] = set()
        self.coverage = reached.begin(file)
        self._output = result.open('w', encoding='utf-8')
        faulthandler.dump_traceback_later(LIMIT, exit=True, file=self._output)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.answer:
            self.answer = [f'the checks cannot be loaded: {str(report.longrepr).strip().splitlines()[-1]}']

    def pytest_collection_finish(self, session: Any) -> None:
        self.count = len(session.items)

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        if call.excinfo and not self.answer:
            self.answer = self._answer(item, call.excinfo.value)
            _first(self.result).write_text('\n'.join(self.answer), encoding='utf-8')  # a later one may hang

    def _answer(self, item: Any, error: BaseException) -> list[str]:
        if isinstance(error, CannotImport):
            return [str(error)]
        answer = [f'failed: {_sentence(item.name)}', '']
        readme = (item.path.parent / 'README.md').relative_to(chapters.LESSONS.parent)
        wrong = error if isinstance(error, Wrong) else _as_wrong(error, item.path)
        text = f'{wrong} in {readme.as_posix()}'.strip() if wrong else _said(error)
        if wrong is not error:
            files = [self.file] if wrong else [self.file, item.path]
            text = '\n'.join([text, *filter(None, (_place(error, file) for file in files))])
        return answer + [f'  {line}' for line in text.splitlines()]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            if not self.failed and report.capstdout:
                printed = report.capstdout.splitlines()[-PRINTED_LINES:]
                self.answer += ['', '  your code printed:', *(f'    {line}' for line in printed)]
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        lines = self.answer
        if len(self.failed) > 1 and len(lines) > 1:
            lines = [*lines, '', f'{len(self.failed)} of {self.count} checks failed; this was the first']
        if not lines:
            lines = [f'all {self.count} checks passed', *reached.summary(self.coverage, self.file)]
        if os.environ.get('LESSON_COVERAGE'):
            lines = [*reached.listing(self.coverage, self.file), '', *lines]
        self._output.write('\n'.join(lines) + '\n')
        self._output.flush()  # not closed: a thread of the reader's may still hang


def _as_wrong(error: BaseException, test: Path) -> Wrong | None:
    """Return what `expect` would have said, had the reader's code not raised while its arguments were computed."""
    traces = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)
              if frame.f_code.co_filename == str(test)]
    for frame, line in reversed(traces):  # an `expect` may call a helper of the tests first
        for node in ast.walk(ast.parse(test.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'expect' and len(node.args) == 4 \
                    and node.lineno <= line <= node.end_lineno:
                with contextlib.suppress(Exception):  # what it would have said cannot be computed either
                    call, expected, read = (eval(ast.unparse(node.args[i]), frame.f_globals, frame.f_locals)
                                            for i in (0, 2, 3))
                    return Wrong(call, _said(error), shown(expected), read)
    return None


def _first(result: Path) -> Path:
    """Return the file for the first failure, beside that for the whole answer."""
    return result.with_name('first')


def _sentence(test: str) -> str:
    """'test_a_cut_header_waits[3]' -> 'a cut header waits (3)'"""
    name, _, case = test.removeprefix('test_').partition('[')
    return name.replace('_', ' ') + (f' ({case[:-1]})' if case else '')


# In the reader's process .............................................................................

def check(chapter: chapters.Chapter, file: Path, coverage: bool = False) -> tuple[int, str]:
    """Run the chapter's tests on `file`; return an exit code (2: they could not be run) and the answer."""
    if importlib.util.find_spec('pytest') is None:
        return 2, f'the checks need pytest: {INSTALL}'
    if coverage and importlib.util.find_spec('coverage') is None:
        return 2, f'--coverage needs coverage: {INSTALL}'
    if not (chapter.folder / 'test_exercise.py').exists():
        return 2, f'chapter {chapter.number} has nothing to check'
    if complaint := _complaint(file):
        return 2, complaint
    with tempfile.TemporaryDirectory() as folder:
        return _run(chapter, file.resolve(), Path(folder, 'result'), 'all' if coverage else '')


def _complaint(file: Path) -> str:
    """Return why the file is no Python, '' when it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            compile(file.read_bytes(), str(file), 'exec')
    except OSError as error:
        return f'{file}: {error.strerror}'
    except SyntaxError as error:
        return f'{file}, line {error.lineno}: {error.msg}'
    except ValueError as error:
        return f'{file}: {error}'
    return ''


def _run(chapter: chapters.Chapter, file: Path, result: Path, coverage: str) -> tuple[int, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(('COVERAGE_', 'PYTEST_'))}
    command = [sys.executable, '-m', 'pytest', '-p', 'lessons.check', '-p', 'no:cacheprovider',
               '-p', 'no:faulthandler',  # it would take our time limit back when a test fails
               '-W', 'ignore', '--import-mode=importlib', str(chapter.folder / 'test_exercise.py')]
    try:
        done = subprocess.run(
            command, cwd=chapters.LESSONS.parent, stdin=subprocess.DEVNULL, timeout=LIMIT + 5,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', errors='replace',
            env={**given, 'PYTHONUTF8': '1', 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1', 'LESSON_FILE': str(file),
                 'LESSON_RESULT': str(result), 'LESSON_COVERAGE': coverage})
    except subprocess.TimeoutExpired:
        return 1, _hung(file, '') + _failed_before(result)
    answer = result.read_text(encoding='utf-8').rstrip() if result.exists() else ''
    if re.search(r'^Timeout \(', answer, re.MULTILINE):
        return 1, _hung(file, answer) + _failed_before(result)
    if not answer:
        return 1, f'the checks ended early: {(done.stdout.strip() or "nothing says why").splitlines()[-1]}'
    return done.returncode, answer


def _failed_before(result: Path) -> str:
    return f'\n\nbefore that, {_first(result).read_text(encoding="utf-8")}' if _first(result).exists() else ''


def _hung(file: Path, stacks: str) -> str:
    """Return where, of what faulthandler wrote: a frame a line, each with its file and its line there."""
    name = str(file).encode('ascii', 'backslashreplace').decode()
    found = re.search(rf'File "{re.escape(name)}", line (\d+)', stacks)
    number = int(found[1]) if found else 0
    where = f': it hung in line {number}: {linecache.getline(str(file), number).strip()}'
    return f'{file.name} did not end within {LIMIT:g} s' + (where if number else '')

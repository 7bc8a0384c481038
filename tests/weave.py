"""Writes into the READMEs what can be computed, so that nobody types it: `python3 -m tests.weave`.

What it does, in the README of each chapter: the number before a comment `<!-- =EXPRESSION -->` becomes what the
expression gives (one word may stand between them: `55 minutes<!-- =minutes -->`), and the block ```diff in the section
"What changed" becomes the difference to the chapter before.  In the top README: the table between `<!-- map -->` and
`<!-- end of map -->`.  `python3 -m tests.weave 4 5` writes into these chapters only, and not into the top README.

What an expression may use: all that is public in `protocol`; the chapter's modules `server`, `client`, `handlers`,
`solution`, `see_it_fail`, `picture`, `demo`; `lines('server.py')`; `changed`, the lines that differ from the chapter
before; `minutes`, by the formula of the function below.
"""
from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import protocol
from lessons.chapters import ROOT, Chapter, chapters, find

MODULES = ('server', 'client', 'handlers', 'solution', 'see_it_fail', 'picture', 'demo')
WORDS_A_MINUTE, CODE_LINES_A_MINUTE, OTHER_MINUTES = 150, 4, 15
# A number with a unit or without, and the comment that gives it; or a fenced block, where nothing is replaced.
NUMBER = re.compile(r'^```.*?^```$|(?:((?:(?<!\w)-)?\d[\d,]*(?:\.\d+)?)(\s?[A-Za-z`*%]+)?)?<!-- =(.+?) -->',
                    re.MULTILINE | re.DOTALL)
NO_PROSE = re.compile(r'^```.*?^```$|<!--.*?-->|(?<=\])\([^()\s]*\)|</?\w+>', re.MULTILINE | re.DOTALL)
DIFF = re.compile(r'(^## What changed\n.*?^```diff\n).*?(^```$)', re.MULTILINE | re.DOTALL)
MAP = re.compile(r'(<!-- map -->\n).*?(<!-- end of map -->)', re.DOTALL)


def blank(pattern: re.Pattern[str], text: str) -> str:
    """Return the text with spaces for what matches: each letter that is left stands in the line where it stood."""
    return pattern.sub(lambda match: re.sub(r'[^\n]', ' ', match[0]), text)


def prose(readme: str) -> str:
    """Return the README with spaces for its fenced blocks, comments, link targets and tags."""
    return blank(NO_PROSE, readme)


def words(chapter: Chapter) -> int:
    return sum(any(map(str.isalnum, word)) for word in prose(chapter.readme).split())


def minutes(chapter: Chapter) -> int:
    """Guess how long a chapter takes: words of prose / 150 + lines in python blocks / 4 + a minute for each line that
    the reader has to write + 15 to run things and to answer the questions, to the nearest 5."""
    code = sum(block.text.count('\n') for block in chapter.blocks() if block.language == 'python')
    stub, solved = ((chapter.folder / name).read_text(encoding='utf-8').splitlines()
                    for name in ('exercise.py', 'solution.py'))
    to_write = sum(line.startswith('+ ') for line in difflib.ndiff(stub, solved))
    return 5 * round((words(chapter) / WORDS_A_MINUTE + code / CODE_LINES_A_MINUTE + to_write + OTHER_MINUTES) / 5)


def file_of(chapter: Chapter, name: str) -> Path:
    """Return the file that a chapter means by a name: in its own folder, or else in the top one."""
    own = chapter.folder / name
    return own if own.exists() else ROOT / name


def value(chapter: Chapter, expression: str) -> str:
    """Return what an expression gives, as it is written in prose: 1,234 or 0.5."""
    names: dict[str, Any] = {name: thing for name, thing in vars(protocol).items() if not name.startswith('_')}
    names |= {module: import_module(f'lessons.{chapter.name}.{module}')
              for module in MODULES if re.search(rf'\b{module}\b(?!\.py)', expression)}
    names |= {'changed': chapter.changed_lines, 'minutes': minutes(chapter),
              'lines': lambda name: len(file_of(chapter, name).read_text(encoding='utf-8').splitlines())}
    result = eval(f'({expression})', names)
    if isinstance(result, bool) or not isinstance(result, (int, float)):
        raise ValueError(f'{result!r} is no number')
    return f'{result:,}'


def woven(chapter: Chapter) -> str:
    """Return the README of a chapter as it should be.

    Raises ValueError, with the line, when an expression cannot be computed or no number stands before it.
    """
    def computed(match: re.Match[str]) -> str:
        if match[0].startswith('```'):
            return match[0]
        place = f'{chapter.name}/README.md:{line_at(chapter.readme, match.end())}: <!-- ={match[3]} -->'
        if match[1] is None:
            raise ValueError(f'{place} has no number before it')
        try:
            return f'{value(chapter, match[3])}{match[2] or ""}<!-- ={match[3]} -->'
        except Exception as error:
            raise ValueError(f'{place}: {type(error).__name__}: {error}') from error

    difference = ''.join(f'{line}\n' for line in chapter.difference(1))
    return DIFF.sub(lambda match: match[1] + difference + match[2], NUMBER.sub(computed, chapter.readme))


def line_at(text: str, index: int) -> int:
    return text.count('\n', 0, index) + 1


def woven_top(readme: str) -> str:
    """Return the top README as it should be."""
    head = ["| chapter | you build | in Netty's words | 中文 | minutes |", '| --- | --- | --- | --- | --- |']
    return MAP.sub(lambda match: '\n'.join([match[1] + head[0], head[1], *map(_map_row, chapters()), match[2]]), readme)


def _map_row(chapter: Chapter) -> str:
    link = f'[{chapter.number} {chapter.title}](lessons/{chapter.name}/README.md)'
    terms = ', '.join(f'`{term.netty}`' for term in chapter.terms[:3])
    return f'| {link} | {chapter.builds} | {terms} | {chapter.chinese_title} | {minutes(chapter)} |'


def weave(path: Path, make: Callable[[], str]) -> bool:
    """Write a README anew and name it, if it differs.  Return whether it could be made."""
    try:
        new = make()
    except (ValueError, TypeError, IndexError, OSError) as error:  # a chapter that is not finished yet
        print(f'{path.relative_to(ROOT)} is left as it was: {error}')
        return False
    if new != path.read_text(encoding='utf-8'):
        path.write_text(new, encoding='utf-8', newline='\n')
        print(f'{path.relative_to(ROOT)} is written anew')
    return True


def main(wanted: list[str]) -> int:
    chosen = [find(name) for name in wanted] or chapters()
    readmes = [(chapter.folder / 'README.md', lambda chapter=chapter: woven(chapter)) for chapter in chosen]
    if not wanted:
        top = ROOT / 'README.md'
        readmes.append((top, lambda: woven_top(top.read_text(encoding='utf-8'))))
    return 0 if all([weave(path, make) for path, make in readmes if path.exists()]) else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

"""What the lessons are: their folders, and what stands in their READMEs.

What it does: finds the chapters, and reads of each README its sections, code blocks, transcripts, hints and terms.
What it leaves to others: running (play.py), checking (check.py), printing (__main__.py).

A README is the one source: the guide plays the transcripts that the reader sees, and shows the hints that stand there.

    section "Run it"            a `## ` heading; SECTIONS names them, in their order
      scene                     what stands below one `### ` heading: it starts with no process running
        step                    one block ```console NAME: what the terminal NAME shows next; `$ ` begins a command
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

LESSONS = Path(__file__).resolve().parent
ROOT = LESSONS.parent
SECTIONS = ('You will build', "In Netty's words", 'See it fail', 'Build it', 'Run it', 'What happened', 'Exercise',
            'Check yourself', 'What changed')
PROGRAMS = ('server.py', 'client.py', 'handlers.py')  # the last from chapter 6 on
_BLOCK = re.compile(r'^```(\S+)[ ]?([^\n]*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_FOLDED = re.compile(r'<details>\s*<summary>(.*?)</summary>\n(.*?)</details>', re.DOTALL)
_TERM = re.compile(r'`([^`]+)`')


class Block(NamedTuple):
    """A fenced block of a README."""
    language: str  # python, console, text, diff, mermaid
    about: str  # what follows it on that line: a file's name, a terminal's name
    text: str  # what stands in it, with the last line break


class Step(NamedTuple):
    """What one terminal shows next."""
    terminal: str
    command: str | None  # without '$ '; None: the command started earlier goes on; '^C': it is interrupted
    lines: list[str]  # what the command then prints


class Term(NamedTuple):
    """A row of the table "In Netty's words"."""
    netty: str
    chinese: str
    ours: str
    file: str


class Chapter:
    """One folder of lessons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name  # 04_sticky_half_packets
        self.number = int(folder.name[:2])

    @cached_property
    def readme(self) -> str:
        return (self.folder / 'README.md').read_text(encoding='utf-8')

    @property
    def title(self) -> str:
        """'Sticky and half packets', of the first line `# Chapter 4: Sticky and half packets · 粘包与半包`."""
        return self.readme.partition('\n')[0].partition(': ')[2].partition(' · ')[0]

    @property
    def chinese_title(self) -> str:
        return self.readme.partition('\n')[0].partition(' · ')[2]

    @property
    def builds(self) -> str:
        """What the reader builds: the first paragraph below the title, a line or two in *italics*."""
        return ' '.join(self.readme.split('\n\n')[1].strip('*\n').split())

    @cached_property
    def sections(self) -> dict[str, str]:
        parts = re.split(r'^## (.*)\n', self.readme, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2]))

    def blocks(self, section: str | None = None) -> list[Block]:
        """Return the fenced blocks of one section, or of the whole README."""
        text = self.readme if section is None else self.sections.get(section, '')
        return [Block(*match.groups()) for match in _BLOCK.finditer(text)]

    def scenes(self, section: str = 'Run it') -> list[list[Step]]:
        """Return the transcripts of a section: for each `### ` heading that has any its steps, in their order."""
        parts = re.split(r'^### .*\n', self.sections.get(section, ''), flags=re.MULTILINE)
        found = [[step for match in _BLOCK.finditer(part) if match[1] == 'console'
                  for step in _steps(match[2], match[3])] for part in parts]
        return [scene for scene in found if scene]

    @property
    def hints(self) -> list[str]:
        return [text.strip() for title, text in self.folded('Exercise') if title.startswith('Hint')]

    def folded(self, section: str) -> list[tuple[str, str]]:
        """Return (summary, text) of what a section folds away."""
        return [(title.strip(), text.strip()) for title, text in _FOLDED.findall(self.sections.get(section, ''))]

    @property
    def terms(self) -> list[Term]:
        """What the chapter introduces, as its table "In Netty's words" has it."""
        rows = re.findall(r'^\|(.*)\|$', self.sections.get("In Netty's words", ''), re.MULTILINE)[2:]
        return [Term(*(cell.strip().strip('`') for cell in row.split('|'))) for row in rows if row.count('|') == 3]

    @property
    def needs(self) -> list[str]:
        """The terms of earlier chapters that it builds on: the line `**You need** ...` in its first section."""
        match = re.search(r'^\*\*You need\*\*(.*?)\n\n', self.sections.get('You will build', ''), re.M | re.DOTALL)
        return _TERM.findall(match[1]) if match else []

    @cached_property
    def programs(self) -> dict[str, str]:
        """The texts of those of PROGRAMS that the chapter has."""
        return {name: (self.folder / name).read_text(encoding='utf-8')
                for name in PROGRAMS if (self.folder / name).exists()}

    @property
    def before(self) -> Chapter | None:
        """The nearest chapter before that has programs."""
        earlier = [chapter for chapter in chapters() if chapter.number < self.number and chapter.programs]
        return earlier[-1] if earlier else None

    def difference(self, context: int = 3) -> list[str]:
        """Return how the programs differ from those of the chapter before: a unified diff, a line each.

        A file that is new to a chapter with a chapter before is not in it: `new_files` has it.
        """
        before = self.before.programs if self.before else {}
        return [line.rstrip('\n') for name in self.programs if name not in self.new_files
                for line in difflib.unified_diff(
                    before.get(name, '').splitlines(), self.programs[name].splitlines(), self._path_before(name),
                    f'{self.name}/{name}', lineterm='', n=context)]

    def _path_before(self, name: str) -> str:
        return f'{self.before.name}/{name}' if self.before else '/dev/null'

    @property
    def new_files(self) -> list[str]:
        return [name for name in self.programs if self.before and name not in self.before.programs]

    @property
    def changed_lines(self) -> int:
        """How many lines of the programs were added or removed since the chapter before."""
        return sum(line[:1] in ('+', '-') and line[:4] not in ('+++ ', '--- ') for line in self.difference(0))


def _steps(terminal: str, text: str) -> Iterator[Step]:
    command: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith('$ ') or line == '^C':
            if command or lines:
                yield Step(terminal, command, lines)
            command, lines = line.removeprefix('$ '), []
        else:
            lines.append(line)
    yield Step(terminal, command, lines)


def chapters() -> list[Chapter]:
    return [Chapter(readme.parent) for readme in sorted(LESSONS.glob('[0-9][0-9]_*/README.md'))]


def find(wanted: str) -> Chapter:
    """Return the chapter that `wanted` names: 4, 04, sticky_half_packets or 04_sticky_half_packets.

    Raises LookupError, with a sentence for the reader.
    """
    wanted = wanted.rstrip('/').rpartition('/')[2]
    known = chapters()
    for chapter in known:
        if wanted in (chapter.name, chapter.name[3:], f'{chapter.number:02}', str(chapter.number)):
            return chapter
    numbers = f'they go from {known[0].number} to {known[-1].number}' if known else 'there are none'
    raise LookupError(f'there is no chapter {wanted!r}: {numbers}')

"""What the reader's terminal can show: its width, colours, characters.

What it does: wraps, paints, and puts two texts side by side.  What it leaves to others: what to show.
"""
from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, FAINT = 31, 32, 33, 34, 35, 36, 2
TERMINALS = (CYAN, YELLOW, GREEN, MAGENTA, BLUE, RED)
_EMPHASIS = re.compile(r'(`[^`]*`)|\*\*(.*?)\*\*', re.DOTALL)  # code first: there ** is a power
_LIST_ITEM = re.compile(r'([-*]|\d+\.) ')


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return max(20, shutil.get_terminal_size().columns)


def can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or 'ascii')
    except UnicodeEncodeError:
        return False
    return True


def has_colors() -> bool:
    """Only on a terminal, and not where the reader wants none (no-color.org)."""
    if os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb' or not sys.stdout.isatty():
        return False
    if sys.platform == 'win32':
        os.system('')  # switches the old console's escape sequences on
    return True


def paint(text: str, color: int) -> str:
    return f'\x1b[{color}m{text}\x1b[0m' if has_colors() else text


def columns(text: str) -> int:
    """How wide it is: a Chinese character takes two columns."""
    return sum(2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in text)


def cut(text: str, limit: int) -> Iterator[str]:
    """Cut it into pieces that are `limit` columns wide at most."""
    start = used = 0
    for index, character in enumerate(text):
        if used + columns(character) > limit:
            end = text.rfind(' ', start + limit // 2, index) + 1 or index  # behind a word, if one ends there
            yield text[start:end]
            start, used = end, columns(text[end:index])
        used += columns(character)
    yield text[start:]


def wrap(text: str, first: str = '') -> str:
    """Return it in lines that fit the terminal; the first begins with `first`, the others with as many blanks."""
    indent = ' ' * columns(first)
    room = width() - len(indent)
    lines = ['']
    for word in text.split():
        for piece in cut(word, room):
            if lines[-1] and columns(lines[-1]) + 1 + columns(piece) > room:
                lines.append('')
            lines[-1] += f' {piece}' if lines[-1] else piece
    return first + f'\n{indent}'.join(lines)


def plain(markdown: str) -> str:
    """Return a README's text as it is read in a terminal: paragraphs wrapped, code left alone."""
    text = _EMPHASIS.sub(r'\1\2', re.sub(r'<!--.*?-->', '', markdown, flags=re.DOTALL))
    parts = []
    for index, part in enumerate(re.split(r'^```.*(?:\n|\Z)', text, flags=re.MULTILINE)):
        if index % 2:  # inside a fence
            parts.append('\n'.join(f'    {line}'.rstrip() for line in part.rstrip().splitlines()))
        else:
            parts += map(_paragraph, part.strip().split('\n\n')) if part.strip() else []
    return '\n\n'.join(parts)


def _paragraph(text: str) -> str:
    items: list[tuple[str, str]] = []  # what it begins with, and the rest
    for line in text.strip().splitlines():
        mark = _LIST_ITEM.match(line)
        if mark or not items:
            items.append((mark[0], line[mark.end():]) if mark else ('', line))
        else:
            items[-1] = items[-1][0], f'{items[-1][1]} {line}'
    return '\n'.join(wrap(rest, first) for first, rest in items)


def side_by_side(left: list[str], right: list[str]) -> list[str]:
    """Return two columns; between them `<` only left, `>` only right, `|` both and different."""
    half = (width() - 3) // 2
    left, right = ([line.expandtabs() for line in lines] for lines in (left, right))
    rows = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        mark = {'equal': ' ', 'delete': '<', 'insert': '>', 'replace': '|'}[tag]
        for one, other in zip_longest(left[a:b], right[c:d], fillvalue=''):
            pieces = zip_longest(cut(one, half), cut(other, half), fillvalue='')
            rows += [f'{x}{" " * (half - columns(x))} {mark} {y}'.rstrip() for x, y in pieces]
    return rows


def painted_diff(lines: list[str]) -> list[str]:
    colors = {'+': GREEN, '-': RED, '@': CYAN}
    return [paint(line, colors[line[0]]) if line[:1] in colors else line for line in lines]

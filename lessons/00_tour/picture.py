"""Chapter 0: one frame, byte by byte.

    python3 -m lessons.00_tour.picture
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from unicodedata import east_asian_width

from protocol import HEADER, HEADER_SIZE, Command, MessageRequest, encode

FRAME = encode(MessageRequest(to_user_id='bob', message='hello bob, 你好'), 1)
A_ROW = 16  # bytes of the body that stand side by side
INDENT = ' ' * 8


def header(frame: bytes) -> Iterator[str]:
    """The bytes of the header with their offsets above, and what each part is below its first byte."""
    _, version, serializer, command, length = HEADER.unpack_from(frame)
    parts = [(0, 'magic: every frame begins with these four bytes'), (4, f'version {version} of the protocol'),
             (5, f'serializer {serializer}: the body is JSON'), (6, f'command {command}: {Command(command).name}'),
             (7, f'length: {length} bytes of body follow')]
    yield 'offset  ' + ' '.join(f'{offset:2}' for offset in range(HEADER_SIZE))
    yield INDENT + frame[:HEADER_SIZE].hex(' ')
    while parts:
        offset, meaning = parts.pop()
        bars = [' '] * 3 * offset
        for before, _ in parts:
            bars[3 * before] = '|'
        yield INDENT + ''.join(bars) + meaning


def rows(text: str) -> Iterator[list[tuple[str, bytes]]]:
    """The characters, each with its bytes; in rows of A_ROW bytes at most, none of them cut in two."""
    row: list[tuple[str, bytes]] = []
    for character in text:
        data = character.encode()
        if sum(len(other) for _, other in row) + len(data) > A_ROW:
            yield row
            row = []
        row.append((character, data))
    yield row


def body(frame: bytes) -> Iterator[str]:
    """The bytes of the body with their characters above."""
    offset = HEADER_SIZE
    for row in rows(frame[HEADER_SIZE:].decode()):
        text = ''.join(c + ' ' * (3 * len(data) - 1 - (east_asian_width(c) in 'WF')) for c, data in row)
        yield f'{offset:6}  {text.rstrip()}'
        yield INDENT + b''.join(data for _, data in row).hex(' ')
        offset += sum(len(data) for _, data in row)


if __name__ == '__main__':
    sys.stdout.reconfigure(errors='replace')  # a terminal that cannot show Chinese shows question marks
    print(*header(FRAME), '', *body(FRAME), sep='\n')

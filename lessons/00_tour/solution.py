"""Chapter 0, solution: the parts of a frame, found by hand."""
from __future__ import annotations

FIRST = bytes.fromhex('''
    12 34 56 78 01 01 03 00 00 00 26 7b 22 6d 65 73
    73 61 67 65 22 3a 22 6c 75 6e 63 68 3f 22 2c 22
    74 6f 55 73 65 72 49 64 22 3a 22 64 61 76 65 22
    7d
''')

MAGIC: int | None = 0x12345678
COMMAND: int | None = 3
LENGTH: int | None = 38
BODY_BEGINS_AT: int | None = 11
WRITTEN_TO: str | None = 'dave'


def parts_of(data: bytes) -> tuple[int, int, str]:
    """Return command, length and body (as text) of the frame with which `data` begins.

    There may be more bytes behind the frame: they are not its own.
    """
    length = int.from_bytes(data[7:11], 'big')
    return data[6], length, str(data[11:11 + length], 'utf-8')

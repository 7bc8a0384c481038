"""Chapter 0, exercise: find the parts of a frame by hand.

    python3 -m lessons check 0

FIRST is a frame that somebody sent to the server.  Count its bytes, beginning with 0, and write what you find in the
place of each None.

1. MAGIC: the four bytes with which every frame begins, as one number.  (0x0a0b0c0d is how Python writes one.)
2. COMMAND: the number of the command.
3. LENGTH: how many bytes of body the header announces.
4. BODY_BEGINS_AT: the offset of the first byte of the body.
5. WRITTEN_TO: the id of the user who is written to, a str.  (`str(FIRST, 'utf-8')` shows bytes as text.)
6. Then write `parts_of`, which finds command, length and body of any frame.
"""
from __future__ import annotations

FIRST = bytes.fromhex('''
    12 34 56 78 01 01 03 00 00 00 26 7b 22 6d 65 73
    73 61 67 65 22 3a 22 6c 75 6e 63 68 3f 22 2c 22
    74 6f 55 73 65 72 49 64 22 3a 22 64 61 76 65 22
    7d
''')

MAGIC: int | None = None  # TODO 1
COMMAND: int | None = None  # TODO 2
LENGTH: int | None = None  # TODO 3
BODY_BEGINS_AT: int | None = None  # TODO 4
WRITTEN_TO: str | None = None  # TODO 5


def parts_of(data: bytes) -> tuple[int, int, str]:
    """Return command, length and body (as text) of the frame with which `data` begins.

    There may be more bytes behind the frame: they are not its own.
    """
    return 0, 0, ''  # TODO 6

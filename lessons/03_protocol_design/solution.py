"""Chapter 3, solved: a frame by hand, byte for byte what `protocol.encode` makes, and a header read.

    python3 -m lessons check 3 --file lessons/03_protocol_design/solution.py
"""
import json
import struct
from typing import Any, NamedTuple

MAGIC, VERSION, JSON = 0x12345678, 1, 1
_LAYOUT = struct.Struct('>IBBBI')  # big-endian; I has four bytes, B one


class Header(NamedTuple):
    magic: int
    version: int
    serializer: int
    command: int
    length: int  # of the body, in bytes


def encode_by_hand(command: int, values: dict[str, Any]) -> bytes:
    present = {name: value for name, value in values.items() if value is not None}
    text = json.dumps(present, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
    body = text.encode()
    return _LAYOUT.pack(MAGIC, VERSION, JSON, command, len(body)) + body


def read_header(frame: bytes) -> Header:
    if len(frame) < _LAYOUT.size:
        raise ValueError(f'{len(frame)} bytes are no header')
    header = Header(*_LAYOUT.unpack_from(frame))
    if header.magic != MAGIC:
        raise ValueError(f'{header.magic:08x} is not the magic number')
    return header

"""Chapter 5, the exercise: a second serializer, binary, smaller than JSON.

    python3 -m lessons check 5

A body in this format, for LoginRequest(user_name='bob', password='x').  LoginRequest.FIELDS, sorted by name, is
password (0), resumeAfter (1), token (2), userName (3); what is left out keeps its place:

    01                  the command, 1, as in the header
    02                  an object: two fields follow
      00  01 78           field 0, password: a text of 1 byte, x
      03  03 62 6f 62     field 3, userName: a text of 3 bytes, bob

Check after each step: the checks come in the same order.

1. Write `write_str` and `read_str`: the size of the text in UTF-8 (`write_size`, `read_size`), then these bytes.
2. Write `write_int` and `read_int`: eight bytes, big-endian, signed, so that -1 is ff ff ff ff ff ff ff ff.
3. Write `write_object`: in one byte how many fields follow, then for each its number and its value.  A field
   that is None, or that `version` does not have yet, is left out; 0, '', False and [] are not None.  A list is its
   `write_size`, then its items.
4. Write `read_object`, the way back, and `deserialize`.  Whatever the bytes are, you raise ValueError or return.
"""
from __future__ import annotations

from typing import Any

from protocol import PACKETS, Body, ByteBuf, Packet, Serializer


# Given: bytes, sizes, and one kind of value as a pattern ..............................................
# All writers have one signature and all readers another, so that a table can hold them.  Not all need all of it.

def take(buffer: ByteBuf, count: int) -> bytes:
    """Read `count` bytes.  Raises ValueError when fewer are there: the body was cut."""
    if count > buffer.readable_bytes:
        raise ValueError(f'{count} bytes are due, {buffer.readable_bytes} are left')
    return buffer.read_bytes(count)


def take_byte(buffer: ByteBuf) -> int:
    return take(buffer, 1)[0]


def write_size(buffer: ByteBuf, size: int) -> None:
    """One byte below 255; from there on the byte 255, and the size in four."""
    buffer.write_byte(min(size, 255))
    if size >= 255:
        buffer.write_int(size)


def read_size(buffer: ByteBuf) -> int:
    size = take_byte(buffer)
    return size if size < 255 else int.from_bytes(take(buffer, 4), 'big')


def write_bool(buffer: ByteBuf, value: bool, version: int) -> None:
    buffer.write_byte(1 if value else 0)


def read_bool(buffer: ByteBuf, kind: type) -> bool:
    value = take_byte(buffer)
    if value > 1:
        raise ValueError(f'{value} is neither true nor false')
    return value == 1


# Yours ...............................................................................................

def write_str(buffer: ByteBuf, value: str, version: int) -> None:
    """Its size in UTF-8, and then these bytes."""
    # TODO 1


def read_str(buffer: ByteBuf, kind: type) -> str:
    return ''  # TODO 1


def write_int(buffer: ByteBuf, value: int, version: int) -> None:
    """Eight bytes, big-endian, signed."""
    # TODO 2


def read_int(buffer: ByteBuf, kind: type) -> int:
    return 0  # TODO 2


def write_object(buffer: ByteBuf, value: Body, version: int) -> None:
    """How many fields follow, and then for each its number, which is its place in FIELDS, and its value."""
    # TODO 3: of each field in value.FIELDS you need `attribute`, `kind`, `many` and `since`.  The function that
    # writes its value is WRITERS.get(field.kind, write_object): what is in no table is an object in the object.


def read_object(buffer: ByteBuf, kind: type[Body]) -> dict[str, Any]:
    """Return the fields of a `kind` by their names on the wire.  Raises ValueError for a number that it has not."""
    return {}  # TODO 4: the names on the wire are `field.name`


WRITERS = {bool: write_bool, str: write_str, int: write_int}  # every other kind is a Body: write_object
READERS = {bool: read_bool, str: read_str, int: read_int}


class BinarySerializer(Serializer):
    """The command in one byte, for `deserialize` is told the bytes and nothing else; then the packet as an object."""

    def serialize(self, packet: Packet, version: int) -> bytes:
        buffer = ByteBuf()
        buffer.write_byte(packet.COMMAND)
        write_object(buffer, packet, version)
        return buffer.read_bytes(buffer.readable_bytes)

    def deserialize(self, body: bytes) -> dict[str, Any]:
        """Raises ValueError for everything that can be wrong with the bytes."""
        return {}  # TODO 4: PACKETS has the class of each command; after the object nothing may be left

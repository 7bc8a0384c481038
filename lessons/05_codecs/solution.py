"""Chapter 5, the exercise solved: a second serializer, binary, smaller than JSON.

    python3 -m lessons check 5 --file lessons/05_codecs/solution.py
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
    data = value.encode()
    write_size(buffer, len(data))
    buffer.write_bytes(data)


def read_str(buffer: ByteBuf, kind: type) -> str:
    return take(buffer, read_size(buffer)).decode()


def write_int(buffer: ByteBuf, value: int, version: int) -> None:
    """Eight bytes, big-endian, signed."""
    buffer.write_bytes(value.to_bytes(8, 'big', signed=True))


def read_int(buffer: ByteBuf, kind: type) -> int:
    return int.from_bytes(take(buffer, 8), 'big', signed=True)


def write_object(buffer: ByteBuf, value: Body, version: int) -> None:
    """How many fields follow, and then for each its number, which is its place in FIELDS, and its value."""
    present = [(number, field, part) for number, field in enumerate(value.FIELDS)
               if field.since <= version and (part := getattr(value, field.attribute)) is not None]
    buffer.write_byte(len(present))
    for number, field, part in present:
        buffer.write_byte(number)
        if field.many:
            write_size(buffer, len(part))
        for item in part if field.many else [part]:
            WRITERS.get(field.kind, write_object)(buffer, item, version)


def read_object(buffer: ByteBuf, kind: type[Body]) -> dict[str, Any]:
    """Return the fields of a `kind` by their names on the wire.  Raises ValueError for a number that it has not."""
    values: dict[str, Any] = {}
    for _ in range(take_byte(buffer)):
        number = take_byte(buffer)
        if number >= len(kind.FIELDS):
            raise ValueError(f'{kind.__name__} has no field {number}')
        field = kind.FIELDS[number]
        read = READERS.get(field.kind, read_object)
        if field.many:
            values[field.name] = [read(buffer, field.kind) for _ in range(read_size(buffer))]
        else:
            values[field.name] = read(buffer, field.kind)
    return values


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
        buffer = ByteBuf(body)
        command = take_byte(buffer)
        if command not in PACKETS:
            raise ValueError(f'there is no command {command}')
        values = read_object(buffer, PACKETS[command])
        if buffer.readable_bytes:
            raise ValueError(f'{buffer.readable_bytes} bytes are left over')
        return values

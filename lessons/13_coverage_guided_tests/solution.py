"""Chapter 13, the exercise solved: the planted bug in a decoder, and the test that holds it.

    python3 -m lessons check 13 --file lessons/13_coverage_guided_tests/solution.py
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import (HEADER, HEADER_SIZE, MAGIC_BYTES, MAX_BODY, SERIALIZERS, VERSIONS, FrameDecoder, HeartbeatRequest,
                      ProtocolError, encode)


class Decoder:
    """Cuts a stream into frames, one byte after the other."""

    def __init__(self) -> None:
        self.frame = bytearray()  # what has come of the next frame
        self.length = 0  # of its body

    def feed(self, data: bytes) -> list[bytes]:
        frames = []
        for byte in data:
            self.take(byte)
            if self.is_whole():
                frames.append(bytes(self.frame))
                self.frame.clear()
        return frames

    def take(self, byte: int) -> None:
        place = len(self.frame)
        self.frame.append(byte)
        if place < 4 and byte != MAGIC_BYTES[place]:
            raise ProtocolError(f'no frame has {byte:02x} at {place}')
        if place == 4 and byte not in VERSIONS:
            raise ProtocolError(f'there is no version {byte}')
        if place == 5 and byte not in SERIALIZERS:
            raise ProtocolError(f'there is no serializer {byte}')
        if place == HEADER_SIZE - 1:
            self.length = HEADER.unpack(self.frame)[-1]
            if self.length > MAX_BODY:
                raise ProtocolError(f'{self.length} bytes are too many')

    def is_whole(self) -> bool:
        return len(self.frame) >= HEADER_SIZE and len(self.frame) == HEADER_SIZE + self.length


def right(data: bytes) -> list[bytes] | None:
    """Return the frames that FrameDecoder finds in `data`, None when it refuses."""
    decoder = FrameDecoder()
    decoder.feed(data)
    try:
        return list(decoder)
    except ProtocolError:
        return None


def agrees(make_decoder: Callable[[], Any], data: bytes) -> bool:
    """Whether a decoder, as `make_decoder()` gives them, does with `data` what is right: at once, and byte by byte."""
    pieces = [data[place:place + 1] for place in range(len(data))]
    return _outcome(make_decoder(), [data]) == _outcome(make_decoder(), pieces) == right(data)


def _outcome(decoder: Any, pieces: list[bytes]) -> Any:
    """Return the frames of all pieces, None when one is refused, and otherwise what was raised."""
    try:
        return [frame for piece in pieces for frame in decoder.feed(piece)]
    except ProtocolError:
        return None
    except Exception as error:
        return error


def target(data: bytes) -> None:
    assert agrees(Decoder, data), 'it does not do what FrameDecoder does'


SEEDS = [encode(HeartbeatRequest(), 1)]
FINDING = bytes.fromhex('12 34 56 78 01 01 00 00 00 00 00')


def test_what_was_found(make_decoder: Callable[[], Any]) -> None:
    """A frame without a body is whole as soon as its header is."""
    frame = encode(HeartbeatRequest(), 1)
    assert make_decoder().feed(FINDING) == [FINDING]
    assert make_decoder().feed(FINDING + frame) == [FINDING, frame]

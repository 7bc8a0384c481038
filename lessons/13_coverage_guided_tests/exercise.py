"""Chapter 13, the exercise: find the planted bug in a decoder, and write the test that holds it.

    python3 -m lessons check 13
    python3 -m lessons.13_coverage_guided_tests.demo exercise      hunts with what you have written

`Decoder` is to do what FrameDecoder does.  Nobody has compared them.  Do not look for the bug: let it be found.

1. Write `agrees`: whether a decoder does the same with `data` as FrameDecoder.  `right(data)` is what FrameDecoder
   does.  Feed a decoder all at once, and a second one byte by byte: it has to agree both times.  Who raises
   ProtocolError refuses; who raises anything else does not agree.
2. Put a frame into SEEDS.  From nothing the fuzzer does not get through this decoder's magic number: it compares all
   four bytes in one line, so a second right byte is no news.
3. Hunt.  FINDING is the input that you are shown.
4. Understand it.  Write `test_what_was_found`: what has to come out of a decoder that `make_decoder()` gives.  It
   raises AssertionError when the decoder has the bug, and nothing when it is a good one.  What the hunt prints asks
   `Decoder`.  Yours asks the decoder it is given, so it can be tried on a bad one and a good one.
5. Mend `Decoder`, and hunt again.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import (HEADER, HEADER_SIZE, MAGIC_BYTES, MAX_BODY, SERIALIZERS, VERSIONS, FrameDecoder, HeartbeatRequest,
                      ProtocolError, encode)


class Decoder:
    """Cuts a stream into frames, one byte after the other.  Wrong in one place."""

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
        return len(self.frame) > HEADER_SIZE and len(self.frame) == HEADER_SIZE + self.length


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
    return True  # TODO 1


def target(data: bytes) -> None:
    assert agrees(Decoder, data), 'it does not do what FrameDecoder does'


SEEDS = [b'']  # TODO 2: encode(HeartbeatRequest(), 1) is a frame; this stays a list
FINDING = b''  # TODO 3


def test_what_was_found(make_decoder: Callable[[], Any]) -> None:
    """TODO 4"""

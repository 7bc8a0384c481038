"""Chapter 13, how it goes wrong: a decoder whose tests reach every line, and inputs that never come near its bug.

    python3 -m lessons.13_coverage_guided_tests.see_it_fail
"""
from __future__ import annotations

from collections.abc import Sequence
from random import Random

from protocol import HEADER, HEADER_SIZE, MessageRequest, ProtocolError, encode

from .fuzzer import WAYS, Arc, Fuzzer, Way, make_tracer

INPUTS = 30_000
FRAME = encode(MessageRequest(to_user_id='bob', message='hi'), 1)


def decode_stream(data: bytes) -> list[bytes]:
    """Return the frames in it, [] when it is refused: that is no error.  What else is raised, is one."""
    try:
        return HalfReadDecoder().feed(data)
    except ProtocolError:
        return []


class HalfReadDecoder:
    """Cuts a stream into frames, and judges each byte of a magic number as soon as it is there.  Wrong in one place."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self.waiting += data
        frames = []
        while self.magic_is_there() and len(self.waiting) >= HEADER_SIZE:
            size = HEADER_SIZE + HEADER.unpack_from(self.waiting)[-1]
            if len(self.waiting) < size:
                break
            frames.append(bytes(self.waiting[:size]))
            del self.waiting[:size]
        return frames

    def magic_is_there(self) -> bool:
        data = self.waiting
        if not data:
            return False
        if data[0] != 0x12:
            raise ProtocolError('the first byte is wrong')
        if len(data) < 2:
            return False
        if data[1] != 0x34:
            raise ProtocolError('the second byte is wrong')
        if len(data) < 3:
            return False
        if data[2] != 0x56:
            raise ProtocolError('the third byte is wrong')
        if data[3] != 0x78:
            raise ProtocolError('the fourth byte is wrong')
        return True


def its_tests() -> None:
    for cut in (0, 1, 2, 20, len(FRAME)):
        decoder = HalfReadDecoder()
        assert decoder.feed(FRAME[:cut]) + decoder.feed(FRAME[cut:] + FRAME) == [FRAME, FRAME]
    for place in range(4):
        assert decode_stream(FRAME[:place] + b'?' + FRAME[place + 1:]) == []


def anything(random: Random, data: bytearray, start: int, end: int) -> None:
    """Blind: what the input was does not matter."""
    data[:] = random.randbytes(random.randrange(32))


def share(arcs: set[Arc]) -> str:
    """How many of the lines in the decoder's methods were reached."""
    codes = [method.__code__ for method in vars(HalfReadDecoder).values() if hasattr(method, '__code__')]
    lines = {line for code in codes for *_, line in code.co_lines() if line and line > code.co_firstlineno}
    return f'{len(lines & {line for _, (_, line) in arcs})} of {len(lines)} lines'


def hunt(seed: int, ways: Sequence[Way] = WAYS) -> Fuzzer:
    fuzzer = Fuzzer(decode_stream, [__file__], seed, ways=ways)
    fuzzer.run(INPUTS)
    return fuzzer


def main() -> None:
    with make_tracer([__file__]) as tracer:
        its_tests()
    print(f'its tests pass, and reach {share(tracer.arcs)}')
    for kind, ways in ('blind', [anything]), ('guided', WAYS):
        for seed in 1, 2:
            fuzzer = hunt(seed, ways)
            found = f'found {fuzzer.finding.hex(" ")}, {type(fuzzer.error).__name__}' if fuzzer.error else 'no error'
            print(f'{kind}, seed {seed}: {fuzzer.inputs:,} inputs, {share(fuzzer.arcs)}, {found}')


if __name__ == '__main__':
    main()

"""Chapter 13's picture: how many inputs came to each line of a decoder, blind ones and guided ones.

    python3 -m lessons.13_coverage_guided_tests.picture
"""
from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence

from . import see_it_fail
from .fuzzer import WAYS, Fuzzer, Way

SEED, INPUTS = 2, 10_567  # the guided ones find the bug with the last of them


class CountingFuzzer(Fuzzer):
    """Tries so many, and counts those that came to each line."""

    def __init__(self, ways: Sequence[Way]) -> None:
        super().__init__(see_it_fail.decode_stream, [see_it_fail.__file__], SEED, ways=ways)
        self.visits: Counter[int] = Counter()
        self.run(INPUTS)

    def try_input(self, data: bytes) -> None:
        super().try_input(data)
        self.visits.update({number for _, (_, number) in self.tracer.arcs})


def draw() -> None:
    blind, guided = (CountingFuzzer(ways).visits for ways in ([see_it_fail.anything], WAYS))
    lines, first = inspect.getsourcelines(see_it_fail.HalfReadDecoder.magic_is_there)
    print(' blind  guided  inputs that came to the line')
    for number, line in enumerate(lines[1:], first + 1):
        print(f'{blind[number]:>6,}  {guided[number]:>6,}  {line[4:].rstrip()}')


if __name__ == '__main__':
    draw()

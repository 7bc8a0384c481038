"""Chapter 13: a hunt with the fuzzer, and the way from a coverage report to the test that is missing.

    python3 -m lessons.13_coverage_guided_tests.demo               the hunt, input by input that was kept
    python3 -m lessons.13_coverage_guided_tests.demo --seed 2      another one
    python3 -m lessons.13_coverage_guided_tests.demo exercise      a hunt with what you write in exercise.py
    python3 -m lessons.13_coverage_guided_tests.demo report        the reports; they need the package coverage
"""
from __future__ import annotations

import argparse
import importlib.util
import linecache
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from protocol import CreateGroupRequest, DeliveryAck, JsonSerializer, LoginRequest, LoginResponse, Packet, Serializer

from . import see_it_fail
from .fuzzer import Arc, Fuzzer, Target, as_test, shrunk


# From the report to the missing test .................................................................

CODEC = 'lessons.05_codecs.solution'  # imported when it is wanted: what runs at the import is measured too


def codec() -> Serializer:
    return import_module(CODEC).BinarySerializer()


def comes_back(packet: Packet) -> bool:
    """Whether the packet, written and read again, gives what JSON gives."""
    json = JsonSerializer()
    return codec().deserialize(codec().serialize(packet, 2)) == json.deserialize(json.serialize(packet, 2))


def refuses(body: bytes) -> bool:
    try:
        codec().deserialize(body)
    except ValueError:
        return True
    return False


def test_what_is_written_is_read_again() -> None:
    for packet in (LoginRequest(user_name='bob', password='x'), LoginResponse(success=True),
                   DeliveryAck(message_id=7), CreateGroupRequest(user_id_list=['bob', 'carol'])):
        assert comes_back(packet)


def test_bytes_that_mean_nothing_are_refused() -> None:
    for body in '00 00', '05 01 00 01', '02 01 04 02', '05 00 00':  # no such command, no such field, no bool, a rest
        assert refuses(bytes.fromhex(body))


def test_a_body_cut_anywhere_is_refused() -> None:
    body = codec().serialize(LoginRequest(user_name='bob', password='x'), 2)
    for end in range(len(body)):
        assert refuses(body[:end])


def test_a_long_text_comes_back() -> None:
    assert comes_back(LoginRequest(user_name='x' * 255))


FIRST_TESTS = test_what_is_written_is_read_again, test_bytes_that_mean_nothing_are_refused
MISSING_TESTS = test_a_body_cut_anywhere_is_refused, test_a_long_text_comes_back


def line_of(code: str) -> int:
    """The number of the first line of that file in which the code stands."""
    lines = linecache.getlines(import_module(CODEC).__file__)
    return next(number for number, line in enumerate(lines, 1) if code in line)


def report() -> None:
    """Say what `coverage report` says after the first tests, and again after those that it made us write."""
    if importlib.util.find_spec('coverage') is None:
        print('the reports are left out, they need coverage: python3 -m pip install -r requirements-dev.txt')
        return
    measure = import_module('coverage').Coverage(data_file=None, branch=True, config_file=False,
                                                 include=['*/05_codecs/solution.py'])
    for tests in FIRST_TESTS, MISSING_TESTS:
        measure.start()
        for test in tests:
            test()
            print(f'{test.__name__} passes')
        measure.stop()
        measure.report(show_missing=True, file=sys.stdout)


# The hunt ............................................................................................

class TellingFuzzer(Fuzzer):
    """Says which inputs it keeps, with the lines that they were the first to reach and what stands in the last."""

    def keep(self, data: bytes, new: set[Arc]) -> None:
        lines = sorted({line for _, line in new} - {line for _, line in self.arcs})
        numbers = [str(number) for _, number in lines]
        first = ' '.join(numbers if len(numbers) < 6 else [numbers[0], '...', numbers[-1]])
        code = linecache.getline(*lines[-1]).strip() if lines else 'nothing new but the way to a line'
        print(f'{self.inputs:>6,}  {data[:6].hex(" ") or "no bytes":<17}  {first:<14}  {code}')
        super().keep(data, new)


def hunt(tried: ModuleType, target: Target, seed: int, corpus: Sequence[bytes] = (b'',)) -> None:
    """Try inputs on `target`, guided by what they reach in the module that is tried."""
    print(' input  bytes              lines reached   in the last of them')
    fuzzer = TellingFuzzer(target, [tried.__file__], seed, corpus)
    if not fuzzer.run(see_it_fail.INPUTS):
        print(f'no error in {fuzzer.inputs:,} inputs')
        return
    error = fuzzer.error
    print(f'input {fuzzer.inputs:,}: {type(error).__name__}: {error}\n\nthe test that holds it:\n')
    print(as_test(target, shrunk(target, fuzzer.finding, type(error))), end='')


def main() -> None:
    parser = argparse.ArgumentParser(description='a hunt with the fuzzer, or the reports of coverage')
    parser.add_argument('what', nargs='?', choices=('hunt', 'report', 'exercise'), default='hunt')
    parser.add_argument('--seed', type=int, default=2, help='another seed, another hunt')
    options = parser.parse_args()
    if options.what == 'report':
        report()
    elif options.what == 'exercise':
        exercise = import_module(f'{__package__}.exercise')  # here: what you are writing may not run yet
        if set(map(type, exercise.SEEDS)) != {bytes}:
            parser.error('SEEDS is a list of bytes, in brackets: [encode(HeartbeatRequest(), 1)]')
        hunt(exercise, exercise.target, options.seed, exercise.SEEDS)
    else:
        hunt(see_it_fail, see_it_fail.decode_stream, options.seed)


if __name__ == '__main__':
    main()

"""The fuzzer of chapter 13: what the chapter says of it, and the same fuzzer on protocol.py.

In every run the seed and the number of inputs are fixed; `python3 -m tests.fuzz` goes on for as long as you like, and
what it finds stands below, each with its input.
"""
import hashlib
import subprocess
import sys
import time
from importlib import import_module
from random import Random

import pytest

import tests.fuzz
from lessons.chapters import ROOT
from protocol import FrameDecoder
from tests.fuzz import check_protocol, main, protocol_fuzzer, summary

CHAPTER = 'lessons.13_coverage_guided_tests'
fuzzer, see_it_fail = (import_module(f'{CHAPTER}.{name}') for name in ('fuzzer', 'see_it_fail'))
SEED, INPUTS = 20261128, 10_000
LEAST_LINES, LEAST_ARCS = 130, 190  # of protocol.py; how many exactly depends on the version of Python


# What the fuzzer has found ............................................................................................

def test_half_a_magic_number_is_no_error():  # found in the decoder of see_it_fail.py
    check_protocol(bytes.fromhex('12 34 56'))


# protocol.py ..........................................................................................................

def test_protocol_keeps_its_promises(figure):
    hunt, began = protocol_fuzzer(SEED), time.perf_counter()
    if hunt.run(INPUTS):
        pytest.fail(f'{hunt.error!r}; as a test:\n' + fuzzer.as_test(
            check_protocol, fuzzer.shrunk(check_protocol, hunt.finding, type(hunt.error))))
    figure(summary(hunt, time.perf_counter() - began))
    assert len({line for _, line in hunt.arcs}) >= LEAST_LINES and len(hunt.arcs) >= LEAST_ARCS


def test_the_command_ends_in_time_and_says_what_was_reached(capsys):
    assert main(['--seconds', '0', '--seed', '1']) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == 'seed 1' and said[1].startswith('0 inputs in 0.0 s') and said[2] == 'no error'
    assert said[1].endswith(' 0 inputs kept')  # those to begin with are not counted, unless they reach something new


class HalfRead(FrameDecoder):
    """A bug for the command to find."""

    def feed(self, data):
        super().feed(data)
        if self.buffer.readable_bytes == 3:
            raise IndexError('half a magic number')


def test_the_command_prints_a_finding_as_a_test(capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tests.fuzz, 'FrameDecoder', HalfRead)
        assert main(['--seconds', '60', '--seed', '1']) == 1
        said = capsys.readouterr().out
        test = said[said.index('def test_rename_me'):]
        names = {'check_protocol': check_protocol}
        exec(test, names)
        with pytest.raises(IndexError):
            names['test_rename_me']()
    assert 'IndexError: half a magic number\nKeep it: ' in said
    assert len(test) <= len("def test_rename_me():\n    check_protocol(bytes.fromhex('12 34 56'))\n")
    names['test_rename_me']()  # it is mended


# What the chapter says ................................................................................................

@pytest.mark.parametrize('seed', [1, 2, 4])
def test_guided_inputs_find_the_planted_bug(seed):
    hunt = see_it_fail.hunt(seed)
    assert hunt.finding == bytes.fromhex('12 34 56') and type(hunt.error) is IndexError
    if seed == 2:
        assert hunt.inputs == 10_567  # on every Python: chance is the same, and so are the arcs of this decoder


@pytest.mark.soak
def test_of_the_first_thirty_seeds_all_but_three_find_it():
    assert [seed for seed in range(1, 31) if not see_it_fail.hunt(seed).error] == [3, 13, 23]


def test_as_many_blind_ones_do_not():
    hunt = see_it_fail.hunt(2, [see_it_fail.anything])
    assert hunt.finding is None and hunt.inputs == see_it_fail.INPUTS == 30_000


def run(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                          encoding='utf-8', timeout=60)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    return done.stdout


MEASURE = """
import coverage, importlib, sys
measure = coverage.Coverage(data_file=None, branch=True, config_file=False)
measure.start()
see_it_fail = importlib.import_module(sys.argv[1])
see_it_fail.its_tests()
measure.stop()
first = see_it_fail.HalfReadDecoder.__init__.__code__.co_firstlineno
its_lines = range(first, see_it_fail.its_tests.__code__.co_firstlineno)
branches = measure.branch_stats(see_it_fail).items()
print([line for line in measure.analysis2(see_it_fail)[3] if line in its_lines],
      [line for line, (ways, taken) in branches if taken < ways and line in its_lines],
      sum(line in its_lines for line, _ in branches))
"""


def test_the_tests_of_the_planted_decoder_reach_all_lines_and_branches(no_coverage):
    missing, partial, branches = run('-c', MEASURE, see_it_fail.__name__).split()
    assert missing == partial == '[]' and int(branches) > 5


def test_the_demo_hunts_the_same_under_coverage(no_coverage, tmp_path):
    plain = run('-m', f'{CHAPTER}.demo')
    assert '12 34 56' in plain
    under_coverage = run('-m', 'coverage', 'run', f'--data-file={tmp_path / "data"}', '-m', f'{CHAPTER}.demo')
    assert under_coverage == plain


def test_the_demo_without_coverage_says_what_it_leaves_out():
    said = run('-S', '-E', '-m', f'{CHAPTER}.demo', 'report')
    assert said.startswith('the reports are left out, they need coverage: ') and said.count('\n') == 1


# The fuzzer itself ....................................................................................................

TRACERS = [fuzzer.Tracer] + [fuzzer.Monitor] * hasattr(sys, 'monitoring')


def arcs_of(tracer_type, data):
    """The arcs of one run of the planted decoder, as numbers of lines from the top of `magic_is_there`."""
    with tracer_type([see_it_fail.__file__]) as tracer:
        decoder = see_it_fail.HalfReadDecoder()
        tracer.begin()
        decoder.waiting = bytearray(data)
        decoder.magic_is_there()
    top = see_it_fail.HalfReadDecoder.magic_is_there.__code__.co_firstlineno
    return {(before and before[1] - top, line - top) for before, (_, line) in tracer.arcs}


@pytest.mark.parametrize('tracer_type', TRACERS)
def test_a_tracer_notes_which_line_ran_behind_which(tracer_type):
    assert arcs_of(tracer_type, b'') == {(None, 1), (1, 2), (2, 3)}
    assert arcs_of(tracer_type, b'\x12') == {(None, 1), (1, 2), (2, 4), (4, 6), (6, 7)}


@pytest.mark.parametrize('tracer_type', TRACERS)
def test_a_tracer_knows_its_files_only(tracer_type):
    with tracer_type(['another.py']) as tracer:
        see_it_fail.its_tests()
    assert tracer.arcs == set()
    assert len(arcs_of(tracer_type, b'')) == 3  # what was told to be of no interest is of interest to the next


@pytest.mark.parametrize('tracer_type', TRACERS)
def test_who_traced_before_goes_on_afterwards(tracer_type):
    def other(frame, event, argument): return None
    before = sys.gettrace()
    try:
        sys.settrace(other)
        assert len(arcs_of(tracer_type, b'')) == 3
        with pytest.raises(ZeroDivisionError), tracer_type([]):
            1 / 0
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is other


@pytest.mark.parametrize('tracer_type', TRACERS)
def test_one_fuzzer_may_run_inside_another(tracer_type):
    with tracer_type([see_it_fail.__file__]) as outer:
        inner = arcs_of(tracer_type, b'')
        see_it_fail.its_tests()
    assert len(inner) == 3 and len(outer.arcs) > 20


def test_chance_is_the_same_on_every_python():
    random, said = Random(1), hashlib.sha256()
    for _ in range(1_000):
        said.update(fuzzer.mutate(random, b'12345678') + b'\n')
    assert said.hexdigest()[:16] == '643ee31ba606e789'


def test_what_reaches_nothing_new_is_not_kept():
    hunt = fuzzer.Fuzzer(see_it_fail.decode_stream, [see_it_fail.__file__], 1)
    with hunt.tracer:
        for data in b'\x12?', b'?', b'!', b'\x12':
            hunt.try_input(data)
    assert hunt.corpus == [b'', b'\x12?', b'?', b'\x12']


def test_those_to_begin_with_are_tried_as_they_are():
    tried = []
    hunt = fuzzer.Fuzzer(tried.append, [], 1, corpus=[b'a', b'b'])
    assert not hunt.run(3) and tried[:2] == [b'a', b'b'] and hunt.inputs == 3 == len(tried)


def picky(data):
    if b'ab' in data and b'z' in data:
        raise KeyError
    if len(data) < 2:
        raise ValueError  # another bug: not to be mixed up with the first


@pytest.mark.parametrize('found', [b'abz', b'zab', b'..ab....z..', b'a' * 50 + b'b' * 50 + b'z' * 50])
def test_a_finding_is_shrunk(found):
    assert sorted(fuzzer.shrunk(picky, found, KeyError)) == sorted(b'abz')
    assert fuzzer.shrunk(picky, b'', ValueError) == b''

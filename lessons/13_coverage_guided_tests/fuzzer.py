"""Chapter 13: a fuzzer, which lets coverage choose the inputs.

    fuzzer = Fuzzer(target, [protocol.__file__], seed=1)
    fuzzer.run(10_000)      True: an input made `target` raise; it is fuzzer.finding, and what was raised fuzzer.error

What it does: notes which lines run (`make_tracer`), changes bytes (`mutate`), keeps the inputs that went where none had
been (`Fuzzer`), makes short what it found (`shrunk`) and a test of it (`as_test`).  What it leaves to others: what is
right.  `target` gets the bytes, hands them to the code that is tried, and raises when that does wrong.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

Target = Callable[[bytes], object]
Line = tuple[str, int]  # a file, and the number of a line in it
Arc = tuple[Line | None, Line]  # the line that ran before, and a line: the two ways of a branch are two arcs
Way = Callable[[Random, bytearray, int, int], None]  # changes bytes in place, about from one index to another


# Which lines run .....................................................................................

class Tracer:
    """Notes the arcs of a run in some files.  For any Python; who traced before goes on at the end."""

    def __init__(self, files: Iterable[str]) -> None:
        self.files = frozenset(files)
        self.begin()

    def begin(self) -> None:
        """Forget what was noted: another run comes."""
        self.arcs: set[Arc] = set()
        self.last: Line | None = None

    def note(self, file: str, number: int) -> None:
        line = file, number
        self.arcs.add((self.last, line))
        self.last = line

    def __enter__(self) -> Tracer:
        self.before = sys.gettrace()  # that of a debugger, or of coverage
        sys.settrace(self.on_call)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self.before)

    def on_call(self, frame: Any, event: str, argument: Any) -> Any:
        """A function begins: return what is to be told of its lines."""
        return self.on_event if frame.f_code.co_filename in self.files else None

    def on_event(self, frame: Any, event: str, argument: Any) -> Any:
        if event == 'line':
            self.note(frame.f_code.co_filename, frame.f_lineno)
        return self.on_event


class Monitor(Tracer):
    """The same for Python 3.12 and newer: faster, and several tools may watch at a time.  Who reads may skip it."""

    def __enter__(self) -> Tracer:
        monitoring, line = sys.monitoring, sys.monitoring.events.LINE
        self.tool = next(tool for tool in (3, 4) if not monitoring.get_tool(tool))  # the two that are nobody's
        monitoring.use_tool_id(self.tool, 'fuzzer')
        monitoring.register_callback(self.tool, line, self.on_line)
        monitoring.set_events(self.tool, line)
        monitoring.restart_events()  # the lines that an earlier one did not want to hear of
        return self

    def __exit__(self, *error: object) -> None:
        sys.monitoring.set_events(self.tool, 0)
        sys.monitoring.free_tool_id(self.tool)

    def on_line(self, code: Any, number: int) -> Any:
        if code.co_filename not in self.files:
            return sys.monitoring.DISABLE  # do not tell of this line again
        return self.note(code.co_filename, number)


make_tracer = Monitor if hasattr(sys, 'monitoring') else Tracer


# How inputs are changed ..............................................................................

def flip_bit(random: Random, data: bytearray, start: int, end: int) -> None:
    if data:
        data[start % len(data)] ^= 1 << random.randrange(8)


def overwrite(random: Random, data: bytearray, start: int, end: int) -> None:
    data[start:end] = random.randbytes(end - start)


def insert(random: Random, data: bytearray, start: int, end: int) -> None:
    data[start:start] = random.randbytes(random.choice((1, 1, 1, 2, 11, 64)))  # 11: so long is a header


def cut_out(random: Random, data: bytearray, start: int, end: int) -> None:
    del data[start:random.choice((end, len(data)))]


def splice(random: Random, data: bytearray, start: int, end: int) -> None:
    """Put here what stands elsewhere."""
    source = random.randrange(len(data) + 1)
    data[start:end] = data[source:source + random.choice((2, 8, 40))]


WAYS: tuple[Way, ...] = (flip_bit, overwrite, insert, cut_out, splice)


def mutate(random: Random, data: bytes, ways: Sequence[Way] = WAYS) -> bytes:
    """Return a copy that was changed in one to four of the ways."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        start = random.randrange(len(changed) + 1)
        random.choice(ways)(random, changed, start, min(len(changed), start + random.choice((0, 1, 1, 2, 8))))
    return bytes(changed)


# The loop ............................................................................................

class Fuzzer:
    """Tries inputs on `target`; keeps those that reached an arc of `files` that none before had reached."""

    def __init__(self, target: Target, files: Iterable[str], seed: int, corpus: Sequence[bytes] = (b'',),
                 ways: Sequence[Way] = WAYS) -> None:
        self.target, self.ways, self.random, self.tracer = target, ways, Random(seed), make_tracer(files)
        self.untried = list(corpus)  # those to begin with are tried as they are
        self.corpus = list(corpus)  # what others are made of; of these, `keep` adds a few a second time
        self.arcs: set[Arc] = set()
        self.inputs = 0  # so many were tried
        self.finding: bytes | None = None
        self.error: Exception | None = None

    def run(self, inputs: int) -> bool:
        """Try so many more, or until one makes `target` raise; return whether one did."""
        with self.tracer:
            for _ in range(inputs):
                self.try_input(self.untried.pop(0) if self.untried else self.make_input())
                if self.error:
                    return True
        return False

    def make_input(self) -> bytes:
        """Change one of those that were kept: of two the newer, which is likely to have gone further."""
        index = max(self.random.randrange(len(self.corpus)) for _ in range(2))
        return mutate(self.random, self.corpus[index], self.ways)

    def try_input(self, data: bytes) -> None:
        self.inputs += 1
        self.tracer.begin()
        try:
            self.target(data)
        except Exception as error:
            self.finding, self.error = data, error
        if new := self.tracer.arcs - self.arcs:
            self.keep(data, new)

    def keep(self, data: bytes, new: set[Arc]) -> None:
        self.arcs |= new
        self.corpus.append(data)


# What was found ......................................................................................

def shrunk(target: Target, data: bytes, kind: type[Exception]) -> bytes:
    """Return what is left when all that can go is taken out: it still makes `target` raise a `kind`."""
    sizes = [len(data) >> halvings for halvings in range(len(data).bit_length())]  # all of it, half of it, ..., a byte
    for size in sizes * 2:  # twice: what went may let more go
        start = 0
        while start < len(data):
            shorter = data[:start] + data[start + size:]
            if raises(target, shorter, kind):
                data = shorter
            else:
                start += size
    return data


def raises(target: Target, data: bytes, kind: type[Exception]) -> bool:
    try:
        target(data)
    except Exception as error:
        return type(error) is kind
    return False


def as_test(target: Target, data: bytes) -> str:
    """Return a test with the input in it: it fails until the code is mended, and holds it from then on."""
    return f"def test_rename_me():\n    {target.__name__}(bytes.fromhex('{data.hex(' ')}'))\n"

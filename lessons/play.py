"""Plays the transcripts of a README: real processes, the lines that they print, and whether these are the README's.

What it does: starts the commands of a scene in their order, waits for the lines that the README shows, ends what is
left, and compares.  What it leaves to others: finding the scenes (chapters.py), colours (__main__.py), looking at what
crosses the wire (tap.py).

A thread reads what a process prints and puts what is to be done about each line into one queue; the thread that plays
does it, one after the other, so that nothing needs a lock.  A scene keeps in step with its README by lines, never by
time: a step is over when all its lines have come.
"""
from __future__ import annotations

import contextlib
import os
import queue
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from . import chapters
from .chapters import Step

DEADLINE = 20.0  # seconds a scene
SETTLE = 0.5  # seconds in which clients may end by themselves, once all lines have come
PORTS = range(20_000, 32_000)  # below those that systems give out: nobody gets ours between our look and the server's
_MASKS = [(re.compile(pattern), substitute) for pattern, substitute in (
    (r'(?<=127\.0\.0\.1:)\d+', '#'), (r'\d[\d,]*\.\d+ (s|ms|us|times)\b', r'# \1'),
    (r'\b\d\d:\d\d(:\d\d([.,]\d+)?)?\b', '#'), (r'\b[0-9a-f]{8}\b', '#'), (r'\|#+', '|#'),
    (r'\d[\d,]*(?= a second\b)', '#'),
    (r'\bWSA(?=E[A-Z]+\b)', ''))]  # Windows' names of errors
_SERVER = re.compile(r'lessons\.\w+\.server\b|\bimserver\.py\b')
_CLIENT = re.compile(r'lessons\.(\w+\.client|00_tour\.demo)\b|\bimclient\.py\b')
Show = Callable[[str, str], None]  # a terminal, a line that it shows


class Stuck(Exception):
    """A scene does not go on; the text is a sentence for the reader."""


class Wire:
    """What is between clients and server: here nothing.  `tell(who, line)` may be called in any thread."""

    def __init__(self, port: int, tell: Show) -> None:
        self.port, self.tell = port, tell  # the server's

    def port_for(self, terminal: str) -> int:
        """Return the port that a client started in that terminal is to connect to."""
        return self.port

    def server_is_up(self) -> None: ...
    def server_is_down(self) -> None: ...


class Run:
    """A command started in a terminal."""

    def __init__(self, terminal: str, command: str) -> None:
        self.terminal, self.command = terminal, command
        self.is_server, self.is_client = bool(_SERVER.search(command)), bool(_CLIENT.search(command))
        self.printed: list[str] = []
        self.expected: list[str] = []  # what the README shows
        self.has_ended = self.was_interrupted = self.was_killed = False
        self._seen = 0  # so many of `printed` were asked for, or passed over
        self._process: Any = None

    def start(self, port: int, on_line: Callable[[str], None], on_end: Callable[[], None]) -> None:
        """Start it.  Both functions are called in a thread of its own."""
        own_group = {'start_new_session': True} if os.name == 'posix' else {}  # the reader's Ctrl-C is not for it
        self._process = subprocess.Popen(
            _arguments(self.command, port), cwd=chapters.LESSONS.parent, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', errors='replace', **own_group,
            env={**os.environ, 'PYTHONUNBUFFERED': '1', 'PYTHONUTF8': '1', 'PYTHONIOENCODING': 'utf-8'})
        self._reader = threading.Thread(target=self._read, args=(on_line, on_end), daemon=True)
        self._reader.start()

    def _read(self, on_line: Callable[[str], None], on_end: Callable[[], None]) -> None:
        with self._process.stdout as output:
            for line in output:
                on_line(line.rstrip())
        on_end()

    def has_printed(self, wanted: str) -> bool:
        """Whether a line that is `wanted`, masked, has come since the one asked for before."""
        for index in range(self._seen, len(self.printed)):
            self._seen = index + 1
            if mask(self.printed[index]) == wanted:
                return True
        return False

    def interrupt(self) -> None:
        """Ctrl-C.  Windows has none for a single process: there it is killed and says no more."""
        self.was_interrupted = True
        if os.name == 'posix':
            self._signal(signal.SIGINT)
        else:
            self.kill()

    def kill(self) -> None:
        """Leave nothing of it: where the system knows groups, also not what it has started itself."""
        if self._process:
            self.was_killed |= not self.has_ended
            self._signal(signal.SIGKILL) if os.name == 'posix' else self._process.kill()
            self._process.wait()
            self._reader.join(1)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # ended; macOS says it so
            os.killpg(self._process.pid, number)


def play(scene: list[Step], show: Show = lambda terminal, line: None,
         make_wire: Callable[[int, Show], Wire] = Wire) -> list[Run]:
    """Play a scene and return its runs, in the order of their start; `show` gets each line.

    Raises Stuck.  Whatever happens, nothing is left running.
    """
    stage = _Stage(show, make_wire)
    try:
        for step in scene:
            stage.take(step)
        stage.finish()
    finally:
        for run in stage.runs:
            run.kill()
        stage.wire.server_is_down()
    return stage.runs


class _Stage:
    """The terminals of one scene."""

    def __init__(self, show: Show, make_wire: Callable[[int, Show], Wire]) -> None:
        self.runs: list[Run] = []
        self._show = show
        self._running: dict[str, Run] = {}  # what was started in a terminal last
        self._deadline = time.monotonic() + DEADLINE
        self._to_do: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.wire = make_wire(free_port(), lambda who, line: self._to_do.put(partial(show, who, line)))

    def take(self, step: Step) -> None:
        """Do what the step says, and wait for what it shows."""
        if step.command and step.command != '^C':
            self._start(step.terminal, step.command)
        run = self._running.get(step.terminal)
        if run is None:
            raise Stuck(f'{step.terminal}: nothing was started there')
        if step.command == '^C':
            self._show(step.terminal, '^C')
            run.interrupt()
        if not run.was_killed:
            run.expected += step.lines
            self._await_lines(run, step.lines)

    def _start(self, terminal: str, command: str) -> None:
        if terminal in self._running:
            self._await_end(self._running[terminal])
        self._show(terminal, f'$ {command}')
        run = self._running[terminal] = Run(terminal, command)
        self.runs.append(run)
        port = self.wire.port_for(terminal) if run.is_client else self.wire.port
        try:
            run.start(port, lambda line: self._to_do.put(partial(self._on_line, run, line)),
                      lambda: self._to_do.put(partial(self._on_end, run)))
        except OSError as error:
            raise Stuck(f'{terminal}: {command} cannot be started: {error}') from None

    def _on_line(self, run: Run, line: str) -> None:
        if run.is_server and 'listening' in line:
            self.wire.server_is_up()
        run.printed.append(line)
        self._show(run.terminal, line)

    def _on_end(self, run: Run) -> None:
        run.has_ended = True
        if run.is_server:
            self.wire.server_is_down()

    def _await_lines(self, run: Run, lines: list[str]) -> None:
        for wanted in squeezed(lines):
            while not run.has_printed(wanted):
                if run.has_ended:
                    last = f'; its last was: {run.printed[-1]}' if run.printed else ''
                    raise Stuck(f'{run.terminal} ended without the line: {wanted}{last}')
                self._await_more(f'{run.terminal} was to show the line: {wanted}')

    def _await_end(self, run: Run) -> None:
        while not run.has_ended:
            self._await_more(f'{run.terminal} was to end: {run.command}')

    def _await_more(self, purpose: str) -> None:
        if not self._do_next(self._deadline):
            raise Stuck(f'waited {DEADLINE:g} s, in vain: {purpose}')

    def _do_next(self, until: float) -> bool:
        """Do what is next in the queue; False: nothing came until then."""
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                to_do = self._to_do.get(timeout=min(left, 1.0))  # Windows heeds a Ctrl-C only between two waits
                to_do()
                return True
        return False

    def finish(self) -> None:
        """Wait for what ends by itself: all but servers and clients; clients too, if it takes them no time."""
        for run in self.runs:
            if run.was_interrupted or not (run.is_server or run.is_client):
                self._await_end(run)
        settled = time.monotonic() + SETTLE
        while any(run.is_client and not run.has_ended for run in self.runs) and self._do_next(settled):
            pass


def _arguments(command: str, port: int) -> list[str]:
    words = shlex.split(command)
    if words[0] == 'python3':
        words[0] = sys.executable
    if '--port' not in words and any(kind.search(command) for kind in (_SERVER, _CLIENT)):
        words += ['--port', str(port)]
    return words


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(('127.0.0.1', port))
            return port
    raise Stuck('no port is free')


# Comparing ...........................................................................................

def mask(line: str) -> str:
    """Return the line without what differs from one run to the next: times, ports, group ids, bars."""
    for pattern, substitute in _MASKS:
        line = pattern.sub(substitute, line)
    return line.rstrip()


def squeezed(lines: list[str]) -> list[str]:
    """Return the lines masked, and only one of neighbours that are equal then."""
    masked = [mask(line) for line in lines]
    return [line for index, line in enumerate(masked) if not index or line != masked[index - 1]]


def mismatch(runs: list[Run]) -> str:
    """Return how the runs differ from their README, a line for each that does; '' when none does.

    What ended by itself must have printed exactly what the README shows, what was killed must have begun with it.
    """
    return '\n'.join(f'{run.terminal}, {run.command}: {difference}' for run in runs for difference in _differences(run))


def _differences(run: Run) -> Iterator[str]:
    expected, printed = squeezed(run.expected), squeezed(run.printed)
    for wanted, got in zip(expected, printed):
        if wanted != got:
            yield f'the README shows {wanted!r}, it printed {got!r}'
            return
    if len(printed) < len(expected):
        yield f'it did not print {expected[len(printed)]!r}'
    elif len(printed) > len(expected) and not run.was_killed:
        yield f'the README does not show {printed[len(expected)]!r}'

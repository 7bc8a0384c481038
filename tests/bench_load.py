"""The load for tests/bench.py: one process that plays many clients, as cheaply as Python can.

What it does: it sends frames that were built beforehand and counts what comes by its length, without looking into it,
so it stays cheaper than any server that decodes.  A workload is a line of JSON on standard input, its figures a line
on standard output ({"error": text} if it failed); the process lives on for the next one.  The argument `own` says that
it has a core of its own.

Every workload ends gracefully: it stops to send, gets all that is still on its way, and only then closes.  Who closes
earlier is sent the rest at the next login, in the middle of what is measured then.
"""
from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from protocol import (  # noqa: E402
    HEADER, HEADER_SIZE, CreateGroupRequest, GroupMessageRequest, HeartbeatRequest, LoginRequest, LoginResponse,
    MessageRequest, decode, encode)

TEXT = 'x' * 100
PASSWORD = 'for-the-benchmark'
TIMEOUT = 60.0  # seconds without an answer that end the run: something is broken
WARM_UP = 0.3  # of the measured time, before it
AT_ONCE = 32  # logins that wait for their answers
HEARTBEAT = 5.0  # seconds between two heartbeats of an idle client
SHARE = 16  # turns in which each silent member of a group is drained once: far too few to fill 64 KiB
BATCH = 500  # messages in one send
ROOM = bytearray(262_144)  # what is received goes there and is never looked at
Figures = dict[str, float]
User = tuple[str, str]  # name and token
has_own_core = False  # set by `main`


def nothing() -> None:
    pass


class Server(NamedTuple):
    """Where it is, and which process."""
    address: tuple[str, int]
    pid: int


# Clients .............................................................................................

def received(count: int) -> int:
    """Return `count`, what a recv_into returned.  The end of the input is an error: to read on would never end."""
    if not count:
        raise ConnectionError('the server has closed a connection')
    return count


class Client:
    """A socket, and what is needed until it is measured."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(server.address, TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send = self.socket.sendall
        self.data = b''  # received, and not taken yet

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def take(self, size: int) -> bytes:
        while len(self.data) < size:
            count = received(self.socket.recv_into(ROOM))
            self.data += ROOM[:count]
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def next_frame(self) -> bytes:
        header = self.take(HEADER_SIZE)
        return header + self.take(HEADER.unpack(header)[-1])

    def next(self) -> Any:
        return decode(self.next_frame())

    def check_login(self) -> None:
        answer = self.next()
        if not isinstance(answer, LoginResponse) or not answer.success:
            raise RuntimeError(f'a login was refused: {answer}')


class Clients(list[Client]):
    """Those of one workload: closed together, whatever happens."""

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self:
            client.socket.close()


def by_password(names: Iterable[str]) -> list[bytes]:
    """Return login frames of version 1, which every server here speaks."""
    return [encode(LoginRequest(user_name=name, password=PASSWORD), 1) for name in names]


def by_token(users: Iterable[User]) -> list[bytes]:
    """Return login frames of version 2: no password is computed.  Servers without accounts take any token."""
    return [encode(LoginRequest(user_name=name, token=token), 2) for name, token in users]


def connect(clients: Clients, server: Server, frame: bytes) -> None:
    """Add a client that has sent this login frame."""
    clients.append(Client(server))
    clients[-1].send(frame)


def log_in(server: Server, frames: Sequence[bytes]) -> Clients:
    """Return a client for each login frame, AT_ONCE of them at a time."""
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(Clients())
        for number, frame in enumerate(frames):
            connect(clients, server, frame)
            if number >= AT_ONCE:
                clients[number - AT_ONCE].check_login()
        for client in clients[-AT_ONCE:]:
            client.check_login()
        stack.pop_all()  # it went well: they stay open
    return clients


# What flows ..........................................................................................

class Flow:
    """Messages from one client to another, all of one size.  For each that comes another one is sent, so `window` of
    them stay on their way.  The first has been sent by the caller: here its size is learned."""
    __slots__ = ('socket', 'recv_into', 'size', 'total', 'rest', 'send', 'frame', 'window')

    def __init__(self, receiver: Client, sender: Client, frame: bytes, window: int) -> None:
        self.socket, self.recv_into = receiver.socket, receiver.socket.recv_into
        self.size, self.total, self.rest = len(receiver.next_frame()), 0, len(receiver.data)
        self.send, self.frame, self.window = sender.send, frame, window
        # With a timeout, Python would ask the kernel before each call whether it can be made.  A window is small: the
        # kernel has always room for it.
        sender.socket.settimeout(None)

    def receive(self) -> None:
        """Count what comes, and answer nothing."""
        count, self.rest = divmod(self.rest + received(self.recv_into(ROOM)), self.size)
        self.total += count

    def receive_until(self, total: int) -> None:
        while self.total < total:
            self.receive()


def pump(selector: selectors.BaseSelector, seconds: float, beside: Callable[[], None]) -> None:
    """Keep the registered flows going for that long; `beside` is called whenever something came.

    With a core of its own it does not sleep in between: a server on this machine would pay for waking it, more than for
    the message, and how often depends on chance.  Clients on other machines cost no server that.
    """
    end, patience = time.monotonic() + seconds, 0.0 if has_own_core else 0.1
    while time.monotonic() < end:
        ready = selector.select(patience)
        for key, _ in ready:
            flow = key.data
            if not (got := flow.recv_into(ROOM)):
                received(got)
            count, flow.rest = divmod(flow.rest + got, flow.size)
            flow.total += count
            flow.send(flow.frame * count)
        if ready:
            beside()


def drain(flows: Iterable[Flow]) -> None:
    """Receive what has come for these, who do not wait."""
    for flow in flows:
        with contextlib.suppress(BlockingIOError):
            flow.receive()


def drain_in_turn(flows: Sequence[Flow]) -> Callable[[], None]:
    """Return a function that drains the next few of them at each call."""
    ring, share = itertools.cycle(flows), len(flows) // SHARE + 1
    return lambda: drain(itertools.islice(ring, share))


def measured(flows: Sequence[Flow], seconds: float, beside: Callable[[], None] = nothing,
             silent: Sequence[Flow] = ()) -> float:
    """Start the flows, and return the messages a second that arrived, also at the `silent` ones.  At the end nothing
    is on its way: then this can be done again."""
    for flow in flows:
        flow.socket.settimeout(None)
        flow.send(flow.frame * flow.window)
    for flow in silent:
        flow.socket.settimeout(0)
    with selectors.DefaultSelector() as selector:
        for flow in flows:
            selector.register(flow.socket, selectors.EVENT_READ, flow)
        pump(selector, seconds * WARM_UP, beside)
        before, begin = total_of(flows, silent), time.perf_counter()
        pump(selector, seconds, beside)
        per_second = (total_of(flows, silent) - before) / (time.perf_counter() - begin)
    let_arrive(flows, silent)
    return per_second


def median_of(repeats: int, *measurement: Any) -> float:
    return statistics.median(measured(*measurement) for _ in range(repeats))


def total_of(flows: Sequence[Flow], silent: Sequence[Flow]) -> int:
    drain(silent)
    return sum(flow.total for flow in flows) + sum(flow.total for flow in silent)


def let_arrive(flows: Sequence[Flow], silent: Sequence[Flow]) -> None:
    """Receive all that is on its way: a window of each flow; the silent ones get what the first flow gets."""
    for flow in (*flows, *silent):
        flow.socket.settimeout(TIMEOUT)
        flow.receive_until(flow.total + flow.window if flow.window else flows[0].total)


# Workloads: each returns its figures .................................................................

def pairs(server: Server, names: list[str], seconds: float, window: int) -> Figures:
    """Half of the names write to the other half; of each pair, `window` messages are on their way at any time."""
    with log_in(server, by_password(names)) as clients:
        return {'per_second': measured(flows_of_pairs(clients, names, window), seconds)}


def flows_of_pairs(clients: list[Client], names: list[str], window: int) -> list[Flow]:
    half, flows = len(names) // 2, []
    for sender, receiver, name in zip(clients, clients[half:], names[half:]):
        frame = encode(MessageRequest(to_user_id=name, message=TEXT), 1)
        sender.send(frame)
        flows.append(Flow(receiver, sender, frame, window))
    return flows


def group(server: Server, names: list[str], seconds: float, window: int) -> Figures:
    """One group in which one member writes; `window` of its messages are on their way at any time.

    Only the writer, a member too, is waited for: its own copy sets off the next message.  The others are drained a few
    a turn, often enough that no buffer of the kernel fills.  Real clients sit on other machines: what their reading
    costs must not be what is measured.
    """
    with log_in(server, by_password(names)) as clients:
        writer = clients[0]
        writer.send(encode(CreateGroupRequest(user_id_list=names), 1))
        group_id = [client.next() for client in clients][0].group_id
        frame = encode(GroupMessageRequest(to_group_id=group_id, message=TEXT), 1)
        writer.send(frame)
        own, *others = [Flow(client, writer, frame, 0 if number else window) for number, client in enumerate(clients)]
        return {'per_second': measured([own], seconds, drain_in_turn(others), others)}


def latency(server: Server, names: list[str], seconds: float) -> Figures:
    """One message at a time from one user to another: milliseconds from the send to the last byte."""
    with log_in(server, by_password(names)) as clients:
        flow, = flows_of_pairs(clients, names, 1)
        flow.socket.settimeout(None)
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end or len(times) < 100:
            begin = time.perf_counter()
            flow.send(flow.frame)
            flow.receive_until(len(times) + 1)
            times.append(time.perf_counter() - begin)
    times = sorted(times[len(times) // 4:])
    return {'p50_ms': statistics.median(times) * 1e3, 'p99_ms': times[len(times) * 99 // 100] * 1e3}


def logins(server: Server, users: list[User], seconds: float) -> Figures:
    """Connect, log in by token, leave; AT_ONCE of them at any time."""
    frames, done = itertools.cycle(by_token(users)), 0
    begin, end = time.perf_counter(), time.monotonic() + seconds
    with Clients() as clients:
        while (is_on := time.monotonic() < end) or clients:
            if is_on:
                connect(clients, server, next(frames))
            if len(clients) >= AT_ONCE or not is_on:
                with clients.pop(0) as client:
                    client.check_login()
                done += 1
    return {'per_second': done / (time.perf_counter() - begin)}


def reconnects(server: Server, users: list[User]) -> Figures:
    """All at once: seconds until each is logged in."""
    frames, begin = by_token(users), time.perf_counter()
    with Clients() as clients:
        for frame in frames:
            connect(clients, server, frame)
        for client in clients:
            client.check_login()
        return {'seconds': time.perf_counter() - begin}


def backlog(server: Server, names: list[str], count: int) -> Figures:
    """Messages for someone who is away, then one login that drains them: messages a second."""
    away, busy = names
    frame = encode(MessageRequest(to_user_id=away, message=TEXT), 1)
    with log_in(server, by_password([busy])) as (sender,):
        with log_in(server, by_password([away])) as (receiver,):
            sender.send(frame)
            size = len(receiver.next_frame())
        write_to_oneself(sender, busy)  # by now the server knows that the other one has left
        for _ in range(count // BATCH):
            sender.send(frame * BATCH)
        write_to_oneself(sender, busy)  # by now all is kept
    begin = time.perf_counter()
    with log_in(server, by_password([away])) as (receiver,):
        left = count // BATCH * BATCH * size - len(receiver.data)
        while left > 0:
            left -= received(receiver.socket.recv_into(ROOM))
        return {'per_second': count / (time.perf_counter() - begin)}


def write_to_oneself(client: Client, name: str) -> None:
    """Everything that this client has sent before is handled once it comes back."""
    client.send(encode(MessageRequest(to_user_id=name, message=TEXT), 1))
    client.next_frame()


# Many connections ....................................................................................

def crowd(server: Server, names: list[str], users: list[User], seconds: float, window: int, repeats: int,
          alone: float) -> Figures:
    """What idle sessions with heartbeats cost: memory, time of the server (for `alone` seconds they are the only ones
    to send), and messages that the pairs beside them no longer get through."""
    with log_in(server, by_password(names)) as active:
        flows = flows_of_pairs(active, names, window)
        without = median_of(repeats, flows, seconds)
        memory = memory_of(server.pid)
        with log_in(server, by_token(users)) as idle:
            beat = heartbeats_of(idle)
            beat_for(alone / 4, beat)
            begin, busy = time.perf_counter(), cpu_seconds_of(server.pid)
            beat_for(alone, beat)
            busy = (cpu_seconds_of(server.pid) - busy) / (time.perf_counter() - begin)
            memory = (memory_of(server.pid) - memory) / len(idle)
            beside = median_of(repeats, flows, seconds, beat)
            hush(idle)
    figures = {'bytes': memory, 'cpu_percent': 100 * busy, 'kept_percent': 100 * beside / without, 'without': without,
               'with': beside}
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def heartbeats_of(clients: Clients) -> Callable[[], None]:
    """Return a function that sends the heartbeats that are due: one a client in HEARTBEAT seconds, evenly spread.
    The answers wait in the kernel: they are few, and what reading them costs must not be what is measured."""
    frame, ring, begin, sent = encode(HeartbeatRequest(), 2), itertools.cycle(clients), time.monotonic(), 0

    def beat() -> None:
        nonlocal sent
        due = int((time.monotonic() - begin) * len(clients) / HEARTBEAT)
        for client in itertools.islice(ring, due - sent):
            client.send(frame)
        sent = due
    return beat


def beat_for(seconds: float, beat: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        beat()
        time.sleep(0.0005)


def hush(clients: Clients) -> None:
    """Receive what waits: to close with that unread would reset the connections."""
    for client in clients:
        client.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            received(client.socket.recv_into(ROOM))


def memory_of(pid: int) -> float:
    """Return the bytes of memory that the process has in use; not a number where there is no /proc."""
    try:
        return int(Path(f'/proc/{pid}/statm').read_text(encoding='utf-8').split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except FileNotFoundError:
        return float('nan')


def cpu_seconds_of(pid: int) -> float:
    """Return how long its threads have run; not a number where the system does not say.  /proc/PID/stat has it too, in
    hundredths of a second."""
    threads = list(Path(f'/proc/{pid}/task').glob('*/schedstat'))
    return sum(int(path.read_text(encoding='utf-8').split()[0]) for path in threads) / 1e9 if threads else float('nan')


def connections(server: Server, names: list[str], users: list[User], seconds: float, window: int, sizes: list[int],
                repeats: int) -> Figures:
    """Messages a second of the same pairs with ever more connections in all; the others are silent."""
    with log_in(server, by_password(names)) as active, Clients() as idle:
        flows, figures = flows_of_pairs(active, names, window), {}
        for size in sizes:
            idle += log_in(server, by_token(users[len(idle):size - len(active)]))
            figures[f'at_{size}'] = median_of(repeats, flows, seconds)
    return figures | {'kept': min(figures.values()) / max(figures.values())}


def waiting(server: Server, users: list[User], count: int, unmeasured: int) -> Figures:
    """Login by token until the `count` messages that wait have arrived: milliseconds, without the first few users.
    In version 2 nothing counts as delivered that is not acknowledged."""
    times = []
    for frame in by_token(users):
        begin = time.perf_counter()
        with Clients() as clients:
            connect(clients, server, frame)
            clients[0].check_login()
            for _ in range(count):
                clients[0].next_frame()
            times.append(time.perf_counter() - begin)
    return {'ms': statistics.median(times[unmeasured:]) * 1e3}


# The process .........................................................................................

WORKLOADS = {f.__name__: f for f in (pairs, group, latency, logins, reconnects, backlog, crowd, connections, waiting)}


def run(workload: str, address: list[Any], pid: int, **order: Any) -> Figures:
    return WORKLOADS[workload](Server(tuple(address), pid), **order)


def main(core: str) -> None:
    global has_own_core
    has_own_core = core == 'own'
    for line in sys.stdin:
        try:
            answer = run(**json.loads(line))
        except (OSError, RuntimeError) as error:
            answer = {'error': f'{type(error).__name__}: {error}'}
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main(sys.argv[1])

"""The load for tests/bench.py: one process that plays many clients, as cheaply as Python can.

It sends frames that were built beforehand and counts what comes by its length, without looking into it: so it stays
cheaper than any server that decodes.  A workload is a line of JSON on standard input, its figures a line on standard
output; the process lives on for the next one.
"""
from __future__ import annotations

import json
import resource
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from protocol import (  # noqa: E402
    CreateGroupRequest, FrameDecoder, GroupMessageRequest, LoginRequest, LoginResponse, MessageRequest, Packet,
    decode, encode)

Callbacks = dict['Client', Callable[[bytes], None]]  # who is to hear what a client has received
TEXT = 'x' * 100
PASSWORD = 'for-the-benchmark'
TIMEOUT = 60.0  # seconds without an answer that end the run: something is broken


class Client:
    """A blocking socket; what comes is read only when it is there, so nothing ever waits but the selector."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send, self.recv = self.socket.sendall, self.socket.recv
        self.decoder = FrameDecoder(1 << 20)
        self.packets: list[Packet] = []

    def next(self) -> Any:
        """Return the next packet; for setting up only."""
        while not self.packets:
            if not (data := self.recv(65_536)):
                raise ConnectionError('the server has closed a connection')
            self.decoder.feed(data)
            self.packets += map(decode, self.decoder)
        return self.packets.pop(0)

    def login(self, name: str) -> LoginResponse:
        self.send(encode(LoginRequest(user_name=name, password=PASSWORD), 1))
        answer = self.next()
        if not isinstance(answer, LoginResponse) or not answer.success:
            raise RuntimeError(f'{name} cannot log in: {answer}')
        return answer

    def close(self) -> None:
        self.socket.close()


def log_in(address: tuple[str, int], names: Iterable[str]) -> list[Client]:
    clients = []
    for name in names:
        client = Client(address)
        client.login(name)
        clients.append(client)
    return clients


def pump(callbacks: Callbacks, seconds: float) -> None:
    """Hand what arrives to the callbacks, for that long."""
    with selectors.DefaultSelector() as selector:
        for client, callback in callbacks.items():
            selector.register(client.socket, selectors.EVENT_READ, (client.recv, callback))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in selector.select(0.1):
                recv, callback = key.data
                callback(recv(262_144))


class Count:
    """Frames of one size that came, and what they set off."""

    def __init__(self, size: int, then: Callable[[int], None] = lambda count: None) -> None:
        self.size, self.then, self.total, self.rest = size, then, 0, 0

    def __call__(self, data: bytes) -> None:
        if not data:
            raise ConnectionError('the server has closed a connection')
        count, self.rest = divmod(self.rest + len(data), self.size)
        if count:
            self.total += count
            self.then(count)


def measured(callbacks: Callbacks, counts: list[Count], seconds: float) -> float:
    """Return deliveries a second, after a third of the time to warm up."""
    pump(callbacks, seconds / 3)
    before, begin = sum(count.total for count in counts), time.perf_counter()
    pump(callbacks, seconds)
    return (sum(count.total for count in counts) - before) / (time.perf_counter() - begin)


def size_of_next(client: Client) -> int:
    """Return the bytes of the one frame that comes next; the clients' names are all of one length."""
    data = b''
    while len(data) < 11 or len(data) < 11 + int.from_bytes(data[7:11], 'big'):
        data += client.recv(65_536)
    return len(data)


# Workloads: each returns its figures .................................................................

def pairs(address: tuple[str, int], seconds: float, count: int, window: int, prefix: str = 'p') -> dict[str, float]:
    """`count` pairs; of each, `window` messages are on their way at any time."""
    callbacks, counts, clients = start_pairs(address, count, window, prefix)
    per_second = measured(callbacks, counts, seconds)
    for client in clients:
        client.close()
    return {'per_second': per_second}


def start_pairs(address: tuple[str, int], count: int, window: int,
                prefix: str) -> tuple[Callbacks, list[Count], list[Client]]:
    senders = log_in(address, [f'{prefix}a{i:04}' for i in range(count)])
    receivers = log_in(address, [f'{prefix}b{i:04}' for i in range(count)])
    callbacks, counts = {}, []
    for i, (sender, receiver) in enumerate(zip(senders, receivers)):
        frame = encode(MessageRequest(to_user_id=f'{prefix}b{i:04}', message=TEXT), 1)
        sender.send(frame)
        count_of = Count(size_of_next(receiver), lambda n, send=sender.send, frame=frame: send(frame * n))
        callbacks[receiver] = count_of
        counts.append(count_of)
        sender.send(frame * window)
    return callbacks, counts, senders + receivers


def group(address: tuple[str, int], seconds: float, members: int, window: int) -> dict[str, float]:
    """One group in which one member writes; `window` of its messages are on their way at any time."""
    names = [f'g{i:05}' for i in range(members)]
    clients = log_in(address, names)
    clients[0].send(encode(CreateGroupRequest(user_id_list=names), 1))
    created = [client.next() for client in clients]
    frame = encode(GroupMessageRequest(to_group_id=created[0].group_id, message=TEXT), 1)
    clients[0].send(frame)
    size = [size_of_next(client) for client in clients][0]
    counts = [Count(size, lambda n: clients[0].send(frame * n)), *(Count(size) for _ in clients[1:])]
    clients[0].send(frame * window)
    per_second = measured(dict(zip(clients, counts)), counts, seconds)
    for client in clients:
        client.close()
    return {'per_second': per_second}


def latency(address: tuple[str, int], seconds: float) -> dict[str, float]:
    """One message at a time from one user to another: milliseconds from the send to the last byte."""
    sender, receiver = log_in(address, ['la', 'lb'])
    frame = encode(MessageRequest(to_user_id='lb', message=TEXT), 1)
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 100:
        begin = time.perf_counter()
        sender.send(frame)
        size_of_next(receiver)
        times.append(time.perf_counter() - begin)
    times = sorted(times[len(times) // 4:])
    return {'p50_ms': statistics.median(times) * 1e3, 'p99_ms': times[len(times) * 99 // 100] * 1e3}


def logins(address: tuple[str, int], seconds: float, tokens: list[str], at_once: int) -> dict[str, float]:
    """Connect, log in by token, leave; `at_once` of them at any time."""
    frames = [encode(LoginRequest(user_name=f't{i:04}', token=token), 2) for i, token in enumerate(tokens)]
    done, end, begin = 0, time.monotonic() + seconds, time.perf_counter()
    while time.monotonic() < end:
        batch = []
        for frame in frames[:at_once]:
            client = Client(address)
            client.send(frame)
            batch.append(client)
        for client in batch:
            if not client.next().success:
                raise RuntimeError('a token was refused')
            client.close()
        frames = frames[at_once:] + frames[:at_once]
        done += len(batch)
    return {'per_second': done / (time.perf_counter() - begin)}


def make_tokens(address: tuple[str, int], count: int) -> list[str]:
    """Return the tokens of users t0000, ... by password; servers without tokens take any text for one."""
    tokens = []
    for i in range(count):
        client = Client(address)
        client.send(encode(LoginRequest(user_name=f't{i:04}', password=PASSWORD), 2))
        tokens.append(client.next().token or 'none')
        client.close()
    return tokens


def reconnects(address: tuple[str, int], tokens: list[str]) -> dict[str, float]:
    """All at once: seconds until each is logged in."""
    frames = [encode(LoginRequest(user_name=f't{i:04}', token=token), 2) for i, token in enumerate(tokens)]
    begin = time.perf_counter()
    clients = []
    for frame in frames:
        clients.append(Client(address))
        clients[-1].send(frame)
    for client in clients:
        client.next()
    seconds = time.perf_counter() - begin
    for client in clients:
        client.close()
    return {'seconds': seconds}


def backlog(address: tuple[str, int], count: int) -> dict[str, float]:
    """Messages for someone who is away, then one login that drains them: messages a second."""
    receiver, = log_in(address, ['away'])
    sender, = log_in(address, ['busy'])
    frame = encode(MessageRequest(to_user_id='away', message=TEXT), 1)
    sender.send(frame)
    size = size_of_next(receiver)
    receiver.close()
    sender.send(encode(MessageRequest(to_user_id='busy', message=TEXT), 1))
    size_of_next(sender)  # by now the server knows that the other one has left
    for _ in range(count // 500):
        sender.send(frame * 500)
    sender.send(encode(MessageRequest(to_user_id='busy', message=TEXT), 1))
    size_of_next(sender)
    receiver, begin = Client(address), time.perf_counter()
    receiver.login('away')
    left = count // 500 * 500 * size - sum(len(encode(packet, 1)) for packet in receiver.packets)
    while left > 0:
        left -= len(receiver.recv(262_144)) or left
    return {'per_second': count / (time.perf_counter() - begin)}


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run the workload that `order` names."""
    work = {f.__name__: f for f in (pairs, group, latency, logins, reconnects, backlog)}
    if order['workload'] == 'tokens':
        return {'tokens': make_tokens(order['address'], order['count'])}
    return work[order.pop('workload')](**order)


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in sys.stdin:
        order = json.loads(line)
        order['address'] = tuple(order['address'])
        print(json.dumps(run(order)), flush=True)


if __name__ == '__main__':
    main()

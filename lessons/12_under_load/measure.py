"""Chapter 12, measured: your server against the same one on asyncio, in one run.

    python3 -m lessons.12_under_load.measure

Each server is a process.  This one is all of its clients: it sends everything at once, and reads until all has come.
Rounds alternate, and the best rate of each server counts: what else the machine does makes the others lower.  Of the
lag the longest counts, of all rounds.
"""
from __future__ import annotations

import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from protocol import (MAX_BODY_CLIENT, CreateGroupRequest, FrameDecoder, GroupMessageRequest,
                      LoginRequest, MessageRequest, Packet, decode, encode)

ROOT = Path(__file__).resolve().parents[2]
SERVERS = {'reactor': 'server', 'asyncio': 'asyncio_server'}  # modules of this chapter
MEMBERS, ROUNDS = 20, 3  # of the group; of each load
TEXT = 'tea at five?'
SINGLE, BURST, FLOOD = ('messages, one writes to one', f'deliveries to a group of {MEMBERS}, a short burst',
                        f'deliveries to a group of {MEMBERS}, a long flood')
COUNTS = {SINGLE: 5_000, BURST: 250, FLOOD: 3_000}  # messages in a round; a burst fills no channel
LAG = 'loop lag, the longest'
WIDTH = 40  # columns of the longest bar


class Process:
    """A server in a process of its own."""

    def __init__(self, module: str) -> None:
        command = [sys.executable, '-X', 'utf8', '-m', f'{__package__}.{module}', '--port', '0', '--report', '0.1']
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        encoding='utf-8')
        self.port = int(self.process.stdout.readline().rpartition(':')[2])

    def kill(self) -> float:
        """End it; return by how many milliseconds its loop was late at most."""
        self.process.kill()
        with self.process.stdout as output:
            lags = re.findall(r'late by ([\d.]+) ms', output.read())
        self.process.wait()
        return max(map(float, lags))


class Peer:
    """A client's end of a connection."""

    def __init__(self, port: int, name: str) -> None:
        self.decoder, self.last_seq = FrameDecoder(MAX_BODY_CLIENT), 0
        self.socket = socket.create_connection(('127.0.0.1', port))
        self.socket.sendall(encode(LoginRequest(user_name=name), 2))
        self.await_frame()

    def read(self) -> list[bytes]:
        self.decoder.feed(self.socket.recv(262_144))
        return list(self.decoder)

    def await_frame(self) -> Packet:
        while not (frames := self.read()):
            pass
        return decode(frames[0])

    def numbered(self, packet: Packet) -> bytes:
        self.last_seq += 1
        packet.client_seq = self.last_seq
        return encode(packet, 2)


def flood(packet: Packet, count: int, peers: list[Peer], wanted: int) -> float:
    """Let the first peer send it `count` times; return the seconds until all have read `wanted` frames in all."""
    data = b''.join(peers[0].numbered(packet) for _ in range(count))
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
        sender, start = threading.Thread(target=peers[0].socket.sendall, args=(data,)), time.perf_counter()
        sender.start()
        while wanted > 0:
            wanted -= sum(len(key.data.read()) for key, _ in selector.select())
        sender.join()
    return time.perf_counter() - start


class Load:
    """What is done to one server: `best` has what was measured of it."""

    def __init__(self, module: str) -> None:
        self.server, self.best = Process(module), dict.fromkeys(COUNTS, 0.0)  # a second
        names = [f'user{number}' for number in range(MEMBERS)]
        self.peers = [Peer(self.server.port, name) for name in names]
        self.peers[0].socket.sendall(self.peers[0].numbered(CreateGroupRequest(user_id_list=names)))
        self.group_id = [peer.await_frame().group_id for peer in self.peers][0]

    def round(self) -> None:
        to_one, to_all = (MessageRequest(to_user_id='user1', message=TEXT),
                          GroupMessageRequest(to_group_id=self.group_id, message=TEXT))
        for what, count in COUNTS.items():
            packet, readers = (to_one, 1) if what == SINGLE else (to_all, MEMBERS)
            seconds = flood(packet, count, self.peers[:max(2, readers)], count * (readers + 1))  # and the answers
            self.best[what] = max(self.best[what], count * readers / seconds)

    def end(self) -> None:
        self.best[LAG] = self.server.kill()
        for peer in self.peers:
            peer.socket.close()


def bars(loads: dict[str, Load], what: str, about: str) -> None:
    """Draw what was measured of each, the longest bar in full."""
    print(what)
    values = {name: load.best[what] for name, load in loads.items()}
    for name, value in values.items():
        bar = '#' * max(1, round(WIDTH * value / max(values.values())))
        print(f'  {name} |{bar} {about.format(value, value / values["asyncio"])}')


def main() -> None:
    loads = {name: Load(module) for name, module in SERVERS.items()}
    for _ in range(ROUNDS):
        for load in loads.values():
            load.round()
    for load in loads.values():
        load.end()
    for what in COUNTS:
        bars(loads, what, '{:,.0f} a second, {:.2f} times')
    bars(loads, LAG, '{:.1f} ms, {:.2f} times')


if __name__ == '__main__':
    main()

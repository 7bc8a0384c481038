"""Chapter 12, the wrong version first: a reader who stops reading fills the memory of the server.

    python3 -m lessons.12_under_load.see_it_fail

Real servers, run by this process, and real sockets.  bob logs in and reads nothing more; alice writes to him.  It ends
after so many MESSAGES, on purpose.
"""
from __future__ import annotations

import contextlib
import io
import socket

from protocol import MAX_BODY_CLIENT, FrameDecoder, LoginRequest, MessageRequest, MessageResponse, decode, encode
from reactor import HIGH_WATER_MARK, EventLoop, Listener
from store import Entry, Store

from .handlers import Session
from .server import Server

MESSAGES, SHOWN, BATCH = 20_000, 5_000, 50  # in all; between two lines; sent at once
TEXT = 'x' * 1_000


class NaiveServer(Server):
    """Wrong: as in chapter 11.  Whoever is here is written to, however much is waiting already."""

    def tell(self, session: Session, entry: Entry, frame: bytes) -> None:
        session.channel.write(frame)


class World:
    """A server, what moves it, and alice and bob."""

    def __init__(self, kind: type[Server]) -> None:
        self.loop, self.sockets, self.log = EventLoop(), list[socket.socket](), io.StringIO()
        self.server = kind(self.loop, Store(':memory:'))
        self.loop.before_flush.append(self.server.before_flush)
        self.listener = Listener(self.loop, '127.0.0.1', 0, self.server.initialize)
        self.alice, self.bob = self.enter('alice'), self.enter('bob')

    def turn(self) -> None:
        with contextlib.redirect_stdout(self.log):  # what the server prints is not shown here
            self.loop.tick(0.01)

    def enter(self, name: str) -> socket.socket:
        sock = socket.create_connection(self.listener.address)
        sock.sendall(encode(LoginRequest(user_name=name), 2))
        for _ in range(200):  # until it has failed; a few are enough
            if name not in self.server.sessions:
                self.turn()
        sock.setblocking(False)
        self.sockets.append(sock)
        return sock

    def write(self, first: int, count: int) -> None:
        """Let alice write to bob, and read the answers; return when all is in the log."""
        requests = (MessageRequest(to_user_id='bob', message=TEXT, client_seq=first + n) for n in range(count))
        self.alice.sendall(b''.join(encode(request, 2) for request in requests))
        while self.server.store.committed_id < first + count - 1:
            self.turn()
        with contextlib.suppress(BlockingIOError):
            self.alice.recv(1_000_000)

    def read(self, count: int) -> list[int]:
        """Let bob read so many messages; return their ids."""
        decoder, ids = FrameDecoder(MAX_BODY_CLIENT), list[int]()
        while len(ids) < count:
            self.turn()
            with contextlib.suppress(BlockingIOError):
                decoder.feed(self.bob.recv(1_000_000))
            ids += [packet.message_id for packet in map(decode, decoder) if isinstance(packet, MessageResponse)]
        return ids

    def close(self) -> None:
        self.listener.close()
        with contextlib.redirect_stdout(self.log):
            for channel in list(self.listener.channels):
                channel.abort()
        for each in *self.sockets, self.server.store, self.loop:
            each.close()


def show(kind: type[Server]) -> None:
    print(f'{kind.__name__}: bob has stopped reading')
    world = World(kind)
    for first in range(1, MESSAGES, BATCH):
        world.write(first, BATCH)
        if (written := first + BATCH - 1) % SHOWN == 0:
            waiting = world.server.sessions['bob'].channel.buffered / HIGH_WATER_MARK
            print(f'  {written:6,} messages to him: {waiting:.1f} times the high water mark in memory')
    read = world.read(MESSAGES)
    print(f'  bob reads again: {len(read):,} messages', 'in their order' if read == sorted(set(read)) else 'WRONG')
    world.close()


if __name__ == '__main__':
    show(NaiveServer)
    show(Server)

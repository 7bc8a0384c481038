"""Chapter 12's picture: the write buffer of a slow reader, turn by turn, between its two water marks.

    python3 -m lessons.12_under_load.picture

The server, its loop and the channel are the real ones.  Only the socket is narrow: it takes so many bytes a turn.
"""
from __future__ import annotations

import contextlib
import io
import socket

from protocol import LoginRequest, encode
from reactor import HIGH_WATER_MARK, LOW_WATER_MARK, Channel, EventLoop
from store import Entry, Kind, PasswordHash, Store

from .server import Server

ENTRIES, SIZE, NARROW = 250, 1_000, 12_288  # messages that wait for bob; bytes of each; bytes that go out in a turn
COLUMN, TURNS = 2_048, 12  # bytes


class Narrow:
    """A socket that takes little."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def __getattr__(self, name: str) -> object:  # in all else it is that socket
        return getattr(self.sock, name)

    def send(self, data: bytes) -> int:
        return self.sock.send(data[:NARROW])


class Watched:
    """bob's connection."""

    def __init__(self) -> None:
        self.loop, store = EventLoop(), Store(':memory:')
        self.server = Server(self.loop, store)
        store.add_user('bob', 'bob', PasswordHash(0, b'', b''))
        for _ in range(ENTRIES):
            store.append(Entry(Kind.MESSAGE, 'alice bob', 'alice', 'x' * SIZE, None, 0), lambda is_durable: None)
        store.commit()
        self.bob, sock = socket.socketpair()
        self.channel = Channel(self.loop, Narrow(sock), self.server.initialize)
        self.loop.before_flush += [self.server.before_flush, lambda: self.turns.append(self.channel.buffered)]
        self.turns: list[int] = []
        self.bob.sendall(encode(LoginRequest(user_name='bob'), 2))

    def turn(self) -> str:
        """Run one turn; return it as a line."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.loop.tick(1)
        left, before = self.channel.buffered // COLUMN, -(-self.turns[-1] // COLUMN)
        bar = with_marks(f'{"#" * left}{"-" * (before - left)}')
        self.bob.recv(1_000_000)
        sent = self.server.sessions['bob'].sent_id
        return f'{len(self.turns):4}  {bar}  {sent:3}  {"writable" if self.channel.is_writable else "not writable"}'

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.channel.abort()
        for each in self.bob, self.server.store, self.loop:
            each.close()


def with_marks(bar: str) -> str:
    low, high = LOW_WATER_MARK // COLUMN, HIGH_WATER_MARK // COLUMN
    return f'{bar[:low]:{low}}|{bar[low:high]:{high - low}}|{bar[high:]:2}'


if __name__ == '__main__':
    watched = Watched()
    print(f'{"turn":22}{"low":17}{"high":6}sent')
    for _ in range(TURNS):
        print(watched.turn())
    watched.close()

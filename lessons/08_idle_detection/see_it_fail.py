"""Chapter 8, the wrong version first: who vanishes without a word stays in the room for ever.

    python3 -m lessons.08_idle_detection.see_it_fail

A real server of chapter 7 and then one of this chapter, in a loop whose clock is moved by hand: an hour takes no time.
alice beats; carol is a socket that neither sends nor closes any more, which is all that a server ever sees of a pulled
cable.
"""
from __future__ import annotations

import contextlib
import socket
from importlib import import_module
from types import ModuleType
from typing import Any

from protocol import HeartbeatRequest, LoginRequest, encode

IDLE, BEAT, HOUR = 15, 5, 3600  # seconds


def naive_chain(handlers: ModuleType, members: list[Any]) -> list[Any]:
    """Wrong: that of chapter 7.  Nobody in it looks at the time."""
    return [handlers.FrameHandler(), handlers.PacketHandler(), handlers.HeartbeatAnswer(), handlers.Login(members)]


def chain(handlers: ModuleType, members: list[Any]) -> list[Any]:
    return [handlers.IdleStateHandler(reader=IDLE), *naive_chain(handlers, members)]


class Room:
    """A server, and what moves it: `turn` runs its loop once, `now` is its clock."""

    def __init__(self, chapter: str, make_chain: Any) -> None:
        server, handlers = (import_module(f'lessons.{chapter}.{name}') for name in ('server', 'handlers'))
        self.now, self.members = 0, []
        self.loop = server.EventLoop(clock=lambda: self.now)
        self.port = server.Listener(self.loop, 0, lambda sock: server.Channel(
            self.loop, sock, *make_chain(handlers, self.members))).port

    def turn(self) -> None:
        self.loop.is_running = True
        self.loop.call_later(0, self.loop.stop)
        self.loop.run()

    def enter(self, name: str) -> socket.socket:
        sock = socket.create_connection(('127.0.0.1', self.port))
        sock.setblocking(False)
        self.ask(sock, encode(LoginRequest(user_name=name), 1))
        return sock

    def ask(self, sock: socket.socket, frame: bytes) -> None:
        """Send it, and run the loop until the answer is there."""
        sock.sendall(frame)
        while True:
            self.turn()
            with contextlib.suppress(BlockingIOError):
                sock.recv(1024)
                return

    def close(self) -> None:
        for key in list(self.loop.selector.get_map().values()):
            key.fileobj.close()


def an_hour(room: Room) -> None:
    alice, carol = room.enter('alice'), room.enter('carol')
    print('second 0: the cable of carol is pulled')
    while room.now < HOUR:
        room.now += BEAT
        before = len(room.members)
        room.ask(alice, encode(HeartbeatRequest(), 1))
        if len(room.members) < before or room.now == HOUR:
            print(f'second {room.now}: in the room:', *(member.name for member in room.members))
    for sock in alice, carol:
        sock.close()
    room.close()


if __name__ == '__main__':
    print('the server of chapter 7')
    an_hour(Room('07_heartbeat', naive_chain))
    print('\nthe server of chapter 8')
    an_hour(Room('08_idle_detection', chain))

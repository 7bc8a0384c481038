"""Chapter 1: a server that starts, accepts, reads and writes, in one thread for all its connections.

    python3 -m lessons.01_startup.server

A chat room without names: what one client sends goes to every client, the sender too.  What the bytes mean it does
not ask; that begins in chapter 3.
"""
from __future__ import annotations

import argparse
import itertools
import selectors
import socket
import sys
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

MAX_WAIT = 1.0  # seconds that a select sleeps at most: on Windows a Ctrl-C is noticed only when it ends
READ_SIZE = 65_536  # bytes that one receive takes at most


class EventLoop:
    """Sleeps until a socket is ready, then calls the function that was registered with it."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.is_running = True

    def register(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(mask)` in every turn in which one of `events` is there; 0: no longer."""
        if not events:
            self.selector.unregister(sock)
        elif sock in self.selector.get_map():
            self.selector.modify(sock, events, callback)
        else:
            self.selector.register(sock, events, callback)

    def run(self) -> None:
        while self.is_running:
            for key, mask in self.selector.select(MAX_WAIT):
                key.data(mask)

    def stop(self) -> None:
        self.is_running = False


class Channel:
    """One connection: its nonblocking socket, and what could not be sent yet.  What happens is told to its handler."""

    def __init__(self, loop: EventLoop, sock: socket.socket, handler: Any) -> None:
        sock.setblocking(False)
        self.loop, self.socket, self.handler = loop, sock, handler
        self.is_open = True
        self.unsent = b''
        loop.register(sock, EVENT_READ, self.on_ready)
        handler.channel = self
        handler.channel_active()

    def on_ready(self, mask: int) -> None:
        if mask & EVENT_WRITE and self.is_open:  # closed earlier in this turn: then the event is stale
            self.flush()
        if mask & EVENT_READ and self.is_open:
            self.receive()

    def receive(self) -> None:
        try:
            data = self.socket.recv(READ_SIZE)
        except BlockingIOError:  # readiness is a hint: the data may be gone again
            return
        except OSError:  # a reset: the peer is gone without a goodbye
            data = b''
        if data:
            self.handler.channel_read(data)
        else:
            self.close()

    def write(self, data: bytes) -> None:
        if self.is_open:
            self.unsent += data
            self.flush()

    def flush(self) -> None:
        """Send what the kernel takes, and ask to be told of more room only while something is left."""
        try:
            sent = self.socket.send(self.unsent)
        except BlockingIOError:  # no room at all
            sent = 0
        except OSError:
            self.close()
            return
        self.unsent = self.unsent[sent:]
        self.loop.register(self.socket, EVENT_READ | (EVENT_WRITE if self.unsent else 0), self.on_ready)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.loop.register(self.socket, 0, self.on_ready)
            self.socket.close()
            self.handler.channel_inactive()


class Listener:
    """The socket that clients call at.  Raises OSError when the port cannot be had."""

    def __init__(self, loop: EventLoop, port: int, on_accept: Callable[[socket.socket], None]) -> None:
        self.on_accept = on_accept
        self.socket = socket.socket()
        if sys.platform != 'win32':  # there it would let two servers share one port
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(('127.0.0.1', port))  # port 0: any free one
        self.socket.listen()
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        loop.register(self.socket, EVENT_READ, self.on_ready)

    def on_ready(self, mask: int) -> None:
        try:
            sock, _ = self.socket.accept()
        except OSError:  # the caller is gone again
            return
        self.on_accept(sock)


class Member:
    """The handler of one connection: somebody in the room."""
    channel: Channel

    def __init__(self, members: list[Member], name: str) -> None:
        self.members, self.name = members, name

    def channel_active(self) -> None:
        self.members.append(self)
        print(f'{self.name} connected', flush=True)

    def channel_read(self, data: bytes) -> None:
        print(f'{self.name} sent {len(data)} bytes', flush=True)
        for member in list(self.members):  # a copy: whose connection turns out to be gone leaves `members`
            member.channel.write(data)

    def channel_inactive(self) -> None:
        self.members.remove(self)
        print(f'{self.name} left', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description='a chat room')
    parser.add_argument('--port', type=int, default=8000)
    port = parser.parse_args().port
    loop, members = EventLoop(), []
    names = (f'client {number}' for number in itertools.count(1))
    try:
        listener = Listener(loop, port, lambda sock: Channel(loop, sock, Member(members, next(names))))
    except OSError as error:
        sys.exit(f'cannot listen on 127.0.0.1:{port}: {error.strerror}')
    print(f'listening on 127.0.0.1:{listener.port}', flush=True)
    try:
        loop.run()
    except KeyboardInterrupt:
        print('stopped')


if __name__ == '__main__':
    main()

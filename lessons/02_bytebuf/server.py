"""Chapter 2: a read buffer and a write buffer for each connection.

    python3 -m lessons.02_bytebuf.server

A chat room without names: each line that one client sends goes to every client, the sender too.  A line that has
arrived in part waits in the read buffer; what is written waits in the write buffer for the end of the turn.
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

from protocol import ByteBuf

MAX_WAIT = 1.0  # seconds that a select sleeps at most: on Windows a Ctrl-C is noticed only when it ends
READ_SIZE = 65_536  # bytes that one receive takes at most
SEND_SIZE = 65_536  # bytes that one send is offered at most
LINE_BREAK = 10  # the byte


class EventLoop:
    """Sleeps until a socket is ready, then calls the function that was registered with it."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.is_running = True
        self.written: list[Channel] = []  # those that send at the end of this turn

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
            written, self.written = self.written, []
            for channel in written:
                channel.flush()

    def stop(self) -> None:
        self.is_running = False


class Channel:
    """One connection: its nonblocking socket, a buffer for what has arrived, one for what is to be sent."""

    def __init__(self, loop: EventLoop, sock: socket.socket, handler: Any) -> None:
        sock.setblocking(False)
        self.loop, self.socket, self.handler = loop, sock, handler
        self.is_open = True
        self.read_buffer, self.write_buffer = ByteBuf(), ByteBuf()
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
            self.read_buffer.write_bytes(data)
            self.handler.channel_read(self.read_buffer)
            self.read_buffer.discard_read_bytes()
        else:
            self.close()

    def write(self, data: bytes) -> None:
        if not self.write_buffer.readable_bytes:
            self.loop.written.append(self)
        self.write_buffer.write_bytes(data)

    def flush(self) -> None:
        """Send what the kernel takes, and ask to be told of more room only while something is left."""
        buffer = self.write_buffer
        if not self.is_open:
            return
        try:
            sent = self.socket.send(buffer.get_bytes(buffer.reader_index, min(buffer.readable_bytes, SEND_SIZE)))
        except BlockingIOError:  # no room at all
            sent = 0
        except OSError:
            self.close()
            return
        buffer.reader_index += sent
        buffer.discard_read_bytes()
        self.loop.register(self.socket, EVENT_READ | (EVENT_WRITE if buffer.readable_bytes else 0), self.on_ready)

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
        self.socket = socket.create_server(('127.0.0.1', port))  # chapter 1's steps in one call
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        loop.register(self.socket, EVENT_READ, self.on_ready)

    def on_ready(self, mask: int) -> None:
        try:
            sock, _ = self.socket.accept()
        except OSError:  # the caller is gone again
            return
        self.on_accept(sock)


def read_line(buffer: ByteBuf) -> str | None:
    """Read up to the next line break.  None while it has not arrived: then nothing is read."""
    buffer.mark_reader_index()
    line = bytearray()
    while buffer.readable_bytes:
        if (byte := buffer.read_byte()) == LINE_BREAK:
            return line.decode(errors='replace')
        line.append(byte)
    buffer.reset_reader_index()
    return None


class Member:
    """The handler of one connection: somebody in the room."""
    channel: Channel

    def __init__(self, members: list[Member], name: str) -> None:
        self.members, self.name = members, name

    def channel_active(self) -> None:
        self.members.append(self)
        print(f'{self.name} connected', flush=True)

    def channel_read(self, buffer: ByteBuf) -> None:
        while (line := read_line(buffer)) is not None:
            print(f'{self.name}: {line}', flush=True)
            for member in self.members:
                member.channel.write(f'{self.name}: {line}\n'.encode())

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
        sys.exit(f'cannot listen: {error.strerror}')
    print(f'listening on 127.0.0.1:{listener.port}', flush=True)
    try:
        loop.run()
    except KeyboardInterrupt:
        print('stopped')


if __name__ == '__main__':
    main()

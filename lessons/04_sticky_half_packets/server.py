"""Chapter 4: whole packets, however TCP glues and splits them.

    python3 -m lessons.04_sticky_half_packets.server

A chat room without names: each message that one client sends goes to every client, the sender too.  What arrives is
fed to a frame decoder, one for each connection, and comes out as frames.
"""
from __future__ import annotations

import argparse
import itertools
import json
import selectors
import socket
import sys
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from protocol import HEADER, HEADER_SIZE, ByteBuf, Command, FrameDecoder, MessageResponse, ProtocolError, encode

MAX_WAIT = 1.0  # seconds that a select sleeps at most: on Windows a Ctrl-C is noticed only when it ends
READ_SIZE = 65_536  # bytes that one receive takes at most
SEND_SIZE = 65_536  # bytes that one send is offered at most
VERSION = 1


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
    """One connection: its nonblocking socket, a decoder for what arrives, a buffer for what is to be sent."""

    def __init__(self, loop: EventLoop, sock: socket.socket, handler: Any) -> None:
        sock.setblocking(False)
        self.loop, self.socket, self.handler = loop, sock, handler
        self.is_open = True
        self.decoder, self.write_buffer = FrameDecoder(), ByteBuf()
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
            self.decode(data)
        else:
            self.close()

    def decode(self, data: bytes) -> None:
        """Hand on each frame that is complete; the rest stays in the decoder until more arrives."""
        self.decoder.feed(data)
        try:
            for frame in self.decoder:
                if self.is_open:  # the frame before may have closed it
                    self.handler.channel_read(frame)
        except (ProtocolError, ValueError) as error:  # no frame; or a body that is no JSON
            print(f'closing: {error}', flush=True)
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


def read_packet(frame: bytes) -> tuple[int, dict[str, str]]:
    """Return the command of a whole frame, and what its body holds.  Raises ValueError when that is no JSON."""
    _, _, _, command, _ = HEADER.unpack_from(frame)
    return command, json.loads(frame[HEADER_SIZE:])


class Member:
    """The handler of one connection: somebody in the room."""
    channel: Channel

    def __init__(self, members: list[Member], name: str) -> None:
        self.members, self.name = members, name

    def channel_active(self) -> None:
        self.members.append(self)
        print(f'{self.name} connected', flush=True)

    def channel_read(self, frame: bytes) -> None:
        command, body = read_packet(frame)
        print(f'{self.name} sent command {command}: {body}', flush=True)
        if command == Command.MESSAGE_REQUEST:
            self.write_to_all(body['message'])

    def write_to_all(self, text: str) -> None:
        message = MessageResponse(from_user_id=self.name, from_user_name=self.name, message=text)
        for member in self.members:
            member.channel.write(encode(message, VERSION))

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

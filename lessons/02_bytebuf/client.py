"""Chapter 2: a client that sends lines, and reads lines from its read buffer.

    python3 -m lessons.02_bytebuf.client hello       says hello, prints what comes back, and ends
    python3 -m lessons.02_bytebuf.client             says nothing and listens until the server is gone
"""
from __future__ import annotations

import argparse
import errno
import socket
import time
from selectors import EVENT_WRITE

from protocol import ByteBuf

from .server import Channel, EventLoop, read_line

IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)  # the last is how Windows says it
FIRST_DELAY, LAST_DELAY = 0.5, 8.0  # seconds between attempts, doubling from the one to the other
MAX_ATTEMPTS = 8


class Connector:
    """Connects, and tries again when nobody is there yet."""

    def __init__(self, loop: EventLoop, port: int, user: User) -> None:
        self.loop, self.port, self.user = loop, port, user
        self.attempts = 0

    def connect(self) -> None:
        self.attempts += 1
        self.socket = socket.socket()
        self.socket.setblocking(False)
        error = self.socket.connect_ex(('127.0.0.1', self.port))
        if error in IN_PROGRESS:
            self.loop.register(self.socket, EVENT_WRITE, self.on_ready)
        else:
            self.retry(error)

    def on_ready(self, mask: int) -> None:
        """Writable: it is connected, or it has failed.  The socket knows which."""
        self.loop.register(self.socket, 0, self.on_ready)
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.retry(error)
        else:
            Channel(self.loop, self.socket, self.user)

    def retry(self, error: int) -> None:
        self.socket.close()
        if self.attempts == MAX_ATTEMPTS:
            print(f'no server after {self.attempts} attempts')
            self.loop.stop()
            return
        delay = min(LAST_DELAY, FIRST_DELAY * 2 ** (self.attempts - 1))
        print(f'no server yet ({errno.errorcode.get(error, error)}), next attempt in {delay} s', flush=True)
        time.sleep(delay)  # nothing else lives in this loop yet; chapter 7 gives it timers
        self.connect()


class User:
    """The handler of the connection: says its texts one after the other, and prints what comes."""
    channel: Channel

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.is_listener = not texts

    def channel_active(self) -> None:
        print('connected', flush=True)
        self.say_next()

    def say_next(self) -> None:
        if self.texts:
            self.channel.write(f'{self.texts.pop(0)}\n'.encode())
        elif not self.is_listener:
            self.channel.close()

    def channel_read(self, buffer: ByteBuf) -> None:
        while self.channel.is_open and (line := read_line(buffer)) is not None:
            print(line, flush=True)
            self.say_next()

    def channel_inactive(self) -> None:
        print('disconnected', flush=True)
        self.channel.loop.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description='a client of the chat room')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('text', nargs='*', help='what to say; nothing: listen')
    options = parser.parse_args()
    loop = EventLoop()
    connector = Connector(loop, options.port, User(options.text))
    try:
        connector.connect()
        loop.run()
    except KeyboardInterrupt:
        print('stopped')


if __name__ == '__main__':
    main()

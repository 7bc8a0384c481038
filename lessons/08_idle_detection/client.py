"""Chapter 8: a client that beats when it has been silent, and notices when the server is gone without a word.

    python3 -m lessons.08_idle_detection.client alice hello bye     says both, prints what comes back, and ends
    python3 -m lessons.08_idle_detection.client bob --beat 0        never beats, as if it had vanished
"""
from __future__ import annotations

import argparse
import errno
import socket
from selectors import EVENT_WRITE

from protocol import LoginRequest, LoginResponse, MessageRequest, MessageResponse, Packet

from .handlers import FrameHandler, Handler, Heartbeat, IdleStateHandler, PacketHandler
from .server import Channel, EventLoop

IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)  # the last is how Windows says it
FIRST_DELAY, LAST_DELAY = 0.5, 8.0  # seconds between attempts, doubling from the one to the other
MAX_ATTEMPTS = 8


class Connector:
    """Connects, and tries again when nobody is there yet."""

    def __init__(self, loop: EventLoop, port: int, idle: IdleStateHandler, user: User) -> None:
        self.loop, self.port, self.idle, self.user = loop, port, idle, user
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
            Channel(self.loop, self.socket, self.idle, FrameHandler(), PacketHandler(), Heartbeat(), self.user)

    def retry(self, error: int) -> None:
        self.socket.close()
        if self.attempts == MAX_ATTEMPTS:
            print(f'no server after {self.attempts} attempts')
            self.loop.stop()
            return
        delay = min(LAST_DELAY, FIRST_DELAY * 2 ** (self.attempts - 1))
        print(f'no server yet ({errno.errorcode.get(error, error)}), next attempt in {delay} s', flush=True)
        self.loop.call_later(delay, self.connect)


class User(Handler):
    """The last handler of the chain: logs in, says its texts all at once, and prints what comes."""

    def __init__(self, name: str, texts: list[str]) -> None:
        self.name, self.texts = name, texts
        self.awaited = len(texts)  # messages that it waits for: as many as it sends
        self.handlers = {LoginResponse: self.on_login, MessageResponse: self.on_message}

    def channel_active(self) -> None:
        self.write(LoginRequest(user_name=self.name))

    def channel_read(self, packet: Packet) -> None:
        handler = self.handlers.get(type(packet), print)
        handler(packet)

    def on_login(self, packet: LoginResponse) -> None:
        print(f'logged in as {packet.user_name}', flush=True)
        for text in self.texts:
            self.write(MessageRequest(to_user_id='all', message=text))

    def on_message(self, packet: MessageResponse) -> None:
        print(f'{packet.from_user_name}: {packet.message}', flush=True)
        if packet.from_user_name == self.name:
            self.awaited -= 1
        if self.texts and not self.awaited:
            self.close()

    def channel_inactive(self) -> None:
        print('disconnected', flush=True)
        self.channel.loop.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description='a client of the chat room')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--beat', type=float, default=5, help='seconds without a write until a heartbeat; 0: none')
    parser.add_argument('--idle', type=float, default=15, help='seconds without a word that make the server dead')
    parser.add_argument('name')
    parser.add_argument('text', nargs='*', help='what to say; nothing: listen')
    options = parser.parse_args()
    if options.beat < 0 or options.idle < 0:
        parser.error('--beat and --idle cannot be negative')
    loop = EventLoop()
    idle = IdleStateHandler(reader=options.idle, writer=options.beat)
    connector = Connector(loop, options.port, idle, User(options.name, options.text))
    try:
        connector.connect()
        loop.run()
    except KeyboardInterrupt:
        print('stopped')


if __name__ == '__main__':
    main()

"""Chapter 9: a server that knows which connection is whose, and keeps what is for those who are not there.

    python3 -m lessons.09_single_chat.server

The loop, the channels and the chains are those of `reactor`.
"""
from __future__ import annotations

import argparse
import signal
import sys
from collections import defaultdict, deque
from collections.abc import Iterable

import protocol
from protocol import REQUESTS, Packet
from reactor import Channel, EventLoop, IdleStateHandler, Listener

from .handlers import Entry, FrameHandler, Login, PacketHandler, Session, need


class Server:
    """Who is here, and what waits for those who are not."""

    def __init__(self, idle: float = 15) -> None:
        self.idle = idle  # seconds
        self.sessions: dict[str, Session] = {}  # user id -> session, which has the channel
        self.waiting: dict[str, deque[Entry]] = defaultdict(lambda: deque(maxlen=1_000))  # the latest

    def initialize(self, channel: Channel) -> None:
        """Fill the chain of a connection that has just been accepted."""
        frames = FrameHandler()
        channel.pipeline.add_last(IdleStateHandler(self.idle), frames, PacketHandler(REQUESTS), Login(self, frames))

    def log_in(self, session: Session) -> None:
        name = session.user_id
        need(name not in ('', 'server'), 'invalid_name', 'that is no name for a user')  # what we say is from server
        need(name not in self.sessions, 'already_logged_in', f'{name} is logged in already')
        print(f'{name} is here', flush=True)
        self.sessions[name] = session

    def log_out(self, session: Session) -> None:
        del self.sessions[session.user_id]
        print(f'{session.user_id} is gone', flush=True)

    def unread(self, user_id: str) -> Iterable[Entry]:
        return self.waiting.pop(user_id, ())

    def deliver(self, entry: Entry) -> None:
        """Tell the one whom it is for; who is not here is told at the next login."""
        if session := self.sessions.get(entry.stream):
            session.channel.write(self.packet_of(entry))
        else:
            self.waiting[entry.stream].append(entry)
            print(f'kept for {entry.stream}: {len(self.waiting[entry.stream])}', flush=True)

    def packet_of(self, entry: Entry) -> Packet:
        """Return what is told."""
        return protocol.MessageResponse(from_user_id=entry.sender, from_user_name=entry.sender, message=entry.text)


def main() -> None:
    parser = argparse.ArgumentParser(description='a chat server')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--idle', type=float, default=15, help='seconds of silence that end a connection')
    options = parser.parse_args()
    if options.idle <= 0:
        parser.error('--idle has to be above 0')
    loop = EventLoop()
    try:
        server = Server(options.idle)
        listener = Listener(loop, '127.0.0.1', options.port, server.initialize)
    except OSError as error:
        sys.exit(f'cannot start: {error}')
    loop.add_signal_handler(signal.SIGINT, loop.stop)
    print(f'listening on 127.0.0.1:{listener.address[1]}', flush=True)
    loop.run()
    print('stopped')


if __name__ == '__main__':
    main()

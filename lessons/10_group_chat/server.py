"""Chapter 10: a server that knows who is in which group, and tells all of them.

    python3 -m lessons.10_group_chat.server

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

from .handlers import VERSION, Entry, FrameHandler, Kind, Login, PacketHandler, Session, need


class Server:
    """Who is here, and what waits for those who are not."""

    def __init__(self, idle: float = 15) -> None:
        self.idle = idle  # seconds
        self.sessions: dict[str, Session] = {}  # user id -> session, which has the channel
        self.groups: dict[str, set[str]] = {}  # group id -> user ids, and no channels
        self.waiting: dict[str, deque[Entry]] = defaultdict(lambda: deque(maxlen=1_000))  # the latest

    def initialize(self, channel: Channel) -> None:
        """Fill the chain of a connection that has just been accepted."""
        frames = FrameHandler()
        channel.pipeline.add_last(IdleStateHandler(self.idle), frames, PacketHandler(REQUESTS), Login(self, frames))

    def log_in(self, session: Session) -> None:
        name = session.user_id
        need(name not in ('', 'server'), 'invalid_name', 'that is no name for a user')  # what we say is from server
        if older := self.sessions.get(name):  # the newer login wins
            older.channel.write(protocol.KickedNotice(reason='logged in elsewhere'))
            older.channel.close()
        print(f'{name} is here', flush=True)
        self.sessions[name] = session

    def log_out(self, session: Session) -> None:
        del self.sessions[session.user_id]
        print(f'{session.user_id} is gone', flush=True)

    def unread(self, user_id: str) -> Iterable[Entry]:
        return self.waiting.pop(user_id, ())

    def new_group(self, members: set[str]) -> str:
        self.groups[group_id := f'{len(self.groups) + 1:08x}'] = members  # counted, so that all see the same ids
        return group_id

    def members(self, group_id: str) -> set[str]:
        need(group_id in self.groups, 'unknown_group', 'there is no such group')
        return self.groups[group_id]

    def deliver(self, entry: Entry) -> None:
        """Tell those whom it is for; it is encoded once, however many they are."""
        frame = protocol.encode_for(self.packet_of(entry), VERSION)
        for user_id in sorted(self.readers_of(entry)):
            if session := self.sessions.get(user_id):
                session.channel.write(frame)
            else:
                self.waiting[user_id].append(entry)
                print(f'kept for {user_id}: {len(self.waiting[user_id])}', flush=True)

    def readers_of(self, entry: Entry) -> set[str]:
        return {entry.stream} if entry.kind is Kind.MESSAGE else self.members(entry.stream)

    def packet_of(self, entry: Entry) -> Packet:
        """Return what is told."""
        about = {'message_id': 0, 'sent_at': 0}  # version 1 has neither, so none is sent
        user = protocol.User(user_id=entry.sender, user_name=entry.sender)
        match entry.kind:
            case Kind.MESSAGE:
                return protocol.MessageResponse(
                    from_user_id=entry.sender, from_user_name=entry.sender, message=entry.text, **about)
            case Kind.GROUP_MESSAGE:
                return protocol.GroupMessageResponse(
                    from_group_id=entry.stream, from_user=user, message=entry.text, **about)
            case Kind.CREATE_GROUP:
                names = sorted(self.members(entry.stream))
                return protocol.CreateGroupResponse(
                    success=True, group_id=entry.stream, user_name_list=names, **about)
        event = 'joined' if entry.kind is Kind.JOIN_GROUP else 'left'
        return protocol.GroupNotice(group_id=entry.stream, event=event, user=user, **about)


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

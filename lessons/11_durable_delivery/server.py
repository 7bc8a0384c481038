"""Chapter 11: a server that tells only what is on disk, and forgets nothing when it is killed.

    python3 -m lessons.11_durable_delivery.server --db chat.db

The loop, the channels and the chains are those of `reactor`.
"""
from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable

import protocol
from protocol import REQUESTS, Packet
from reactor import Channel, EventLoop, IdleStateHandler, Listener
from store import FOREVER, PasswordHash, Store, StoreError, is_valid_name

from .handlers import VERSION, Entry, FrameHandler, Kind, Login, PacketHandler, Session, need


class Server:
    """Who is here, and what waits for those who are not."""

    def __init__(self, store: Store, idle: float = 15) -> None:
        self.store = store
        self.idle = idle  # seconds
        self.sessions: dict[str, Session] = {}  # user id -> session, which has the channel

    def initialize(self, channel: Channel) -> None:
        """Fill the chain of a connection that has just been accepted."""
        frames = FrameHandler()
        channel.pipeline.add_last(IdleStateHandler(self.idle), frames, PacketHandler(REQUESTS), Login(self, frames))

    def log_in(self, session: Session) -> None:
        name = session.user_id
        if not self.store.user_exists(name):
            need(is_valid_name(name), 'invalid_name', 'that is no name for a user')
            self.store.add_user(name, name, PasswordHash(0, b'', b''))  # imserver.py has real ones
        if older := self.sessions.get(name):  # the newer login wins
            older.channel.write(protocol.KickedNotice(reason='logged in elsewhere'))
            older.channel.close()
        print(f'{name} is here', flush=True)
        self.sessions[name] = session

    def log_out(self, session: Session) -> None:
        del self.sessions[session.user_id]
        print(f'{session.user_id} is gone', flush=True)

    def unread(self, user_id: str) -> Iterable[Entry]:
        return self.store.unread(user_id, self.store.delivered_id(user_id), FOREVER)

    def members(self, group_id: str, at_id: int = FOREVER - 1) -> set[str]:
        need(self.store.group_exists(group_id), 'unknown_group', 'there is no such group')
        return set(self.store.members(group_id, at_id))

    def before_flush(self) -> None:
        """Part 4 of a tick: write down all that it brought; then tell of it."""
        self.store.save_delivered()
        for entry in self.store.commit():
            self.deliver(entry)

    def deliver(self, entry: Entry) -> None:
        """Tell those whom it is for; it is encoded once, however many they are."""
        frame = protocol.encode_for(self.packet_of(entry), VERSION)
        for user_id in sorted(self.readers_of(entry)):
            if session := self.sessions.get(user_id):
                session.channel.write(frame)

    def readers_of(self, entry: Entry) -> set[str]:
        readers = {entry.recipient} if entry.kind is Kind.MESSAGE else self.members(entry.stream, entry.message_id)
        return readers if entry.kind <= Kind.GROUP_MESSAGE else readers - {entry.sender}  # that one has the answer

    def packet_of(self, entry: Entry) -> Packet:
        """Return what is told."""
        about = {'message_id': entry.message_id, 'sent_at': entry.sent_at}
        user = protocol.User(user_id=entry.sender, user_name=entry.sender)
        match entry.kind:
            case Kind.MESSAGE:
                return protocol.MessageResponse(
                    from_user_id=entry.sender, from_user_name=entry.sender, message=entry.text, **about)
            case Kind.GROUP_MESSAGE:
                return protocol.GroupMessageResponse(
                    from_group_id=entry.stream, from_user=user, message=entry.text, **about)
            case Kind.CREATE_GROUP:
                names = sorted(self.members(entry.stream, entry.message_id))
                return protocol.CreateGroupResponse(
                    success=True, group_id=entry.stream, user_name_list=names, **about)
        event = 'joined' if entry.kind is Kind.JOIN_GROUP else 'left'
        return protocol.GroupNotice(group_id=entry.stream, event=event, user=user, **about)

    def answer_to(self, request: Packet, entry: Entry) -> Packet:
        if entry.kind <= Kind.GROUP_MESSAGE:
            return protocol.MessageAck(client_seq=0, message_id=entry.message_id, sent_at=entry.sent_at)
        yes = protocol.PACKETS[request.COMMAND + 1](success=True, group_id=entry.stream)
        return self.packet_of(entry) if entry.kind is Kind.CREATE_GROUP else yes


def main() -> None:
    parser = argparse.ArgumentParser(description='a chat server')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--idle', type=float, default=15, help='seconds of silence that end a connection')
    parser.add_argument('--db', default=':memory:', help='the file of the log')
    options = parser.parse_args()
    if options.idle <= 0:
        parser.error('--idle has to be above 0')
    loop = EventLoop()
    try:
        server = Server(Store(options.db, 'normal'), options.idle)
        listener = Listener(loop, '127.0.0.1', options.port, server.initialize)
    except (OSError, StoreError) as error:
        sys.exit(f'cannot start: {error}')
    loop.before_flush.append(server.before_flush)
    loop.add_signal_handler(signal.SIGINT, loop.stop)
    print(f'listening on 127.0.0.1:{listener.address[1]}', flush=True)
    loop.run()
    print('stopped')


if __name__ == '__main__':
    main()

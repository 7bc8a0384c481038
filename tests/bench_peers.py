"""Servers to compare ours with: they speak the same protocol, version 1, relay what they get and keep nothing.

    python3 tests/bench_peers.py streams      asyncio's streams, as people write them
    python3 tests/bench_peers.py protocol     asyncio's Protocol, as people write it: json.loads, json.dumps, a write
                                              a message
    python3 tests/bench_peers.py uvloop       the same on uvloop, where that is installed
    python3 tests/bench_peers.py tuned        asyncio's Protocol with our codec and one flush a turn
    python3 tests/bench_peers.py reactor      our reactor and our codec, without accounts and store

The first line that each prints is `listening on HOST:PORT`.
"""
from __future__ import annotations

import asyncio
import json
import logging
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import protocol  # noqa: E402
from protocol import FrameDecoder, decode, encode  # noqa: E402
from reactor import Channel, EventLoop, Handler, Listener  # noqa: E402

HEADER = struct.Struct('>IBBBI')
MAGIC = 0x12345678
Body = dict[str, Any]


# As people write it ..................................................................................

def frame_of(command: int, body: Body) -> bytes:
    data = json.dumps(body, ensure_ascii=False).encode()
    return HEADER.pack(MAGIC, 1, 1, command, len(data)) + data


class Relay:
    """Who is here, and which groups there are.  A peer has a `name` and `send(bytes)`."""

    def __init__(self) -> None:
        self.users: dict[str, Any] = {}
        self.groups: dict[str, list[str]] = {}

    def handle(self, peer: Any, command: int, body: Body) -> None:
        if command == 3:
            other = self.users.get(body['toUserId'])
            if other:
                answer = {'fromUserId': peer.name, 'fromUserName': peer.name, 'message': body['message']}
                other.send(frame_of(4, answer))
        elif command == 15:
            frame = frame_of(16, {'fromGroupId': body['toGroupId'], 'message': body['message'],
                                  'fromUser': {'userId': peer.name, 'userName': peer.name}})
            self.send_to(self.groups[body['toGroupId']], frame)
        elif command == 17:
            peer.send(frame_of(18, {}))
        elif command == 1:
            peer.name = body['userName']
            self.users[peer.name] = peer
            peer.send(frame_of(2, {'success': True, 'userId': peer.name, 'userName': peer.name}))
        elif command == 7:
            group_id, names = f'{len(self.groups):08x}', [*dict.fromkeys([peer.name, *body['userIdList']])]
            self.groups[group_id] = names
            self.send_to(names, frame_of(8, {'success': True, 'groupId': group_id, 'userNameList': names}))

    def send_to(self, names: list[str], frame: bytes) -> None:
        for name in names:
            if name in self.users:
                self.users[name].send(frame)

    def leave(self, peer: Any) -> None:
        if self.users.get(peer.name) is peer:
            del self.users[peer.name]


async def serve_streams(relay: Relay) -> asyncio.Server:
    class Peer:
        name = ''

        def __init__(self, writer: asyncio.StreamWriter) -> None:
            self.send = writer.write

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer)
        try:
            while True:
                _, _, _, command, length = HEADER.unpack(await reader.readexactly(HEADER.size))
                relay.handle(peer, command, json.loads(await reader.readexactly(length)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        relay.leave(peer)
        writer.close()

    return await asyncio.start_server(serve, '127.0.0.1', 0, backlog=4096)


class PlainProtocol(asyncio.Protocol):
    name = ''

    def __init__(self, relay: Relay) -> None:
        self.relay, self.buffer = relay, b''

    def connection_made(self, transport: Any) -> None:
        self.send = transport.write

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            _, _, _, command, length = HEADER.unpack_from(self.buffer)
            end = HEADER.size + length
            if len(self.buffer) < end:
                return
            body, self.buffer = self.buffer[HEADER.size:end], self.buffer[end:]
            self.relay.handle(self, command, json.loads(body))

    def connection_lost(self, error: Exception | None) -> None:
        self.relay.leave(self)


# With our codec ......................................................................................

class PacketRelay(Relay):
    """The same with packets: a peer has `send(bytes)` too."""

    def handle_packet(self, peer: Any, packet: Any) -> None:
        kind, name = type(packet), peer.name
        if kind is protocol.MessageRequest:
            if other := self.users.get(packet.to_user_id):
                other.send(peer.fill(packet.message, 0, 0))
        elif kind is protocol.GroupMessageRequest:
            user = protocol.User(user_id=name, user_name=name)
            self.send_to(self.groups[packet.to_group_id], encode(protocol.GroupMessageResponse(
                from_group_id=packet.to_group_id, from_user=user, message=packet.message), 1))
        elif kind is protocol.HeartbeatRequest:
            peer.send(encode(protocol.HeartbeatResponse(), 1))
        elif kind is protocol.LoginRequest:
            self.handle(peer, 1, {'userName': packet.user_name})
            peer.fill = protocol.message_template(peer.name, '', 1)
        elif kind is protocol.CreateGroupRequest:
            self.handle(peer, 7, {'userIdList': packet.user_id_list})


class TunedProtocol(asyncio.Protocol):
    """Our decoder and encoder, and what is written in a turn is sent at its end."""
    name = ''

    def __init__(self, relay: PacketRelay) -> None:
        self.relay, self.decoder, self.queue = relay, FrameDecoder(), []

    def connection_made(self, transport: Any) -> None:
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def send(self, frame: bytes) -> None:
        if not self.queue:
            self.loop.call_soon(self.flush)
        self.queue.append(frame)

    def flush(self) -> None:
        self.transport.write(b''.join(self.queue))
        self.queue.clear()

    def data_received(self, data: bytes) -> None:
        self.decoder.feed(data)
        for frame in self.decoder:
            self.relay.handle_packet(self, decode(frame))

    def connection_lost(self, error: Exception | None) -> None:
        self.relay.leave(self)


class TickRelay(PacketRelay):
    """What is for a group is told in part 4 of the tick: all that a tick brought for it is one write to a member."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, tuple[list[str], list[bytes]]] = {}  # by the identity of the list of members

    def send_to(self, names: list[str], frame: bytes) -> None:
        self.waiting.setdefault(id(names), (names, []))[1].append(frame)

    def before_flush(self) -> None:
        for names, frames in self.waiting.values():
            super().send_to(names, b''.join(frames))
        self.waiting.clear()


class RelayHandler(Handler):
    """Our reactor: the same behind a channel."""

    def __init__(self, relay: TickRelay) -> None:
        self.relay, self.decoder, self.name = relay, FrameDecoder(), ''

    def channel_active(self) -> None:
        self.send = self.channel.write

    def channel_read(self, data: bytes) -> None:
        self.decoder.feed(data)
        for frame in self.decoder:
            self.relay.handle_packet(self, decode(frame))

    def channel_inactive(self) -> None:
        self.relay.leave(self)


def run_reactor() -> None:
    loop, relay = EventLoop(), TickRelay()

    def initialize(channel: Channel) -> None:
        channel.pipeline.add_last(RelayHandler(relay))
    loop.before_flush.append(relay.before_flush)
    announce(*Listener(loop, '127.0.0.1', 0, initialize).address)
    loop.run()


async def serve_protocol(factory: Any) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(factory, '127.0.0.1', 0, backlog=4096)


async def run_asyncio(kind: str) -> None:
    relay, tuned = Relay(), PacketRelay()
    server = await (serve_streams(relay) if kind == 'streams' else
                    serve_protocol(lambda: TunedProtocol(tuned) if kind == 'tuned' else PlainProtocol(relay)))
    announce(*server.sockets[0].getsockname()[:2])
    await server.serve_forever()


def announce(host: str, port: int) -> None:
    print(f'listening on {host}:{port}', flush=True)


def main(kind: str) -> None:
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)  # what is sent to who has just left is no news here
    if kind not in ('streams', 'protocol', 'uvloop', 'tuned', 'reactor'):
        sys.exit(f'there is no {kind}')
    if kind == 'reactor':
        run_reactor()
    elif kind == 'uvloop':
        import uvloop
        uvloop.install()
        asyncio.run(run_asyncio('protocol'))
    else:
        asyncio.run(run_asyncio(kind))


if __name__ == '__main__':
    main(sys.argv[1])

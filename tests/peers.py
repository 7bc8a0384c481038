"""A server and its peers in one process: what tests of the whole server, and lessons, are written with.

    with closing(World()) as world:
        alice, bob = world.login('alice'), world.login('bob', version=1)
        alice.say('bob', 'hi')
        bob.expect(MessageResponse, from_user_id='alice', message='hi')
        bob.nothing()

A `World` is the real server on a real port of the loopback interface.  Only time is made up: its two clocks
move when a test moves them (`world.clock.now += 15`).  A `Peer` is a plain socket that speaks the protocol
and knows no rule of it, so it can do wrong whatever a test wants done wrong.

Nothing here sleeps to be right.  The server runs when a peer waits for something: each wait ticks the loop
until that has arrived, and fails after PATIENCE seconds with what arrived instead.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imserver
import protocol
from protocol import MAX_BODY_CLIENT, FrameDecoder, Packet, decode, encode
from reactor import Channel, EventLoop
from store import Store

PATIENCE = 30.0  # real seconds until a wait has failed: never reached by a server that works
BEGIN = 1_700_000_000.0  # what the wall clock of a world says at first


def selector() -> selectors.BaseSelector | None:
    """The selector that IM_SELECTOR asks for: poll, select or epoll; None: the best of this system."""
    name = os.environ.get('IM_SELECTOR')
    return getattr(selectors, f'{name.capitalize()}Selector')() if name else None


class Clock:
    """Says what it was told: `clock.now`."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Loop(EventLoop):
    """An event loop that knows when it has nothing to do."""
    jobs = 0  # in other threads, under way

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.may_work = threading.Event()  # while a test has cleared it, no job gets done
        self.may_work.set()

    def run_in_worker(self, function: Callable[[], Any], callback: Callable[..., None]) -> None:
        def done(result: Any, error: Exception | None) -> None:
            self.jobs -= 1
            callback(result, error)
        self.jobs += 1
        super().run_in_worker(lambda: self.may_work.wait() and function(), done)

    @property
    def is_quiet(self) -> bool:
        """Whether the next tick has nothing to do but to wait."""
        return not (self.jobs or self._ready or self.written or self.selector.select(0))


class World:
    """A server with made-up clocks.  `place`: a folder for its database, or ':memory:'; `options` as on its
    command line.  Close it in the end."""

    def __init__(self, place: Path | str = ':memory:', *options: str) -> None:
        self.path = str(place) if place == ':memory:' else str(Path(place) / 'im.db')
        self.clock, self.wall_clock = Clock(1000.0), Clock(BEGIN)
        self.parsed = imserver.make_parser().parse_args(
            ['--password-cost', '10', '--durability', 'off', '--rate', '0', *options, '--port', '0', '--db', self.path])
        self._open()

    def _open(self) -> None:
        self.peers: list[Peer] = []
        self.loop = Loop(selector(), self.clock)
        self.store = Store(self.path, self.parsed.durability)
        self.server = imserver.Server(self.loop, self.store, self.parsed, self.wall_clock)

    def close(self) -> None:
        """End the server without a farewell, and all its peers."""
        for peer in self.peers:
            peer.socket.close()
        if not self.server._is_stopping:
            self.server.listener.close()
        self.server.close()

    def restart(self) -> None:
        """End the server in an orderly way and start it again on the same file."""
        self.close()
        self._open()

    def crash(self) -> None:
        """Go on with what is on disk at this moment, as after `kill -9`."""
        copy = self.path + '-after'
        for suffix in '', '-wal':
            if os.path.exists(self.path + suffix):
                shutil.copy(self.path + suffix, copy + suffix)
        self.close()
        self.path = copy
        self._open()

    def pump(self, is_done: Callable[[], Any], failure: Callable[[], str], tick: bool = True) -> None:
        """Run the server (not `tick`: only its worker) until `is_done()`; after PATIENCE seconds fail, and
        say `failure()`."""
        deadline = time.monotonic() + PATIENCE
        while not is_done():
            assert time.monotonic() < deadline, failure()
            self.loop.tick(0.01) if tick else time.sleep(0.001)

    def settle(self) -> None:
        """Run the server until it has nothing to do."""
        self.pump(lambda: self.loop.is_quiet, lambda: 'the server finds no rest')

    def pass_time(self, seconds: float) -> None:
        """Let both clocks go on, and the server see it."""
        self.settle()
        self.clock.now += seconds
        self.wall_clock.now += seconds
        self.loop.tick(0)
        self.settle()

    def connect(self, version: int = 2, **sizes: int) -> Peer:
        return Peer(self, version, **sizes)

    def login(self, name: str, version: int = 2, password: str = 'pw', **fields: Any) -> Peer:
        """A peer that is logged in; what the server answered is its `welcome`."""
        return self.connect(version).login(name, password, **fields)


class Peer:
    """One end of a connection.  `receive_buffer`: bytes that its system takes before anybody reads them."""

    def __init__(self, world: World, version: int, receive_buffer: int = 0) -> None:
        self.world, self.version = world, version
        self.welcome: Any = None
        self.client_seq = 0  # the last that was used
        self.got_version = 0  # of the frame that was received last
        self.unread: deque[tuple[int, Any]] = deque()  # frame version and packet, each
        self.last: Any = None  # the packet received last
        self._decoder = FrameDecoder(MAX_BODY_CLIENT)
        self._has_ended = False
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(world.server.listener.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # sent is on its way
        self.socket.setblocking(False)
        self.address = '{}:{}'.format(*self.socket.getsockname())
        world.peers.append(self)
        world.pump(lambda: self.channel, lambda: 'not accepted')

    @property
    def channel(self) -> Channel | None:
        """The server's end; None once it has let go."""
        return next((c for c in self.world.server.listener.channels if c.address == self.address), None)

    # To send

    def send(self, *packets: Packet, version: int | None = None) -> None:
        """Send all of them in one piece."""
        self.send_bytes(b''.join(encode(packet, version or self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        """Send, running the server as far as it has to read for that."""
        rest = bytearray(data)

        def is_sent() -> bool:
            with contextlib.suppress(BlockingIOError):
                del rest[:self.socket.send(rest)]
            return not rest
        self.world.pump(is_sent, lambda: f'{len(rest)} bytes do not get through')

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def next_seq(self) -> int:
        self.client_seq += 1
        return self.client_seq

    # To receive

    def _pull(self) -> None:
        """Take what is there.  Each frame must be the one way to write its packet: no field too many."""
        while not self._has_ended:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b''
            self._has_ended = not data
            self._decoder.feed(data)
        for frame in self._decoder:
            packet = decode(frame, commands=protocol.RESPONSES)
            assert encode(packet, frame[4]) == frame, f'oddly written: {frame!r}'
            self.unread.append((frame[4], packet))

    def _has_news(self) -> bool:
        return not self._pull() and (bool(self.unread) or self._has_ended)

    def receive(self) -> Any:
        """The next packet, once it arrives."""
        self.world.pump(self._has_news, lambda: f'nothing arrived after {self.last}')
        assert self.unread, f'closed after {self.last}'
        self.got_version, self.last = self.unread.popleft()
        return self.last

    def expect(self, kind: type[Packet], **fields: Any) -> Any:
        """The next packet, which must be a `kind` with these `fields`."""
        packet = self.receive()
        found = {name: getattr(packet, name, '(none)') for name in fields}
        assert type(packet) is kind and found == fields, f'{packet} instead of {kind.__name__} {fields}'
        return packet

    def receive_all(self) -> list[Any]:
        """All that the server sends until it has nothing to do, or closes."""
        self.world.pump(self._is_drained, lambda: 'the server finds no rest')
        if self._is_open():
            self.send(protocol.HeartbeatRequest())
        self.world.pump(lambda: not self._pull() and (self._has_ended or self._is_open() and self.unread and
                        isinstance(self.unread[-1][1], protocol.HeartbeatResponse)), lambda: 'no end to it')
        packets = [packet for _, packet in self.unread]
        self.unread.clear()
        return packets if self._has_ended else packets[:-1]

    def receive_all_now(self) -> list[Any]:
        """All that has arrived, once the server has nothing to do; `receive_all` asks the server for a last answer."""
        self.world.pump(self._is_drained, lambda: 'the server finds no rest')
        packets = [packet for _, packet in self.unread]
        self.unread.clear()
        return packets

    def _is_drained(self) -> bool:
        self._pull()
        return self.world.loop.is_quiet and not (self.channel and self.channel.buffered)

    def _is_open(self) -> bool:
        return bool(self.channel and self.channel.is_open)

    def nothing(self) -> None:
        """Nothing has arrived and nothing is on its way: the answer to a heartbeat comes next."""
        self.world.settle()
        self.send(protocol.HeartbeatRequest())
        self.expect(protocol.HeartbeatResponse)

    def is_closed(self) -> bool:
        """Whether the server has ended this connection.  Fails when something is unread before the end."""
        self.world.settle()
        if self._is_open():
            return False
        self.world.pump(self._has_news, lambda: 'given up by the server, but not closed')
        assert not self.unread, f'{[packet for _, packet in self.unread]} before the end'
        return True

    # What is asked for again and again

    def login(self, name: str, password: str | None = 'pw', **fields: Any) -> Peer:
        self.send(protocol.LoginRequest(user_name=name, password=password, **fields))
        self.welcome = self.expect(protocol.LoginResponse, success=True)
        self.client_seq = self.welcome.last_client_seq or 0
        return self

    def say(self, user_id: str, text: str) -> Any:
        """Send a message to a user; version 2: return its MESSAGE_ACK."""
        return self._write(protocol.MessageRequest(
            to_user_id=user_id, message=text, client_seq=self.next_seq()))

    def tell(self, group_id: str, text: str) -> Any:
        """Send a message to a group; version 2: return its MESSAGE_ACK."""
        return self._write(protocol.GroupMessageRequest(
            to_group_id=group_id, message=text, client_seq=self.next_seq()))

    def _write(self, request: Packet) -> Any:
        self.send(request)
        if self.version == 2:
            return self.expect(protocol.MessageAck, client_seq=self.client_seq)
        return self.world.settle()  # version 1 has no such answer

    def create(self, *user_ids: str, name: str | None = None) -> str:
        """Create a group; return its id."""
        self.send(protocol.CreateGroupRequest(
            user_id_list=list(user_ids), group_name=name, client_seq=self.next_seq()))
        return self.expect(protocol.CreateGroupResponse, success=True).group_id

    def join(self, group_id: str) -> None:
        self.send(protocol.JoinGroupRequest(group_id=group_id, client_seq=self.next_seq()))
        self.expect(protocol.JoinGroupResponse, group_id=group_id, success=True)

    def quit(self, group_id: str) -> None:
        self.send(protocol.QuitGroupRequest(group_id=group_id, client_seq=self.next_seq()))
        self.expect(protocol.QuitGroupResponse, group_id=group_id, success=True)

"""Chapter 9, the wrong version first: a server that only relays loses what is for somebody who is not there.

    python3 -m lessons.09_single_chat.see_it_fail

Real servers on a real port, and sockets that speak to them; all in one process, which runs the server's loop itself.
"""
from __future__ import annotations

import contextlib
import io
import socket

from protocol import (MAX_BODY_CLIENT, FrameDecoder, HeartbeatRequest, HeartbeatResponse, LoginRequest, MessageRequest,
                      MessageResponse, Packet, decode, encode)
from reactor import EventLoop, Listener

from .handlers import Entry
from .server import Server


class NaiveServer(Server):
    """Wrong: it relays, and that is all."""

    def deliver(self, entry: Entry) -> None:
        if session := self.sessions.get(entry.stream):
            session.channel.write(self.packet_of(entry))


class World:
    """A server and what moves it."""

    def __init__(self, server: Server) -> None:
        self.loop, self.server, self.log, self.sockets = EventLoop(), server, io.StringIO(), list[socket.socket]()
        self.listener = Listener(self.loop, '127.0.0.1', 0, server.initialize)

    def turn(self) -> None:
        with contextlib.redirect_stdout(self.log):  # what the server prints is not shown here
            self.loop.tick(0.01)

    def close(self) -> None:
        self.listener.close()
        with contextlib.redirect_stdout(self.log):
            for channel in list(self.listener.channels):
                channel.abort()
        for sock in self.sockets:
            sock.close()
        self.loop.close()


class Peer:
    """A client's end of a connection."""

    def __init__(self, world: World) -> None:
        self.world, self.decoder, self.has_ended = world, FrameDecoder(MAX_BODY_CLIENT), False
        self.socket = socket.create_connection(world.listener.address)
        self.socket.setblocking(False)
        world.sockets.append(self.socket)

    def say(self, packet: Packet) -> None:
        self.socket.sendall(encode(packet, 1))

    def heard(self) -> list[Packet]:
        """Run the server until it has answered a heartbeat or ended; return what it said before."""
        packets: list[Packet] = []
        try:
            self.say(HeartbeatRequest())
            while not self.has_ended and HeartbeatResponse() not in packets:
                self.world.turn()
                with contextlib.suppress(BlockingIOError):
                    data = self.socket.recv(65_536)
                    self.has_ended = not data
                    self.decoder.feed(data)
                    packets += map(decode, self.decoder)
        except ConnectionError:  # closed, and it had not read all
            self.has_ended = True
        return [packet for packet in packets if packet != HeartbeatResponse()]


def a_message(server: Server) -> None:
    print(f'{type(server).__name__}: alice writes to bob, who is not here')
    world = World(server)
    alice, bob = Peer(world), Peer(world)
    alice.say(LoginRequest(user_name='alice'))
    alice.say(MessageRequest(to_user_id='bob', message='tea at five?'))
    print('  alice is told:', *alice.heard()[1:] or ['nothing'])
    bob.say(LoginRequest(user_name='bob'))
    texts = [packet.message for packet in bob.heard() if isinstance(packet, MessageResponse)]
    print('  bob comes, and reads:', *texts or ['nothing'])
    world.close()


if __name__ == '__main__':
    a_message(NaiveServer())
    a_message(Server())

"""Chapter 6: one function does everything, and somebody adds one thing more.

    python3 -m lessons.06_pipeline.see_it_fail

First a branch that ends early skips the new lines.  Then the branch is repaired, and the server dies of it, for all.
"""
from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from select import select

from protocol import (FrameDecoder, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, MessageRequest,
                      MessageResponse, Packet, decode, encode)


class Room:
    """What the server knows."""

    def __init__(self, is_repaired: bool) -> None:
        self.is_repaired = is_repaired
        self.decoders: dict[socket.socket, FrameDecoder] = {}
        self.names: dict[socket.socket, str] = {}
        self.log: list[str] = []
        self.packets = self.letters = 0  # the statistics: they were added last


def naive_on_message(room: Room, sock: socket.socket, data: bytes) -> None:
    """Decoding, login, messages, logout, logging and statistics."""
    decoder = room.decoders.setdefault(sock, FrameDecoder())
    decoder.feed(data)
    for frame in decoder:
        packet = decode(frame)
        was_logged_in = sock in room.names
        if not was_logged_in:
            if not isinstance(packet, LoginRequest):
                room.log.append('somebody is not logged in')
                continue
            room.names[sock] = packet.user_name
            room.log.append(f'{packet.user_name} joined')
            sock.sendall(encode(LoginResponse(success=True, user_name=packet.user_name), 1))
        elif isinstance(packet, LogoutRequest):
            room.log.append(f'{room.names.pop(sock)} left')
            sock.sendall(encode(LogoutResponse(success=True), 1))
            if not room.is_repaired:
                continue  # once there was nothing left to do
        elif isinstance(packet, MessageRequest):
            message = MessageResponse(from_user_id=room.names[sock], message=packet.message)
            for other in room.names:
                other.sendall(encode(message, 1))
        room.packets += 1
        if was_logged_in:  # so it is a message
            room.letters += len(packet.message)


def serve(listener: socket.socket, room: Room) -> None:
    """Serve two clients.  Whatever ends it, all its sockets are closed then, as when a process dies."""
    with listener, ExitStack() as stack:
        connected = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        try:
            while connected:
                for sock in select(connected, [], [])[0]:
                    if data := sock.recv(4096):
                        naive_on_message(room, sock, data)
                    else:
                        connected.remove(sock)
        except Exception as error:
            print(f'   the server has died: {type(error).__name__}: {error}')


def ask(sock: socket.socket, packet: Packet) -> bytes:
    """Send a packet and return what comes next; nothing: the connection is lost."""
    try:
        sock.sendall(encode(packet, 1))
        return sock.recv(4096)
    except OSError:
        return b''


def play(is_repaired: bool) -> None:
    room, listener = Room(is_repaired), socket.create_server(('127.0.0.1', 0))
    server = threading.Thread(target=serve, args=(listener, room))
    server.start()
    address = listener.getsockname()
    with socket.create_connection(address) as bob, socket.create_connection(address) as alice:
        ask(bob, LoginRequest(user_name='bob'))
        for packet in LoginRequest(user_name='alice'), MessageRequest(to_user_id='all', message='hi'), LogoutRequest():
            ask(alice, packet)
        bob.recv(4096)  # what alice said
        answer = ask(bob, LogoutRequest())
    server.join()
    print(f'   5 packets were sent, {room.packets} were counted')
    print(f'   bob, who logs out last, {"gets his answer" if answer else "has lost his connection"}')


if __name__ == '__main__':
    for is_repaired, what in (False, '1. statistics at the end'), (True, '2. the repair: no branch ends early now'):
        print(what)
        play(is_repaired)

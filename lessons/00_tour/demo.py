"""Chapter 0: three users chat by themselves with the finished server, and every frame is told.

    python3 imserver.py --db :memory: --log-level warning      first, in one terminal
    python3 -m lessons.00_tour.demo                            then, in another

A frame is explained field by field when it is the first of its command, later only its body is shown.
"""
from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

from protocol import (MAX_BODY_CLIENT, Command, CreateGroupRequest, FrameDecoder, GroupMessageRequest, LoginRequest,
                      LogoutRequest, MessageRequest, Packet, decode, describe, encode)

VERSION = 1  # of the protocol: the one of the tutorial's Java original
PASSWORD = 'pwd'
PATIENCE = 10  # seconds that somebody waits for a frame
PAUSE = 2  # seconds before each step, on a terminal; the server closes who is silent for 15
Tell = Callable[[str, bytes], None]  # from whom to whom, a frame


class Teller:
    """Prints frames."""

    def __init__(self) -> None:
        self.explained: set[int] = set()  # commands
        self.last = b''

    def __call__(self, way: str, frame: bytes) -> None:
        command, lines = frame[6], describe(frame).splitlines()
        if frame == self.last:
            print(f'  {way}: the same frame')
        elif command in self.explained:
            print(f'  {way}: {Command(command).name} {lines[-1].split(maxsplit=1)[1]}')
        else:
            print(f'  {way}: a frame of {len(frame)} bytes', *lines, sep='\n    ')
        self.explained.add(command)
        self.last = frame


class Person:
    """Somebody who talks to the server through one connection."""

    def __init__(self, name: str, port: int, tell: Tell) -> None:
        self.name, self.tell = name, tell
        self.socket = socket.create_connection(('127.0.0.1', port), PATIENCE)
        self.decoder = FrameDecoder(MAX_BODY_CLIENT)  # cuts what arrives into frames
        self.frames: deque[bytes] = deque()
        self.send(LoginRequest(user_name=name, password=PASSWORD))
        answer = self.receive()
        if not answer.success:
            sys.exit(f'{name} cannot log in: {answer.reason} (start the server with --db :memory:)')

    def send(self, packet: Packet) -> None:
        frame = encode(packet, VERSION)
        self.tell(f'{self.name} -> server', frame)
        self.socket.sendall(frame)

    def receive(self) -> Packet:
        """Wait for the next frame and return the packet in it."""
        while not self.frames:
            data = self.socket.recv(4096)
            if not data:
                sys.exit(f'the server has closed the connection of {self.name}')
            self.decoder.feed(data)
            self.frames.extend(self.decoder)
        frame = self.frames.popleft()
        self.tell(f'server -> {self.name}', frame)
        return decode(frame)

    def leave(self) -> None:
        self.send(LogoutRequest())
        self.receive()
        self.socket.close()


def step(text: str) -> None:
    """Say what comes next; on a terminal after a pause, in which somebody may look at what came before."""
    if sys.stdout.isatty():
        time.sleep(PAUSE)
    print(text)


def single_chat(port: int, tell: Tell) -> tuple[Person, Person]:
    step('== single chat 单聊\n\n1. alice logs in; the server notes which connection is hers.')
    alice = Person('alice', port, tell)
    step('\n2. alice writes to bob: the message goes to the server. bob is not there, so it is kept.')
    alice.send(MessageRequest(to_user_id='bob', message='hello bob, 你好'))
    step('\n3. bob logs in, and gets what was kept.')
    bob = Person('bob', port, tell)
    bob.receive()
    step('\n   alice writes again. Now the server finds a connection for bob.')
    alice.send(MessageRequest(to_user_id='bob', message='hi bob'))
    bob.receive()
    return alice, bob


def group_chat(port: int, alice: Person, bob: Person, tell: Tell) -> list[Person]:
    step('== group chat 群聊\n\n1. carol logs in too.')
    everybody = [alice, bob, Person('carol', port, tell)]
    step('\n2. alice sends who is to be in the group; the server makes an id for it and tells everybody.')
    alice.send(CreateGroupRequest(user_id_list=['bob', 'carol']))
    group_id = [person.receive() for person in everybody][0].group_id
    step('\n3. bob writes to that id; every member gets it, bob too.')
    bob.send(GroupMessageRequest(to_group_id=group_id, message='hi all'))
    for person in everybody:
        person.receive()
    return everybody


def main() -> None:
    sys.stdout.reconfigure(errors='replace')  # a terminal that cannot show Chinese shows question marks
    parser = argparse.ArgumentParser(description='three users who chat by themselves')
    parser.add_argument('--port', type=int, default=8000)
    port = parser.parse_args().port
    try:
        for name in 'bob', 'carol':  # the first login with a free name makes an account
            Person(name, port, lambda way, frame: None).leave()
        print('bob and carol have accounts, and are away')
        tell = Teller()
        everybody = group_chat(port, *single_chat(port, tell), tell)
        step('== they leave 登出\n')
        for person in everybody:
            person.leave()
    except OSError as error:
        sys.exit(f'no answer on port {port}: {error} (start the server first)')
    except KeyboardInterrupt:
        print('stopped')


if __name__ == '__main__':
    main()

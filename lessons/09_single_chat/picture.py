"""Chapter 9's picture: the frames of a single chat, and what the server has in its two maps behind each.

    python3 -m lessons.09_single_chat.picture

The server is the real one; the frames are those that crossed its sockets, but for heartbeats.
"""
from __future__ import annotations

from protocol import Command, LoginRequest, LogoutRequest, MessageRequest, Packet

from .see_it_fail import Peer, World
from .server import Server

WIDTH = 24  # columns between two lifelines
LEFT, RIGHT = 'alice', 'bob'


def arrow(packet: Packet, to_right: bool) -> str:
    name = f' {packet.COMMAND} {Command(packet.COMMAND).name} '
    return f'{name:-^{WIDTH - 1}}>' if to_right else f'<{name:-^{WIDTH - 1}}'


def line(left: str = '', right: str = '', note: str = '') -> None:
    print(f'|{left:{WIDTH}}|{right:{WIDTH}}|  {note}'.rstrip())


class Chat:
    """alice at the left, the server in the middle, bob at the right."""

    def __init__(self) -> None:
        self.server = Server()
        self.world = World(self.server)
        self.peers = {LEFT: Peer(self.world), RIGHT: Peer(self.world)}

    def say(self, name: str, packet: Packet) -> None:
        """Let one of them say it; draw that, what the server says then, and what it has noted."""
        self.peers[name].say(packet)
        line(*('', arrow(packet, False)) if name == RIGHT else (arrow(packet, True),))
        for other, peer in self.peers.items():
            for answer in peer.heard():
                line(*('', arrow(answer, True)) if other == RIGHT else (arrow(answer, False),))
        waiting = [f'{user}: {len(entries)}' for user, entries in self.server.waiting.items()]
        line(note=f'{" ".join(self.server.sessions) or "-":12}{" ".join(waiting) or "-"}')


def draw() -> None:
    chat = Chat()
    print(f'{LEFT:{WIDTH - 1}} {"server":{WIDTH}} {RIGHT}    sessions    waiting')
    chat.say(LEFT, LoginRequest(user_name=LEFT))
    chat.say(LEFT, MessageRequest(to_user_id=RIGHT, message='tea at five?'))
    chat.say(RIGHT, LoginRequest(user_name=RIGHT))
    chat.say(RIGHT, MessageRequest(to_user_id=LEFT, message='yes'))
    chat.say(LEFT, LogoutRequest())
    chat.world.close()


if __name__ == '__main__':
    draw()

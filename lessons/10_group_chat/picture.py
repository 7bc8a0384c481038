"""Chapter 10's picture: which frames each member gets, by the numbers of their commands; and what one encoding saves.

    python3 -m lessons.10_group_chat.picture

The server is the real one; carol is away until she comes.
"""
from __future__ import annotations

import time

from protocol import (CreateGroupRequest, GroupMessageRequest, JoinGroupRequest, LoginRequest, Packet, QuitGroupRequest,
                      encode_for)

from .handlers import VERSION, Entry, Kind
from .see_it_fail import Peer, World
from .server import Server

NAMES = 'alice', 'bob', 'carol', 'dave'
GROUP, MEMBERS, TURNS = '00000001', 500, 20


class Table:
    """What each of them gets when one of them says something: a row."""

    def __init__(self) -> None:
        self.server = Server()
        self.world = World(self.server)
        self.peers = {name: Peer(self.world) for name in NAMES}
        self.line('', dict(zip(NAMES, NAMES)))

    def row(self, name: str, text: str, packet: Packet) -> None:
        kept = len(self.server.waiting['carol'])
        self.peers[name].say(packet)
        heard = {name: self.peers[name].heard()}  # first: who has spoken, so that the server has done it
        heard |= {other: peer.heard() for other, peer in self.peers.items() if other != name}
        cells = {other: ' '.join(str(packet.COMMAND) for packet in packets) for other, packets in heard.items()}
        if len(self.server.waiting['carol']) > kept:
            cells['carol'] = 'kept'
        self.line(f'{name}: {text}', cells)

    @staticmethod
    def line(text: str, cells: dict[str, str]) -> None:
        print(f'{text:24}', ' '.join(f'{cells[name]:9}' for name in NAMES).rstrip())


def draw() -> None:
    table = Table()
    for name in 'alice', 'bob', 'dave':
        table.row(name, '1 login', LoginRequest(user_name=name))
    table.row('alice', '7 create', CreateGroupRequest(user_id_list=['bob', 'carol']))
    table.row('dave', '11 join', JoinGroupRequest(group_id=GROUP))
    table.row('dave', '15 group message', GroupMessageRequest(to_group_id=GROUP, message='hi all'))
    table.row('bob', '13 quit', QuitGroupRequest(group_id=GROUP))
    table.row('carol', '1 login', LoginRequest(user_name='carol'))
    table.row('alice', '15 group message', GroupMessageRequest(to_group_id=GROUP, message='hi carol'))
    table.world.close()


def milliseconds(times: int) -> float:
    """Measure the encoding of a group message, done so often: the best of some turns."""
    server, best = Server(), 1e9
    packet = server.packet_of(Entry(Kind.GROUP_MESSAGE, GROUP, 'alice', 'hi all'))
    for _ in range(TURNS):
        begin = time.perf_counter()
        for _ in range(times):
            encode_for(packet, VERSION)
        best = min(best, time.perf_counter() - begin)
    return 1000 * best


if __name__ == '__main__':
    draw()
    print(f'{MEMBERS} members, encoded once: {milliseconds(1):.3f} ms; for each: {milliseconds(MEMBERS):.3f} ms')

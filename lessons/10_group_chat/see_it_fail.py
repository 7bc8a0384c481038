"""Chapter 10, the wrong version first: a group of connections loses its members, one after the other.

    python3 -m lessons.10_group_chat.see_it_fail

As in chapter 9: real servers, and sockets that speak to them, in one process.
"""
from __future__ import annotations

from importlib import import_module

from protocol import CreateGroupRequest, GroupMessageRequest, LoginRequest
from reactor import Channel

from .handlers import Entry, Kind
from .server import Server

chapter_9 = import_module('lessons.09_single_chat.see_it_fail')
World, Peer = chapter_9.World, chapter_9.Peer


class NaiveServer(Server):
    """Wrong: what it keeps of a group are the connections of its members, as in Netty's ChannelGroup."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: dict[str, set[Channel]] = {}  # group id -> where to send

    def new_group(self, members: set[str]) -> str:
        group_id = super().new_group(members)
        self.channels[group_id] = {self.sessions[name].channel for name in members if name in self.sessions}
        return group_id

    def deliver(self, entry: Entry) -> None:
        if entry.kind is Kind.MESSAGE:
            return super().deliver(entry)
        for channel in self.channels[entry.stream]:  # one that is closed drops what is written to it
            channel.write(self.packet_of(entry))


class Person:
    """Somebody with a connection, as long as it lasts."""

    def __init__(self, world: World, name: str) -> None:
        self.peer = Peer(world)
        self.peer.say(LoginRequest(user_name=name))

    def texts(self) -> list[str]:
        """Return the messages they read since they were asked before."""
        return [packet.message for packet in self.peer.heard() if hasattr(packet, 'message')]


def tea(server: Server) -> None:
    print(f'{type(server).__name__}: alice makes a group with bob and carol; carol is not here')
    world = World(server)
    alice, bob = Person(world, 'alice'), Person(world, 'bob')
    alice.texts(), bob.texts()
    alice.peer.say(CreateGroupRequest(user_id_list=['bob', 'carol']))
    group_id = alice.peer.heard()[0].group_id
    print('  the connection of bob breaks, and he comes back; then carol comes')
    bob.peer.socket.close()
    while 'bob' in server.sessions:
        world.turn()
    bob, carol = Person(world, 'bob'), Person(world, 'carol')
    bob.texts(), carol.texts()
    alice.peer.say(GroupMessageRequest(to_group_id=group_id, message='tea is ready'))
    for name, person in ('alice', alice), ('bob', bob), ('carol', carol):
        print(f'  {name} reads:', *person.texts() or ['nothing'])
    world.close()


if __name__ == '__main__':
    tea(NaiveServer())
    tea(Server())

"""Checks the exercise of chapter 10: python3 -m lessons check 10"""
import importlib

import pytest

from lessons.check import expect
from protocol import (ErrorResponse, ListGroupMembersRequest, ListGroupMembersResponse, LoginRequest,
                      MessageResponse, User, encode)

LIST = 'Who is in it'
RIGHT = 'Who may ask'
CLIENT = 'The client asks, and shows'

handlers = importlib.import_module('lessons.10_group_chat.handlers')
server = importlib.import_module('lessons.10_group_chat.server')
see_it_fail = importlib.import_module('lessons.10_group_chat.see_it_fail')


class Channel:
    """Stands in for a connection: notes what is written to it."""

    def __init__(self):
        self.written = []

    def write(self, packet):
        self.written.append(packet)


class House:
    """A server with alice, bob and carol in a group, and those who are named in it."""

    def __init__(self, exercise, *here):
        self.server = server.Server()
        self.group = self.server.new_group({'bob', 'alice', 'carol'})
        self.sessions = {name: exercise.MemberSession(self.server, handlers.FrameHandler(), name) for name in here}
        for session in self.sessions.values():
            session.channel = Channel()
            self.server.log_in(session)

    def ask(self, name, group=None):
        """Let them ask; return what they hear."""
        session = self.sessions[name]
        del session.channel.written[:]
        session.channel_read(ListGroupMembersRequest(group_id=group or self.group))
        return session.channel.written


def users(**online):
    return [User(user_id=name, user_name=name, online=is_here) for name, is_here in online.items()]


def listed(heard):
    """Return the users in the one response that was heard, or else what was heard instead."""
    if len(heard) == 1 and type(heard[0]) is ListGroupMembersResponse:
        return heard[0].session_list
    return heard


def test_the_members_are_listed(exercise):
    house = House(exercise, 'carol', 'alice')
    heard = house.ask('alice')
    expect('alice and carol are here, bob is not; alice asks and hears', heard,
           [ListGroupMembersResponse(group_id=house.group, session_list=users(alice=True, bob=False, carol=True))],
           LIST)


def test_who_comes_and_goes_is_seen(exercise):
    house = House(exercise, 'carol', 'alice')
    house.server.log_out(house.sessions['carol'])
    expect('carol logs out; alice asks and hears of', listed(house.ask('alice')),
           users(alice=True, bob=False, carol=False), LIST)


def test_who_joins_and_quits_is_seen(exercise):
    house = House(exercise, 'alice', 'dave')
    house.server.members(house.group).add('dave')
    house.server.members(house.group).remove('carol')
    expect('dave has joined, carol has quit; alice asks and hears of', listed(house.ask('alice')),
           users(alice=True, bob=False, dave=True), LIST)


def test_nobody_else_hears_and_nothing_changes(exercise):
    house = House(exercise, 'alice', 'bob')
    expect('alice asks and hears of', listed(house.ask('alice')), users(alice=True, bob=True, carol=False), LIST)
    expect('... bob hears', house.sessions['bob'].channel.written, [], LIST)
    expect('... kept for those who are away', dict(house.server.waiting), {}, LIST)
    expect('... who is in the group', sorted(house.server.members(house.group)), ['alice', 'bob', 'carol'], LIST)


def test_only_members_are_told(exercise):
    house = House(exercise, 'alice', 'dave')
    expect('dave, who is in no group, asks and hears', house.ask('dave'),
           [ErrorResponse(command=9, code='not_a_member', reason='you are not in this group')], RIGHT)


def test_a_group_that_is_none(exercise):
    house = House(exercise, 'alice')
    expect("alice asks for the group '00000002' and hears", house.ask('alice', '00000002'),
           [ErrorResponse(command=9, code='unknown_group', reason='there is no such group')], RIGHT)


def test_version_1_has_the_names_only(exercise):
    heard = House(exercise, 'alice').ask('alice')
    expect('what alice hears, encoded for version 1', [encode(packet, 1)[11:].decode() for packet in heard],
           ['{"groupId":"00000001","sessionList":[{"userId":"alice","userName":"alice"},'
            '{"userId":"bob","userName":"bob"},{"userId":"carol","userName":"carol"}]}'], LIST)


def test_the_instruction(exercise):
    expect("members('00000001')", exercise.members('00000001'), ListGroupMembersRequest(group_id='00000001'), CLIENT)


@pytest.mark.parametrize('online, line', [
    ({'alice': True, 'bob': False}, 'group 00000001: alice, bob (away)'),
    ({'alice': None, 'bob': None}, 'group 00000001: alice, bob'),
    ({'alice': True}, 'group 00000001: alice'),
])
def test_what_is_printed(exercise, capsys, online, line):
    response = ListGroupMembersResponse(group_id='00000001', session_list=users(**online))
    capsys.readouterr()
    exercise.MemberUser('alice', []).channel_read(response)
    expect(f'on_list_group_members_response, with online: {online}', capsys.readouterr().out, f'{line}\n', CLIENT)


def test_on_a_real_connection(exercise):
    """The session takes its place in a chain of the chapter's server."""
    world = see_it_fail.World(server.Server())
    try:
        alice = see_it_fail.Peer(world)
        alice.say(LoginRequest(user_name='alice'))
        alice.heard()
        group, old = world.server.new_group({'alice', 'bob'}), world.server.sessions['alice']
        new = world.server.sessions['alice'] = exercise.MemberSession(world.server, old.frames, 'alice')
        old.channel.pipeline.replace(old, new)
        alice.say(ListGroupMembersRequest(group_id=group))
        alice.say(ListGroupMembersRequest(group_id='ffffffff'))
        expect('alice asks for her group and for one that is none, in version 1; she hears', alice.heard(),
               [ListGroupMembersResponse(group_id=group, session_list=users(alice=None, bob=None)),
                MessageResponse(from_user_id='server', from_user_name='server', message='there is no such group')],
               LIST)
    finally:
        world.close()

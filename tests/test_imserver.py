"""What the server promises to a connection: who gets in, in which order requests are judged, what ends a
connection, and what its command line says.  Messages, groups and numbers are in test_delivery.py.

The server runs in this process, with clocks that stand still until a test moves them; only the tests of
the command line start processes of their own.  After each test the log is searched: nothing that a peer
sends may make a traceback.
"""

import json
import logging
import os
import re
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import imserver
import protocol
from peers import BEGIN, World, selector
from protocol import (
    HEADER, MAGIC, CreateGroupRequest, CreateGroupResponse, DeliveryAck, ErrorResponse, GroupMessageRequest,
    GroupNotice, HeartbeatRequest, HeartbeatResponse, HistoryRequest, JoinGroupRequest,
    JoinGroupResponse, KickedNotice, ListGroupMembersRequest, ListGroupMembersResponse, ListGroupsRequest,
    ListGroupsResponse, ListUsersRequest, ListUsersResponse, LoginRequest, LoginResponse, LogoutRequest,
    LogoutResponse, MessageAck, MessageRequest, MessageResponse, QuitGroupRequest, QuitGroupResponse, encode)

SERVER = Path(imserver.__file__)
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def no_traceback(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert not [record for record in caplog.get_records('call') if record.exc_info]


@pytest.fixture
def open_world(tmp_path):
    worlds = []

    def open_it(place=':memory:', *options):
        worlds.append(World(place, *options))
        return worlds[-1]
    yield open_it
    for world in worlds:
        world.close()


@pytest.fixture
def world(open_world):
    return open_world()


def frame(command, body=b'{}', *, magic=MAGIC, version=2, serializer=1, length=None):
    """A frame as no packet would write it."""
    return HEADER.pack(magic, version, serializer, command, len(body) if length is None else length) + body


def ask_login(name, password='pw', **fields):
    return LoginRequest(user_name=name, password=password, **fields)


def refused_login(peer, code):
    return peer.expect(LoginResponse, success=False, code=code, user_id=None, token=None)


def message(user_id, text, seq):
    return MessageRequest(to_user_id=user_id, message=text, client_seq=seq)


@contextmanager
def busy_worker(world):
    """Whoever needs a password judged has to wait until the end of this block."""
    world.loop.may_work.clear()
    try:
        yield
    finally:
        world.loop.may_work.set()


def ticks(world, count=8):
    """For when the server cannot come to rest, because its worker is busy."""
    for _ in range(count):
        world.loop.tick(0.001)


# Registering and logging in ..........................................................................

def test_first_login_registers_the_name(world):
    alice = world.login('alice')
    assert alice.welcome.user_id == alice.welcome.user_name == 'alice'
    assert alice.welcome.last_client_seq == 0
    assert alice.welcome.reason is None and alice.welcome.code is None
    assert alice.welcome.log_id == world.store.log_id


def test_version_1_login_has_version_1_fields_only(world):
    peer = world.connect(1)
    peer.send(ask_login('zhangsan'))
    assert encode(peer.receive(), 1)[11:] == b'{"success":true,"userId":"zhangsan","userName":"zhangsan"}'
    assert peer.got_version == 1


def test_same_password_logs_in_again(world):
    first = world.login('alice')
    assert world.login('alice').welcome.token != first.welcome.token


@pytest.mark.parametrize('version', [1, 2])
def test_wrong_password(world, version):
    world.login('alice')
    peer = world.connect(version)
    peer.send(ask_login('alice', 'other'))
    answer = peer.expect(LoginResponse, success=False, user_name='alice', user_id=None)
    assert answer.reason and answer.code == ('wrong_password' if version == 2 else None)
    assert not peer.is_closed()
    peer.login('alice')


def test_login_is_answered_in_the_version_of_its_frame(world):
    peer = world.connect(1)
    peer.send(ask_login('.' * 40))
    assert peer.expect(LoginResponse, success=False).reason and peer.got_version == 1
    peer.send(ask_login('.' * 40), version=2)
    refused_login(peer, 'invalid_name')
    assert peer.got_version == 2


def test_login_without_password_and_token_is_a_bad_request(world):
    peer = world.connect()
    peer.send(LoginRequest(user_name='alice'))
    refused_login(peer, 'bad_request')
    world.login('alice')
    peer.send(LoginRequest(user_name='alice'))
    refused_login(peer, 'bad_request')


def test_empty_password_is_a_password(world):
    world.login('alice', password='')
    peer = world.connect()
    peer.send(ask_login('alice', 'pw'))
    refused_login(peer, 'wrong_password')
    peer.login('alice', '')


def test_closed_registration(open_world, tmp_path):
    with closing(World(tmp_path)) as before:
        before.login('alice')
    world = open_world(tmp_path, '--closed-registration')
    world.login('alice')
    peer = world.connect()
    peer.send(ask_login('bob'))
    refused_login(peer, 'registration_closed')
    assert not world.store.user_exists('bob')


@pytest.mark.parametrize('name', [
    'a', 'x' * 32, '张三', 'Ωmega', 'иван', 'محمد', '𠀀' * 32, 'a_b-c.d', '007', '٣', '_', '...',
    'Server1'], ids=ascii)
def test_names_of_any_script(world, name):
    assert world.login(name).welcome.user_id == name


@pytest.mark.parametrize('name', [
    '', 'x' * 33, 'a b', ' a', 'a\n', 'a\0', 'a/b', '@a', 'a:b', '😀', '½', 'Ⅷ', 'a\u200b', '\u202eabc',
    '\ue000', 'x\u0301', 'server', 'SERVER', 'Server', 'ｓｅｒｖｅｒ'], ids=ascii)
def test_invalid_names(world, name):
    peer = world.connect()
    peer.send(ask_login(name))
    refused_login(peer, 'invalid_name')


def test_length_of_a_name_is_judged_after_composition(world):
    assert world.login('e\u0301' * 32).welcome.user_id == 'é' * 32
    peer = world.connect()
    peer.send(ask_login('e\u0301' * 33))
    refused_login(peer, 'invalid_name')


def test_composed_and_decomposed_name_are_one_user(world):
    first = world.login('rene\u0301')
    world.login('ren\u00e9')
    first.expect(KickedNotice)


@pytest.mark.parametrize('taken, other', [
    ('bob', 'Bob'), ('Bob', 'bob'), ('bob', 'ｂｏｂ'), ('strasse', 'straße'), ('file', 'ﬁle'), ('ΣΑΣ', 'σας')])
def test_name_that_equals_a_taken_one_after_folding(world, taken, other):
    world.login(taken)
    peer = world.connect()
    peer.send(ask_login(other))
    refused_login(peer, 'invalid_name')


@pytest.mark.parametrize('second, outcome', [('pw', 'in'), ('other', 'wrong_password')])
def test_two_registrations_of_one_name_at_once(world, second, outcome):
    one, two = world.connect(), world.connect()
    with busy_worker(world):
        one.send(ask_login('alice'))
        ticks(world)
        two.send(ask_login('alice', second))
        ticks(world)
    one.expect(LoginResponse, success=True)
    if outcome == 'in':
        two.expect(LoginResponse, success=True)
        one.expect(KickedNotice)
    else:
        refused_login(two, outcome)


def test_two_registrations_of_names_that_look_alike_at_once(world):
    one, two = world.connect(), world.connect()
    with busy_worker(world):
        one.send(ask_login('alice'))
        ticks(world)
        two.send(ask_login('ALICE'))
        ticks(world)
    one.expect(LoginResponse, success=True)
    refused_login(two, 'invalid_name')


def test_peer_that_leaves_while_its_password_is_judged(world):
    peer = world.connect()
    with busy_worker(world):
        peer.send(ask_login('alice'))
        ticks(world)
        peer.channel.abort()
        ticks(world)
    world.settle()
    assert not world.server.sessions and not world.store.user_exists('alice')


# Tokens ..............................................................................................

def token_login(world, name, token):
    peer = world.connect()
    peer.send(LoginRequest(user_name=name, token=token))
    return peer


def test_token_logs_in_and_goes_on_being_good(world):
    token = world.login('alice').welcome.token
    for _ in range(2):
        answer = token_login(world, 'alice', token).expect(LoginResponse, success=True, user_id='alice')
        assert answer.token is None


def test_token_survives_a_restart(open_world, tmp_path):
    world = open_world(tmp_path)
    token = world.login('alice').welcome.token
    world.restart()
    token_login(world, 'alice', token).expect(LoginResponse, success=True)


@pytest.mark.parametrize('name', ['bob', 'nobody', ''])
def test_token_is_good_for_its_user_only(world, name):
    token = world.login('alice').welcome.token
    world.login('bob')
    refused_login(token_login(world, name, token), 'bad_token')
    assert not world.store.user_exists('nobody')


def test_wrong_token_beats_right_password(world):
    world.login('alice')
    peer = world.connect()
    peer.send(ask_login('alice', token='x'))
    refused_login(peer, 'bad_token')


def test_token_ends_at_logout(world):
    alice = world.login('alice')
    alice.send(LogoutRequest())
    alice.expect(LogoutResponse, success=True)
    refused_login(token_login(world, 'alice', alice.welcome.token), 'bad_token')


@pytest.mark.parametrize('version', [1, 2])
def test_token_ends_with_a_newer_password_login(world, version):
    token = world.login('alice').welcome.token
    world.login('alice', version)
    refused_login(token_login(world, 'alice', token), 'bad_token')


def test_token_ends_after_30_days_by_the_wall_clock(world):
    token = world.login('alice').welcome.token
    world.wall_clock.now = BEGIN + 30 * DAY - 1
    token_login(world, 'alice', token).expect(LoginResponse, success=True)
    world.wall_clock.now = BEGIN + 30 * DAY
    refused_login(token_login(world, 'alice', token), 'bad_token')


def test_version_1_has_no_tokens(world):
    token = world.login('alice').welcome.token
    peer = world.connect(1)
    peer.send_bytes(frame(1, json.dumps({'userName': 'alice', 'token': token}).encode(), version=1))
    peer.expect(LoginResponse, success=False)
    peer.send_bytes(frame(1, b'{"userName":"alice","password":"pw","token":5}', version=1))
    peer.expect(LoginResponse, success=True)


# Order on one connection .............................................................................

def test_everything_behind_a_login_in_one_piece(world):
    world.login('bob')
    peer = world.connect()
    peer.send(
        HeartbeatRequest(), ask_login('alice'), HeartbeatRequest(),
        CreateGroupRequest(user_id_list=[], client_seq=1), message('bob', 'hi', 2), ListGroupsRequest(),
        LogoutRequest(), HeartbeatRequest(), ListUsersRequest(),
    )
    peer.expect(HeartbeatResponse)
    peer.expect(LoginResponse, success=True)
    peer.expect(HeartbeatResponse)
    peer.expect(CreateGroupResponse, success=True)
    packets = [peer.receive() for _ in range(5)]
    kinds = [type(packet) for packet in packets]
    assert kinds.index(MessageAck) < kinds.index(ListGroupsResponse) < kinds.index(LogoutResponse)
    assert len(packets[kinds.index(ListGroupsResponse)].group_list) == 1
    assert packets[kinds.index(ErrorResponse)].code == 'not_logged_in'


def test_join_then_message_in_one_piece_is_judged_as_a_member(world):
    group = world.login('bob').create()
    alice = world.login('alice')
    alice.send(JoinGroupRequest(group_id=group, client_seq=1),
               GroupMessageRequest(to_group_id=group, message='here', client_seq=2),
               QuitGroupRequest(group_id=group, client_seq=3),
               GroupMessageRequest(to_group_id=group, message='gone', client_seq=4))
    alice.expect(JoinGroupResponse, success=True)
    kinds = [type(alice.receive()) for _ in range(4)]
    assert kinds.index(MessageAck) < kinds.index(QuitGroupResponse)
    assert kinds.index(MessageAck) < kinds.index(protocol.GroupMessageResponse)
    assert kinds[-1] is ErrorResponse and alice.last.code == 'not_a_member' and alice.last.client_seq == 4


def test_question_before_a_quit_in_one_piece_is_judged_as_a_member(world):
    alice = world.login('alice')
    group = alice.create()
    alice.send(ListGroupMembersRequest(group_id=group), ListGroupsRequest(),
               QuitGroupRequest(group_id=group, client_seq=2), ListGroupsRequest())
    assert alice.expect(ListGroupMembersResponse).session_list
    assert len(alice.expect(ListGroupsResponse).group_list) == 1
    alice.expect(QuitGroupResponse, success=True)
    assert alice.expect(ListGroupsResponse).group_list == []


def test_question_before_a_join_in_one_piece_does_not_know_of_it(world):
    group = world.login('bob').create()
    alice = world.login('alice')
    alice.send(ListGroupsRequest(), JoinGroupRequest(group_id=group, client_seq=1))
    assert alice.expect(ListGroupsResponse).group_list == []
    alice.expect(JoinGroupResponse, success=True)


def test_larger_frame_behind_a_login_in_one_piece(world):
    peer = world.connect()
    peer.send(ask_login('alice'), message('alice', 'x' * 4096, 1))
    peer.expect(LoginResponse, success=True)
    peer.expect(MessageAck, client_seq=1)


def test_wrong_login_does_not_let_in_what_is_behind_it(world):
    world.login('alice')
    peer = world.connect()
    peer.send(ask_login('alice', 'no'), message('alice', 'x', 1), ask_login('bob'))
    refused_login(peer, 'wrong_password')
    peer.expect(ErrorResponse, command=3, code='not_logged_in', client_seq=1)
    peer.expect(LoginResponse, success=True, user_id='bob')


@pytest.mark.parametrize('version', [1, 2])
def test_second_login_on_a_session(world, version):
    alice = world.login('alice', version)
    alice.send(ask_login('bob'))
    answer = alice.expect(LoginResponse, success=False, user_name='bob')
    assert version == 1 or answer.code == 'already_logged_in'
    alice.nothing()
    assert set(world.server.sessions) == {'alice'} and not world.store.user_exists('bob')


# Logging out .........................................................................................

@pytest.mark.parametrize('version', [1, 2])
def test_logout_is_answered_after_all_before_it(world, version):
    alice = world.login('alice', version)
    alice.send(CreateGroupRequest(user_id_list=[], client_seq=1), ListUsersRequest() if version == 2 else
               ListGroupMembersRequest(group_id='none'), LogoutRequest())
    alice.expect(CreateGroupResponse, success=True)
    alice.receive()
    alice.expect(LogoutResponse, success=True, reason=None)
    alice.nothing()


def test_login_as_another_behind_logout_and_in_another_version(world):
    alice = world.login('alice')
    alice.send(message('alice', 'x', 1), LogoutRequest())
    alice.send(ask_login('bob'), version=1)
    alice.expect(MessageAck)
    alice.expect(LogoutResponse)
    alice.expect(LoginResponse, success=True, user_id='bob')
    assert alice.got_version == 1
    alice.version = 1
    alice.nothing()
    assert set(world.server.sessions) == {'bob'}


def test_nothing_for_the_old_user_follows_the_logout_response(world):
    alice, bob = world.login('alice'), world.login('bob')
    bob.send(message('alice', 'late', 1))
    alice.send(LogoutRequest())
    *_, last = alice.receive_all()
    assert isinstance(last, LogoutResponse)
    bob.expect(MessageAck)
    bob.client_seq = 1
    bob.say('alice', 'later')
    alice.nothing()


def test_logout_and_join_in_one_piece_leaves_no_ghost_in_the_group(world):
    group = world.login('bob').create()
    alice = world.login('alice')
    alice.send(LogoutRequest(), JoinGroupRequest(group_id=group, client_seq=1))
    assert {type(alice.receive()), type(alice.receive())} == {LogoutResponse, JoinGroupResponse}
    assert world.store.members(group, world.store.committed_id) == ['bob']
    assert set(world.server.sessions) == {'bob'}


def test_join_and_logout_in_one_piece_is_a_member_who_is_offline(world):
    bob = world.login('bob')
    group = bob.create()
    alice = world.login('alice')
    alice.send(JoinGroupRequest(group_id=group, client_seq=1), LogoutRequest())
    alice.expect(JoinGroupResponse, success=True)
    alice.expect(LogoutResponse, success=True)
    bob.expect(GroupNotice, event='joined')
    bob.send(ListGroupMembersRequest(group_id=group))
    members = bob.expect(ListGroupMembersResponse).session_list
    assert [(user.user_name, user.online) for user in members] == [('alice', False), ('bob', True)]


def test_logout_without_login(world):
    peer = world.connect()
    peer.send(LogoutRequest())
    peer.expect(ErrorResponse, command=5, code='not_logged_in')


# One session a user ..................................................................................

def test_newer_login_wins(world):
    older = world.login('alice')
    newer = world.login('alice')
    assert older.expect(KickedNotice).reason
    assert older.is_closed()
    newer.say('alice', 'to myself')
    newer.expect(MessageResponse, message='to myself')


def test_version_1_hears_of_a_newer_login_from_the_server(world):
    older = world.login('alice', 1)
    world.login('alice')
    older.expect(MessageResponse, from_user_id='server', from_user_name='server')
    assert older.got_version == 1 and older.is_closed()


def test_acknowledgement_that_is_due_goes_before_the_notice(world):
    older, newer = world.login('alice'), world.connect()
    token = older.welcome.token
    newer.send(LoginRequest(user_name='alice', token=token))
    older.send(message('alice', 'x', 1))
    kinds = [type(packet) for packet in older.receive_all()]
    assert kinds in ([MessageAck, KickedNotice], [MessageAck, MessageResponse, KickedNotice])
    newer.expect(LoginResponse, success=True, last_client_seq=1)
    newer.expect(MessageResponse, message='x')


def test_what_a_kicked_session_had_not_acknowledged_comes_to_the_newer_one(world):
    older, bob = world.login('alice'), world.login('bob')
    bob.say('alice', 'x')
    older.expect(MessageResponse, message='x')
    world.login('alice').expect(MessageResponse, message='x')


def test_what_a_kicked_session_sends_is_not_executed(world):
    group = world.login('bob').create()
    older, newer = world.login('alice'), world.connect()
    newer.send(LoginRequest(user_name='alice', token=older.welcome.token))
    older.send(JoinGroupRequest(group_id=group, client_seq=1), *[HeartbeatRequest()] * 2,
               message('alice', 'x', 2))
    newer.expect(LoginResponse, success=True)
    newer.nothing()
    assert world.store.last_client_seq('alice') <= 1
    assert isinstance(older.receive_all()[-1], KickedNotice)


def test_logout_of_a_kicked_session_leaves_the_newer_one(world):
    older, newer = world.login('alice'), world.connect()
    newer.send(LoginRequest(user_name='alice', token=older.welcome.token))
    newer.expect(LoginResponse, success=True)
    older.send(LogoutRequest())
    older.expect(KickedNotice)
    newer.nothing()
    assert list(world.server.sessions) == ['alice']


# Before login ........................................................................................

def test_heartbeat_before_login(world):
    peer = world.connect(1)
    peer.nothing()
    assert peer.got_version == 1
    peer.send(HeartbeatRequest(), version=2)
    peer.expect(HeartbeatResponse)
    assert peer.got_version == 2


REQUESTS = [
    MessageRequest(to_user_id='a', message='m', client_seq=7), LogoutRequest(),
    CreateGroupRequest(user_id_list=[], client_seq=7), ListGroupMembersRequest(group_id='g'),
    JoinGroupRequest(group_id='g', client_seq=7), QuitGroupRequest(group_id='g', client_seq=7),
    GroupMessageRequest(to_group_id='g', message='m', client_seq=7), DeliveryAck(message_id=1),
    HistoryRequest(user_id='a'), ListUsersRequest(), ListGroupsRequest()]


@pytest.mark.parametrize('request_', REQUESTS, ids=lambda request: type(request).__name__)
def test_requests_before_login(world, request_):
    peer = world.connect()
    peer.send(request_)
    seq = getattr(request_, 'client_seq', None)
    if request_.COMMAND in (11, 13):
        peer.expect(
            protocol.PACKETS[request_.COMMAND + 1], success=False, code='not_logged_in', client_seq=seq,
            group_id='g',
        )
    else:
        peer.expect(ErrorResponse, command=request_.COMMAND, code='not_logged_in', client_seq=seq)
    if request_.COMMAND <= 18:
        peer.send(request_, version=1)
        answer = peer.receive()
        assert peer.got_version == 1 and type(answer) in (
            MessageResponse,
            JoinGroupResponse,
            QuitGroupResponse,
        )
    assert not peer.is_closed()


# Clocks ..............................................................................................

def test_idle_connection_is_closed_at_its_time_and_not_before(open_world):
    world = open_world(':memory:', '--idle', '20', '--login-timeout', '500')
    peer, user = world.connect(), world.login('alice')
    world.pass_time(19.9)
    assert not peer.is_closed() and not user.is_closed()
    world.pass_time(0.1)
    assert peer.is_closed() and user.is_closed()
    assert not world.server.sessions


def test_default_idle_time_is_15_seconds_and_any_life_starts_it_anew(world):
    peer, other = world.login('alice'), world.login('bob')
    world.pass_time(14)
    peer.nothing()
    world.pass_time(1)
    assert other.is_closed() and not peer.is_closed()
    world.pass_time(14)
    assert peer.is_closed()


def test_login_time_is_not_extended_by_heartbeats(world):
    peer = world.connect()
    for _ in range(5):
        world.pass_time(10)
        peer.nothing()
    world.pass_time(9.9)
    peer.nothing()
    world.pass_time(0.1)
    assert peer.is_closed()


def test_login_time_is_not_extended_by_refusals(world):
    world.login('alice')
    peer = world.connect()
    for _ in range(5):
        world.pass_time(11)
        peer.send(ask_login('alice', 'no'))
        refused_login(peer, 'wrong_password')
    world.pass_time(4.9)
    assert not peer.is_closed()
    world.pass_time(0.1)
    assert peer.is_closed()


def test_no_login_time_for_who_is_logged_in(world):
    alice = world.login('alice')
    for _ in range(10):
        world.pass_time(10)
        alice.nothing()


def test_login_time_begins_anew_after_logout(open_world):
    world = open_world(':memory:', '--login-timeout', '30', '--idle', '100')
    alice = world.login('alice')
    world.pass_time(29)
    alice.send(LogoutRequest())
    alice.expect(LogoutResponse)
    world.pass_time(29)
    assert not alice.is_closed()
    world.pass_time(1)
    assert alice.is_closed()


def test_clocks_stand_still_while_a_login_is_judged(world):
    world.login('alice')
    peer = world.connect()
    world.pass_time(14)
    with busy_worker(world):
        peer.send(ask_login('alice', 'no'))
        ticks(world)
        world.clock.now += 1000
        ticks(world)
        assert peer.channel.is_open
    refused_login(peer, 'wrong_password')
    for _ in range(3):
        world.pass_time(14.9)  # 14 + 44.7 of 60 seconds are used
        assert not peer.is_closed()
        peer.nothing()
    world.pass_time(1.4)
    assert peer.is_closed()


def test_heartbeat_is_not_answered_while_a_login_is_judged(world):
    peer = world.connect()
    with busy_worker(world):
        peer.send(ask_login('alice'))
        ticks(world)
        peer.send(HeartbeatRequest())
        ticks(world)
        assert not peer._has_news()
    peer.expect(LoginResponse, success=True)
    peer.expect(HeartbeatResponse)


# Half-close ..........................................................................................

def test_half_close_before_login(world):
    peer = world.connect()
    peer.half_close()
    assert peer.is_closed()


def test_half_close_gets_the_answer_to_its_login_and_all_behind_it(world):
    peer = world.connect()
    peer.send(ask_login('alice'), CreateGroupRequest(user_id_list=[], client_seq=1),
              message('alice', 'x', 2), ListUsersRequest())
    peer.half_close()
    kinds = [type(packet) for packet in peer.receive_all()]
    assert [kind for kind in kinds if kind is not MessageResponse] == [
        LoginResponse, CreateGroupResponse, MessageAck, ListUsersResponse]
    assert peer.is_closed() and not world.server.sessions


def test_half_close_gets_what_is_due_then_the_close(world):
    alice, bob = world.login('alice'), world.login('bob')
    alice.send(message('bob', 'x', 1), ListGroupsRequest())
    alice.half_close()
    alice.expect(MessageAck)
    alice.expect(ListGroupsResponse)
    assert alice.is_closed()
    bob.expect(MessageResponse, message='x')
    assert set(world.server.sessions) == {'bob'}


def test_what_a_half_closed_session_had_not_acknowledged_comes_again(world):
    alice = world.login('alice')
    alice.say('alice', 'x')
    alice.expect(MessageResponse)
    alice.half_close()
    assert alice.is_closed()
    world.login('alice').expect(MessageResponse, message='x')


# Frames ..............................................................................................

WRONG_STARTS = {
    'first byte': b'\x13', 'last byte of the magic': b'\x12\x34\x56\x79',
    'version 0': frame(17, version=0)[:5], 'version 3': frame(17, version=3)[:5],
    'serializer 2': frame(17, serializer=2)[:6], 'http': b'GET / HTTP/1.1\r\n',
}


@pytest.mark.parametrize('start', WRONG_STARTS.values(), ids=WRONG_STARTS)
def test_wrong_start_of_a_frame_closes_at_once(world, start):
    for peer in world.connect(), world.login('alice'):
        peer.send_bytes(start)
        assert peer.is_closed()


@pytest.mark.parametrize('logged_in', [False, True])
def test_too_long_frame_of_version_2_is_refused_and_closed(world, logged_in):
    peer = world.login('alice') if logged_in else world.connect()
    limit = 65536 if logged_in else 4096
    peer.send_bytes(frame(3, b'{}' + b' ' * (limit - 2)))  # of the allowed length: unreadable, but taken
    peer.expect(ErrorResponse, command=3)
    assert not peer.is_closed()
    peer.send_bytes(frame(3, b'', length=limit + 1))
    peer.expect(ErrorResponse, command=3, code='bad_request')
    assert peer.is_closed()


@pytest.mark.parametrize('logged_in', [False, True])
def test_too_long_frame_of_version_1_is_closed_without_a_word(world, logged_in):
    peer = world.login('alice', 1) if logged_in else world.connect(1)
    peer.send_bytes(frame(3, b'', version=1, length=65537 if logged_in else 4097))
    assert peer.is_closed()


def test_too_long_frame_of_version_2_in_a_session_of_version_1(world):
    peer = world.login('alice', 1)
    peer.send_bytes(frame(3, b'', length=2**32 - 1))
    peer.expect(MessageResponse, from_user_id='server')
    assert peer.got_version == 1 and peer.is_closed()


def test_max_body_is_an_option(open_world):
    peer = open_world(':memory:', '--max-body', '40000').login('alice')
    peer.send_bytes(frame(25, b'{"x":"' + b'x' * (40000 - 8) + b'"}'))
    peer.expect(ListUsersResponse)
    peer.send_bytes(frame(25, b'', length=40001))
    peer.expect(ErrorResponse, code='bad_request')
    assert peer.is_closed()


def test_small_limit_again_after_logout(world):
    alice = world.login('alice')
    alice.send(LogoutRequest())
    alice.send_bytes(frame(3, b'', length=4097))
    packets = alice.receive_all()
    assert any(isinstance(packet, ErrorResponse) and packet.code == 'bad_request' for packet in packets)
    assert alice.is_closed()


def test_frame_byte_by_byte(world):
    peer = world.connect()
    for byte in encode(ask_login('alice'), 2):
        peer.send_bytes(bytes([byte]))
        world.loop.tick(0)
    peer.expect(LoginResponse, success=True)


BAD_FRAMES = {
    'command 0': frame(0), 'command 30': frame(30), 'command 255': frame(255), 'a response': frame(2),
    'an answer of version 2': frame(19, b'{"clientSeq":1,"messageId":1,"sentAt":1}'),
    'no JSON': frame(3, b'{'), 'empty': frame(17, b''), 'a list': frame(17, b'[]'),
    'missing field': frame(3, b'{"message":"x"}'),
    'null': frame(3, b'{"clientSeq":1,"message":null,"toUserId":"a"}'),
    'no clientSeq': frame(3, b'{"message":"x","toUserId":"a"}'),
    'wrong type': frame(20, b'{"messageId":"1"}'), 'bool for int': frame(20, b'{"messageId":true}'),
    '65 bits': frame(20, b'{"messageId":9223372036854775808}'), 'NaN': frame(17, b'{"x":NaN}'),
    'lone surrogate': frame(3, b'{"clientSeq":1,"message":"\\ud800","toUserId":"a"}'),
    'byte order mark': frame(17, b'\xef\xbb\xbf{}'), 'UTF-16': frame(17, '{}'.encode('utf-16-le')),
    'too deep': frame(17, b'{"x":' + b'[' * 16 + b']' * 16 + b'}'),
}


@pytest.mark.parametrize('bad', BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_tenth_bad_frame_is_refused_and_closes(world, bad):
    code = 'unknown_command' if bad[6] in (0, 2, 19, 30, 255) else 'bad_request'
    peer = world.login('alice')
    for _ in range(9):
        peer.send_bytes(bad)
        peer.expect(ErrorResponse, command=bad[6], code=code)
        peer.nothing()
    peer.send_bytes(bad + encode(HeartbeatRequest(), 2))
    peer.expect(ErrorResponse, command=bad[6], code=code)
    assert peer.is_closed()


def test_client_seq_of_a_bad_request_is_in_its_refusal(world):
    peer = world.login('alice')
    peer.send_bytes(frame(3, b'{"clientSeq":5,"toUserId":"alice"}'))
    peer.expect(ErrorResponse, command=3, code='bad_request', client_seq=5)


def test_bad_frames_count_for_the_connection_not_for_the_session(world):
    peer = world.connect()
    peer.send_bytes(frame(99) * 5)
    for _ in range(5):
        peer.expect(ErrorResponse, command=99, code='unknown_command')
    peer.login('alice')
    peer.send(*[ListGroupMembersRequest(group_id='none')] * 20)
    for _ in range(20):  # well-formed, refused: they don't count
        peer.expect(ErrorResponse, code='unknown_group')
    peer.send_bytes(frame(99) * 5)
    for _ in range(5):
        peer.expect(ErrorResponse, command=99)
    assert peer.is_closed()


def test_version_1_has_no_commands_of_version_2(world):
    peer = world.login('alice', 1)
    peer.send_bytes(frame(25, version=1))
    peer.expect(MessageResponse, from_user_id='server')
    peer.send_bytes(frame(25, version=2))  # the session's version decides, not the frame's
    peer.expect(MessageResponse, from_user_id='server')
    assert peer.got_version == 1
    before = world.connect(1)
    before.send_bytes(frame(25, version=1))
    before.expect(MessageResponse, from_user_id='server')


def test_version_1_frame_in_a_session_of_version_2(world):
    alice = world.login('alice')
    alice.send(ListUsersRequest(), HeartbeatRequest())
    alice.send_bytes(frame(25, version=1))
    kinds = []
    for _ in range(3):
        kinds.append(type(alice.receive()))
        assert alice.got_version == 2
    assert kinds.count(ListUsersResponse) == 2 and kinds.count(HeartbeatResponse) == 1


@pytest.mark.parametrize('version', [1, 2])
def test_fields_that_are_not_asked_for_are_ignored(world, version):
    alice, bob = world.login('alice', version), world.login('bob')
    body = {
        'toUserId': 'bob', 'message': 'x', 'clientSeq': 1, 'fromUserId': 'carol', 'fromUserName': 'carol',
        'messageId': 99, 'sentAt': 5, 'version': 9, 'command': {'a': [1]},
    }
    alice.send_bytes(frame(3, json.dumps(body).encode(), version=version))
    bob.expect(
        MessageResponse, from_user_id='alice', from_user_name='alice', message_id=1,
        sent_at=int(BEGIN * 1000),
    )


# Too many, and gone ..................................................................................

def test_callers_beyond_max_connections_are_closed(open_world):
    world = open_world(':memory:', '--max-connections', '2')
    world.login('alice'), world.connect()
    with socket.create_connection(world.server.listener.address) as caller:
        caller.setblocking(False)
        world.settle()
        assert caller.recv(1) == b''


def test_peer_that_vanishes(world):
    alice, bob = world.login('alice'), world.login('bob')
    alice.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    alice.socket.close()
    world.pump(lambda: 'alice' not in world.server.sessions, lambda: 'still there')
    bob.say('alice', 'x')
    world.login('alice').expect(MessageResponse, message='x')


# Bugs of our own .....................................................................................

def planted(caplog):
    """The tracebacks in the log; it is clean again after that."""
    found = [record for record in caplog.records if record.exc_info]
    caplog.clear()
    return found


def test_bug_in_a_handler_closes_that_connection_only(world, monkeypatch, caplog):
    alice, bob = world.login('alice'), world.login('bob')
    monkeypatch.setitem(imserver.REQUEST_HANDLERS, 3, lambda session, request: 1 / 0)
    alice.send(message('bob', 'x', 1))
    assert alice.is_closed()
    assert [record.exc_info[0] for record in planted(caplog)] == [ZeroDivisionError]
    bob.nothing()
    assert set(world.server.sessions) == {'bob'}


def test_bug_in_the_worker_closes_that_connection_only(world, monkeypatch, caplog):
    bob, peer = world.login('bob'), world.connect()
    monkeypatch.setattr(imserver, 'hash_password', lambda password, cost: 1 / 0)
    peer.send(ask_login('alice'))
    assert peer.is_closed()
    assert len(planted(caplog)) == 1
    bob.nothing()


def test_bug_after_the_commit_leaves_the_others_alone(world, monkeypatch, caplog):
    alice, bob = world.login('alice'), world.login('bob')
    monkeypatch.setattr(world.server, 'user', lambda user_id: 1 / 0)
    alice.send(ListUsersRequest())
    bob.send(message('bob', 'x', 1))
    bob.expect(MessageAck)
    bob.expect(MessageResponse)
    assert len(planted(caplog)) == 1


# The end of the server ...............................................................................

class Ended:
    """Whether the loop was told to end: what `EventLoop.run` looks at."""

    def __init__(self, world):
        self.is_true = False
        self.world, world.loop.stop = world, self.note

    def note(self):
        self.is_true = True

    def wait(self):
        def look():
            self.world.clock.now += 0.02
            return self.is_true
        self.world.pump(look, lambda: 'it does not end')


def test_stop_answers_what_was_read_and_closes(world):
    alice, bob, ended = world.login('alice'), world.login('bob', 1), Ended(world)
    alice.send(message('alice', 'x', 1), ListGroupsRequest())
    channel = alice.channel
    world.loop.register(channel._socket, selectors.EVENT_READ, lambda mask: (
        channel._on_ready(mask), world.server.stop()))  # the signal comes just after these bytes
    ended.wait()
    alice.expect(MessageAck)
    alice.expect(ListGroupsResponse)
    assert alice.is_closed() and bob.is_closed()
    with pytest.raises(ConnectionError):
        socket.create_connection(world.server.listener.address).close()


def test_stop_reads_no_more(world):
    alice, ended = world.login('alice'), Ended(world)
    world.server.stop()
    alice.send(message('alice', 'x', 1))
    ended.wait()
    assert alice.is_closed() and world.store.committed_id == 0


def test_stop_waits_for_a_slow_reader(world):
    alice, ended = blocked_reader(world), Ended(world)
    world.server.stop()
    for _ in range(4):
        world.pass_time(1)
        assert not ended.is_true and alice.channel.buffered
    packets = alice.receive_all()
    ended.wait()
    assert len(packets) > 100 and alice.is_closed()


def test_second_stop_ends_the_process_at_once(world, monkeypatch):
    blocked_reader(world)
    monkeypatch.setattr(imserver.os, '_exit', sys.exit)
    world.server.stop()
    world.pass_time(1)
    with pytest.raises(SystemExit) as end:
        world.server.stop()
    assert end.value.code == 1


def test_stop_does_not_wait_for_ever(world):
    alice, ended = blocked_reader(world), Ended(world)
    world.server.stop()
    world.pass_time(imserver.STOP_TIMEOUT - 0.1)
    assert not ended.is_true
    world.pass_time(0.1)
    assert ended.is_true
    assert alice.receive()


def blocked_reader(world):
    """A user with more on the way than the system takes."""
    alice = world.connect(receive_buffer=4096).login('alice')
    bob = world.login('bob')
    while alice.channel.is_writable:  # a little more than it takes now, it might take a moment later
        bob.send(*[MessageRequest(to_user_id='alice', message='x' * 4096, client_seq=bob.next_seq())
                   for _ in range(100)])
        world.settle()
        bob.receive_all()
    return alice


# The command line ....................................................................................

def command(*arguments, **options):
    return [sys.executable, str(SERVER), *map(str, arguments)], {
        'text': True,
        'encoding': 'utf-8',
        **options,
    }


def run(*arguments, password=None, **options):
    environment = {name: value for name, value in os.environ.items() if name != 'IM_PASSWORD'}
    environment.update({} if password is None else {'IM_PASSWORD': password})
    line, options = command(
        *arguments, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **options
    )
    return subprocess.run(line, **options)


@contextmanager
def running(tmp_path, *arguments):
    """A server process, its port, and the lines it has said on stdout."""
    line, options = command('--port', '0', '--db', tmp_path / 'im.db', '--password-cost', '10', *arguments,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process = subprocess.Popen(line, **options)
    try:
        first = process.stdout.readline()
        port = re.fullmatch(r'listening on 127\.0\.0\.1:(\d+)\n', first)
        assert port, first + process.stderr.read()
        yield process, int(port[1])
    finally:
        process.kill()
        process.communicate()


def call(port, *packets, version=2):
    sock = socket.create_connection(('127.0.0.1', port), timeout=30)
    sock.sendall(b''.join(encode(packet, version) for packet in packets))
    return sock


def read_packets(sock, count=None):
    """So many packets, or all until the end."""
    decoder, packets = protocol.FrameDecoder(protocol.MAX_BODY_CLIENT), []
    while (count is None or len(packets) < count) and (data := sock.recv(65536)):
        decoder.feed(data)
        packets += map(protocol.decode, decoder)
    return packets


def refuses(result, *words):
    """It has ended with status 2 and one line that says why."""
    assert result.returncode == 2 and result.stdout == '', result
    assert result.stderr.startswith('imserver.py: ') and result.stderr.count('\n') == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_help_names_every_option():
    result = run('--help')
    assert result.returncode == 0 and result.stderr == ''
    for action in imserver.make_parser()._actions:
        assert action.option_strings[-1] in result.stdout and action.help


@pytest.mark.parametrize('arguments', [
    ['--nonsense'], ['extra'], ['--por', '0'], ['--port'], ['--port', 'x'], ['--port', '-1'],
    ['--port', '65536'], ['--idle', '0.5'], ['--idle', 'nan'], ['--idle', 'inf'],
    ['--login-timeout', '86401'], ['--max-connections', '0'], ['--max-body', '32767'],
    ['--max-group', '0'], ['--password-cost', '9'], ['--password-cost', '21'],
    ['--durability', 'maybe'], ['--log-level', 'loud']], ids=' '.join)
def test_bad_options(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        imserver.make_parser().parse_args(arguments)
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == ''
    assert printed.err.startswith('imserver.py: ') and printed.err.count('\n') == 1


def test_bad_option_of_the_real_command():
    refuses(run('--idle', '0'), '--idle', '0', '1', '86400')


def test_taken_port(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        refuses(run('--port', port, '--db', tmp_path / 'im.db'), 'cannot listen', str(port))


@pytest.mark.parametrize('host', ['192.0.2.1', 'a..b', 'x' * 70])
def test_host_that_cannot_be_had(tmp_path, host):
    refuses(run('--port', 0, '--host', host, '--db', tmp_path / 'im.db'), 'cannot listen')


def make_files(tmp_path):
    (tmp_path / 'corrupt').write_bytes(b'SQLite format 3\0' + b'x' * 5000)
    (tmp_path / 'text').write_text('hello ' * 1000, encoding='utf-8')
    for name, version in ('newer', 99), ('foreign', None):
        with closing(sqlite3.connect(tmp_path / name)) as db:
            db.execute('CREATE TABLE t (x)')
            if version:
                db.execute('PRAGMA application_id = 305419896')
                db.execute(f'PRAGMA user_version = {version}')


@pytest.mark.parametrize('name, word', [
    ('corrupt', ''), ('text', 'not a database'), ('newer', 'newer version'), ('foreign', 'another program'),
    ('none/im.db', 'unable to open')])
def test_database_that_cannot_be_used(tmp_path, name, word):
    make_files(tmp_path)
    refuses(run('--port', 0, '--db', tmp_path / name), 'cannot use the database', name, word)


def test_database_that_another_server_holds(tmp_path):
    with running(tmp_path):
        refuses(run('--port', 0, '--db', tmp_path / 'im.db'), 'another program is using it')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_what_is_buffered_sent(tmp_path, number):
    with running(tmp_path) as (process, port):
        with call(port, ask_login('alice'), message('alice', 'x', 1)) as alice:
            assert read_packets(alice, 3)
            for seq in range(2, 200):
                alice.sendall(encode(message('alice', 'y' * 4096, seq), 2))
                alice.sendall(encode(HistoryRequest(user_id='alice', limit=1), 2))
            process.send_signal(number)
            packets = read_packets(alice)
        assert process.wait(30) == 0
        acknowledged = [packet.client_seq for packet in packets if isinstance(packet, MessageAck)]
        assert acknowledged == list(range(2, 2 + len(acknowledged)))
        assert 'Traceback' not in process.stderr.read() and process.stdout.read() == ''
    with closing(World(tmp_path)) as world:
        assert world.login('alice').welcome.last_client_seq >= len(acknowledged) + 1


def test_second_signal_ends_it_at_once(tmp_path):
    with running(tmp_path) as (process, port), call(port, ask_login('alice')) as alice:
        read_packets(alice, 1)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)  # stopped indeed: else it may act on the first before the second
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGCONT:  # both find it running
            process.send_signal(number)
        assert process.wait(30) == 1
        assert 'Traceback' not in process.stderr.read()


def test_not_only_for_this_machine_is_warned_of(tmp_path):
    line, options = command(
        '--port', 0, '--host', '0.0.0.0', '--db', tmp_path / 'im.db', stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with subprocess.Popen(line, **options) as process:
        assert process.stdout.readline().startswith('listening on 0.0.0.0:')
        process.terminate()
        assert process.wait(30) == 0 and 'in the clear' in process.stderr.read()


def set_password(tmp_path, name, password):
    return run('--db', tmp_path / 'im.db', '--password-cost', 10, '--set-password', name, password=password)


def test_set_password_makes_an_account(tmp_path):
    result = set_password(tmp_path, 'rene\u0301', 'secret')
    assert (result.returncode, result.stdout, result.stderr) == (0, 'ren\u00e9 has an account now\n', '')
    with closing(World(tmp_path, '--closed-registration')) as world:
        world.login('ren\u00e9', password='secret')


def test_set_password_ends_the_old_password_and_the_token(tmp_path):
    with closing(World(tmp_path)) as world:
        token = world.login('alice').welcome.token
    assert set_password(tmp_path, 'alice', 'new').stdout == 'alice has a new password\n'
    with closing(World(tmp_path)) as world:
        refused_login(token_login(world, 'alice', token), 'bad_token')
        peer = world.connect()
        peer.send(ask_login('alice', 'pw'))
        refused_login(peer, 'wrong_password')
        peer.login('alice', 'new')


@pytest.mark.parametrize('name', ['', 'a b', 'server', 'ALICE', 'x' * 33])
def test_set_password_refuses_bad_names(tmp_path, name):
    with closing(World(tmp_path)) as world:
        world.login('alice')
    refuses(set_password(tmp_path, name, 'x'), 'no valid name')


@pytest.mark.parametrize('name, password', [('al\udcffice', 'x'), ('alice', 'x\udcff'), ('alice', '')])
def test_set_password_with_bytes_that_are_no_text_or_with_none(tmp_path, name, password):
    refuses(set_password(tmp_path, name, password), 'must be text, and not empty')


@pytest.mark.skipif(os.name == 'nt', reason='modes are POSIX')
def test_what_people_write_is_for_nobody_else_on_this_machine(tmp_path):
    with running(tmp_path):
        assert {path.stat().st_mode & 0o777 for path in tmp_path.glob('im.db*')} == {0o600}


def test_set_password_while_a_server_holds_the_file(tmp_path):
    with running(tmp_path):
        refuses(set_password(tmp_path, 'alice', 'x'), 'another program is using it')


def test_set_password_without_password_and_terminal(tmp_path):
    refuses(set_password(tmp_path, 'alice', None), 'IM_PASSWORD')
    with closing(World(tmp_path)) as world:
        assert not world.store.user_exists('alice')


def test_selector_is_the_one_that_was_asked_for(world):
    wanted = selector()
    if wanted:
        wanted.close()
    assert wanted is None or type(world.loop.selector) is type(wanted)


def test_refusal_is_one_line_in_the_log_and_tells_no_secret(world, caplog):
    world.login('alice', password='right')
    peer = world.connect()
    peer.send(LoginRequest(user_name='alice', password='a-secret'))
    peer.expect(LoginResponse, success=False)
    lines = [record.getMessage() for record in caplog.records if 'refused' in record.getMessage()]
    assert len(lines) == 1 and lines[0].endswith('refused LOGIN_REQUEST: wrong_password')
    assert 'a-secret' not in caplog.text

"""What the server promises about messages and groups: who may send what to whom, who gets it, in which
order and how often, also when a reader is slow or away, when numbers repeat, when the disk is full and when
the server dies.

The server runs in this process, with clocks that stand still until a test moves them.  After each test the
log is searched: nothing that a peer sends may make a traceback.
"""

import logging
import sqlite3

import pytest

import imserver
import protocol
from peers import BEGIN, World
from protocol import (
    CreateGroupRequest, CreateGroupResponse, DeliveryAck, ErrorResponse, GroupMessageRequest,
    GroupMessageResponse, GroupNotice, HeartbeatRequest, HistoryRequest, HistoryResponse, JoinGroupRequest,
    JoinGroupResponse, KickedNotice, ListGroupMembersRequest, ListGroupMembersResponse, ListGroupsRequest,
    ListGroupsResponse, ListUsersRequest, ListUsersResponse, LoginRequest, LoginResponse, LogoutRequest,
    LogoutResponse, MessageAck, MessageRequest, MessageResponse, QuitGroupRequest, QuitGroupResponse, User,
    encode)
from reactor import HIGH_WATER_MARK, Channel
from store import name_key

LONGEST = 4096  # characters of a message
NONE = '00000000'  # a group that isn't there, but for one case in four thousand million
SENT_AT = int(BEGIN * 1000)


@pytest.fixture(autouse=True)
def no_traceback(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert not [record for record in caplog.get_records('call') if record.exc_info]


@pytest.fixture
def open_world(tmp_path):
    worlds = []

    def open_it(place=tmp_path, *options):
        worlds.append(World(place, *options))
        return worlds[-1]
    yield open_it
    for world in worlds:
        world.close()


@pytest.fixture
def world(open_world):
    return open_world(':memory:')


def message(user_id, text='hi', seq=None):
    return MessageRequest(to_user_id=user_id, message=text, client_seq=seq)


def group_message(group_id, text, seq):
    return GroupMessageRequest(to_group_id=group_id, message=text, client_seq=seq)


def texts(packets):
    return [p.message for p in packets if isinstance(p, (MessageResponse, GroupMessageResponse))]


def log_out(peer):
    """What was not read yet is forgotten."""
    peer.send(LogoutRequest())
    assert peer.receive_all()[-1] == LogoutResponse(success=True)


def tell(peer, group, *messages):
    """Write to a group; the answers and the sender's own copies are taken."""
    for text in messages:
        ack = peer.tell(group, text)
        peer.expect(GroupMessageResponse, message=text, message_id=ack.message_id)


def flood(sender, user_id, numbers, length=0):
    """Messages that begin with these numbers, a hundred in a piece; the acknowledgements are taken."""
    numbers = list(numbers)
    for begin in range(0, len(numbers), 100):
        part = numbers[begin:begin + 100]
        sender.send(*[message(user_id, str(number).ljust(length), sender.next_seq()) for number in part])
        for _ in part:
            sender.expect(MessageAck)


# One to one ..........................................................................................

@pytest.mark.parametrize('sender_version', [1, 2])
@pytest.mark.parametrize('reader_version', [1, 2])
def test_message_to_a_user(world, sender_version, reader_version):
    alice, bob = world.login('alice', sender_version), world.login('bob', reader_version)
    ack = alice.say('bob', 'hi')
    got = bob.expect(MessageResponse, from_user_id='alice', from_user_name='alice', message='hi')
    if sender_version == 2:
        assert ack.sent_at == SENT_AT and ack.message_id == 1
    assert (got.message_id, got.sent_at) == ((1, SENT_AT) if reader_version == 2 else (None, None))
    alice.nothing()  # version 1 hears nothing of its success
    bob.nothing()


@pytest.mark.parametrize('version', [1, 2])
def test_message_to_one_who_is_away_waits(world, version):
    alice, bob = world.login('alice'), world.login('bob', version)
    log_out(bob)
    alice.say('bob', 'one')
    alice.say('bob', 'two')
    bob.login('bob')
    assert [bob.receive().message, bob.receive().message] == ['one', 'two']
    bob.nothing()


@pytest.mark.parametrize('name', ['nobody', '', 'server', 'Bob', 'a b', 'x' * 10000])
def test_message_to_an_unknown_user(world, name):
    alice, old = world.login('alice'), world.login('bob', 1)
    alice.send(message(name, 'hi', 5))
    alice.expect(ErrorResponse, command=3, code='unknown_user', client_seq=5)
    old.send(message(name))
    old.expect(MessageResponse, from_user_id='server', from_user_name='server')


def test_message_to_a_decomposed_name(world):
    bob = world.login('ren\u00e9')
    world.login('alice').say('rene\u0301', 'hi')
    bob.expect(MessageResponse, message='hi')


def test_message_to_oneself(world):
    alice = world.login('alice')
    alice.say('alice', 'note')
    alice.expect(MessageResponse, from_user_id='alice', message='note')


@pytest.mark.parametrize('text', [
    'x', 'x' * LONGEST, '😀' * LONGEST, '\0' * LONGEST, ' ', '\n', 'e\u0301', '\u202e', '"\\',
    '\u2028\x7f'], ids=ascii)
def test_text_is_delivered_and_stored_as_sent(world, text):
    alice = world.login('alice')
    alice.say('alice', text)
    alice.expect(MessageResponse, message=text)
    alice.send(HistoryRequest(user_id='alice'))
    assert alice.expect(HistoryResponse).messages[0].message == text


@pytest.mark.parametrize('to_group', [False, True])
def test_empty_and_too_long_messages(world, to_group):
    alice = world.login('alice')
    group = alice.create()
    long = 'message_too_long'
    for text, code in ('', 'bad_request'), ('x' * (LONGEST + 1), long), ('😀' * (LONGEST + 1), long):
        seq = alice.next_seq()
        alice.send(GroupMessageRequest(to_group_id=group, message=text, client_seq=seq) if to_group else
                   message('alice', text, seq))
        alice.expect(ErrorResponse, code=code, client_seq=seq)
    alice.nothing()


# Groups ..............................................................................................

def test_creation_reaches_all_who_were_named(world):
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('carol', 1)
    named = ['carol', 'bob', 'bob', 'nobody', 'Bob', 'alice']
    alice.send(CreateGroupRequest(user_id_list=named, group_name='Três 😀', client_seq=3))
    common = {'success': True, 'user_name_list': ['alice', 'bob', 'carol'], 'reason': None}
    group = alice.expect(
        CreateGroupResponse, **common, group_name='Três 😀', unknown_user_id_list=['Bob', 'nobody'],
        client_seq=3, message_id=1, sent_at=SENT_AT,
    ).group_id
    assert len(group) == 8 and int(group, 16) >= 0 and group == group.lower()
    bob.expect(CreateGroupResponse, **common, group_id=group, group_name='Três 😀', unknown_user_id_list=None,
               client_seq=None, message_id=1, sent_at=SENT_AT)
    carol.expect(CreateGroupResponse, **common, group_id=group, group_name=None, message_id=None)
    for peer in alice, bob, carol:
        peer.nothing()


def test_creation_after_something_else_reaches_those_who_are_there(world):
    alice, bob = world.login('alice'), world.login('bob')
    alice.say('bob', 'x')
    bob.expect(MessageResponse)
    group = alice.create('bob')
    bob.expect(CreateGroupResponse, group_id=group, message_id=2)


def test_creation_without_names_has_its_creator_in_it(world):
    alice = world.login('alice')
    group = alice.create()
    assert alice.last.user_name_list == ['alice'] and alice.last.unknown_user_id_list is None
    alice.tell(group, 'x')
    alice.expect(GroupMessageResponse, message='x')


def test_creation_by_version_1(world):
    alice, bob = world.login('alice', 1), world.login('bob')
    group = alice.create('bob', 'nobody')
    bob.expect(CreateGroupResponse, group_id=group, group_name=None, message_id=1)


def test_creation_looks_names_up_in_their_composed_form(world):
    world.login('ren\u00e9')
    alice = world.login('alice')
    alice.create('rene\u0301', 'x\u0301')
    assert alice.last.user_name_list == ['alice', 'ren\u00e9'] and alice.last.unknown_user_id_list == [
        'x\u0301'
    ]


@pytest.mark.parametrize('name', ['bob\0', 'bob\0x', '\0bob', 'bob '])
def test_creation_takes_no_name_for_another(world, name):
    bob, alice = world.login('bob'), world.login('alice')
    alice.create(name)
    assert alice.last.user_name_list == ['alice'] and alice.last.unknown_user_id_list == [name]
    bob.nothing()


def test_creation_finds_names_beyond_16_bits(world):
    world.login('𠀀')
    alice = world.login('alice')
    alice.create('𠀀')
    assert alice.last.user_name_list == ['alice', '𠀀']


@pytest.mark.parametrize('length, is_good', [(0, False), (1, True), (64, True), (65, False)])
def test_length_of_a_group_name(world, length, is_good):
    alice = world.login('alice')
    alice.send(CreateGroupRequest(user_id_list=[], group_name='😀' * length, client_seq=1))
    if is_good:
        alice.expect(CreateGroupResponse, success=True, group_name='😀' * length)
    else:
        alice.expect(ErrorResponse, command=7, code='bad_request', client_seq=1)


def test_creation_reaches_one_who_was_away(world):
    alice, bob = world.login('alice'), world.login('bob')
    log_out(bob)
    group = alice.create('bob', name='n')
    alice.tell(group, 'x')
    bob.login('bob')
    bob.expect(CreateGroupResponse, group_id=group, group_name='n', user_name_list=['alice', 'bob'])
    bob.expect(GroupMessageResponse, message='x')


def test_max_group_at_creation(open_world):
    world = open_world(':memory:', '--max-group', '2')
    alice = world.login('alice')
    world.login('bob'), world.login('carol')
    alice.send(CreateGroupRequest(user_id_list=['bob', 'carol'], client_seq=1))
    alice.expect(ErrorResponse, command=7, code='group_full', client_seq=1)
    alice.create('bob', 'nobody')


def test_two_joins_in_one_tick_for_the_last_place(open_world):
    world = open_world(':memory:', '--max-group', '2')
    group = world.login('alice').create()
    peers = [world.login('bob'), world.login('carol', 1)]
    for peer in peers:
        peer.send(JoinGroupRequest(group_id=group, client_seq=1))
    answers = [peer.expect(JoinGroupResponse, group_id=group) for peer in peers]
    assert sorted(answer.success for answer in answers) == [False, True]
    for answer, peer in zip(answers, peers):
        if not answer.success:
            assert answer.reason and answer.code == ('group_full' if peer.version == 2 else None)
    assert world.store.count_members(group) == 2


def test_join_and_quit_are_answered_and_noticed_by_the_others(world):
    alice, bob, carol = world.login('alice'), world.login('bob', 1), world.login('carol')
    group = alice.create('bob')
    bob.expect(CreateGroupResponse)
    carol.send(JoinGroupRequest(group_id=group, client_seq=4))
    carol.expect(JoinGroupResponse, group_id=group, success=True, reason=None, code=None, client_seq=4)
    carol.send(QuitGroupRequest(group_id=group, client_seq=5))
    carol.expect(QuitGroupResponse, group_id=group, success=True, reason=None, code=None, client_seq=5)
    carol.nothing()
    who = User(user_id='carol', user_name='carol')
    for message_id, event in (2, 'joined'), (3, 'left'):
        alice.expect(
            GroupNotice, group_id=group, event=event, user=who, message_id=message_id, sent_at=SENT_AT
        )
        bob.expect(GroupMessageResponse, from_group_id=group, from_user=who, message=f'{event} the group')
    alice.nothing()
    bob.nothing()


@pytest.mark.parametrize('kind, answer', [
    (JoinGroupRequest, JoinGroupResponse), (QuitGroupRequest, QuitGroupResponse)])
@pytest.mark.parametrize('version', [1, 2])
def test_join_and_quit_are_refused_by_their_own_responses(world, kind, answer, version):
    alice, bob = world.login('alice', version), world.login('bob')
    mine, other = alice.create(), bob.create()
    wrong = {NONE: 'unknown_group', mine if kind is JoinGroupRequest else other:
             'already_a_member' if kind is JoinGroupRequest else 'not_a_member'}
    for group, code in wrong.items():
        alice.send(kind(group_id=group, client_seq=9))
        got = alice.expect(answer, group_id=group, success=False)
        assert got.reason and (got.code, got.client_seq) == ((code, 9) if version == 2 else (None, None))
    bob.nothing()


def test_group_of_version_1_alone(world):
    alice, bob = world.login('alice', 1), world.login('bob', 1)
    group = alice.create()
    bob.join(group)
    alice.expect(GroupMessageResponse, message='joined the group')
    bob.tell(group, 'x')
    alice.expect(GroupMessageResponse, message='x', from_user=User(user_id='bob', user_name='bob'))
    bob.expect(GroupMessageResponse, message='x')
    bob.quit(group)
    alice.expect(GroupMessageResponse, message='left the group')


@pytest.mark.parametrize('version', [1, 2])
def test_members_and_who_is_online(world, version):
    alice, bob, carol = world.login('alice', version), world.login('bob'), world.login('carol')
    group = alice.create('bob', 'carol')
    log_out(bob)
    alice.send(ListGroupMembersRequest(group_id=group))
    users = alice.expect(ListGroupMembersResponse, group_id=group).session_list
    online = [True, False, True] if version == 2 else [None] * 3
    assert users == [User(user_id=name, user_name=name, online=is_online)
                     for name, is_online in zip(['alice', 'bob', 'carol'], online)]
    carol.expect(CreateGroupResponse)


REQUESTS_OF_MEMBERS = [
    lambda group: ListGroupMembersRequest(group_id=group), lambda group: HistoryRequest(group_id=group),
    lambda group: group_message(group, 'x', 1)]


@pytest.mark.parametrize('make', REQUESTS_OF_MEMBERS)
def test_what_is_for_members_only(world, make):
    group, bob = world.login('alice').create(), world.login('bob')
    for group_id, code in (group, 'not_a_member'), (NONE, 'unknown_group'), ('', 'unknown_group'):
        bob.send(make(group_id))
        bob.expect(ErrorResponse, command=make('').COMMAND, code=code)


@pytest.mark.parametrize('make', [
    *REQUESTS_OF_MEMBERS, lambda group: QuitGroupRequest(group_id=group, client_seq=1),
    lambda group: JoinGroupRequest(group_id=group, client_seq=1)])
@pytest.mark.parametrize('reader_asks', [False, True])
def test_a_conversation_is_no_group(world, make, reader_asks):
    """What one writes to another has a name in the database that no request may use as that of a group."""
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('carol')
    carol.say('bob', 'one')
    bob.receive_all()
    peer = bob if reader_asks else alice
    peer.send(make('carol bob'))
    assert peer.receive().code == 'unknown_group'
    log_out(bob)
    carol.say('bob', 'two')
    assert texts(bob.login('bob').receive_all()) == ['one', 'two']


def test_quitter_gets_what_came_before_and_joiner_what_came_after(world):
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('carol')
    group = alice.create('bob')
    tell(alice, group, 'one')
    bob.receive_all()
    bob.quit(group)
    alice.expect(GroupNotice)
    carol.join(group)
    alice.expect(GroupNotice)
    tell(alice, group, 'two')
    carol.expect(GroupMessageResponse, message='two')
    carol.nothing()
    bob.nothing()
    for peer, seen in (bob, ['one']), (carol, ['two']):  # shown, but never acknowledged
        log_out(peer)
        assert texts(peer.login('bob' if peer is bob else 'carol').receive_all()) == seen


def test_member_again(world):
    alice, bob = world.login('alice'), world.login('bob')
    group = alice.create()
    for number in range(3):
        tell(alice, group, f'out {number}')
        bob.join(group)
        alice.expect(GroupNotice, event='joined')
        tell(alice, group, f'in {number}')
        bob.expect(GroupMessageResponse, message=f'in {number}')
        bob.quit(group)
        alice.expect(GroupNotice, event='left')
    bob.send(HistoryRequest(group_id=group))
    assert [m.message for m in bob.expect(HistoryResponse).messages] == ['in 0', 'in 1', 'in 2']
    log_out(bob)
    assert texts(bob.login('bob').receive_all()) == ['in 0', 'in 1', 'in 2']


def test_membership_survives_logout_reconnect_restart_and_crash(open_world):
    world = open_world()
    alice, bob = world.login('alice'), world.login('bob')
    group = alice.create('bob')
    log_out(bob)
    for again in (lambda: None), world.restart, world.crash:
        again()
        bob, alice = world.login('bob'), world.login('alice')
        bob.receive_all(), alice.receive_all()
        tell(alice, group, 'x')
        bob.expect(GroupMessageResponse, message='x')
        bob.send(ListGroupsRequest())
        assert bob.expect(ListGroupsResponse).group_list[0].group_id == group


def test_sender_of_a_group_message_gets_it_behind_its_acknowledgement(world):
    alice, old = world.login('alice'), world.login('old', 1)
    group = alice.create('old')
    old.expect(CreateGroupResponse)
    alice.send(group_message(group, 'x', 2))
    ack = alice.expect(MessageAck, client_seq=2, message_id=2, sent_at=SENT_AT)
    me = User(user_id='alice', user_name='alice')
    alice.expect(
        GroupMessageResponse, from_group_id=group, from_user=me, message='x', message_id=ack.message_id
    )
    old.expect(GroupMessageResponse, from_group_id=group, from_user=me, message='x')
    old.tell(group, 'y')
    old.expect(GroupMessageResponse, message='y', message_id=None)
    alice.expect(GroupMessageResponse, message='y', message_id=3)


def test_membership_is_right_when_the_cache_of_members_is_small(world, monkeypatch):
    monkeypatch.setattr(imserver, 'MEMBERS_CACHE', 1)
    alice, bob = world.login('alice'), world.login('bob')
    groups = [alice.create('bob') for _ in range(3)]
    bob.receive_all()
    for group in groups * 2:
        alice.tell(group, group)
        assert alice.receive().message == bob.receive().message == group
    assert len(world.server._members) <= 1


def test_unknown_groups_take_no_memory(world):
    alice = world.login('alice')
    for number in range(20):
        alice.send(GroupMessageRequest(to_group_id=f'{number}' * 1000, message='x', client_seq=number + 1))
        alice.expect(ErrorResponse, code='unknown_group')
    assert not world.server._members


# Lists ...............................................................................................

def test_list_of_users_has_those_online_first(world):
    for name in 'adam', 'zoe', 'bea':
        log_out(world.login(name))
    zoe, yan = world.login('zoe'), world.login('yan', 1)
    zoe.send(ListUsersRequest())
    found = [(user.user_id, user.user_name, user.online) for user in zoe.expect(ListUsersResponse).user_list]
    assert found == [
        ('yan', 'yan', True),
        ('zoe', 'zoe', True),
        ('adam', 'adam', False),
        ('bea', 'bea', False),
    ]
    assert not yan.is_closed()


@pytest.mark.parametrize('count', [199, 200, 500])
def test_list_of_users_has_200_at_most(world, count):
    zoe = world.login('zoe')
    password = world.store.password_of('zoe')
    for number in range(count - 1):
        name = f'user{number:03}'
        world.store.add_user(name, name_key(name), password)
    zoe.send(ListUsersRequest())
    users = zoe.expect(ListUsersResponse).user_list
    assert len(users) == min(count, 200) and users[0].user_id == 'zoe' and users[1].user_id == 'user000'


def test_list_of_groups(world):
    alice = world.login('alice')
    log_out(world.login('bob'))
    alice.send(ListGroupsRequest())
    assert alice.expect(ListGroupsResponse).group_list == []
    one, two, left = alice.create('bob', name='one'), alice.create(), alice.create('bob')
    alice.quit(left)
    alice.send(ListGroupsRequest())
    found = {g.group_id: (g.group_name, g.member_count) for g in alice.expect(ListGroupsResponse).group_list}
    assert found == {one: ('one', 2), two: (None, 1)}


# History .............................................................................................

def history(peer, **fields):
    peer.send(HistoryRequest(**fields))
    return peer.expect(HistoryResponse)


def test_history_with_a_user(world):
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('ren\u00e9')
    ids = [alice.say('bob', 'one').message_id]
    bob.receive_all()
    ids.append(bob.say('alice', 'two').message_id)
    alice.receive_all()
    carol.say('alice', 'other'), carol.say('bob', 'other')
    alice.receive_all()
    alice.create('bob')
    bob.receive_all()
    answer = history(bob, user_id='alice')
    assert (answer.user_id, answer.group_id, answer.more) == ('alice', None, False)
    assert [(m.message_id, m.sent_at, m.from_user_id, m.message) for m in answer.messages] == [
        (ids[0], SENT_AT, 'alice', 'one'), (ids[1], SENT_AT, 'bob', 'two')]
    answer = history(bob, user_id='rene\u0301')
    assert answer.user_id == 'rene\u0301' and [m.message for m in answer.messages] == ['other']
    assert history(carol, user_id='ren\u00e9').messages == []


def test_history_of_a_group_shows_messages_only_and_one_s_own_time(world):
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('carol')
    group = alice.create()
    tell(alice, group, 'before')
    bob.join(group)
    alice.expect(GroupNotice)
    tell(alice, group, 'one')
    carol.join(group)
    bob.receive_all()
    tell(bob, group, 'two')
    bob.quit(group)
    alice.receive_all()
    tell(alice, group, 'after')
    for peer, seen in (
        (alice, ['before', 'one', 'two', 'after']),
        (bob, ['one', 'two']),
        (carol, ['two', 'after']),
    ):
        peer.receive_all()
        answer = history(peer, group_id=group)
        assert [m.message for m in answer.messages] == seen
        assert (answer.user_id, answer.group_id, answer.more) == (None, group, False)


@pytest.mark.parametrize('fields', [
    {}, {'user_id': 'alice', 'group_id': 'g'},
    *({'user_id': 'alice', 'limit': limit} for limit in (0, 101, -1, 2**62))])
def test_history_that_asks_wrongly(world, fields):
    alice = world.login('alice')
    alice.send(HistoryRequest(**fields))
    alice.expect(ErrorResponse, command=23, code='bad_request')


def test_history_with_an_unknown_user(world):
    alice = world.login('alice')
    alice.send(HistoryRequest(user_id='nobody'))
    alice.expect(ErrorResponse, command=23, code='unknown_user')


def test_limit_before_and_more(world):
    alice = world.login('alice')
    world.login('bob')
    flood(alice, 'bob', range(1, 102))  # their ids too
    for limit, ids, more in (1, [101], True), (100, range(2, 102), True), (None, range(82, 102), True):
        answer = history(alice, user_id='bob', limit=limit)
        assert [m.message_id for m in answer.messages] == list(ids) and answer.more is more
    for before, ids, more in (
        (3, [1, 2], False), (1, [], False), (-5, [], False), (101, range(1, 101), False),
        (2**63 - 1, range(2, 102), True),
    ):
        answer = history(alice, user_id='bob', limit=100, before=before)
        assert [m.message_id for m in answer.messages] == list(ids) and answer.more is more


@pytest.mark.parametrize('letter, least', [('x', 55), ('é', 25), ('😀', 14), ('\1', 10), ('"', 25)])
def test_history_stays_under_256_kib(world, letter, least):
    alice = world.login('alice')
    world.login('é' * 32)
    for _ in range(100):
        alice.say('é' * 32, letter * LONGEST)
    read, before = [], None
    while True:
        answer = history(alice, user_id='é' * 32, limit=100, before=before)
        assert len(encode(answer, 2)) <= 262_144
        read[:0] = [m.message_id for m in answer.messages]
        if not answer.more:
            break
        assert len(answer.messages) >= least
        before = read[0]
    assert read == list(range(1, 101))


# Numbers of requests .................................................................................

def test_missing_number_is_a_bad_request(world):
    alice = world.login('alice')
    for request in message('alice'), CreateGroupRequest(user_id_list=[]), JoinGroupRequest(group_id='g'):
        alice.send(request)
        alice.expect(ErrorResponse, command=request.COMMAND, code='bad_request', client_seq=None)


@pytest.mark.parametrize('seq', [0, -1])
def test_numbers_begin_at_1(world, seq):
    alice = world.login('alice')
    alice.send(message('alice', 'x', seq), QuitGroupRequest(group_id='g', client_seq=seq))
    alice.expect(ErrorResponse, command=3, code='bad_request', client_seq=seq)
    alice.expect(QuitGroupResponse, code='bad_request', client_seq=seq)


def test_repeat_in_one_piece_later_after_reconnect_restart_and_crash(open_world):
    world = open_world()
    alice = world.login('alice')
    world.login('bob')
    alice.send(*[message('bob', 'x', 7)] * 3)
    first = alice.expect(MessageAck, client_seq=7)
    assert [alice.receive(), alice.receive()] == [first, first]
    alice.send(message('bob', 'x', 7))
    assert alice.expect(MessageAck) == first
    for again in log_out, world.restart, world.crash:
        again(alice) if again is log_out else again()
        world.wall_clock.now += 100
        alice = world.login('alice')
        assert alice.welcome.last_client_seq == 7
        alice.send(message('bob', 'x', 7))
        assert alice.expect(MessageAck) == first
    assert world.store.committed_id == first.message_id
    assert texts(world.login('bob').receive_all()) == ['x']


def test_number_with_another_request_is_a_conflict(world):
    alice, bob = world.login('alice'), world.login('bob')
    group = alice.create()  # 1
    alice.say('bob', 'x')  # 2
    others = [message('bob', 'y', 2), message('alice', 'x', 2), group_message(group, 'x', 2),
              CreateGroupRequest(user_id_list=[], client_seq=2), message('bob', 'x', 1),
              CreateGroupRequest(user_id_list=['bob'], client_seq=1),
              CreateGroupRequest(user_id_list=[], group_name='n', client_seq=1)]
    for request in others:
        alice.send(request)
        alice.expect(
            ErrorResponse, command=request.COMMAND, code='seq_conflict', client_seq=request.client_seq
        )
    for kind, answer in (JoinGroupRequest, JoinGroupResponse), (QuitGroupRequest, QuitGroupResponse):
        alice.send(kind(group_id=group, client_seq=2))
        alice.expect(answer, success=False, code='seq_conflict', client_seq=2)
    assert world.store.committed_id == 2
    assert texts(bob.receive_all()) == ['x']


def test_conflict_in_one_piece(world):
    alice = world.login('alice')
    alice.send(message('alice', 'x', 1), message('alice', 'y', 1))
    assert {type(alice.receive()), type(alice.receive())} == {MessageAck, ErrorResponse}
    alice.expect(MessageResponse, message='x')
    alice.nothing()


def test_number_that_was_left_out_or_refused_is_never_executed(world):
    alice = world.login('alice')
    alice.send(message('nobody', 'x', 3))
    alice.expect(ErrorResponse, code='unknown_user', client_seq=3)
    alice.send(message('alice', 'y', 3))  # the highest that made an entry is still 0
    alice.expect(MessageAck, client_seq=3)
    alice.expect(MessageResponse, message='y')
    alice.send(message('nobody', 'x', 5))
    alice.expect(ErrorResponse, code='unknown_user')
    alice.send(message('alice', 'z', 9))
    alice.expect(MessageAck, client_seq=9)
    alice.expect(MessageResponse, message='z')
    world.login('nobody')
    for request in message('nobody', 'x', 5), message('alice', 'z', 8), message('alice', 'z', 1):
        alice.send(request)
        alice.expect(ErrorResponse, code='seq_conflict', client_seq=request.client_seq)


def test_largest_number(world):
    alice = world.login('alice')
    alice.send(message('alice', 'x', 2**63 - 1))
    alice.expect(MessageAck, client_seq=2**63 - 1)
    alice.expect(MessageResponse)
    assert world.login('alice').welcome.last_client_seq == 2**63 - 1


def test_every_kind_of_entry_counts(world):
    alice, bob = world.login('alice'), world.login('bob')
    group = alice.create('bob')
    bob.receive()
    bob.tell(group, 'x'), bob.receive()
    bob.quit(group)
    bob.join(group)
    assert world.login('bob').welcome.last_client_seq == 3
    bob.expect(KickedNotice)


def test_version_1_uses_no_numbers(world):
    alice = world.login('alice', 1)
    alice.say('alice', 'x'), alice.say('alice', 'x')
    assert texts(alice.receive_all()) == ['x', 'x']
    assert world.login('alice').welcome.last_client_seq == 0


def test_repeat_of_a_creation_answers_the_members_of_its_time(world):
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('carol')
    request = CreateGroupRequest(user_id_list=['bob', 'dan'], group_name='n', client_seq=1)
    alice.send(request)
    first = alice.expect(CreateGroupResponse, user_name_list=['alice', 'bob'], unknown_user_id_list=['dan'])
    carol.join(first.group_id)
    bob.receive_all()
    bob.quit(first.group_id)
    world.login('dan')
    alice.receive_all()
    alice.send(request)
    assert alice.receive() == first
    carol.receive_all()
    alice.nothing()


def test_repeat_of_a_join_after_having_quit_does_not_join(world):
    group, bob = world.login('alice').create(), world.login('bob')
    bob.join(group)
    bob.quit(group)
    bob.send(JoinGroupRequest(group_id=group, client_seq=1))
    bob.expect(JoinGroupResponse, success=True, client_seq=1)
    bob.send(QuitGroupRequest(group_id=group, client_seq=2))
    bob.expect(QuitGroupResponse, success=True, client_seq=2)
    bob.send(group_message(group, 'x', 3))
    bob.expect(ErrorResponse, code='not_a_member')


def test_repeat_is_answered_also_without_the_right_to_it(world):
    alice = world.login('alice')
    group = alice.create()
    ack = alice.tell(group, 'x')
    alice.receive()
    alice.quit(group)
    alice.send(group_message(group, 'x', 2))
    assert alice.receive() == ack
    alice.nothing()


# Order, and what comes again .........................................................................

def test_entries_of_all_kinds_come_in_the_order_of_their_ids_old_before_new(world):
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('carol')
    log_out(bob)
    group = alice.create('bob')
    alice.say('bob', 'one'), carol.join(group), carol.tell(group, 'two'), carol.receive(), carol.quit(group)
    alice.receive_all()
    bob.send(LoginRequest(user_name='bob', password='pw'))
    alice.send(message('bob', 'three', alice.next_seq()))
    packets = bob.receive_all()
    assert [type(packet) for packet in packets] == [
        LoginResponse, CreateGroupResponse, MessageResponse, GroupNotice, GroupMessageResponse, GroupNotice,
        MessageResponse]
    assert [packet.message_id for packet in packets[1:]] == [1, 2, 3, 4, 5, 6]


def test_what_was_not_acknowledged_comes_again_and_again(open_world):
    world = open_world()
    alice = world.login('alice')
    world.login('bob')
    alice.say('bob', 'x')
    for again in (lambda: None), world.restart, world.crash, (lambda: None):
        again()
        assert texts(world.login('bob').receive_all()) == ['x']


def test_what_was_acknowledged_does_not_come_again(open_world):
    world = open_world()
    alice, bob = world.login('alice'), world.login('bob')
    for text in 'abc':
        alice.say('bob', text)
    bob.send(DeliveryAck(message_id=2))  # cumulative: 1 too
    bob.receive_all()
    assert texts(world.login('bob').receive_all()) == ['c']
    for again in world.restart, world.crash:
        again()
        assert texts(world.login('bob').receive_all()) == ['c']


def test_acknowledgement_survives_a_crash_when_a_second_has_passed(open_world):
    world = open_world()
    alice, bob = world.login('alice'), world.login('bob')
    alice.say('bob', 'x'), alice.say('bob', 'y')
    bob.receive_all()
    bob.send(DeliveryAck(message_id=1))
    world.pass_time(1)
    bob.send(DeliveryAck(message_id=2))
    world.settle()
    world.crash()
    assert texts(world.login('bob').receive_all()) in (['y'], [])


def test_acknowledgement_below_the_last_changes_nothing(world):
    alice, bob = world.login('alice'), world.login('bob')
    for text in 'abc':
        alice.say('bob', text)
    bob.receive_all()
    bob.send(DeliveryAck(message_id=2), DeliveryAck(message_id=1), DeliveryAck(message_id=-7))
    bob.nothing()
    assert texts(world.login('bob').receive_all()) == ['c']


@pytest.mark.parametrize('highest', [100, 2**63 - 1])
def test_acknowledgement_above_the_highest_is_the_highest(world, highest):
    alice, bob = world.login('alice'), world.login('bob')
    alice.say('bob', 'x')
    bob.receive_all()
    bob.send(DeliveryAck(message_id=highest))
    bob.nothing()
    alice.say('bob', 'y')
    bob.expect(MessageResponse, message='y')
    assert texts(world.login('bob').receive_all()) == ['y']


@pytest.mark.parametrize('resume_after, seen', [
    (None, 'abc'), (0, 'abc'), (-1, 'abc'), (2, 'c'), (3, ''), (99, ''), (2**63 - 1, '')])
def test_resume_after(world, resume_after, seen):
    alice, bob = world.login('alice'), world.login('bob')
    for text in 'abc':
        alice.say('bob', text)
    bob.receive_all()
    bob = world.login('bob', resume_after=resume_after)
    assert texts(bob.receive_all()) == list(seen)
    alice.say('bob', 'new')
    bob.expect(MessageResponse, message='new')
    bob = world.login('bob', resume_after=1)
    assert texts(bob.receive_all()) == [*(seen if resume_after and resume_after > 0 else 'bc'), 'new']


def test_log_id_is_that_of_the_database(open_world, tmp_path):
    world = open_world()
    log_id = world.login('alice').welcome.log_id
    world.restart()
    assert world.login('alice').welcome.log_id == log_id
    assert open_world(':memory:').login('alice').welcome.log_id != log_id


# Version 1 acknowledges nothing ......................................................................

@pytest.mark.parametrize('end', ['logout', 'newer login', 'half-close', 'restart', 'crash after a second'])
def test_what_version_1_was_sent_counts_as_delivered(open_world, end):
    world = open_world()
    alice, bob = world.login('alice'), world.login('bob', 1)
    alice.say('bob', 'x')
    bob.expect(MessageResponse, message='x')
    if end == 'logout':
        log_out(bob)
    elif end == 'half-close':
        bob.half_close()
        assert bob.is_closed()
    elif end == 'restart':
        world.restart()
    elif end == 'crash after a second':
        world.pass_time(1)
        world.pass_time(0)
        world.crash()
    assert world.login('bob', 1).receive_all() == []


def test_answers_on_the_way_do_not_undo_what_version_1_was_sent(world):
    """The buffer was empty before the answer to the heartbeat was put into it."""
    alice, bob = world.login('alice'), world.login('bob', 1)
    alice.say('bob', 'x')
    bob.expect(MessageResponse, message='x')
    bob.send(HeartbeatRequest(), LogoutRequest())
    bob.receive_all()
    assert world.login('bob', 1).receive_all() == []


def test_what_left_the_buffer_of_version_1_later_counts_too(open_world):
    world = open_world()
    alice = world.login('alice')
    bob = world.connect(1, receive_buffer=4096).login('bob')
    while not bob.channel.buffered:
        flood(alice, 'bob', range(1), LONGEST)  # the last of them stays in the buffer
    for _ in range(2):
        world.pass_time(1)  # looked at while the buffer was not empty
    assert bob.channel.buffered and bob.receive_all()
    world.pass_time(1)
    world.pass_time(0)
    world.crash()
    assert world.login('bob', 1).receive_all() == []


def test_what_version_1_could_not_be_sent_comes_again(world):
    alice = world.login('alice')
    bob = world.connect(1, receive_buffer=4096).login('bob')
    count = 0
    while not bob.channel.buffered:
        flood(alice, 'bob', range(count, count + 100), LONGEST)
        count += 100
    bob.channel.abort()
    world.settle()
    got = [int(text) for text in texts(bob.receive_all())]
    again = [int(text) for text in texts(world.login('bob', 1).receive_all())]
    assert got == list(range(len(got))) and len(got) < count
    assert again == list(range(again[0], count)) and again[0] <= len(got)


# Slow readers ........................................................................................

def test_slow_reader_costs_no_memory_and_gets_everything_in_order(world):
    alice, carol = world.login('alice'), world.login('carol')
    bob = world.connect(receive_buffer=4096).login('bob')
    count = 0
    while bob.channel.is_writable or count < 3000:
        flood(alice, 'bob', range(count, count + 500), LONGEST)
        count += 500
        assert bob.channel.buffered <= HIGH_WATER_MARK + 5000
        assert len(bob.channel._queue) < 100
    assert len(world.server._lagging) <= 1
    carol.nothing()
    alice.say('carol', 'you are not affected')
    carol.expect(MessageResponse)
    for number in range(count):
        assert int(bob.expect(MessageResponse).message) == number
    alice.say('bob', 'live again')
    bob.expect(MessageResponse, message='live again')
    assert world.server.sessions['bob'].is_live
    bob.nothing()


def test_a_session_that_lags_waits_in_line_once(world):
    """Else who has much to get would stand there ever more often, and a newcomer behind all of it."""
    alice, names = world.login('alice'), [f'reader{number}' for number in range(20)]
    for name in names:
        log_out(world.login(name))
    group = alice.create(*names)
    for _ in range(400):
        alice.send(GroupMessageRequest(to_group_id=group, message='x' * LONGEST, client_seq=alice.next_seq()))
    alice.receive_all()
    readers, longest = [world.login(name) for name in names], 0
    for _ in range(150):
        for reader in readers:
            reader._pull()
        world.loop.tick(0)
        longest = max(longest, len(world.server._lagging))
    assert 0 < longest <= len(readers)


def test_sessions_that_lag_are_fed_in_turn(world, monkeypatch):
    for number in range(2 * imserver.PAGES_A_TICK):
        world.login(f'reader{number}')
    world.settle()
    fed, sessions = [], list(world.server.sessions.values())
    monkeypatch.setattr(imserver.Session, 'feed', lambda one: (fed.append(one), world.server.feed_later(one)))
    world.server.feed_later(*sessions)
    for _ in range(4):
        world.loop.tick(0)
    assert fed == sessions * 2
    world.server._lagging.clear()


def test_backlog_of_3000_messages_comes_in_order_and_new_ones_behind_it(world):
    alice, bob = world.login('alice'), world.login('bob')
    log_out(bob)
    flood(alice, 'bob', range(3000))
    bob.send(LoginRequest(user_name='bob', password='pw'))
    world.pump(lambda: 'bob' in world.server.sessions, lambda: 'not logged in')
    alice.send(*[message('bob', str(number), alice.next_seq()) for number in range(3000, 3100)])
    bob.expect(LoginResponse)
    assert [int(bob.expect(MessageResponse).message) for _ in range(3100)] == list(range(3100))
    bob.nothing()


@pytest.mark.parametrize('version', [1, 2])
def test_many_lagging_sessions_are_fed_in_turn_while_new_messages_arrive(world, version):
    names = [f'user{number}' for number in range(20)]
    peers = [world.login(name, version) for name in names[:10]]
    alice = world.login('alice')
    others = [world.login(name) for name in names[10:]]
    group = alice.create(*names)
    for peer in others:
        log_out(peer)
    requests = [GroupMessageRequest(to_group_id=group, message=str(number), client_seq=alice.next_seq())
                for number in range(700)]
    alice.send(*requests[:600])
    alice.receive_all()
    for peer, name in zip(others, names[10:]):
        peer.send(LoginRequest(user_name=name, password='pw'))
    for request in requests[600:]:
        alice.send(request)
        world.loop.tick(0.001)
    for peer in peers + others:
        assert [int(text) for text in texts(peer.receive_all())] == list(range(700))


def test_lagging_sessions_need_no_event_to_be_fed(world, monkeypatch):
    monkeypatch.setattr(imserver, 'PAGES_A_TICK', 1)
    tokens = {name: world.login(name).welcome.token for name in ('alice', 'bob', 'carol', 'dan')}
    peers = [world.connect() for _ in tokens]
    for peer, (name, token) in zip(peers, tokens.items()):
        peer.send(LoginRequest(user_name=name, token=token))
    world.settle()
    assert not world.server._lagging and all(session.is_live for session in world.server.sessions.values())


def test_asking_without_reading_the_answers_pauses_reading(world):
    alice, bob = world.connect(receive_buffer=4096).login('alice'), world.login('bob')
    for _ in range(300):
        alice.create(name='n' * 64)
    sent = 0
    while alice.channel.is_writable:
        alice.send(*[ListGroupsRequest()] * 4)
        sent += 4
        world.settle()
        assert sent < 4000
    assert not alice.channel.is_reading and alice.channel.buffered < 1_000_000
    bob.nothing()
    for _ in range(3):
        world.pass_time(14)  # alice's silence is the server's doing
        bob.nothing()
    assert alice.channel.is_open
    for _ in range(sent):
        assert len(alice.expect(ListGroupsResponse).group_list) == 300
    alice.nothing()


def test_questions_in_one_piece_do_not_fill_the_memory(world):
    alice = world.connect(receive_buffer=4096).login('alice')
    for _ in range(60):
        alice.say('alice', 'x' * LONGEST), alice.receive()
    alice.send(*[HistoryRequest(user_id='alice', limit=100)] * 100)
    most = 0
    for _ in range(150):
        world.loop.tick(0)
        most = max(most, alice.channel.buffered)
    assert most < 1_000_000  # an answer has a quarter of that at most
    for _ in range(100):
        assert len(alice.expect(HistoryResponse).messages) >= 55


# When the disk fails .................................................................................

class FailingDisk:
    """A database connection that fails to commit as long as it `is_full`."""

    def __init__(self, world):
        self.is_full, self.db = True, world.store._db
        world.store._db = self

    def execute(self, sql, *parameters):
        if self.is_full and sql == 'COMMIT':
            raise sqlite3.OperationalError('database or disk is full')
        return self.db.execute(sql, *parameters)

    def __getattr__(self, name):
        return getattr(self.db, name)


FAILING = {
    'message': lambda group, other: message('bob', 'lost', 2),
    'group message': lambda group, other: group_message(group, 'lost', 2),
    'creation': lambda group, other: CreateGroupRequest(user_id_list=['bob'], client_seq=2),
    'join': lambda group, other: JoinGroupRequest(group_id=other, client_seq=2),
    'quit': lambda group, other: QuitGroupRequest(group_id=group, client_seq=2)}


@pytest.mark.parametrize('make', FAILING.values(), ids=FAILING)
@pytest.mark.parametrize('version', [1, 2])
def test_request_that_could_not_be_written(open_world, make, version):
    world = open_world()
    alice, bob = world.login('alice', version), world.login('bob')
    group = alice.create('bob')
    bob.receive_all()
    request = make(group, bob.create())
    disk = FailingDisk(world)
    alice.send(request)
    answer = alice.receive()
    if request.COMMAND in (11, 13):
        assert not answer.success
    if version == 2:
        assert (answer.code, answer.client_seq) == ('internal_error', 2)
        assert not isinstance(answer, ErrorResponse) or answer.command == request.COMMAND
    elif request.COMMAND not in (11, 13):
        assert (type(answer), answer.from_user_id) == (MessageResponse, 'server')
    assert answer.reason if request.COMMAND in (11, 13) or version == 2 else answer.message
    alice.nothing()
    bob.nothing()
    disk.is_full = False
    alice.send(request)  # the same number: the first made no entry
    alice.receive_all()
    assert len(bob.receive_all()) == 1 and world.store.committed_id == 3
    alice.client_seq = 2
    alice.say('bob', 'on')
    bob.expect(MessageResponse, message='on')
    world.restart()
    assert world.store.committed_id == 4


def test_nothing_of_a_failed_tick_is_believed(world):
    alice, bob = world.login('alice'), world.login('bob')
    group = alice.create()
    disk = FailingDisk(world)
    bob.send(JoinGroupRequest(group_id=group, client_seq=1), group_message(group, 'x', 2))
    bob.expect(JoinGroupResponse, success=False, code='internal_error', client_seq=1)
    bob.expect(ErrorResponse, code='not_a_member', client_seq=2)
    alice.nothing()
    disk.is_full = False
    bob.send(ListGroupsRequest())
    assert bob.expect(ListGroupsResponse).group_list == []
    alice.tell(group, 'y'), alice.receive()
    bob.nothing()


def test_first_message_between_two_after_a_failure_is_delivered(world):
    alice, bob = world.login('alice'), world.login('bob')
    log_out(bob)
    disk = FailingDisk(world)
    alice.send(message('bob', 'lost', 1))
    alice.expect(ErrorResponse, code='internal_error')
    disk.is_full = False
    alice.say('bob', 'x')
    assert texts(bob.login('bob').receive_all()) == ['x']


@pytest.mark.parametrize('version', [1, 2])
def test_login_that_could_not_be_written(world, version):
    log_out(world.login('bob'))
    disk = FailingDisk(world)
    peers = [world.connect(version) for _ in range(2)]
    for peer, name in zip(peers, ['alice', 'bob']):
        peer.send(LoginRequest(user_name=name, password='pw'))
        answer = peer.expect(LoginResponse, success=False, user_id=None, token=None)
        assert answer.reason and answer.code == ('internal_error' if version == 2 else None)
    assert not world.server.sessions and not world.store.user_exists('alice')
    disk.is_full = False
    for peer, name in zip(peers, ['alice', 'bob']):
        peer.login(name)


def test_two_registrations_of_one_name_of_which_the_first_could_not_be_written(world):
    peers = [world.connect(), world.connect()]
    world.loop.may_work.clear()
    for peer in peers:
        peer.send(LoginRequest(user_name='alice', password='pw'))
        for _ in range(5):
            world.loop.tick(0.001)
    disk = FailingDisk(world)
    world.loop.may_work.set()
    peers[0].expect(LoginResponse, success=False)  # registered, in a tick that failed
    disk.is_full = False
    world.settle()
    answer = peers[1].expect(LoginResponse)
    assert not answer.success or world.store.user_exists('alice')


def test_logout_that_could_not_be_written(world):
    alice = world.login('alice')
    disk = FailingDisk(world)
    alice.send(LogoutRequest())
    alice.expect(LogoutResponse, success=True)  # the session has ended, though its token lives on
    disk.is_full = False
    alice.login('alice')


def test_acknowledgement_that_could_not_be_written_is_written_later(open_world):
    world = open_world()
    alice, bob = world.login('alice'), world.login('bob')
    alice.say('bob', 'x')
    bob.receive_all()
    disk = FailingDisk(world)
    bob.send(DeliveryAck(message_id=1))
    world.pass_time(1)
    bob.half_close()
    assert bob.is_closed()
    disk.is_full = False
    assert world.login('bob').receive_all() == []
    world.restart()
    assert world.login('bob').receive_all() == []


def test_repeat_in_a_failed_tick_is_answered(world):
    alice = world.login('alice')
    ack = alice.say('alice', 'x')
    alice.receive()
    disk = FailingDisk(world)
    alice.send(message('alice', 'x', 1), message('alice', 'new', 2))
    assert {type(alice.receive()), type(alice.receive())} == {MessageAck, ErrorResponse}
    disk.is_full = False
    alice.send(message('alice', 'x', 1))
    assert alice.receive() == ack


def test_full_disk(open_world):
    world = open_world()
    alice, bob = world.login('alice'), world.login('bob')
    db = world.store._db
    db.execute(f'PRAGMA max_page_count = {db.execute("PRAGMA page_count").fetchone()[0]}')
    answers, kept = [], []
    for _ in range(40):
        alice.send(message('bob', 'x' * LONGEST, alice.next_seq()))
        answers.append(alice.receive())
        kept += [answers[-1].client_seq] if isinstance(answers[-1], MessageAck) else []
    assert isinstance(answers[-1], ErrorResponse) and answers[-1].code == 'internal_error'
    assert len(bob.receive_all()) == len(kept) < 40
    db.execute('PRAGMA max_page_count = 1000000')
    alice.say('bob', 'room again')
    bob.expect(MessageResponse, message='room again')


def test_entry_that_could_not_be_delivered_leaves_no_gap(world, monkeypatch, caplog):
    """A planted bug: what is behind it must not be acknowledged past it."""
    alice, bob = world.login('alice'), world.login('bob')
    deliver = world.server._deliver

    def fails_once(entry):
        if entry.text == 'one':
            raise OSError('a bad sector')
        deliver(entry)
    monkeypatch.setattr(world.server, '_deliver', fails_once)
    alice.send(*[MessageRequest(to_user_id='bob', message=text, client_seq=seq)
                 for seq, text in enumerate(['one', 'two', 'three'], 1)])
    assert texts(bob.receive_all()) == ['one', 'two', 'three']
    assert caplog.text.count('was not delivered') == 1
    caplog.clear()


def test_list_of_groups_is_bounded(world, monkeypatch):
    monkeypatch.setattr(imserver, 'GROUPS_LIMIT', 2)
    alice = world.login('alice')
    for _ in range(3):
        alice.create()
    alice.send(ListGroupsRequest())
    assert len(alice.expect(ListGroupsResponse).group_list) == 2


def test_longest_list_of_groups_fits_what_a_client_takes():
    group = protocol.Group(group_id='0' * 8, group_name='\x01' * imserver.MAX_GROUP_NAME, member_count=10**5)
    packet = ListGroupsResponse(group_list=[group] * imserver.GROUPS_LIMIT)
    assert len(protocol.encode(packet, 2)) <= protocol.MAX_BODY_CLIENT


def test_longest_list_of_members_fits_what_a_client_takes():
    name = '\U00020000' * 32
    user = protocol.User(user_id=name, user_name=name, online=False)
    packet = protocol.ListGroupMembersResponse(group_id='0' * 8, session_list=[user] * 3000)
    assert len(protocol.encode(packet, 2)) <= protocol.MAX_BODY_CLIENT
    with pytest.raises(SystemExit):
        imserver.make_parser().parse_args(['--max-group', '3001'])


# Runs: what a tick brought for the same readers is one write ..........................................

def writes_to(channel, monkeypatch):
    """A list of the sizes of what is written to that channel from now on."""
    sizes, write = [], Channel.write

    def spy(self, message):
        if self is channel:
            sizes.append(len(message) if isinstance(message, bytes) else 0)
        write(self, message)
    monkeypatch.setattr(Channel, 'write', spy)
    return sizes


@pytest.mark.parametrize('version', (1, 2))
def test_messages_of_one_tick_are_one_write_to_each_reader(world, monkeypatch, version):
    alice, bob = world.login('alice', version=1), world.login('bob', version=version)
    sizes = writes_to(bob.channel, monkeypatch)
    alice.send(*[protocol.MessageRequest(to_user_id='bob', message=f'text {number}') for number in range(20)])
    assert [bob.expect(protocol.MessageResponse).message for _ in range(20)] == [f'text {n}' for n in range(20)]
    assert len(sizes) == 1


def test_a_run_is_no_longer_than_one_long_message(world, monkeypatch):
    alice, bob = world.login('alice', version=1), world.login('bob', version=1)
    sizes = writes_to(bob.channel, monkeypatch)
    half = imserver.RUN_SIZE // 2
    texts = ['x' * half, 'y' * half, 'z', 'x' * imserver.RUN_SIZE, 'end']
    alice.send(*[protocol.MessageRequest(to_user_id='bob', message=text) for text in texts])
    assert [bob.expect(protocol.MessageResponse).message for _ in texts] == texts
    assert [size // half for size in sizes] == [2, 0, 2, 0]


def test_runs_keep_the_order_of_ids_across_streams(world):
    alice, bob = world.login('alice'), world.login('bob')
    group = alice.create('bob')
    bob.expect(protocol.CreateGroupResponse)
    for number in range(9):
        kind, target = ((protocol.MessageRequest, {'to_user_id': 'bob'}) if number % 3 else
                        (protocol.GroupMessageRequest, {'to_group_id': group}))
        alice.send(kind(message=f'text {number}', client_seq=alice.next_seq(), **target))
    got = bob.receive_all()
    assert [packet.message for packet in got] == [f'text {number}' for number in range(9)]
    assert [packet.message_id for packet in got] == list(range(2, 11))


def test_who_joins_between_two_messages_of_a_tick_gets_the_second_only(world):
    alice, bob, carol = world.login('alice'), world.login('bob'), world.login('carol')
    group = alice.create('bob')
    bob.expect(protocol.CreateGroupResponse)
    server = world.server
    stream = {'kind': imserver.GROUP_MESSAGE, 'stream': group, 'sender': 'alice', 'client_seq': 0, 'sent_at': 1}
    server.store.append(imserver.Entry(text='before', **stream), print)
    server.store.append(imserver.Entry(text='before too', **stream), print)
    join = {**stream, 'kind': imserver.Kind.JOIN_GROUP, 'sender': 'carol'}
    server.store.join_group(imserver.Entry(text='', **join), print)
    server.store.append(imserver.Entry(text='after', **stream), print)
    world.loop.call_soon(lambda: None)
    assert [packet.message for packet in carol.receive_all()] == ['after']
    assert [getattr(packet, 'message', 'joined') for packet in bob.receive_all()] == [
        'before', 'before too', 'joined', 'after']


def test_messages_sent_again_are_answered_in_one_tick(world):
    """Who comes back with a thousand unanswered messages does not wait a thousand ticks."""
    alice = world.login('alice')
    world.login('bob')
    requests = [protocol.MessageRequest(to_user_id='bob', message='hi', client_seq=seq) for seq in range(1, 201)]
    alice.send(*requests)
    first = [alice.expect(protocol.MessageAck) for _ in requests]
    commits = []
    world.loop.before_flush.append(lambda: commits.append(world.loop))
    alice.send(*requests)
    assert [alice.expect(protocol.MessageAck) for _ in requests] == first
    assert len(commits) < 20

"""What curious people try: passwords by the dozen, crowds that say nothing, floods, half a frame, what is not theirs.

All in one process with made-up clocks (peers.py), except the last test, which measures.
"""
import threading
import time

import pytest

import imserver
import protocol
import store
from peers import World
from protocol import (
    CreateGroupRequest, DeliveryAck, GroupMessageRequest, HeartbeatRequest, HeartbeatResponse,
    HistoryRequest, JoinGroupRequest, ListGroupMembersRequest, ListGroupsRequest, ListUsersRequest, LoginRequest,
    LoginResponse, LogoutRequest, LogoutResponse, MessageAck, MessageRequest, MessageResponse, QuitGroupRequest,
    encode)
from store import TOKEN_LIFETIME, WRONG_FOR_A_NAME, WRONG_IN_ALL, WRONG_KEPT, WRONG_MEMORY, Passwords, hash_password

DAY = 24 * 3600
HASH = hash_password('pw', 10)
HALF = encode(HeartbeatRequest(), 2)[:7]
REQUESTS = [
    MessageRequest(to_user_id='bob', message='x', client_seq=9), LogoutRequest(),
    CreateGroupRequest(user_id_list=['bob'], client_seq=9), ListGroupMembersRequest(group_id='00000000'),
    JoinGroupRequest(group_id='00000000', client_seq=9), QuitGroupRequest(group_id='00000000', client_seq=9),
    GroupMessageRequest(to_group_id='00000000', message='x', client_seq=9), DeliveryAck(message_id=1),
    HistoryRequest(user_id='bob'), ListUsersRequest(), ListGroupsRequest()]


@pytest.fixture
def open_world():
    worlds = []

    def open_world(*options):
        worlds.append(World(':memory:', *options))
        return worlds[-1]
    yield open_world
    for world in worlds:
        world.close()


@pytest.fixture
def world(open_world):
    return open_world()


def guess(peer, name, password='wrong', **fields):
    """Return the code with which a login is refused; None: it is not."""
    peer.send(LoginRequest(user_name=name, password=password, **fields))
    return peer.expect(LoginResponse).code


def count_calls(monkeypatch, name):
    calls, function = [], getattr(store, name)
    monkeypatch.setattr(store, name, lambda *arguments: calls.append(arguments) or function(*arguments))
    return calls


# Passwords ...........................................................................................

def test_five_wrong_passwords_for_a_name_and_the_sixth_is_not_looked_at(world, monkeypatch, figure):
    world.login('alice')
    hashed, thief = count_calls(monkeypatch, 'hash_password'), world.connect()
    assert [guess(thief, 'alice') for _ in range(WRONG_FOR_A_NAME)] == ['wrong_password'] * WRONG_FOR_A_NAME
    assert len(hashed) == WRONG_FOR_A_NAME
    assert guess(thief, 'alice') == guess(thief, 'alice', 'pw') == 'too_many_attempts'
    assert guess(world.connect(), 'alice') == 'too_many_attempts'  # a new connection is the same address
    assert len(hashed) == WRONG_FOR_A_NAME
    world.pass_time(WRONG_MEMORY - 1)
    assert guess(world.connect(), 'alice', 'pw') == 'too_many_attempts'
    world.pass_time(1)
    assert guess(world.connect(), 'alice', 'pw') is None
    figure(f'{WRONG_FOR_A_NAME} guesses a minute for a name; a sixth costs no hash')


def test_thirty_wrong_passwords_from_an_address_lock_it_for_all_names(world, monkeypatch):
    names = [f'user{number}' for number in range(WRONG_IN_ALL)]
    tokens = {name: world.login(name).welcome.token for name in [*names, 'alice']}
    thief = world.connect()
    assert {guess(thief, name) for name in names[:-1]} == {'wrong_password'}
    assert guess(world.connect(), 'alice', 'pw') is None  # not yet
    assert guess(thief, names[-1]) == 'wrong_password'
    hashed = count_calls(monkeypatch, 'hash_password')
    assert guess(world.connect(), 'alice', 'pw') == 'too_many_attempts' and not hashed
    assert guess(world.connect(), names[0], None, token=tokens[names[0]]) is None


def test_wrong_tokens_are_not_counted(world):
    world.login('alice')
    peer = world.connect()
    for _ in range(WRONG_IN_ALL + 1):
        assert guess(peer, 'alice', None, token='x') == 'bad_token'
    assert guess(peer, 'alice', 'pw') is None


def test_many_wrong_passwords_at_once_are_hashed_no_oftener(world, monkeypatch):
    world.login('alice')
    hashed, thieves = count_calls(monkeypatch, 'hash_password'), [world.connect() for _ in range(20)]
    for thief in thieves:
        thief.send(LoginRequest(user_name='alice', password='wrong'))
    codes = [thief.expect(LoginResponse).code for thief in thieves]
    assert codes == ['wrong_password'] * WRONG_FOR_A_NAME + ['too_many_attempts'] * (20 - WRONG_FOR_A_NAME)
    assert len(hashed) == WRONG_FOR_A_NAME


def test_nobody_locks_an_account_from_elsewhere():
    passwords = Passwords(lambda: 0.0)
    while passwords.judge('10.0.0.1', 'alice', 'wrong', HASH) is not None:
        pass
    assert passwords.judge('10.0.0.1', 'alice', 'pw', HASH) is None
    assert passwords.judge('10.0.0.1', 'bob', 'pw', HASH)  # nor another one from there
    assert passwords.judge('10.0.0.2', 'alice', 'pw', HASH)


def test_the_table_of_the_wrong_is_bounded_and_forgets_who_was_wrong_longest_ago(monkeypatch):
    monkeypatch.setattr(store, 'password_matches', lambda password, known: False)
    passwords = Passwords(lambda: 0.0)
    for number in range(WRONG_KEPT // 2 + 1):
        passwords.judge(f'address {number}', 'alice', 'wrong', HASH)
    assert len(passwords._wrong) == WRONG_KEPT
    assert ('address 0',) not in passwords._wrong and ('address 1',) in passwords._wrong
    for _ in range(100):
        passwords.judge('address 1', 'alice', 'wrong', HASH)
    assert len(passwords._wrong['address 1', 'alice']) == WRONG_FOR_A_NAME


def test_who_has_gone_is_not_hashed(world, monkeypatch):
    world.login('alice')
    hashed = count_calls(monkeypatch, 'hash_password')
    world.loop.may_work.clear()
    for _ in range(10):
        peer = world.connect()
        peer.send(LoginRequest(user_name='alice', password='pw'))
        world.pump(lambda: peer.channel.pipeline.tail and world.loop.jobs, lambda: 'not asked')
        peer.channel.abort()
    world.loop.may_work.set()
    world.settle()
    assert len(hashed) <= 1  # the one that was under way


# What is not theirs ..................................................................................

@pytest.mark.parametrize('request_', REQUESTS, ids=lambda request: type(request).__name__)
def test_after_logout_nothing_is_done(world, request_):
    bob, peer = world.login('bob'), world.login('alice')
    log = world.store.committed_id
    peer.send(LogoutRequest(), request_)
    answers = {type(packet): packet for packet in (peer.receive(), peer.receive())}
    assert answers.pop(LogoutResponse).success  # the refusal may overtake it, which waits for the disk
    assert [packet.code for packet in answers.values()] == ['not_logged_in']
    bob.nothing()
    assert world.store.committed_id == log


@pytest.mark.parametrize('request_', REQUESTS, ids=lambda request: type(request).__name__)
def test_while_a_login_is_judged_nothing_is_done_and_after_a_wrong_one_neither(world, request_):
    world.login('alice')
    bob, log, thief = world.login('bob'), world.store.committed_id, world.connect()
    world.loop.may_work.clear()
    thief.send(LoginRequest(user_name='alice', password='wrong'), request_)
    for _ in range(8):
        world.loop.tick(0.001)
    bob.send(HeartbeatRequest())
    world.pump(bob._has_news, lambda: 'the others wait too')
    bob.expect(HeartbeatResponse)
    assert not thief.unread and world.store.committed_id == log
    world.loop.may_work.set()
    thief.expect(LoginResponse, code='wrong_password')
    assert thief.receive().code == 'not_logged_in'
    bob.nothing()
    assert world.store.committed_id == log


def test_who_says_to_be_another_is_still_oneself(world):
    mallory, bob = world.login('mallory'), world.login('bob')
    body = b'{"clientSeq":1,"fromUserId":"alice","fromUserName":"alice","message":"hi","toUserId":"bob","userId":"alice"}'
    mallory.send_bytes(encode(MessageRequest(to_user_id='', message='', client_seq=1), 2)[:7]
                       + len(body).to_bytes(4, 'big') + body)
    mallory.expect(MessageAck)
    bob.expect(MessageResponse, from_user_id='mallory', from_user_name='mallory')


# Crowds ..............................................................................................

def test_who_waits_longest_without_a_login_makes_room(open_world, figure):
    world = open_world('--max-unauthenticated', '3')
    alice = world.login('alice')  # who is logged in is not counted
    crowd = [world.connect() for _ in range(3)]
    world.settle()
    assert not any(peer.is_closed() for peer in crowd)
    newcomer = world.connect()
    world.settle()
    assert [peer.is_closed() for peer in crowd] == [True, False, False]
    bob = newcomer.login('bob')
    late = world.connect()
    world.settle()
    assert not crowd[1].is_closed() and not late.is_closed()  # there was room again
    bob.say('alice', 'hi')
    alice.expect(MessageResponse, message='hi')
    figure('a crowd of any size: 256 who are not logged in; each newcomer gets in')


def test_who_has_asked_to_log_in_need_not_make_room(open_world):
    world = open_world('--max-unauthenticated', '2')
    world.loop.may_work.clear()
    first = world.connect()
    first.send(LoginRequest(user_name='alice', password='pw'))
    for _ in range(8):
        world.loop.tick(0.001)
    silent, newcomer = world.connect(), world.connect()
    for _ in range(8):
        world.loop.tick(0.001)
    world.loop.may_work.set()
    first.expect(LoginResponse, success=True)
    assert silent.is_closed() and not newcomer.is_closed()
    newcomer.login('bob')


def test_who_was_refused_and_who_logged_out_wait_again(open_world):
    world = open_world('--max-unauthenticated', '1')
    peer = world.login('alice')
    peer.send(LogoutRequest())
    peer.expect(LogoutResponse)
    assert guess(peer, 'alice') == 'wrong_password'
    world.login('bob')
    assert peer.is_closed()


def test_a_large_crowd_keeps_nobody_out(world, figure):
    crowd = [world.connect() for _ in range(300)]
    world.settle()
    assert len(world.server.strangers) == world.parsed.max_unauthenticated == 256
    assert len(world.server.listener.channels) == 256
    world.login('alice')
    for peer in crowd:
        peer.socket.close()
    world.settle()
    assert not world.server.strangers
    figure('300 silent connections, 256 kept; a login among them succeeds')


# Floods ..............................................................................................

def flood(peer, count):
    peer.send(*(MessageRequest(to_user_id='bob', message=str(number), client_seq=number + 1)
                for number in range(count)))


@pytest.mark.parametrize('rate', [50, 1000])
def test_who_asks_faster_than_the_rate_is_read_slower_and_loses_nothing(open_world, rate, figure):
    world = open_world('--rate', str(rate))
    bob, alice = world.login('bob'), world.login('alice')
    count = rate * 3
    flood(alice, count)
    world.settle()
    done = len(alice.receive_all_now())
    assert done == rate + 1  # a second's worth, and the one that showed it to be too many
    began = world.clock.now
    while done < count:
        world.pass_time(imserver.RATE_PAUSE)
        done += len(alice.receive_all_now())
    seconds = world.clock.now - began
    assert 1.95 <= seconds <= 2.1, seconds
    assert [packet.message for packet in bob.receive_all()] == [str(number) for number in range(count)]
    figure(f'{count} requests at once at --rate {rate}: {rate + 1} at once, the rest in {seconds:.2f} s, none lost')


def test_heartbeats_and_acknowledgements_are_free(open_world):
    world = open_world('--rate', '5')
    alice = world.login('alice')
    alice.send(*[HeartbeatRequest(), DeliveryAck(message_id=0)] * 50)
    for _ in range(50):
        alice.expect(HeartbeatResponse)
    for number in range(5):
        alice.send(ListUsersRequest())
        alice.receive()
    alice.nothing()


def test_the_budget_of_a_silent_hour_is_that_of_a_second(open_world):
    world = open_world('--rate', '10', '--idle', '86400')
    alice = world.login('alice')
    world.login('bob')
    world.pass_time(3600)
    flood(alice, 30)
    world.settle()
    assert len(alice.receive_all_now()) == 11  # a second's, and the one that showed that it was spent


def test_a_silence_earns_no_second_budget(open_world):
    world = open_world('--rate', '50')
    alice, _ = world.login('alice'), world.login('bob')
    world.clock.now += 10
    flood(alice, 400)
    world.settle()
    assert len(alice.receive_all_now()) == 51


def test_without_a_rate_there_is_none(open_world):
    world = open_world('--rate', '0')
    alice, bob = world.login('alice'), world.login('bob')
    flood(alice, 3000)
    assert len(bob.receive_all()) == 3000


def test_who_ends_its_side_while_it_is_not_read_is_answered_all(open_world):
    world = open_world('--rate', '5')
    alice, bob = world.login('alice'), world.login('bob')
    flood(alice, 20)
    alice.half_close()
    for _ in range(80):
        world.pass_time(imserver.RATE_PAUSE)
    assert len(bob.receive_all()) == len(alice.receive_all()) == 20
    assert alice.is_closed() and set(world.server.sessions) == {'bob'}


# Half a frame ........................................................................................

@pytest.mark.parametrize('half', [HALF, HALF[:1], encode(LoginRequest(user_name='a', password='b'), 2)[:-1]])
@pytest.mark.parametrize('logged_in', [False, True])
def test_a_frame_that_does_not_become_whole_closes(world, half, logged_in, caplog):
    peer = world.login('alice') if logged_in else world.connect()
    peer.send_bytes(half)
    world.pass_time(imserver.FRAME_TIMEOUT - 0.1)
    assert not peer.is_closed()
    caplog.set_level('INFO')
    world.pass_time(0.1)
    assert peer.is_closed()
    assert 'a frame was not whole after 10 s' in caplog.text


def test_dripping_bytes_are_no_excuse(world):
    peer = world.connect()
    frame = encode(LoginRequest(user_name='alice', password='p' * 100), 2)
    for byte in frame[:19]:
        peer.send_bytes(bytes([byte]))
        world.pass_time(0.5)
    assert not peer.is_closed()
    peer.send_bytes(frame[19:20])
    world.pass_time(0.5)
    assert peer.is_closed()


def test_a_frame_that_becomes_whole_in_time_is_one(world):
    alice = world.login('alice')
    for _ in range(5):
        alice.send_bytes(HALF)
        world.pass_time(imserver.FRAME_TIMEOUT - 0.5)
        alice.send_bytes(encode(HeartbeatRequest(), 2)[7:])
        alice.expect(HeartbeatResponse)
    alice.send_bytes(encode(HeartbeatRequest(), 2) + HALF)  # one whole, and a new half
    world.pass_time(imserver.FRAME_TIMEOUT - 0.1)
    assert not alice.is_closed()


def test_half_a_frame_while_the_server_does_not_read_is_its_own_doing(world):
    world.login('alice')
    peer = world.connect()
    world.loop.may_work.clear()
    peer.send_bytes(encode(LoginRequest(user_name='alice', password='pw'), 2) + HALF)
    for _ in range(8):
        world.loop.tick(0.001)
    world.clock.now += 3 * imserver.FRAME_TIMEOUT
    for _ in range(8):
        world.loop.tick(0.001)
    world.loop.may_work.set()
    peer.expect(LoginResponse, success=True)
    world.pass_time(imserver.FRAME_TIMEOUT - 1)
    assert not peer.is_closed()
    world.pass_time(imserver.FRAME_TIMEOUT)
    assert peer.is_closed()


# Clocks ..............................................................................................

@pytest.mark.parametrize('jump', [-DAY, DAY])
def test_a_jump_of_the_wall_clock_changes_nothing_but_the_times_shown(world, jump, figure):
    alice, bob, stranger = world.login('alice'), world.login('bob'), world.connect()
    token = alice.welcome.token
    first = alice.say('bob', 'before')
    world.wall_clock.now += jump
    world.loop.tick(0)
    world.settle()
    second = alice.say('bob', 'after')
    assert second.message_id == first.message_id + 1 and second.sent_at == first.sent_at + jump * 1000
    assert [packet.message for packet in bob.receive_all()] == ['before', 'after']
    assert not any(peer.is_closed() for peer in (alice, bob, stranger))
    world.pass_time(14)
    alice.nothing()
    again = world.connect()
    assert guess(again, 'alice', None, token=token) is None
    again.send(HistoryRequest(user_id='bob'))
    assert [message.message for message in again.receive().messages] == ['before', 'after']
    world.wall_clock.now += TOKEN_LIFETIME + 2 * DAY
    assert guess(world.connect(), 'alice', None, token=token) == 'bad_token'
    figure(f'{jump / DAY:+.0f} day: no close, order by id, tokens good')


# Limits ..............................................................................................

def test_all_limits_are_printed(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['imserver.py', '--limits', '--max-body', '40000'])
    imserver.main()
    printed = capsys.readouterr().out
    options = imserver.make_parser().parse_args([])
    for name, value in vars(options).items():
        if type(value) in (int, float):
            assert f'--{name.replace("_", "-")} ' in printed
    assert '--max-body 40000' in printed
    for module, name in ((protocol, 'MAX_NESTING'), (store, 'WRONG_KEPT'), (imserver, 'FRAME_TIMEOUT'),
                         (imserver, 'RATE_PAUSE'), (store, 'TOKEN_LIFETIME'), (protocol, 'MAX_BODY_CLIENT')):
        assert getattr(module, name) and name in printed


# Measured ............................................................................................

def slowest_heartbeat(system, bystander, names):
    """In seconds, while these names make their accounts."""
    peers = [system.peer() for _ in names]
    for name, peer in zip(names, peers):
        peer.send(LoginRequest(user_name=name, password='pw'))
    waiter = threading.Thread(target=lambda: [peer.expect(LoginResponse) for peer in peers])
    waiter.start()
    waits = []
    while waiter.is_alive():
        asked = time.monotonic()
        bystander.ask(HeartbeatRequest(), HeartbeatResponse)
        waits.append(time.monotonic() - asked)
        waiter.join(0.005)
    return max(waits)


def test_thirty_logins_at_once_delay_no_heartbeat(system, no_coverage, figure):
    system.server('--password-cost', '14')
    bystander, slowest = system.peer('bystander'), []
    while len(slowest) < 3 and min(slowest, default=1) > 0.1:  # again, if something else ran here
        slowest.append(slowest_heartbeat(system, bystander, [f'u{len(slowest)}-{number}' for number in range(30)]))
    assert min(slowest) < 0.1, slowest
    figure(f'30 password logins at once: slowest heartbeat meanwhile {min(slowest) * 1000:.0f} ms')

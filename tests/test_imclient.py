"""What the client promises: to the program that imports `Client`, to a script on the other end of a pipe,
and to somebody in front of a terminal.

Three parts.  In the first, client and a server that does what the test says run in this process, on one
loop, with a clock that stands still until a test moves it.  In the second and the third the real script runs
as a process of its own, through pipes and in a pseudo-terminal; its server is the real one, or again one
that a test holds in its hands.  Nothing sleeps to be right: each wait has a deadline, which a client
that works never reaches.
"""
import errno
import fcntl
import itertools
import json
import logging
import os
import pty
import re
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import console
import imclient
import protocol
from console import render
from imclient import Client, Connector, backoff
from protocol import (
    HEADER, MAGIC, CreateGroupRequest, CreateGroupResponse, DeliveryAck, ErrorResponse,
    FrameDecoder, GroupMessageRequest, GroupMessageResponse, GroupNotice, HeartbeatRequest,
    HeartbeatResponse, HistoryMessage, HistoryRequest, HistoryResponse, JoinGroupRequest,
    JoinGroupResponse, KickedNotice, ListGroupMembersRequest, ListGroupMembersResponse,
    ListGroupsRequest, ListGroupsResponse, ListUsersRequest, ListUsersResponse, LoginRequest,
    LoginResponse, LogoutRequest, LogoutResponse, MessageAck, MessageRequest, MessageResponse,
    QuitGroupRequest, QuitGroupResponse, User, encode)
from reactor import EventLoop, Handler, Listener

CLIENT = Path(imclient.__file__)
SERVER = CLIENT.parent / 'imserver.py'
PATIENCE = 30.0  # real seconds until a wait has failed
LOG_ID = 'log-1'


# Helpers .............................................................................................

class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Loop(EventLoop):
    """Knows when it has nothing to do."""
    jobs = 0  # of the worker

    def run_in_worker(self, function, callback):
        def done(result, error):
            self.jobs -= 1
            callback(result, error)
        self.jobs += 1
        super().run_in_worker(function, done)

    @property
    def is_quiet(self):
        return not (self.jobs or self._ready or self.written or self.selector.select(0.002))

    def until(self, is_done, failure='it does not happen'):
        deadline = time.monotonic() + PATIENCE
        while not is_done():
            assert time.monotonic() < deadline, failure() if callable(failure) else failure
            self.tick(0.01)

    def settle(self):
        self.until(lambda: self.is_quiet, 'no rest')


def new_loop(clock):
    name = os.environ.get('IM_SELECTOR')
    return Loop(getattr(selectors, f'{name.capitalize()}Selector')() if name else None, clock)


class Link(Handler):
    """The server's end of one connection: records, and answers what the server is told to answer."""
    __slots__ = ('server', 'decoder', 'frames', 'beats')

    def __init__(self, server):
        self.server, self.decoder = server, FrameDecoder(protocol.MAX_BODY)
        self.frames = []  # (version, packet), without heartbeats
        self.beats = []  # when each heartbeat came, and in which version

    @property
    def got(self):
        return [packet for _, packet in self.frames]

    def of(self, kind):
        return [packet for packet in self.got if type(packet) is kind]

    def channel_active(self):
        self.server.links.append(self)

    def channel_read(self, data):
        self.decoder.feed(data)
        for frame in self.decoder:
            packet = protocol.decode(frame, frame[4], protocol.REQUESTS)
            if type(packet) is HeartbeatRequest:
                self.beats.append((self.channel.loop.time(), frame[4]))
                if self.server.answers_heartbeats:
                    self.send(HeartbeatResponse(), version=frame[4])
            else:
                self.frames.append((frame[4], packet))
                self.server.on_packet(self, packet)

    def send(self, *packets, version=None):
        for packet in packets:
            self.channel.write(encode(packet, version or self.server.version))

    def send_bytes(self, data):
        self.channel.write(data)


class FakeServer:
    """Logs in everybody, unless told otherwise by `on`: kind of packet -> function(link, packet)."""

    def __init__(self, loop, port=0):
        self.loop, self.links, self.version, self.answers_heartbeats = loop, [], 2, True
        self.login_fields = {'token': 'token-1', 'last_client_seq': 0, 'log_id': LOG_ID}
        self.on = {LoginRequest: lambda link, packet: link.send(self.login_answer(packet))}
        self.listen(port)
        self.address = self.listener.address

    def listen(self, port):
        self.listener = Listener(self.loop, '127.0.0.1', port,
                                 lambda channel: channel.pipeline.add_last(Link(self)))
        self.is_listening = True

    def login_answer(self, packet):
        return LoginResponse(success=True, user_name=packet.user_name, user_id=packet.user_name,
                             **self.login_fields)

    def on_packet(self, link, packet):
        if answer := self.on.get(type(packet)):
            answer(link, packet)

    def acknowledge(self):
        """From now on each text is acknowledged at once."""
        def ack(link, packet):
            if self.version == 2:
                link.send(ack_of(packet))
        self.on |= {MessageRequest: ack, GroupMessageRequest: ack}

    def go(self):
        """The server dies."""
        if self.is_listening:
            self.listener.close()
        self.is_listening = False
        for channel in list(self.listener.channels):
            channel.abort()

    def come_back(self):
        self.listen(self.address[1])


def ack_of(packet, message_id=None):
    return MessageAck(client_seq=packet.client_seq, message_id=message_id or 100 + packet.client_seq,
                      sent_at=1)


class World:
    """A client and a fake server on one loop with one clock; `events` is what the client told."""

    def __init__(self):
        self.clock = Clock()
        self.loop = new_loop(self.clock)
        self.server = FakeServer(self.loop)
        self.events, self.clients = [], []
        self.client = self.new_client()

    def new_client(self, *, rand=lambda: 1.0, port=None, host='127.0.0.1', **options):
        client = Client(self.loop, host, port or self.server.address[1], self.on_event, rand=rand, **options)
        self.clients.append(client)
        return client

    def on_event(self, event):
        self.events.append(event)

    def close(self):
        for client in self.clients:
            client.close()
        self.server.go()
        for key in list(self.loop.selector.get_map().values()):
            key.fileobj.close()
        self.loop.close()

    @property
    def link(self):
        return self.server.links[-1]

    @property
    def names(self):
        return [event['event'] for event in self.events]

    def of(self, name):
        return [event for event in self.events if event['event'] == name]

    def settle(self):
        self.loop.settle()

    def pass_time(self, seconds):
        self.settle()
        self.clock.now += seconds
        self.loop.tick(0)
        self.settle()

    def login(self, user='alice', password='secret', **options):
        """Log in, and forget that: what follows is what the test is about."""
        if options:
            self.client = self.new_client(**options)
        self.client.login(user, password)
        self.settle()
        assert self.client.is_logged_in, self.events
        return self.forget()

    def forget(self):
        self.events.clear()
        self.link.frames.clear()
        return self.link

    def send(self, *packets, version=None):
        self.link.send(*packets, version=version)
        self.settle()

    def lose(self):
        """The connection ends, and the client comes back as soon as it may."""
        self.link.channel.abort()
        self.settle()
        self.pass_time(self.of('reconnecting')[-1]['delay'])


def without(event, *names):
    return {name: value for name, value in event.items() if name not in names}


@pytest.fixture(autouse=True)
def no_traceback(caplog):
    """Nothing that a server sends may make a traceback."""
    caplog.set_level(logging.DEBUG)
    yield
    assert not [record for record in caplog.get_records('call') if record.exc_info], caplog.text


@pytest.fixture(autouse=True, scope='module')
def interruptible():
    """A job in the background of a shell ignores Ctrl-C, and all its children with it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def frame(command, body=b'{}', *, magic=MAGIC, version=2, serializer=1, length=None):
    """A frame as no packet would write it."""
    return HEADER.pack(magic, version, serializer, command, len(body) if length is None else length) + body


def message(number, text='hi', sender='bob'):
    return MessageResponse(from_user_id=sender, from_user_name=sender, message=text, message_id=number,
                           sent_at=1)


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as sock:
        return sock.getsockname()[1]


# A. Connecting and logging in ........................................................................

def test_connects_and_logs_in_with_version_2(world):
    world.client.login('alice', 'secret')
    world.settle()
    assert world.link.frames == [(2, LoginRequest(user_name='alice', password='secret'))]
    host, port = world.server.address
    assert world.events == [{'event': 'connected', 'host': host, 'port': port},
                            {'event': 'login', 'userName': 'alice', 'userId': 'alice', 'version': 2}]
    assert (world.client.user_id, world.client.version) == ('alice', 2)


def test_heartbeats_every_5_seconds_before_login_too(world):
    world.server.on = {}
    begin = world.clock.now
    world.client.login('alice', 'secret')
    for _ in range(40):
        world.pass_time(1.0)
    assert world.link.beats == [(begin + seconds, 2) for seconds in range(0, 41, 5)]
    assert len(world.server.links) == 1 and not world.client.is_logged_in


def test_silent_server_is_dead_after_15_seconds(world):
    world.login()
    world.server.answers_heartbeats = False
    for _ in range(14):
        world.pass_time(1.0)
    assert not world.events
    world.pass_time(1.0)
    assert world.names == ['disconnected', 'reconnecting']
    assert world.events[0]['reason'] == 'the server was silent for 15 s'
    assert not world.client.is_logged_in
    world.pass_time(1.0)
    assert world.client.is_logged_in and len(world.server.links) == 2


def test_heartbeats_end_with_the_connection(world):
    world.login()
    first = world.link
    world.lose()
    beats = len(world.link.beats)
    world.pass_time(5.0)
    assert len(world.link.beats) == beats + 1, 'one row of heartbeats a connection'
    assert len(first.beats) == 1


def attempts_until(world, is_over, limit=30):
    """Let the time pass that each 'reconnecting' asks for; return these times."""
    delays = []
    for _ in range(limit):
        world.settle()
        if is_over():
            return delays
        delays.append(world.events[-1]['delay'])
        assert world.names[-1] == 'reconnecting', world.events
        world.pass_time(delays[-1])
    raise AssertionError(f'no end: {world.events}')


def test_back_off_doubles_up_to_30_seconds_and_begins_anew_after_a_login(world):
    world.login()
    world.server.go()
    world.settle()
    delays = []
    for _ in range(7):
        delays.append(world.events[-1]['delay'])
        world.pass_time(delays[-1])
    assert delays == [1, 2, 4, 8, 16, 30, 30]
    assert [event['attempt'] for event in world.of('reconnecting')] == list(range(1, 9))
    world.server.come_back()
    world.pass_time(30.0)
    assert world.client.is_logged_in
    world.events.clear()
    world.link.channel.abort()
    world.settle()
    assert without(world.events[-1], 'event') == {'delay': 1.0, 'attempt': 1}


def test_connection_without_a_login_does_not_reset_the_back_off(world):
    world.server.on = {LoginRequest: lambda link, packet: link.channel.abort()}
    world.client.login('alice', 'secret')
    attempts_until(world, lambda: len(world.of('reconnecting')) == 4)
    assert [event['delay'] for event in world.of('reconnecting')] == [1, 2, 4, 8]


def test_attempt_waits_its_time(world):
    world.login(rand=lambda: 0.5)
    world.link.channel.abort()
    world.settle()
    assert world.events[-1]['delay'] == 0.5
    world.pass_time(0.4)
    assert len(world.server.links) == 1
    world.pass_time(0.1)
    assert len(world.server.links) == 2


@pytest.mark.parametrize('failures, bound', [(0, 1), (1, 2), (2, 4), (4, 16), (5, 30), (11, 30), (5000, 30)])
def test_backoff_is_drawn_between_0_and_its_bound(failures, bound):
    assert backoff(failures, lambda: 0.0) == 0
    assert backoff(failures, lambda: 0.25) == bound / 4
    drawn = {backoff(failures) for _ in range(50)}
    assert len(drawn) > 10 and all(0 <= delay <= bound for delay in drawn)


@pytest.mark.parametrize('retries', [0, 1, 3])
def test_at_the_start_it_tries_once_and_retries_times_more(world, retries, monkeypatch):
    lookups = []
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *a, **k: lookups.append(a) or real(*a, **k))
    port = free_port()
    client = world.new_client(port=port, retries=retries)
    client.login('alice', 'secret')
    attempts_until(world, lambda: 'gave_up' in world.names)
    world.pass_time(1000)
    assert len(lookups) == retries + 1
    assert world.names == ['reconnecting'] * retries + ['gave_up']
    assert world.events[-1]['reason'] == f'cannot reach 127.0.0.1 port {port}: Connection refused'
    client.send_message('bob', 'hi')
    assert world.events[-1]['code'] == 'not_logged_in'


def test_after_a_loss_patience_counts_and_not_the_retries(world):
    world.login(retries=0, patience=60.0)
    lost_at = world.clock.now
    world.server.go()
    attempts_until(world, lambda: 'gave_up' in world.names)
    assert world.clock.now - lost_at == 1 + 2 + 4 + 8 + 16 + 30, 'the first attempt that fails after 60 s'
    world.pass_time(1000)
    assert world.names[-1] == 'gave_up' and world.names.count('gave_up') == 1


def test_patience_begins_anew_after_a_login(world):
    world.login(retries=0, patience=60.0)
    for _ in range(5):
        world.pass_time(14.0)
        world.lose()
        assert world.client.is_logged_in
    assert 'gave_up' not in world.names


def test_without_patience_it_tries_for_ever(world):
    world.login(retries=0)
    world.server.go()
    world.settle()
    for _ in range(50):
        world.pass_time(30.0)
    assert world.names[-1] == 'reconnecting'
    world.server.come_back()
    world.pass_time(30.0)
    assert world.client.is_logged_in


def test_who_gave_up_may_be_told_to_log_in_again(world):
    world.server.go()
    world.client = world.new_client(retries=0)
    world.client.login('alice', 'secret')
    world.loop.until(lambda: 'gave_up' in world.names)
    world.server.come_back()
    world.login()


def test_comes_back_with_the_token(world):
    world.login()
    world.lose()
    assert world.link.got == [LoginRequest(user_name='alice', token='token-1')]
    assert world.names == ['disconnected', 'reconnecting', 'connected', 'login']


def test_newest_token_counts_and_none_is_kept(world):
    world.login()
    world.server.login_fields['token'] = 'token-2'
    world.lose()
    world.server.login_fields['token'] = None
    world.lose()
    assert world.link.got[0].token == 'token-2'
    world.lose()
    assert world.link.got[0].token == 'token-2'


def test_refused_token_falls_back_to_the_password_once(world):
    world.login()

    def judge(link, packet):
        ok = packet.token is None
        link.send(world.server.login_answer(packet) if ok else
                  LoginResponse(success=False, code='bad_token', reason='ended'))
    world.server.on[LoginRequest] = judge
    world.lose()
    assert [(p.token, p.password) for p in world.link.got] == [('token-1', None), (None, 'secret')]
    assert world.client.is_logged_in and 'login_failed' not in world.names


@pytest.mark.parametrize('fields', [{'code': 'wrong_password', 'reason': 'no'}, {}])
def test_wrong_password_is_told_once_and_not_tried_again(world, fields):
    world.server.on[LoginRequest] = lambda link, packet: link.send(LoginResponse(success=False, **fields))
    world.client.login('alice', 'wrong')
    world.settle()
    assert world.events[1:] == [{'event': 'login_failed', 'reason': 'refused', **fields}]
    for _ in range(20):
        world.pass_time(5.0)
    assert len(world.server.links) == 1 and len(world.link.got) == 1
    world.link.channel.abort()
    world.pass_time(100.0)
    assert len(world.server.links) == 1 and world.names[-1] == 'disconnected'


def test_both_secrets_refused_end_it(world):
    world.login()
    world.server.on[LoginRequest] = lambda link, packet: link.send(
        LoginResponse(success=False, code='bad_token' if packet.token else 'wrong_password', reason='no'))
    world.lose()
    assert world.names[-1] == 'login_failed' and len(world.link.got) == 2
    world.pass_time(10.0)
    assert len(world.link.got) == 2


def test_login_again_after_a_wrong_password(world):
    world.server.on[LoginRequest] = lambda link, packet: link.send(
        world.server.login_answer(packet) if packet.password == 'right' else
        LoginResponse(success=False, code='wrong_password', reason='no'))
    world.client.login('alice', 'wrong')
    world.settle()
    world.login('alice', 'right')
    assert len(world.server.links) == 1


def test_login_while_logged_in_is_refused_here(world):
    world.login()
    world.client.login('carol', 'secret')
    world.settle()
    assert without(world.events[-1], 'reason') == {'event': 'error', 'code': 'already_logged_in'}
    assert not world.link.got and world.client.user_name == 'alice' and world.client.is_logged_in


def test_login_while_waiting_to_reconnect_makes_one_connection(world):
    """The attempt that was put off must not come on top of the one that login begins."""
    world.login()
    world.link.channel.abort()
    world.settle()
    world.client.login('alice', 'secret')
    world.settle()
    assert world.client.is_logged_in and len(world.server.links) == 2
    world.pass_time(5.0)
    assert len(world.server.links) == 2


def test_login_as_another_while_one_is_under_way_mixes_nobody_up(world):
    """The server answers the first; then it refuses the second, as somebody is logged in."""
    answers = []

    def judge(link, packet):
        answers.append(packet.user_name)
        link.send(world.server.login_answer(packet) if len(answers) == 1 else
                  LoginResponse(success=False, code='already_logged_in', reason='log out first'))
    world.server.on[LoginRequest] = judge
    world.client.login('alice', 'secret')
    world.loop.until(lambda: 'connected' in world.names)
    world.client.login('bob', 'other')
    world.settle()
    told = [event['userName'] for event in world.of('login')]
    assert not world.client.is_logged_in or told == [world.client.user_name], (told, answers)


# Requests ............................................................................................

def every_request(client):
    client.send_message('bob', 'hi')
    client.send_group_message('0a0a0a0a', 'all')
    client.request(CreateGroupRequest(user_id_list=['bob'], group_name='us'))
    client.request(JoinGroupRequest(group_id='0a0a0a0a'))
    client.request(QuitGroupRequest(group_id='0b0b0b0b'))
    client.request(ListGroupMembersRequest(group_id='0a0a0a0a'))
    client.request(ListUsersRequest())
    client.request(ListGroupsRequest())
    client.request(HistoryRequest(user_id='bob', before=9, limit=2))
    client.request(HistoryRequest(group_id='0a0a0a0a'))


EVERY_REQUEST = [
    MessageRequest(to_user_id='bob', message='hi', client_seq=1),
    GroupMessageRequest(to_group_id='0a0a0a0a', message='all', client_seq=2),
    CreateGroupRequest(user_id_list=['bob'], group_name='us', client_seq=3),
    JoinGroupRequest(group_id='0a0a0a0a', client_seq=4), QuitGroupRequest(group_id='0b0b0b0b', client_seq=5),
    ListGroupMembersRequest(group_id='0a0a0a0a'), ListUsersRequest(), ListGroupsRequest(),
    HistoryRequest(user_id='bob', before=9, limit=2), HistoryRequest(group_id='0a0a0a0a')]


def test_requests_made_before_the_login_are_sent_in_order_after_it(world):
    world.server.on = {}
    world.client.login('alice', 'secret')
    every_request(world.client)
    world.settle()
    every_request(world.client)
    world.settle()
    assert world.link.got == [LoginRequest(user_name='alice', password='secret')]
    world.send(world.server.login_answer(world.link.got[0]))
    sent = world.link.got[1:]
    assert sent[:10] == EVERY_REQUEST
    assert [type(packet) for packet in sent[10:]] == [type(packet) for packet in EVERY_REQUEST]
    assert [p.client_seq for p in sent if hasattr(p, 'client_seq')] == list(range(1, 11))


def test_requests_made_while_disconnected_are_sent_after_those_before(world):
    link = world.login()
    world.client.send_message('bob', 'one')
    world.settle()
    world.link.channel.abort()
    world.settle()
    world.client.send_message('bob', 'two')
    world.pass_time(1.0)
    assert [p.message for p in link.of(MessageRequest)] == ['one']
    assert [(p.message, p.client_seq) for p in world.link.of(MessageRequest)] == [('one', 1), ('two', 2)]


def test_login_after_a_kick_needs_the_password(world):
    """A token of before must not let in who knows no password."""
    world.login()
    world.send(KickedNotice(reason='elsewhere'))
    world.client.login('alice', 'other')
    world.settle()
    assert world.link.frames[-1][1] == LoginRequest(user_name='alice', password='other')


def test_login_that_cannot_be_read_is_refused_for_good(world):
    """The server would close the connection each time."""
    world.server.on[LoginRequest] = lambda link, packet: link.send(
        ErrorResponse(command=1, code='bad_request', reason='too long'))
    world.client.login('alice', 'x' * 5000)
    world.settle()
    assert world.events[-1] == {'event': 'login_failed', 'code': 'bad_request', 'reason': 'too long'}
    assert not world.client.wants_login


def test_request_made_when_told_of_the_login_is_sent_once(world):
    """That is what a program that greets somebody would do."""
    world.client._on_event = lambda event: event['event'] == 'login' and world.client.request(ListUsersRequest())
    world.client.login('alice', 'secret')
    world.settle()
    assert len(world.link.of(ListUsersRequest)) == 1


def test_numbering_goes_on_from_what_the_server_says(world):
    world.server.login_fields['last_client_seq'] = 41
    world.login()
    world.client.send_message('bob', 'hi')
    world.settle()
    assert world.link.got[0].client_seq == 42


def test_numbering_never_goes_back(world):
    link = world.login()
    world.server.acknowledge()
    world.client.send_message('bob', 'one')
    world.settle()
    world.lose()
    world.client.send_message('bob', 'two')
    world.settle()
    assert [p.client_seq for p in link.of(MessageRequest) + world.link.of(MessageRequest)] == [1, 2]


def test_unanswered_is_sent_again_with_the_same_number_and_told_once(world):
    world.login()
    world.client.send_message('bob', 'one')
    world.client.send_message('bob', 'two')
    world.settle()
    first = world.link
    first.send(ack_of(first.got[0], 7))
    world.settle()
    world.lose()
    again = world.link.of(MessageRequest)
    assert again == [first.got[1]] and again[0].client_seq == 2
    world.send(ack_of(again[0], 8), ack_of(again[0], 8))
    assert [without(event, 'event', 'toUserId') for event in world.of('sent')] == [
        {'message': 'one', 'messageId': 7, 'sentAt': 1, 'clientSeq': 1},
        {'message': 'two', 'messageId': 8, 'sentAt': 1, 'clientSeq': 2}]
    assert not world.client.pending


def test_answers_find_their_request_in_any_order(world):
    link = world.login()
    for text in 'one', 'two', 'three':
        world.client.send_message('bob', text)
    world.settle()
    world.send(*[ack_of(packet) for packet in reversed(link.got)])
    assert [event['message'] for event in world.of('sent')] == ['three', 'two', 'one']


def test_acknowledgement_of_nothing_does_nothing(world):
    world.login()
    world.client.request(JoinGroupRequest(group_id='0a0a0a0a'))
    world.client.send_message('bob', 'hi')
    world.settle()
    world.send(MessageAck(client_seq=1, message_id=3, sent_at=3),
               MessageAck(client_seq=9, message_id=3, sent_at=3))
    assert not world.events and len(world.client.pending) == 2


def test_every_answer_ends_its_request(world):
    world.login()
    every_request(world.client)
    world.settle()
    m, g = world.link.got[:2]
    member = User(user_id='bob', user_name='bob', online=True)
    world.send(
        ack_of(m), ack_of(g),
        CreateGroupResponse(success=True, group_id='0c0c0c0c', user_name_list=['alice', 'bob'], client_seq=3,
                            message_id=3, sent_at=3, group_name='us', unknown_user_id_list=['x']),
        JoinGroupResponse(group_id='0a0a0a0a', success=True, client_seq=4),
        QuitGroupResponse(group_id='0b0b0b0b', success=True, client_seq=5),
        ListGroupMembersResponse(group_id='0a0a0a0a', session_list=[member]),
        ListUsersResponse(user_list=[member]), ListGroupsResponse(group_list=[]),
        HistoryResponse(user_id='bob', messages=[HistoryMessage(message_id=1, sent_at=2, from_user_id='bob',
                                                                message='hi')], more=True))
    user = {'userId': 'bob', 'userName': 'bob', 'online': True}
    assert world.events[2:] == [
        {'event': 'group_created', 'groupId': '0c0c0c0c', 'groupName': 'us',
         'userNameList': ['alice', 'bob'],
         'unknownUserIdList': ['x']},
        {'event': 'joined', 'groupId': '0a0a0a0a'}, {'event': 'left', 'groupId': '0b0b0b0b'},
        {'event': 'members', 'groupId': '0a0a0a0a', 'sessionList': [user]},
        {'event': 'users', 'userList': [user]}, {'event': 'groups', 'groupList': []},
        {'event': 'history', 'userId': 'bob', 'more': True,
         'messages': [{'messageId': 1, 'sentAt': 2, 'fromUserId': 'bob', 'message': 'hi'}]}]
    assert world.events[:2] == [
        {'event': 'sent', 'toUserId': 'bob', 'message': 'hi', 'messageId': 101, 'sentAt': 1, 'clientSeq': 1},
        {'event': 'sent', 'toGroupId': '0a0a0a0a', 'message': 'all', 'messageId': 102, 'sentAt': 1,
         'clientSeq': 2}]
    assert [request.packet for request in world.client.pending] == [HistoryRequest(group_id='0a0a0a0a')]


def test_refusals_end_their_requests(world):
    world.login()
    every_request(world.client)
    world.settle()
    sent = world.link.got
    world.send(
        JoinGroupResponse(group_id='0a0a0a0a', success=False, code='group_full', reason='full',
                          client_seq=4),
        QuitGroupResponse(group_id='0b0b0b0b', success=False, reason='', client_seq=5),
        CreateGroupResponse(success=False, client_seq=3, message_id=0, sent_at=0),
        *[ErrorResponse(command=p.COMMAND, code='bad_request', reason='no',
                        client_seq=getattr(p, 'client_seq', None))
          for p in sent if p.COMMAND not in (7, 11, 13)])
    assert not world.client.pending
    assert [event.get('command') for event in world.events] == [
        'JOIN_GROUP_REQUEST', 'QUIT_GROUP_REQUEST', 'CREATE_GROUP_REQUEST', 'MESSAGE_REQUEST',
        'GROUP_MESSAGE_REQUEST', 'LIST_GROUP_MEMBERS_REQUEST', 'LIST_USERS_REQUEST', 'LIST_GROUPS_REQUEST',
        'HISTORY_REQUEST', 'HISTORY_REQUEST']
    assert set(world.names) == {'error'}
    assert world.events[0] == {'event': 'error', 'command': 'JOIN_GROUP_REQUEST', 'code': 'group_full',
                               'reason': 'full'}
    assert world.events[1]['reason'] == world.events[2]['reason'] == 'refused'


def test_refusal_without_a_number_ends_the_first_of_its_kind(world):
    world.login()
    world.client.send_message('bob', 'one')
    world.client.send_message('bob', 'two')
    world.settle()
    world.send(ErrorResponse(command=3, code='bad_request', reason='no'))
    assert [request.packet.message for request in world.client.pending] == ['two']


def test_refusal_ends_no_other_request(world):
    world.login()
    world.client.send_message('bob', 'one')
    world.settle()
    world.send(ErrorResponse(command=3, code='bad_request', reason='no', client_seq=5),
               ErrorResponse(command=15, code='bad_request', reason='no', client_seq=1),
               ErrorResponse(command=200, code='unknown_command', reason='what'))
    assert len(world.client.pending) == 1
    assert world.events[-1] == {'event': 'error', 'code': 'unknown_command', 'reason': 'what'}


@pytest.mark.parametrize('ask, command', [
    (LogoutRequest, 5), (ListUsersRequest, 25), (ListGroupsRequest, 27)])
def test_refusal_with_a_number_of_a_request_that_has_none(world, ask, command):
    world.login()
    world.client.request(ask())
    world.settle()
    world.send(ErrorResponse(command=command, code='internal_error', reason='no', client_seq=1))
    assert world.names == ['error'] and world.client.is_logged_in


@pytest.mark.parametrize('refuse', [
    lambda p: ErrorResponse(command=p.COMMAND, code='seq_conflict', reason='used', client_seq=p.client_seq),
    lambda p: JoinGroupResponse(group_id='0a0a0a0a', success=False, code='seq_conflict',
                                client_seq=p.client_seq)])
def test_conflict_of_what_was_sent_again_gets_a_new_number_once(world, refuse):
    world.login()
    world.client.request(JoinGroupRequest(group_id='0a0a0a0a'))
    world.settle()
    world.server.login_fields['last_client_seq'] = 9
    world.lose()
    world.send(refuse(world.link.of(JoinGroupRequest)[0]))
    assert [p.client_seq for p in world.link.of(JoinGroupRequest)] == [1, 10] and not world.of('error')
    world.send(refuse(world.link.of(JoinGroupRequest)[1]))
    assert [event['code'] for event in world.of('error')] == ['seq_conflict']
    assert not world.client.pending and len(world.link.of(JoinGroupRequest)) == 2


def test_conflict_of_a_first_try_is_an_error(world):
    link = world.login()
    world.client.send_message('bob', 'hi')
    world.settle()
    world.send(ErrorResponse(command=3, code='seq_conflict', reason='used', client_seq=1))
    assert world.events == [{'event': 'error', 'command': 'MESSAGE_REQUEST', 'code': 'seq_conflict',
                             'reason': 'used'}]
    assert len(link.got) == 1 and not world.client.pending


def test_nobody_logged_in_nothing_sent(world):
    every_request(world.client)
    world.client.request(LogoutRequest())
    world.settle()
    assert [event.get('code') for event in world.events] == ['not_logged_in'] * 11
    assert not world.client.pending and not world.server.links


def test_text_that_cannot_be_sent_is_refused_and_poisons_nothing(world):
    """A lone surrogate is no text, and has no bytes."""
    world.login()
    with suppress(ValueError):  # to raise it to the caller is as good as an event
        world.client.send_message('bob', 'a\ud800b')
    world.client.send_message('bob', 'fine')
    world.settle()
    assert [request.packet.message for request in world.client.pending] == ['fine']
    world.lose()
    assert world.client.is_logged_in


def test_text_that_cannot_be_sent_and_waits_for_the_login(world):
    with suppress(ValueError):
        world.client.login('alice', 'secret')
        world.client.send_message('bob', 'a\ud800b')
    world.settle()
    assert world.client.is_logged_in and 'disconnected' not in world.names


# What arrives ........................................................................................

def test_each_entry_is_told_once_and_acknowledged_once_a_tick(world):
    link = world.login()
    world.send(message(1, 'a'), message(2, 'b'), message(2, 'b'), message(5, 'c'), message(1, 'a'))
    assert [event['message'] for event in world.events] == ['a', 'b', 'c']
    assert link.got == [DeliveryAck(message_id=5)]
    world.send(message(6, 'd'))
    assert link.got == [DeliveryAck(message_id=5), DeliveryAck(message_id=6)]


def test_what_is_repeated_is_acknowledged_again(world):
    link = world.login()
    world.send(message(3))
    world.send(message(3))
    world.send(message(2))
    assert link.got == [DeliveryAck(message_id=3)] * 3 and world.names == ['message']


def test_after_a_loss_what_was_told_is_acknowledged_and_not_told_again(world):
    world.login()
    world.send(message(3))
    world.lose()
    assert world.link.got[1:] == [DeliveryAck(message_id=3)]
    world.send(message(2), message(3), message(4, 'new'))
    assert [event['messageId'] for event in world.of('message')] == [3, 4]


def test_all_kinds_of_entries_share_the_ids(world):
    link = world.login()
    bob = User(user_id='bob', user_name='Bob')
    entries = [
        message(1), GroupMessageResponse(from_group_id='0a0a0a0a', from_user=bob, message='yo', message_id=2,
                                         sent_at=2),
        GroupNotice(group_id='0a0a0a0a', event='joined', user=bob, message_id=3, sent_at=3),
        CreateGroupResponse(success=True, group_id='0c0c0c0c', user_name_list=['bob', 'alice'], message_id=4,
                            sent_at=4)]
    world.send(*entries, *entries)
    assert world.events == [
        {'event': 'message', 'fromUserId': 'bob', 'fromUserName': 'bob', 'message': 'hi', 'messageId': 1,
         'sentAt': 1},
        {'event': 'group_message', 'groupId': '0a0a0a0a', 'fromUserId': 'bob', 'fromUserName': 'Bob',
         'message': 'yo',
         'messageId': 2, 'sentAt': 2},
        {'event': 'notice', 'groupId': '0a0a0a0a', 'userId': 'bob', 'userName': 'Bob', 'action': 'joined',
         'messageId': 3, 'sentAt': 3},
        {'event': 'group_created', 'groupId': '0c0c0c0c', 'userNameList': ['bob', 'alice']}]
    assert link.got == [DeliveryAck(message_id=4)]


def test_answer_to_ones_own_creation_hides_nothing_that_follows(world):
    link = world.login()
    world.client.request(CreateGroupRequest(user_id_list=['bob']))
    world.settle()
    own = CreateGroupResponse(success=True, group_id='0c0c0c0c', user_name_list=['alice'], client_seq=1,
                              message_id=50, sent_at=4)
    world.send(own, message(40), own)
    assert world.names == ['group_created', 'message']
    assert link.of(DeliveryAck) == [DeliveryAck(message_id=40)]


def test_creation_by_another_ends_no_request_of_ones_own(world):
    world.login()
    world.client.request(CreateGroupRequest(user_id_list=['bob']))
    world.settle()
    world.send(CreateGroupResponse(success=True, group_id='0c0c0c0c', user_name_list=['bob'], message_id=5,
                                   sent_at=4))
    assert world.names == ['group_created'] and len(world.client.pending) == 1


def test_another_database_forgets_ids_numbers_and_token(world):
    world.login()
    world.send(message(30))
    world.client.send_message('bob', 'one')
    world.client.send_message('bob', 'two')
    world.client.request(ListUsersRequest())
    world.settle()
    world.server.login_fields = {'last_client_seq': 0, 'log_id': 'log-2', 'token': None}
    world.lose()
    assert [p.client_seq for p in world.link.of(MessageRequest)] == [1, 2]
    assert not world.link.of(DeliveryAck) and len(world.link.of(ListUsersRequest)) == 1
    world.send(message(1, 'low'))
    assert world.of('message')[-1]['message'] == 'low'
    world.lose()
    assert world.link.got[0] == LoginRequest(user_name='alice', password='secret')


def test_another_database_goes_on_from_its_own_numbers(world):
    world.login()
    for _ in range(3):
        world.client.send_message('bob', 'hi')
    world.settle()
    world.server.login_fields |= {'last_client_seq': 70, 'log_id': 'log-2'}
    world.lose()
    assert [p.client_seq for p in world.link.of(MessageRequest)] == [71, 72, 73]


# Leaving .............................................................................................

def test_kicked_stays_away(world):
    link = world.login()
    world.send(KickedNotice(reason='logged in elsewhere'))
    assert world.events == [{'event': 'kicked', 'reason': 'logged in elsewhere'}]
    link.channel.close()
    world.settle()
    world.pass_time(1000.0)
    assert world.names == ['kicked', 'disconnected'] and len(world.server.links) == 1
    world.client.send_message('bob', 'hi')
    assert world.events[-1]['code'] == 'not_logged_in'


def test_kicked_may_log_in_again_by_hand(world):
    world.login()
    world.link.send(KickedNotice(reason='logged in elsewhere'))
    world.link.channel.close()
    world.settle()
    world.login()


def test_logout_then_login_as_another_on_the_same_connection(world):
    link = world.login()
    world.server.on[LogoutRequest] = lambda link, packet: link.send(LogoutResponse(success=True))
    world.send(message(30))
    world.client.request(LogoutRequest())
    world.settle()
    assert world.names == ['message', 'logged_out'] and not world.client.is_logged_in
    world.login('carol', 'pw-of-carol')
    assert len(world.server.links) == 1 and world.client.user_id == 'carol'
    world.send(message(2, 'for carol'))
    assert [event['message'] for event in world.events] == ['for carol']
    assert link.got == [DeliveryAck(message_id=2)]


def test_login_after_logout_has_the_password_and_not_the_token(world):
    world.login()
    world.server.on[LogoutRequest] = lambda link, packet: link.send(LogoutResponse(success=True))
    world.client.request(LogoutRequest())
    world.settle()
    world.link.frames.clear()
    world.client.login('alice', 'secret')
    world.settle()
    assert world.link.got == [LoginRequest(user_name='alice', password='secret')]


def test_logged_out_and_lost_stays_away_until_the_next_login(world):
    world.login()
    world.server.on[LogoutRequest] = lambda link, packet: link.send(LogoutResponse(success=True))
    world.client.request(LogoutRequest())
    world.settle()
    world.link.channel.abort()
    world.pass_time(100.0)
    assert world.names == ['logged_out', 'disconnected']
    world.login('carol', 'pw')


def test_what_arrives_behind_a_logout_makes_no_error(world):
    """The server has ended the session when the acknowledgement of its last message arrives."""
    late = ErrorResponse(command=20, code='not_logged_in', reason='log in first')

    def refuse(link, packet):
        if link.of(LogoutRequest):
            link.send(late)
    world.login()
    world.server.on |= {DeliveryAck: refuse}
    world.client.request(LogoutRequest())
    world.settle()
    world.link.send(message(7))
    world.settle()
    world.send(LogoutResponse(success=True))
    assert world.names == ['message', 'logged_out']


def test_refused_logout_is_an_error(world):
    world.login()
    world.server.on[LogoutRequest] = lambda link, packet: link.send(LogoutResponse(success=False))
    world.client.request(LogoutRequest())
    world.settle()
    assert world.events == [{'event': 'error', 'command': 'LOGOUT_REQUEST', 'reason': 'refused'}]
    assert world.client.is_logged_in and not world.client.pending


def test_what_one_user_wrote_is_not_sent_in_the_name_of_another(world):
    world.login()
    world.client.send_message('bob', 'from alice, in private')
    world.settle()
    world.send(KickedNotice(reason='logged in elsewhere'))
    world.client.login('mallory', 'pw')
    world.settle()
    assert world.client.user_id == 'mallory'
    assert not world.link.of(MessageRequest)[1:]


def test_late_login_answer_changes_nothing(world):
    world.login()
    world.send(LoginResponse(success=False, code='already_logged_in', reason='so what'),
               LoginResponse(success=True, user_name='eve', user_id='eve'))
    assert not world.events and world.client.user_id == 'alice'


def test_close_sends_what_is_buffered(world):
    link = world.login()
    for number in range(50):
        world.client.send_message('bob', f'{number}')
    world.client.close()
    world.settle()
    assert [p.message for p in link.of(MessageRequest)] == [str(n) for n in range(50)]
    world.pass_time(100.0)
    assert not link.channel.is_open and len(world.server.links) == 1
    assert not world.events


def test_close_before_there_is_a_connection(world):
    world.client.login('alice', 'secret')
    world.client.close()
    world.pass_time(100.0)
    assert not world.server.links and not world.events


def test_close_while_waiting_to_reconnect(world):
    world.login()
    world.link.channel.abort()
    world.settle()
    world.client.close()
    world.pass_time(100.0)
    assert len(world.server.links) == 1


def test_closed_is_not_logged_in(world):
    world.login()
    world.client.close()
    world.settle()
    world.client.send_message('bob', 'into the void')
    assert [event.get('code') for event in world.events] == ['not_logged_in']
    world.login()


# A server of version 1 ...............................................................................

@pytest.fixture
def old(world):
    """A world whose server speaks version 1."""
    world.server.version = 1
    world.server.on[LoginRequest] = lambda link, packet: link.send(
        LoginResponse(success=True, user_name=packet.user_name, user_id='1a2b3c4d'))
    return world


def test_old_server_makes_a_session_of_version_1(old):
    old.client.login('alice', 'secret')
    old.settle()
    assert old.link.frames[0][0] == 2 and old.client.version == 1
    assert old.events[-1] == {'event': 'login', 'userName': 'alice', 'userId': '1a2b3c4d', 'version': 1}
    old.client.request(JoinGroupRequest(group_id='g'))
    old.client.request(CreateGroupRequest(user_id_list=['bob'], group_name='us'))
    old.client.request(ListGroupMembersRequest(group_id='g'))
    old.pass_time(5.0)
    assert old.link.frames[1:] == [(1, JoinGroupRequest(group_id='g')),
                                   (1, CreateGroupRequest(user_id_list=['bob', '1a2b3c4d'])),
                                   (1, ListGroupMembersRequest(group_id='g'))]
    assert old.link.beats[-1][1] == 1


def test_old_server_acknowledges_nothing_so_sent_is_sent(old):
    link = old.login()
    old.client.send_message('bob', 'hi')
    old.client.send_group_message('g', 'all')
    old.settle()
    assert old.events == [{'event': 'sent', 'toUserId': 'bob', 'message': 'hi'},
                          {'event': 'sent', 'toGroupId': 'g', 'message': 'all'}]
    assert not old.client.pending
    assert link.frames == [(1, MessageRequest(to_user_id='bob', message='hi')),
                           (1, GroupMessageRequest(to_group_id='g', message='all'))]
    old.lose()
    assert not old.link.of(MessageRequest)


def test_old_server_messages_without_ids_are_all_told(old):
    link = old.login()
    old.send(message(None), message(None), GroupMessageResponse(from_group_id='g', message='anon'),
             GroupMessageResponse(from_group_id='g', from_user=User(), message='anon'),
             CreateGroupResponse(success=True))
    assert old.names == ['message', 'message', 'group_message', 'group_message', 'group_created']
    assert without(old.events[2], 'event') == {'groupId': 'g', 'message': 'anon'} and not link.got
    assert old.events[-1]['userNameList'] == []


def test_old_server_answers_end_their_requests(old):
    old.login()
    old.client.request(CreateGroupRequest(user_id_list=['bob']))
    old.client.request(JoinGroupRequest(group_id='g'))
    old.client.request(ListGroupMembersRequest(group_id='g'))
    old.settle()
    old.send(CreateGroupResponse(success=True, group_id='g', user_name_list=['bob']),
             JoinGroupResponse(group_id='g', success=True))
    old.link.send_bytes(frame(10, b'{"groupId":"g","sessionList":[null,{"userId":"1"},{},null]}', version=1))
    old.settle()
    assert not old.client.pending and old.names == ['group_created', 'joined', 'members']
    assert old.events[-1]['sessionList'] == [{'userId': '1'}, {}]


def test_old_server_has_no_history_and_no_lists(old):
    old.client.login('alice', 'secret')
    old.client.request(HistoryRequest(user_id='bob'))
    old.client.send_message('bob', 'after')
    old.settle()
    old.client.request(ListUsersRequest())
    old.client.request(ListGroupsRequest())
    assert [event['event'] for event in old.events] == ['connected', 'login', 'error', 'sent', 'error',
                                                        'error']
    assert len(old.link.got) == 2 and not old.client.pending and old.client.is_logged_in


def test_old_server_is_not_asked_again_what_it_did_not_answer(old):
    """Without a number it could do the same thing twice."""
    old.login()
    old.client.request(CreateGroupRequest(user_id_list=['bob']))
    old.settle()
    old.lose()
    assert old.client.is_logged_in and not old.link.of(CreateGroupRequest) and not old.client.pending
    assert old.events[-1] == {'event': 'error', 'command': 'CREATE_GROUP_REQUEST', 'reason': 'not answered'}


def test_old_server_answers_by_group(old):
    """It is silent about a group that it does not know: the answer about another is not that one's."""
    old.login()
    old.client.request(ListGroupMembersRequest(group_id='unknown'))
    old.client.request(ListGroupMembersRequest(group_id='known'))
    old.settle()
    old.send(ListGroupMembersResponse(group_id='known', session_list=[]))
    assert [request.packet.group_id for request in old.client.pending] == ['unknown']


def test_old_server_in_the_place_of_a_new_one(old):
    """Numbers and ids of the one mean nothing to the other; and back."""
    old.server.version, new = 2, old.server.login_answer
    answer_old = old.server.on[LoginRequest]
    old.server.on[LoginRequest] = lambda link, packet: link.send(new(packet))
    old.login()
    old.send(message(4))
    old.client.send_message('bob', 'kept')
    old.settle()
    old.server.version, old.server.on[LoginRequest] = 1, answer_old
    old.lose()
    assert old.of('sent') == [{'event': 'sent', 'toUserId': 'bob', 'message': 'kept'}]
    assert old.link.frames[1:] == [(1, MessageRequest(to_user_id='bob', message='kept'))]
    old.server.version = 2
    old.server.on[LoginRequest] = lambda link, packet: link.send(new(packet))
    old.lose()
    assert old.link.frames[0] == (2, LoginRequest(user_name='alice', password='secret'))
    old.client.send_message('bob', 'numbered')
    old.settle()
    assert old.link.frames[-1] == (2, MessageRequest(to_user_id='bob', message='numbered', client_seq=1))


def test_old_server_after_one_that_names_no_log(world):
    world.server.login_fields = {}
    world.login()
    world.send(message(4))
    world.server.version = 1
    world.lose()
    assert world.client.is_logged_in and world.names[-1] == 'login' and world.client.version == 1
    world.send(message(None, 'on we go'))
    assert world.of('message')[-1]['message'] == 'on we go'


# Servers that do wrong ...............................................................................

def test_half_closed_server_is_given_up(world):
    world.login()
    world.link.channel._socket.shutdown(socket.SHUT_WR)
    world.settle()
    assert world.names == ['disconnected', 'reconnecting']
    assert world.events[0]['reason'] == 'the server closed the connection'
    world.pass_time(1.0)
    assert world.client.is_logged_in


@pytest.mark.parametrize('data', [
    b'HTTP/1.1 400 Bad Request\r\n\r\n', frame(4, magic=0x12345679), frame(4, version=3),
    frame(4, serializer=9), frame(4, length=2 ** 31), frame(4, length=2 ** 20 + 1), b'\x12\x34\x00',
    b'\xff' * 70000])
def test_garbage_is_told_and_another_connection_made(world, data):
    world.login()
    world.link.send_bytes(encode(message(1, 'before'), 2) + data + encode(message(2, 'behind'), 2))
    world.settle()
    assert world.names == ['message', 'disconnected', 'reconnecting']
    assert 'does not speak this protocol' in world.events[1]['reason']
    world.pass_time(1.0)
    assert world.client.is_logged_in and len(world.server.links) == 2


@pytest.mark.parametrize('data', [
    frame(99), frame(30), frame(0), frame(3, b'{"message":"m","toUserId":"u"}'), frame(19, version=1),
    frame(4, b''),
    frame(4, b'[]'), frame(4, b'{"message":1}'), frame(4, b'\xff'), frame(4, b'{' * 5000),
    frame(4, b'{"a":NaN}'),
    frame(2, b'{}'), frame(22), frame(10, b'{"groupId":"g","sessionList":[1]}'),
    frame(4, b'{"fromUserId":"u","message":"m"}'),
    frame(4, b'{"fromUserId":"u","message":"\\ud800"}', version=1)])
def test_unreadable_frame_is_an_error_and_the_connection_goes_on(world, data):
    world.login()
    world.link.send_bytes(data + encode(message(1), 2))
    world.settle()
    assert world.names == ['error', 'message']
    assert world.events[0]['reason'].startswith('the server sent something unreadable')


def test_nothing_of_a_frame_is_lost_whatever_its_pieces(world):
    world.login()
    for byte in encode(message(1, 'a'), 2) + encode(message(2, 'b'), 2):
        world.link.send_bytes(bytes([byte]))
        world.loop.tick(0)
    world.settle()
    assert [event['message'] for event in world.events] == ['a', 'b']


def test_frames_without_end_starve_nobody(world):
    """More than fits one tick; the client goes on sending meanwhile."""
    world.login()
    world.link.send(*[message(number, 'x' * 100) for number in range(1, 5001)])
    world.client.send_message('bob', 'hi')
    world.loop.until(lambda: world.link.of(MessageRequest))
    assert len(world.of('message')) < 5000
    world.settle()
    assert [event['messageId'] for event in world.events] == list(range(1, 5001))


def test_endless_beginning_of_a_frame_is_bounded(world):
    world.login()
    world.link.send_bytes(frame(4, b'{' * 1000, length=2 ** 20))
    for _ in range(40):
        world.link.send_bytes(b'{' * 30_000)
        world.settle()
    assert 'error' in world.names or 'disconnected' in world.names


def test_nothing_is_handled_behind_the_end(world):
    """The connection is given up in the middle of what arrived: the rest is not looked at."""
    world.login()
    world.client._on_event = lambda event: (world.on_event(event), world.client.close())
    world.send(message(1), message(2), message(3))
    assert world.names == ['message']


SAMPLES = {str: 'x', int: 5, bool: True}


def bodies(cls, version):
    """`cls` with each choice of its optional fields, as fields on the wire."""
    known = [f for f in cls.FIELDS if f.since <= version]
    optional = [f for f in known if not f.required]
    for count in range(len(optional) + 1):
        for left_out in itertools.combinations(optional, count):
            yield {f.name: sample(f, version) for f in known if f not in left_out}


def sample(f, version):
    if f.kind in SAMPLES:
        return [SAMPLES[f.kind]] if f.many else SAMPLES[f.kind]
    parts = list(bodies(f.kind, version))
    return parts if f.many else parts[-1]


RESPONSES = sorted(protocol.RESPONSES)


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('command', RESPONSES, ids=[command.name for command in RESPONSES])
def test_no_choice_of_optional_fields_breaks_client_or_console(world, command, version):
    if version == 1 and command > protocol.LAST_COMMAND_OF_VERSION_1:
        return
    failed = []

    def show(event):
        world.events.append(event)
        for color, multiline in itertools.product((True, False), repeat=2):
            try:
                render(event, me=world.client.user_id, color=color, multiline=multiline)
            except Exception as error:
                failed.append((event, error))
    world.login()
    world.client._on_event = show
    for number, body in enumerate(bodies(protocol.PACKETS[command], version), 1):
        for success in True, False:
            every_request(world.client)
            body |= {name: value for name, value in [('success', success),
                                                     ('messageId', 2 * number + success)]
                     if name in body}
            world.link.send_bytes(frame(command, json.dumps(body).encode(), version=version))
            world.settle()
            assert world.link.channel.is_open and 'disconnected' not in world.names
            world.client._next_seq = 1
            world.client.pending.clear()
            world.client.wants_login = world.client.is_logged_in = True
    assert not failed, failed[0]


@pytest.mark.parametrize('packet', [
    HistoryResponse(messages=[], more=False), CreateGroupResponse(success=True, message_id=3, sent_at=3)])
def test_console_shows_answers_that_do_not_say_about_whom(world, packet):
    world.login()
    world.send(packet)
    assert world.events and render(world.events[-1], me='alice', color=False, multiline=False)


# The connector .......................................................................................

class Attempts:
    """A connector on a loop of its own; `made` holds channels, `failed` errors."""

    def __init__(self, host='somewhere', port=1):
        self.clock = Clock()
        self.loop = new_loop(self.clock)
        self.made, self.failed, self.open = [], [], []
        self.connector = Connector(self.loop, host, port, self.made.append, self.failed.append)

    def connect(self):
        self.connector.connect()
        self.loop.until(lambda: self.made or self.failed)
        return self

    def pass_time(self, seconds):
        self.clock.now += seconds
        self.loop.tick(0)
        self.loop.settle()

    def listen(self):
        sock = socket.create_server(('127.0.0.1', 0))
        self.open.append(sock)
        return sock

    def close(self):
        self.connector.cancel()
        for thing in self.made:
            thing.abort()
        for sock in self.open:
            sock.close()
        self.loop.close()


@pytest.fixture
def attempts():
    attempts = Attempts()
    yield attempts
    attempts.close()


def resolves_to(monkeypatch, *addresses, family=socket.AF_INET):
    found = [entry if len(entry) == 5 else (family, socket.SOCK_STREAM, 0, '', entry) for entry in addresses]
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *args, **named: list(found))


def test_name_that_cannot_be_resolved(attempts, monkeypatch):
    def look_up(*args, **named):
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
    monkeypatch.setattr(socket, 'getaddrinfo', look_up)
    attempts.connect()
    assert not attempts.made
    assert [error.strerror for error in attempts.failed] == ['Name or service not known']


@pytest.mark.parametrize('host', ['a' * 64 + '.invalid', '.', 'a..b', '\0', '256.256.256.256',
                                  'no.such.name.invalid'])
def test_odd_name_fails_like_any_other(world, host):
    world.client = world.new_client(host=host, retries=0)
    world.client.login('alice', 'secret')
    world.loop.until(lambda: world.events)
    assert world.names == ['gave_up'] and world.events[0]['reason'].startswith('cannot reach')


def test_name_without_an_address(attempts, monkeypatch):
    resolves_to(monkeypatch)
    assert str(attempts.connect().failed[0]) == 'the name has no address'


def test_refused_port(attempts, monkeypatch):
    resolves_to(monkeypatch, ('127.0.0.1', free_port()))
    assert [error.errno for error in attempts.connect().failed] == [errno.ECONNREFUSED]
    attempts.pass_time(100.0)
    assert len(attempts.failed) == 1


@pytest.mark.parametrize('bad', [
    ('127.0.0.1', 1), (12345, socket.SOCK_STREAM, 0, '', ('127.0.0.1', 1)),
    (socket.AF_INET, socket.SOCK_STREAM, 0, '', ('255.255.255.255', 1))],
    ids=['refused', 'family', 'at once'])
def test_next_address_is_tried_when_one_fails(attempts, monkeypatch, bad):
    good = attempts.listen().getsockname()
    resolves_to(monkeypatch, bad, good)
    attempts.connect()
    assert [channel.address for channel in attempts.made] == ['{}:{}'.format(*good)] and not attempts.failed
    attempts.pass_time(100.0)
    assert not attempts.failed, 'the time limit ends with the attempt'


def test_last_failure_is_told_when_all_addresses_fail(attempts, monkeypatch):
    resolves_to(monkeypatch, (12345, socket.SOCK_STREAM, 0, '', ('127.0.0.1', 1)),
                ('127.0.0.1', free_port()))
    assert [error.errno for error in attempts.connect().failed] == [errno.ECONNREFUSED]


def crowded(attempts):
    """The address of a listener that has no place for another caller: connecting to it takes for ever."""
    listener = attempts.listen()
    listener.listen(0)
    for _ in range(3):
        sock = socket.socket()
        attempts.open.append(sock)
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
    return listener.getsockname()


def test_time_limit_of_an_attempt(attempts, monkeypatch):
    resolves_to(monkeypatch, crowded(attempts), ('127.0.0.1', free_port()))
    attempts.connector.connect()
    attempts.loop.settle()
    attempts.pass_time(9.0)
    assert not attempts.failed and attempts.connector._socket
    attempts.pass_time(1.0)
    assert [type(error) for error in attempts.failed] == [TimeoutError]
    assert attempts.connector._socket is None and len(attempts.loop.selector.get_map()) == 1


@contextmanager
def slow_look_up(monkeypatch, *addresses):
    may_end = threading.Event()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, '', address) for address in addresses]
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *args, **named: may_end.wait(PATIENCE) and found)
    try:
        yield may_end
    finally:
        may_end.set()


def test_time_limit_holds_for_the_look_up_too(attempts, monkeypatch):
    good = attempts.listen().getsockname()
    with slow_look_up(monkeypatch, good) as may_end:
        attempts.connector.connect()
        attempts.clock.now += 10.0
        attempts.loop.tick(0.01)
        assert [str(error) for error in attempts.failed] == ['no answer']
        may_end.set()
        attempts.loop.settle()
    assert not attempts.made and len(attempts.failed) == 1


def test_cancel_during_the_look_up(attempts, monkeypatch):
    with slow_look_up(monkeypatch, attempts.listen().getsockname()) as may_end:
        attempts.connector.connect()
        attempts.loop.tick(0.01)
        attempts.connector.cancel()
        may_end.set()
        attempts.loop.settle()
        attempts.pass_time(100.0)
    assert not attempts.made and not attempts.failed


def test_cancel_while_connecting(attempts, monkeypatch):
    resolves_to(monkeypatch, crowded(attempts))
    attempts.connector.connect()
    attempts.loop.settle()
    attempts.connector.cancel()
    attempts.pass_time(100.0)
    assert not attempts.made and not attempts.failed and len(attempts.loop.selector.get_map()) == 1


def test_second_attempt_drops_the_first(attempts, monkeypatch):
    resolves_to(monkeypatch, attempts.listen().getsockname())
    attempts.connector.connect()
    attempts.connector.connect()
    attempts.loop.settle()
    assert len(attempts.made) == 1 and not attempts.failed


def test_cancel_in_the_tick_in_which_the_connection_is_there(attempts, monkeypatch):
    """Both were ready when select returned, and what cancels runs first."""
    resolves_to(monkeypatch, attempts.listen().getsockname())
    here, there = socket.socketpair()
    attempts.open += [here, there]
    attempts.connector.connect()
    attempts.loop.until(lambda: attempts.connector._socket)
    attempts.loop.register(here, selectors.EVENT_READ,
                           lambda mask: (here.recv(9), attempts.connector.cancel()))
    there.send(b'x')
    real = attempts.loop.selector.select
    attempts.loop.selector.select = lambda timeout: sorted(real(timeout),
                                                           key=lambda found: found[0].fileobj != here)
    attempts.loop.settle()
    assert not attempts.made and not attempts.failed


def test_whole_client_over_ipv6(world):
    if not socket.has_ipv6:
        pytest.skip('no IPv6')
    try:
        listener = Listener(world.loop, '::1', 0,
                            lambda channel: channel.pipeline.add_last(Link(world.server)))
    except OSError:
        pytest.skip('no IPv6')
    world.login(host='::1', port=listener.address[1])
    for channel in list(listener.channels):
        channel.abort()
    listener.close()


# B. The command line .................................................................................

# What is left open at the end of the process, the system closes.
PYTHON = [sys.executable, '-W', 'error', '-W', 'ignore::ResourceWarning']


def environment(**variables):
    kept = {name: value for name, value in os.environ.items() if name not in ('IM_PASSWORD', 'NO_COLOR')}
    return {**kept, 'IM_PASSWORD': 'secret', 'PYTHONUNBUFFERED': '', **variables}


@contextmanager
def real_server(*options):
    """The real server as a process; its port."""
    process = subprocess.Popen(
        [*PYTHON, SERVER, '--port', '0', '--db', ':memory:', '--password-cost', '10', *options],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        try:
            first = process.stdout.readline()
            assert first.startswith('listening on '), first
            process.port = int(first.rpartition(':')[2])
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


@pytest.fixture(scope='module')
def port():
    with real_server() as process:
        yield process.port


@pytest.fixture
def server():
    """A fake server for processes, with the real time."""
    loop = new_loop(time.monotonic)
    server = FakeServer(loop)
    yield server
    server.go()
    loop.close()


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.lines = out.splitlines()

    def __repr__(self):
        return f'exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}'


def start(port, *options, user='alice', stdin=subprocess.PIPE, stdout=subprocess.PIPE, script=(CLIENT,),
          **variables):
    named = [] if user is None else ['--user', user]
    return subprocess.Popen([*PYTHON, *script, '--port', str(port), *named, *options], stdin=stdin,
                            stdout=stdout,
                            stderr=subprocess.PIPE, env=environment(**variables))


@contextmanager
def running(*args, **named):
    process = start(*args, **named)
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(port, text='', *options, server=None, seconds=PATIENCE, **named):
    """Run the client to its end with `text` as its input; `server` is kept going meanwhile."""
    named.setdefault('stdin', subprocess.PIPE)
    with running(port, *options, **named) as process:
        if server is None:
            out, err = process.communicate(text.encode() if named['stdin'] == subprocess.PIPE else None,
                                           seconds)
            return Result(process.returncode, out.decode(), err.decode())
        found = []
        helper = threading.Thread(target=lambda: found.extend(process.communicate(text.encode() or None)))
        helper.start()
        deadline = time.monotonic() + seconds
        while helper.is_alive() and time.monotonic() < deadline:
            server.loop.tick(0.02)
        process.kill()
        helper.join()
        return Result(process.returncode, *[data.decode() for data in found])


def clean(result):
    """No line says when; and never a traceback."""
    assert 'Traceback' not in result.err, result
    return [re.sub(r'\d\d:\d\d ', '', line) for line in result.lines]


def wait_for(process, text):
    """Read from the process until `text` has come; return all that was read."""
    os.set_blocking(process.stdout.fileno(), False)
    seen, deadline = b'', time.monotonic() + PATIENCE
    while text.encode() not in seen:
        assert time.monotonic() < deadline, f'{text!r} is not in {seen!r}'
        if select.select([process.stdout], [], [], 0.1)[0]:
            data = os.read(process.stdout.fileno(), 65536)
            assert data, f'the end instead of {text!r}, after {seen!r}'
            seen += data
    os.set_blocking(process.stdout.fileno(), True)
    return seen.decode()


def test_one_message_through_a_pipe(port):
    run(port, '', user='bob1')
    result = run(port, '/msg bob1 hi there\n', user='alice1')
    assert clean(result) == [f'-- connected to 127.0.0.1 port {port}',
                             '-- logged in as alice1, protocol version 2',
                             'you -> bob1: hi there']
    assert (result.code, result.err) == (0, '')
    assert 'alice1: hi there' in clean(run(port, '', user='bob1'))


def test_last_line_needs_no_line_break(port):
    assert 'you -> alice2: hi' in clean(run(port, '/msg alice2 hi', user='alice2'))


def group_of(result):
    return re.search('group #([0-9a-f]{8}) created', result.out).group(1)


def test_every_command(port):
    run(port, '', user='bob3')
    group = group_of(run(port, '/create bob3, nobody3\n', user='alice3'))
    script = f'''/chat bob3
    plain text   with spaces
/chat {group}
 to all of you
/msg bob3 {group}
/members
/members {group}
/history
/history bob3
/group {group} more
/users
/groups
/help
'''
    result = run(port, script, user='alice3')
    assert result.code == 0 and not result.err, result
    lines = '\n'.join(clean(result))
    for expected in (
            'you -> bob3: plain text   with spaces', f'#{group} you: to all of you',
            f'you -> bob3: {group}',
            f'-- group #{group} has you, bob3 (offline)', f'-- history of group #{group}: ',
            'you: to all of you',
            '-- history with bob3: ', f'#{group} you: more', '-- users: ',
            f'-- groups: #{group}, members: 2',
            '-- /msg USER TEXT'):
        assert expected in lines, (expected, result)
    assert lines.count(f'-- group #{group} has') == 2


def test_every_command_that_leaves_something(port):
    group = group_of(run(port, '/create alice13\n', user='alice13'))
    script = f'/quit {group}\n/join {group}\n/logout\n/login bob13\n/join {group}\n/exit\nnever\n'
    result = run(port, script, user='alice13')
    assert result.code == 0, result
    assert clean(result)[1:] == [
        '-- logged in as alice13, protocol version 2', f'-- you left group #{group}',
        f'-- you joined group #{group}',
        '-- logged out', '-- logged in as bob13, protocol version 2', f'-- you joined group #{group}']


def test_every_alias(port):
    run(port, '', user='bob4')
    created = run(port, 'createGroup alice4,bob4\n', user='alice4')
    group = group_of(created)
    result = run(port,
                 f'sendToUser bob4 hello world\nsendToGroup {group} all of you\nlistGroupMembers {group}\n',
                 user='alice4')
    assert result.code == 0, result
    assert sorted(clean(result)[2:]) == [f'#{group} you: all of you',
                                         f'-- group #{group} has you, bob4 (offline)',
                                         'you -> bob4: hello world']
    result = run(port, f'quitGroup {group}\njoinGroup {group}\nlogout\n', user='alice4')
    assert result.code == 0, result
    assert clean(result)[2:] == [f'-- you left group #{group}', f'-- you joined group #{group}',
                                 '-- logged out']


def test_alias_is_text_where_plain_text_goes_somewhere(port):
    result = run(port, '/chat alice5\nlogout\njoinGroup x\n', user='alice5')
    sent = [line for line in clean(result) if '->' in line]
    assert sent == ['you -> alice5: logout', 'you -> alice5: joinGroup x']
    assert 'logged out' not in result.out and result.code == 0


@pytest.mark.parametrize('line, complaint', [
    ('/nonsense', '! there is no command /nonsense; /help lists them'),
    ('/msg bob', '! usage: /msg USER TEXT'),
    ('/join', '! usage: /join GROUP'), ('/quit', '! usage: /quit GROUP'),
    ('/create', '! usage: /create [NAME:] USER...'),
    ('/login', '! usage: /login USER'), ('/members', '! about whom: a user, or a group (/groups shows yours)'),
    ('/history', '! about whom: a user, or a group (/groups shows yours)'),
    ('/join #nope', '! which group is #nope? /groups shows'),
    ('hello', '! say to whom: /chat USER, or /msg USER TEXT'),
    ('/msg nobody hi', '! unknown_user: '), ('/join 00000000', '! unknown_group: '), ('/join bob', '! unknown_group: '),
    ('/login carol', '! already_logged_in: ')])
def test_what_is_wrong_or_refused_makes_exit_1_and_the_rest_is_done(server, line, complaint):
    server.on[MessageRequest] = lambda link, packet: link.send(
        ack_of(packet) if packet.to_user_id == 'bob' else
        ErrorResponse(command=3, code='unknown_user', reason='who', client_seq=packet.client_seq))
    server.on[JoinGroupRequest] = lambda link, packet: link.send(JoinGroupResponse(
        group_id=packet.group_id, success=False, code='unknown_group', reason='?',
        client_seq=packet.client_seq))
    result = run(server.address[1], f'\n{line}\n  \n/msg bob still\n', server=server)
    lines = clean(result)[2:]
    assert result.code == 1 and not result.err and len(lines) == 2
    assert sum(found.startswith(complaint) for found in lines) == 1 and 'you -> bob: still' in lines


def test_wrong_password_is_exit_1(port):
    run(port, '', user='alice6')
    result = run(port, '/msg alice6 hi\n', user='alice6', IM_PASSWORD='other')
    assert result.code == 1 and clean(result)[1].startswith('! login failed: wrong_password: ')
    assert len(result.lines) == 2 and not result.err


def test_kicked_is_exit_1(port):
    with running(port, user='alice7') as process:
        wait_for(process, 'logged in')
        assert run(port, user='alice7').code == 0
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1 and not err
        assert out.decode().startswith('! the server ended this session: ') and out.count(b'\n') == 1


def test_no_server_is_one_line_and_exit_2():
    begin, nowhere = time.monotonic(), free_port()
    result = run(nowhere, '/msg bob hi\n')
    assert (result.code, result.out) == (2, '')
    assert result.err == (f'imclient.py: cannot reach 127.0.0.1 port {nowhere}: Connection refused; is imserver.py '
                          'running there? (--host, --port)\n')
    assert time.monotonic() - begin < 2


def test_retries_are_told_before_it_gives_up():
    result = run(free_port(), '', '--retries', '1')
    assert result.code == 2 and len(result.lines) == 1 and 'connecting again in ' in result.lines[0]


def test_no_password_and_no_terminal():
    environ = environment()
    del environ['IM_PASSWORD']
    done = subprocess.run([*PYTHON, CLIENT, '--user', 'alice'], stdin=subprocess.DEVNULL,
                          capture_output=True, start_new_session=True, env=environ, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (2, b'')
    assert done.stderr == b'imclient.py: no password: set IM_PASSWORD, or run it in a terminal\n'


@pytest.mark.parametrize('options', [
    ['--port', '0'], ['--port', '65536'], ['--port', 'x'], ['--nonsense'], ['--pass', 'x'],
    ['--retries', 'x']])
def test_bad_usage_is_one_line_and_exit_2(capsys, monkeypatch, options):
    monkeypatch.setattr(sys, 'argv', ['imclient.py', '--user', 'alice', '--password', 'x', *options])
    with pytest.raises(SystemExit) as caught:
        imclient.main()
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('imclient.py: ') and err.count('\n') == 1


def test_empty_name_is_not_asked_for_without_a_terminal():
    result = run(free_port(), 'carol\n/msg bob hi\n', user='')
    assert result.code == 2 and not result.out and 'Traceback' not in result.err
    assert 'carol' not in result.err


def test_a_name_that_is_missing_is_missed_before_a_password_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['imclient.py'])
    monkeypatch.delenv('IM_PASSWORD', raising=False)
    monkeypatch.setattr(os, 'isatty', lambda number: False)
    monkeypatch.setattr(imclient, 'ask', lambda *_: pytest.fail('asked'))
    with pytest.raises(SystemExit):
        imclient.main()
    assert 'a name and a password are needed' in capsys.readouterr().err


@pytest.mark.parametrize('user, password', [(b'al\xffice', b'secret'), (b'alice', b'se\xffcret')])
def test_name_or_password_that_is_no_text(server, user, password):
    """Bytes that are no UTF-8, from the command line or the environment."""
    result = run(server.address[1], '', server=server, user=user, seconds=3.0, IM_PASSWORD=password)
    assert 'Traceback' not in result.err and result.code in (1, 2), result


def test_password_of_the_command_line_goes_before_that_of_the_environment(server):
    run(server.address[1], '', '--password', 'given', server=server)
    assert server.links[0].got[0].password == 'given'


LAUNCHER = '''
import sys
sys.path.insert(0, {folder!r})
sys.argv[0] = 'imclient.py'
import imclient
imclient.END_TIMEOUT = {seconds}
imclient.main()
'''


def impatient(tmp_path, seconds):
    """A script that is the client, but with another END_TIMEOUT."""
    script = tmp_path / 'launcher.py'
    script.write_text(LAUNCHER.format(folder=str(CLIENT.parent), seconds=seconds), encoding='utf-8')
    return (script,)


def test_end_of_input_waits_for_answers_but_not_for_ever(server, tmp_path):
    result = run(server.address[1], '/msg bob one\n/msg bob two\n', server=server,
                 script=impatient(tmp_path, 0.4))
    assert result.code == 1 and clean(result)[2:] == ['! no answer within 0.4 s; not done: 2']
    assert [p.message for p in server.links[0].of(MessageRequest)] == ['one', 'two']


def test_each_answer_lengthens_the_wait(server, tmp_path):
    def late(link, packet):
        server.loop.call_later(0.35 * packet.client_seq, link.send, ack_of(packet))
    server.on[MessageRequest] = late
    result = run(server.address[1], '/msg bob hi\n' * 4, server=server, script=impatient(tmp_path, 0.7))
    assert result.code == 0 and len(result.lines) == 6


def test_login_that_is_never_answered(server, tmp_path):
    server.on = {}
    result = run(server.address[1], '/msg bob hi\n', server=server, script=impatient(tmp_path, 0.4))
    assert result.code == 1 and clean(result)[1:] == ['! no answer within 0.4 s; not done: 1']


def test_exit_in_a_script_waits_for_answers(server):
    server.on[MessageRequest] = lambda link, packet: server.loop.call_later(0.2, link.send, ack_of(packet))
    result = run(server.address[1], '/msg bob hi\n/exit\n/msg bob never\n', server=server)
    assert result.code == 0 and clean(result)[2:] == ['you -> bob: hi']
    assert len(server.links[0].of(MessageRequest)) == 1


def test_server_that_dies_in_the_middle_and_comes_back(server):
    """It answers some, dies with the others, and comes back on its port: each is told once, in order."""
    kept = {}

    def answer(link, packet):
        kept.setdefault(packet.client_seq, packet.message)
        if len(kept) == 40 and len(server.links) == 1:
            server.go()
            server.loop.call_later(0.3, server.come_back)
        elif len(server.links) > 1 or len(kept) < 30:
            link.send(ack_of(packet))
    server.on[MessageRequest] = answer
    texts = [f'number {n}' for n in range(200)]
    result = run(server.address[1], ''.join(f'/msg bob {text}\n' for text in texts), server=server)
    assert result.code == 0, result
    assert [line for line in clean(result) if 'you' in line] == [f'you -> bob: {text}' for text in texts]
    assert list(kept.values()) == texts and list(kept) == list(range(1, 201))
    assert '-- disconnected: ' in result.out and len(server.links) == 2


class Window:
    """Acknowledges in bursts, and remembers how many were waiting at most."""

    def __init__(self, server):
        self.server, self.waiting, self.most, self.texts = server, [], 0, []
        server.on |= {MessageRequest: self.take}

    def take(self, link, packet):
        self.waiting.append((link, packet))
        self.texts.append(packet.message)
        self.most = max(self.most, len(self.waiting))
        if len(self.waiting) == 1:
            self.server.loop.call_later(0.004, self.answer)

    def answer(self):
        for link, packet in self.waiting:
            link.send(ack_of(packet))
        self.waiting.clear()


@pytest.mark.parametrize('place', ['pipe', 'file'])
def test_5000_lines_arrive_in_order_and_the_window_is_kept(server, tmp_path, place):
    window = Window(server)
    texts = [f'line {n}' for n in range(5000)]
    script = ''.join(f'/msg bob {text}\n' for text in texts)
    if place == 'pipe':
        result = run(server.address[1], script, server=server, seconds=20)
    else:
        (tmp_path / 'lines').write_text(script, encoding='utf-8')
        with open(tmp_path / 'lines', 'rb') as lines:
            result = run(server.address[1], '', server=server, seconds=20, stdin=lines)
    assert result.code == 0 and not result.err, result
    assert window.texts == texts and clean(result)[2:] == [f'you -> bob: {text}' for text in texts]
    assert window.most == imclient.WINDOW


def test_file_of_few_but_long_lines(server, tmp_path):
    """It is still being read when its first lines wait for the login."""
    server.acknowledge()
    (tmp_path / 'lines').write_text('/msg bob ' + 'x' * 4000 + '\n' + 'y' * 40_000_000, encoding='utf-8')
    with open(tmp_path / 'lines', 'rb') as lines:
        result = run(server.address[1], '', server=server, stdin=lines)
    assert len(server.links[0].of(MessageRequest)) == 1
    assert not result.err, result


def test_input_goes_on_after_many_lines_that_ask_nothing_of_the_server(server):
    """While they wait for the login the input rests; then they are done all at once."""
    server.acknowledge()
    result = run(server.address[1], '\n' * 200_000 + '/msg bob hi\n', server=server)
    assert result.code == 0 and clean(result)[2:] == ['you -> bob: hi']


def test_many_lines_to_a_server_of_version_1(server):
    server.version = 1
    result = run(server.address[1], '/msg bob hi\n' * 12_000, server=server)
    assert result.code == 0 and result.out.count('you -> bob: hi') == 12_000
    server.loop.until(lambda: not server.links[0].channel.is_open)
    assert len(server.links[0].of(MessageRequest)) == 12_000


def test_all_that_was_sent_gets_out_before_the_end(server):
    """Version 1 acknowledges nothing, so nothing is waited for; and this server takes its time to read."""
    server.version = 1

    def answer(link, packet):
        link.send(server.login_answer(packet))
        link.channel.pause_reading('busy')
        server.loop.call_later(1.0, link.channel.resume_reading, 'busy')
    server.on[LoginRequest] = answer
    texts = [f'{n} ' + 'x' * 4000 for n in range(3000)]
    result = run(server.address[1], ''.join(f'/msg bob {text}\n' for text in texts), server=server)
    server.loop.until(lambda: not server.links[0].channel.is_open)
    assert [p.message for p in server.links[0].of(MessageRequest)] == texts
    assert result.code == 0 and len(result.lines) == 3002


def test_json_is_one_object_a_line(port):
    run(port, '', user='bob8')
    result = run(port, '/msg bob8 h\u00e9\x7f\u009b\\n\n/create bob8\n/users\n/nonsense\n/help\n', '--json',
                 user='alice8')
    events = [json.loads(line) for line in result.lines]
    assert {event['event'] for event in events} >= {
        'connected', 'login', 'sent', 'group_created', 'users', 'error', 'info'}
    assert result.out.isascii() and '\x7f' not in result.out and result.code == 1
    assert [e['message'] for e in events if e['event'] == 'sent'] == ['h\u00e9\x7f\u009b\\n']


def test_user_named_like_a_group_is_reached_by_msg(server):
    server.acknowledge()
    assert run(server.address[1], '/msg 1a2b3c4d hi\n/chat 1a2b3c4d\nall\n', server=server).code == 0
    assert [(type(p), p.message) for p in server.links[0].got[1:]] == [
        (MessageRequest, 'hi'), (GroupMessageRequest, 'all')]


def test_json_tells_of_group_messages_that_were_sent(server):
    server.acknowledge()
    result = run(server.address[1], '/group 0a0a0a0a hi\n', '--json', server=server)
    assert [json.loads(line)['event'] for line in result.lines] == ['connected', 'login', 'sent']


HOSTILE = 'a\x1b[2Jb\rc\nd\x07e\u202ef\x9b1mg\x7f\u2028h'


@pytest.mark.parametrize('options', [[], ['--json']])
def test_nothing_that_others_send_steers_a_terminal(server, options):
    eve = User(user_id=HOSTILE, user_name=HOSTILE, online=True)

    def attack(link, packet):
        link.send(LoginResponse(success=True, user_name=HOSTILE, user_id=HOSTILE),
                  message(1, HOSTILE, HOSTILE),
                  GroupMessageResponse(from_group_id=HOSTILE, from_user=eve, message=HOSTILE, message_id=2,
                                       sent_at=2),
                  GroupNotice(group_id=HOSTILE, event=HOSTILE, user=eve, message_id=3, sent_at=3),
                  CreateGroupResponse(success=True, group_id=HOSTILE, group_name=HOSTILE,
                                      user_name_list=[HOSTILE],
                                      unknown_user_id_list=[HOSTILE], message_id=4, sent_at=4),
                  ErrorResponse(command=3, code=HOSTILE, reason=HOSTILE), ListUsersResponse(user_list=[eve]),
                  HistoryResponse(user_id=HOSTILE, more=False, messages=[
                      HistoryMessage(message_id=1, sent_at=1, from_user_id=HOSTILE, message=HOSTILE)]),
                  ListGroupMembersResponse(group_id=HOSTILE, session_list=[eve]),
                  JoinGroupResponse(group_id=HOSTILE, success=False, code=HOSTILE, reason=HOSTILE),
                  KickedNotice(reason=HOSTILE))
    server.on[LoginRequest] = attack
    result = run(server.address[1], '', *options, server=server)
    assert result.code == 1 and len(result.out.split('\n')) == 13, result
    assert not re.search('[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]', result.out)


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_ends_it_with_its_code(port, number, code):
    with running(port, user=f'alice9-{code}') as process:
        wait_for(process, 'logged in')
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (code, b'', b'')


def test_reader_of_the_output_that_goes_early(server):
    server.acknowledge()
    with running(server.address[1]) as process:
        process.stdin.write(b'/msg bob hi\n' * 100)
        process.stdin.flush()
        server.loop.until(lambda: select.select([process.stdout], [], [], 0)[0])
        process.stdout.close()
        server.loop.until(lambda: process.poll() is not None, 'it goes on')
        assert process.stderr.read() == b'' and process.returncode == 1


def test_input_that_is_nothing(port):
    result = run(port, stdin=subprocess.DEVNULL, user='alice10')
    assert result.code == 0 and len(result.lines) == 2 and not result.err


def through_shell(redirection, port, user):
    done = subprocess.run(['sh', '-c', f'exec "$@" {redirection}', 'sh', *PYTHON, CLIENT, '--port',
                           str(port), '--user',
                           user], input=b'', capture_output=True, env=environment(), timeout=PATIENCE)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize('redirection', ['<&-', '</', '>&-', '>/dev/full'])
def test_ends_without_traceback_where_input_or_output_is_none(port, redirection):
    result = through_shell(redirection, port, f'alice11{ord(redirection[-1])}')
    assert 'Traceback' not in result.err and 'Exception' not in result.err, result


def test_output_is_plain_where_it_is_no_terminal(port):
    result = run(port, '/msg alice12 hi\n/nonsense\n', user='alice12')
    assert len(result.lines) == 5 and '\x1b' not in result.out

def test_a_login_that_is_refused_for_now_after_a_loss_is_tried_again(world):
    world.login()
    refusals = iter(['too_many_attempts', 'internal_error', None])
    seen = []

    def answer(link, packet):
        seen.append((packet.token, packet.password))
        code = next(refusals)
        link.send(LoginResponse(success=False, user_name='alice', code=code, reason='later') if code else
                  world.server.login_answer(packet))
    world.server.on[LoginRequest] = answer
    world.server.go()
    world.server.come_back()
    for _ in range(3):
        world.settle()
        world.clock.now += 60
        world.loop.tick(0)
    world.settle()
    assert world.client.is_logged_in and not world.of('login_failed')
    assert [event['reason'] for event in world.of('disconnected')][1:] == ['later', 'later']
    assert seen == [('token-1', None)] * 3


def test_a_login_that_is_refused_for_now_at_first_is_told(world):
    world.server.on[LoginRequest] = lambda link, packet: link.send(
        LoginResponse(success=False, user_name='alice', code='too_many_attempts', reason='later'))
    world.client.login('alice', 'secret')
    world.settle()
    assert world.of('login_failed') == [{'event': 'login_failed', 'code': 'too_many_attempts', 'reason': 'later'}]


def test_a_server_that_ends_without_a_word_is_asked_for_tls_and_one_that_spoke_is_not(world):
    world.server.on = {LoginRequest: lambda link, packet: link.channel.abort()}
    world.server.answers_heartbeats = False
    world.client.login('alice', 'secret')
    world.settle()
    assert world.of('disconnected')[0]['reason'].endswith(' before a word: with --tls?')
    world.events.clear()
    world.server.on = {LoginRequest: lambda link, packet: link.send(world.server.login_answer(packet))}
    world.clock.now += 60
    world.loop.tick(0)
    world.settle()
    world.link.channel.abort()
    world.settle()
    assert 'tls' not in world.of('disconnected')[0]['reason']



@pytest.mark.parametrize('is_person', [True, False])
def test_a_keyboard_that_cannot_be_watched_gives_plain_lines_and_a_person_is_told_once(
        port, monkeypatch, capfdbinary, is_person):
    """As on Windows, where select takes sockets only."""
    options = imclient.make_parser().parse_args(['--user', 'windows', '--password', 'secret', '--port', str(port)])
    options.tls = None
    real = imclient.EventLoop.register

    def register(loop, file, events, callback):
        if file == 0:
            raise OSError('not a socket')
        real(loop, file, events, callback)
    monkeypatch.setattr(imclient.EventLoop, 'register', register)
    monkeypatch.setattr(imclient.os, 'isatty', lambda descriptor: is_person)
    keys = iter([b'/msg windows hi\n', b'/exit\n', b''])
    monkeypatch.setattr(imclient.os, 'read', lambda descriptor, size: next(keys))
    with open(os.dup(1), 'wb') as output:
        assert imclient.App(options, console.PlainTerminal(output)).run() == 0
    printed = capfdbinary.readouterr().out.decode()
    assert printed.count('this keyboard gives whole lines') == is_person
    assert 'you -> windows: hi' in printed



# C. In a terminal ....................................................................................

class Tty:
    """The client in a pseudo-terminal; `rows` is what somebody sees, the last one what is being typed."""

    def __init__(self, port, *options, user='alice', columns=80, term='xterm', **variables):
        self.master, slave = pty.openpty()
        self.slave = slave
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
        self.settings = termios.tcgetattr(slave)
        environ = environment(TERM=term, TTY=os.ttyname(slave), COLUMNS='', LINES='', **variables)
        if variables.get('IM_PASSWORD', '') is None:
            del environ['IM_PASSWORD']
        named = ['--user', user] if user else []
        # The first terminal that a new session opens is its own: that is how getpass finds it.
        self.process = subprocess.Popen(
            ['sh', '-c', 'exec "$@" <"$TTY" >"$TTY" 2>"$TTY"', 'sh', *PYTHON, CLIENT, '--port', str(port),
             *named,
             *options], env=environ, start_new_session=True)
        self.raw = b''

    @property
    def rows(self):
        return screen(self.raw.decode(errors='replace'))

    def type(self, text):
        os.write(self.master, text.encode())

    def until(self, is_done):
        deadline = time.monotonic() + PATIENCE
        while not is_done():
            assert time.monotonic() < deadline, '\n'.join(self.rows)
            self._read()
        return self

    def _read(self):
        if select.select([self.master], [], [], 0.05)[0]:
            self.raw += os.read(self.master, 65536)

    def sees(self, *texts):
        """Wait until each of `texts` is in some row."""
        return self.until(lambda: all(any(text in row for row in self.rows) for text in texts))

    def last(self, text):
        return self.until(lambda: self.rows[-1] == text)

    def ends(self):
        """Return the exit code; the terminal must be as it was."""
        self.until(lambda: self.process.poll() is not None)
        while select.select([self.master], [], [], 0)[0]:
            self.raw += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.settings, 'the terminal is not as it was'
        assert 'Traceback' not in '\n'.join(self.rows), self.rows
        return self.process.returncode

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def screen(text):
    """The rows that `text` makes: knows CR, LF, 'erase to the end of the row' and 'to that column'."""
    rows, column = [''], 0
    for piece in re.findall(r'\x1b\[\??[0-9;]*[A-Za-z]|.', text, re.DOTALL):
        if piece == '\r':
            column = 0
        elif piece == '\n':
            rows.append('')
            column = 0
        elif piece == '\x1b[K':
            rows[-1] = rows[-1][:column]
        elif piece.endswith('G') and len(piece) > 1:
            column = int(piece[2:-1]) - 1
        elif piece[0] != '\x1b':
            rows[-1] = rows[-1].ljust(column)[:column] + piece + rows[-1][column + 1:]
            column += 1
    return [row.rstrip() for row in rows]


@pytest.fixture
def terminal(port):
    opened = []

    def open_it(*options, **named):
        opened.append(Tty(named.pop('port', port), *options, **named))
        return opened[-1]
    yield open_it
    for tty in opened:
        tty.close()


def test_password_is_asked_without_echo(terminal, port):
    tty = terminal(user=None, IM_PASSWORD=None).sees('Name (the first login with a free one makes the account):')
    tty.type('dora\n')
    tty.sees('Password:')
    tty.until(lambda: not termios.tcgetattr(tty.slave)[3] & termios.ECHO)
    tty.type('geheim\n')
    tty.sees('logged in as dora').last('dora>')
    assert 'geheim' not in tty.raw.decode()
    tty.type('\x04')
    assert tty.ends() == 0
    assert run(port, user='dora', IM_PASSWORD='geheim').code == 0


@pytest.mark.parametrize('columns', [80, 40])
def test_message_that_arrives_leaves_the_line_being_typed_whole(terminal, port, columns):
    me, text = f'erna{columns}', 'word ' * 20 + 'end'
    tty = terminal(user=me, columns=columns).last(f'{me}>')
    tty.type('half a li')
    tty.last(f'{me}> half a li')
    run(port, f'/msg {me} {text}\n', user=f'fritz{columns}')
    tty.sees('end').last(f'{me} (fritz{columns} 1)> half a li')
    assert all(len(row) <= columns for row in tty.rows)
    assert any(re.match(rf'\d\d:\d\d fritz{columns}: word', row) for row in tty.rows)
    assert sum('half' in row for row in tty.rows) == 1
    tty.type('\x15/msg ' + me + ' whole\r')
    tty.sees(f'you -> {me}: whole ✓').last(f'{me} (fritz{columns} 1)>')
    tty.type('\x04')
    assert tty.ends() == 0


def test_ctrl_c_empties_the_line_then_ends_with_130(terminal):
    tty = terminal(user='gerd').last('gerd>')
    tty.type('something')
    tty.last('gerd> something')
    tty.type('\x03')
    tty.last('gerd>')
    tty.type('\x03')
    assert tty.ends() == 130


def test_sigterm_puts_the_terminal_back(terminal):
    tty = terminal(user='hans').last('hans>')
    assert termios.tcgetattr(tty.slave) != tty.settings
    tty.process.send_signal(signal.SIGTERM)
    assert tty.ends() == 143


def test_ctrl_c_at_the_password_ends_with_130(terminal):
    tty = terminal(user='hugo', IM_PASSWORD=None).sees('Password:')
    tty.until(lambda: not termios.tcgetattr(tty.slave)[3] & termios.ECHO)
    tty.type('\x03')
    assert tty.ends() == 130


def test_login_as_another_asks_for_the_password_without_showing_it(terminal, port):
    tty = terminal(user='ida').last('ida>')
    tty.type('/logout\r')
    tty.last('ida (not logged in)>')
    tty.type('/login jana\r')
    tty.last('Password of jana:')
    before = len(tty.raw)
    tty.type('geheim')
    tty.until(lambda: len(tty.raw) > before).last('Password of jana:')  # the row was drawn again
    tty.type('\r')
    tty.sees('logged in as jana').last('jana>')
    assert b'geheim' not in tty.raw
    tty.type('/chat ida\r')
    tty.last('jana -> ida>')
    tty.type('/exit\r')
    assert tty.ends() == 0
    assert run(port, user='jana', IM_PASSWORD='geheim').code == 0


def test_ctrl_d_at_the_password_of_login_is_no_password(terminal, server):
    with pump(server):
        tty = terminal(user='kai', port=server.address[1])
        server.on[LogoutRequest] = lambda link, packet: link.send(LogoutResponse(success=True))
        tty.last('kai>')
        tty.type('/logout\r')
        tty.last('kai (not logged in)>')
        tty.type('/login lena\r')
        tty.last('Password of lena:')
        tty.type('\x04')
        assert tty.ends() == 0
    assert [p.user_name for p in server.links[0].of(LoginRequest)] == ['kai']


@contextmanager
def pump(server):
    """Keep a fake server going in a thread of its own."""
    is_over = threading.Event()

    def go_on():
        while not is_over.is_set():
            server.loop.tick(0.01)
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_wrong_password_in_a_terminal_lets_one_try_again(terminal, port):
    run(port, user='mia', IM_PASSWORD='right')
    tty = terminal(user='mia', IM_PASSWORD='wrong').sees('login failed').last('mia (not logged in)>')
    tty.type('/login mia\r')
    tty.last('Password of mia:')
    tty.type('right\r')
    tty.sees('logged in as mia').last('mia>')
    tty.type('\x04')
    assert tty.ends() == 1


def test_leaving_after_a_wrong_password_waits_for_nothing(terminal, port):
    """What was typed before the login failed can never be answered."""
    run(port, user='nina', IM_PASSWORD='right')
    tty = terminal(user='nina', IM_PASSWORD='wrong')
    tty.type('/msg nina hi\r')
    tty.sees('login failed')
    begin = time.monotonic()
    tty.type('\x04')
    assert tty.ends() == 1
    assert time.monotonic() - begin < 5


def test_kicked_in_a_terminal_stays_open(terminal, port):
    tty = terminal(user='otto').last('otto>')
    run(port, user='otto')
    tty.sees('the server ended this session').last('otto (not logged in)>')
    tty.type('/exit\r')
    assert tty.ends() == 1


def test_colours_only_where_wanted(terminal):
    tty = terminal(user='paul').last('paul>')
    assert b'\x1b[2m' in tty.raw
    assert '\x1b[' in terminal(NO_COLOR='').last('alice>').raw.decode()  # empty is not set: no-color.org
    for options, variables in ([['--no-color'], {}], [[], {'NO_COLOR': '1'}]):
        tty = terminal(*options, user=f'paul{len(options)}', **variables).sees('logged in')
        assert not re.search(rb'\x1b\[[0-9;]*m', tty.raw)


def test_dumb_terminal_gets_plain_lines(terminal):
    tty = terminal(user='rosa', term='dumb').sees('logged in')
    tty.type('/msg rosa hi\n')
    tty.sees('you -> rosa: hi')
    assert b'\x1b' not in tty.raw
    tty.type('\x04')
    assert tty.ends() == 0


def test_lost_server_comes_back_while_somebody_types(terminal, server):
    with pump(server):
        tty = terminal(user='sara', port=server.address[1]).last('sara>')
        tty.type('half')
        tty.last('sara> half')
        server.loop.call_soon_threadsafe(server.go)
        tty.sees('disconnected', 'connecting again').last('sara (connecting)> half')
        server.loop.call_soon_threadsafe(server.come_back)
        tty.last('sara> half')
        tty.process.send_signal(signal.SIGWINCH)
        tty.type('\x03\x03')
        assert tty.ends() == 130


def test_chat_alone_ends_the_chat(port):
    result = run(port, '/chat nobody\n/chat\nhi\n', user='alice20')
    assert result.code == 1 and clean(result)[2:] == ['! say to whom: /chat USER, or /msg USER TEXT']


def test_password_that_comes_in_one_piece_with_the_end_is_no_message(terminal):
    tty = terminal(user='pia').last('pia>')
    tty.type('/chat pia\r')
    tty.last('pia -> pia>')
    tty.type('/login rob\r')
    tty.last('Password of rob:')
    tty.type('hunter2\r\x04')
    assert tty.ends() == 1 and b'hunter2' not in tty.raw


@pytest.mark.parametrize('blank', ['\t', '\u3000', '  '], ids=ascii)
def test_a_command_ends_at_any_blank(port, blank):
    result = run(port, f'/msg{blank}alice21 hi\n', user='alice21')
    assert result.code == 0 and 'you: hi' in '\n'.join(clean(result))


def test_a_line_of_many_names_is_done_as_a_whole_or_not_at_all(port):
    names = [f'nobody-of-the-class-{n}' for n in range(400)]
    result = run(port, f'/create all: {" ".join(names)}\n', '--json', user='alice22')
    created = json.loads(result.out.splitlines()[-1])
    assert result.code == 0 and set(created['unknownUserIdList']) == set(names)
    result = run(port, f'/create all: {" ".join(names * 5)}\n/groups\n', '--json', user='alice22')
    refused, groups = map(json.loads, result.out.splitlines()[-2:])
    assert result.code == 1 and refused['code'] == 'message_too_long' and len(groups['groupList']) == 1


def test_request_that_no_server_need_take_is_not_sent(world):
    """The server would close the connection, and again when it is sent again."""
    world.login()
    world.client.send_message('bob', 'x' * 32_800)
    world.client.send_message('bob', 'fine')
    world.settle()
    assert [p.message for p in world.link.of(MessageRequest)] == ['fine']
    assert world.events[0]['code'] == 'message_too_long' and 'disconnected' not in world.names

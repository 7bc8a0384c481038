"""Garbage: what a broken or hostile peer sends, to the decoder and over the wire to a server that runs.

Streams of valid frames are damaged by the fuzzer of chapter 13 (fuzz.py), blindly.  Whatever comes of it, the decoder
gives packets, "not yet" or the protocol's two errors, and the server answers or closes, stays the process that it was,
and goes on serving the others.  Each test says at the end of the run what it measured.  Seeds are fixed: what fails
once fails again.
"""
import gc
import itertools
import os
import random
import socket
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

import imserver
from peers import World
from processes import PATIENCE, RESET_ON_CLOSE, wait_until
from protocol import (
    HEADER, HEADER_SIZE, INT_MAX, MAGIC, MAGIC_BYTES, MAX_BODY, MAX_BODY_BEFORE_LOGIN, MAX_BODY_CLIENT, PACKETS,
    REQUESTS, RESPONSES, VERSIONS, CreateGroupRequest, CreateGroupResponse, DeliveryAck, ErrorResponse, FrameDecoder,
    GroupMessageRequest, GroupMessageResponse, HeartbeatRequest, HeartbeatResponse, HistoryRequest, JoinGroupRequest,
    ListGroupMembersRequest, ListGroupsRequest, ListUsersRequest, LoginRequest, LoginResponse, LogoutRequest,
    LogoutResponse, MessageAck, MessageRequest, MessageResponse, QuitGroupRequest, TooLongFrame, decode, encode)
from reactor import Channel
from tests.fuzz import Maker, cut_frames, mutate_frames, read

pytestmark = [pytest.mark.usefixtures('no_coverage'),
              pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='there is no /proc')]
DECODER_SEED, WIRE_SEED, CUT_SEED = 20261125, 20261126, 20261127


# The decoder ..........................................................................................................

def check_decoder(stream, random, max_body, is_bytewise):
    """Return the seconds that the stream took, and how many frames, packets and errors came out."""
    began = time.thread_time()  # of the CPU: what else the machine does is no fault of the decoder
    frames, error = cut_frames([stream], max_body)
    found = read(frames)
    seconds = time.thread_time() - began
    assert stream.startswith(b''.join(frames))
    for packet, version, commands in found:
        assert decode(encode(packet, version), version, commands) == packet
    places = sorted(random.randrange(len(stream) + 1) for _ in range(3))
    assert cut_frames([stream[a:b] for a, b in zip([0, *places], [*places, len(stream)])], max_body) == (frames, error)
    if is_bytewise:
        assert cut_frames([stream[n:n + 1] for n in range(len(stream))], max_body) == (frames, error)
    return seconds, Counter(frames=len(frames), packets=len(found), errors=error is not None)


@pytest.mark.parametrize('count, bytewise', [(8_000, 1), pytest.param(1_000_000, 10, marks=pytest.mark.soak)])
def test_the_decoder_gives_packets_or_its_own_errors(figure, count, bytewise):
    """Each stream is also fed cut at three places; every `bytewise`th byte by byte."""
    rng, sums, slowest = random.Random(DECODER_SEED), Counter(), 0.0
    maker = Maker(rng)
    for number in range(count):
        stream = mutate_frames(rng, maker.stream(sorted(PACKETS)))
        max_body = rng.choice((40, MAX_BODY_BEFORE_LOGIN, MAX_BODY, MAX_BODY_CLIENT))
        try:
            seconds, counts = check_decoder(stream, rng, max_body, number % bytewise == 0)
        except Exception as error:
            pytest.fail(f'{error!r} by a stream (limit {max_body}): {stream.hex()}')
        sums += counts
        slowest = max(slowest, seconds)
    figure(f'{count:,} mutated streams: {sums["frames"]:,} frames, {sums["packets"]:,} times a packet, '
           f'{sums["errors"]:,} ProtocolErrors, 0 other exceptions; slowest {slowest * 1000:.2f} ms')
    assert slowest < 0.1
    assert min(sums['frames'], sums['packets']) > count / 2 and sums['errors'] > count / 10  # the mutator is no sieve


# Over the wire ........................................................................................................

VILLAINS, STRANGERS, ADDRESSES = 24, 24, 200  # at once; they come from 127.0.1.1, 127.0.1.2, ...


class Bystanders(threading.Thread):
    """Two who write to each other all the time, and must hear nothing but that."""

    def __init__(self, one, other):
        super().__init__()
        self.pair = [(one, other, 'bystander-2'), (other, one, 'bystander-1')]
        self.said, self.slowest, self.error, self.is_over = 0, 0.0, None, threading.Event()

    def run(self):
        try:
            while not self.is_over.wait(0.004):  # so often that nobody has to slow them down
                for sender, receiver, name in self.pair:
                    self.exchange(sender, receiver, name)
        except BaseException as error:
            self.error = error

    def exchange(self, sender, receiver, name):
        text, began = f'number {self.said}', time.perf_counter()
        sender.ask(sender.numbered(MessageRequest, to_user_id=name, message=text), MessageAck)
        received = receiver.expect(MessageResponse)
        assert received.message == text and received.from_user_id.startswith('bystander') != name
        self.slowest = max(self.slowest, time.perf_counter() - began)
        self.said += 1

    def finish(self):
        self.is_over.set()
        self.join(PATIENCE)
        if self.error:
            raise self.error
        assert not self.is_alive() and all(sender.is_quiet() for sender, _, _ in self.pair)


class Villain:
    """A user whose sessions send garbage; it logs in anew for each stream."""
    numbers = itertools.count()

    def __init__(self, attack):
        self.name, self.version = f'villain{next(self.numbers)}', attack.rng.choice((1, 2, 2, 2))
        answers = attack.send(encode(LoginRequest(user_name=self.name, password='pw'), self.version))()
        assert answers and answers[0].success, answers
        self.token = answers[0].token

    @property
    def login(self):
        if self.version == 1:
            return encode(LoginRequest(user_name=self.name, password='pw'), 1)
        return encode(LoginRequest(user_name=self.name, token=self.token, resume_after=INT_MAX), 2)


class Attack:
    """Sends mutated streams to a server, a connection each, half of them as sessions."""

    def __init__(self, port, rng):
        self.port, self.rng, self.sums = port, rng, Counter()
        self.villains = [Villain(self) for _ in range(VILLAINS)]
        self.maker = Maker(rng, [*(f'stranger{n}' for n in range(8)), *(v.name for v in self.villains)])

    def make_group(self, peer):
        """A group that some of the garbage is about."""
        request = peer.numbered(CreateGroupRequest, user_id_list=[villain.name for villain in self.villains])
        self.maker.groups = [peer.ask(request, CreateGroupResponse).group_id, '00000000']
        peer.socket.close()

    def send(self, data, resets=False):
        """Send it and end the stream; return a function that waits for the other end and returns the answers."""
        place = self.rng.randrange(1, ADDRESSES)  # many: too many attempts from one are refused unread
        sock = socket.create_connection(('127.0.0.1', self.port), PATIENCE, (f'127.0.1.{place}', 0))
        sock.sendall(data)
        if resets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.close()
            return lambda: []
        sock.shutdown(socket.SHUT_WR)
        return lambda: self._answers(sock)

    def _answers(self, sock):
        decoder, packets = FrameDecoder(MAX_BODY_CLIENT), []
        with sock:
            while data := sock.recv(65536):
                decoder.feed(data)
                packets += [decode(frame, None, RESPONSES) for frame in decoder]
        return packets

    def go_on(self, count):
        while self.sums['streams'] < count:
            self.round()

    def round(self):
        """One stream of each villain, and as many of strangers; all connections are open at once."""
        requests, waiting = sorted(REQUESTS), []
        for villain in [*self.villains, *[None] * STRANGERS]:
            kinds = requests if villain or self.rng.random() < 0.9 else sorted(PACKETS)
            stream = mutate_frames(self.rng, self.maker.stream(kinds, [villain.version] if villain else VERSIONS))
            resets = self.rng.random() < 0.1
            waiting.append((villain, stream, resets, self.send((villain.login if villain else b'') + stream, resets)))
        for villain, stream, resets, answers in waiting:
            self.sums.update(['streams', *['resets'] * resets, *['villains'] * (villain is not None)])
            if not resets:
                self.check(villain, stream, answers())

    def check(self, villain, stream, answers):
        self.sums['answers'] += len(answers)
        if villain is None:
            if not any(type(packet) is LoginResponse and packet.success for packet in answers):
                assert len(answers) == answers_due(stream), f'{answers} to {stream.hex()}'
        elif not answers or not answers[0].success or LogoutResponse in map(type, answers):
            self.villains[self.villains.index(villain)] = Villain(self)  # logged out, by this or by what was reset
            self.sums['logouts'] += 1


def answers_due(stream):
    """How many answers are due to one who does not log in: one a frame, and in version 2 one to a length too long."""
    frames, error = cut_frames([stream], MAX_BODY_BEFORE_LOGIN)
    return len(frames) + (error is TooLongFrame and stream[len(b''.join(frames)) + 4] == 2)


def descriptors(server):
    return len(os.listdir(f'/proc/{server.process.popen.pid}/fd'))


def check_unharmed(server, system, pid, open_before):
    """The server is the process that it was, knows of no bug, and serves somebody new at once; returns the seconds."""
    assert server.process.popen.pid == pid and server.process.popen.poll() is None
    began = time.perf_counter()
    fresh = system.peer('fresh')
    fresh.send(fresh.numbered(MessageRequest, to_user_id='fresh', message='echo'))
    assert {fresh.expect(MessageAck).client_seq, fresh.expect(MessageResponse).message} == {1, 'echo'}
    seconds = time.perf_counter() - began
    fresh.socket.close()
    wait_until(lambda: descriptors(server) == open_before, f'{open_before} descriptors, not {descriptors(server)}')
    log = server.errors.read_text(encoding='utf-8')
    assert 'Traceback' not in log and 'bug' not in log
    return seconds


@pytest.mark.parametrize('count', [2_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_the_server_answers_or_closes_whatever_it_gets(system, figure, count):
    server = system.server('--login-timeout', '5')  # so long the timers of connections that are gone are kept
    bystanders = Bystanders(system.peer('bystander-1'), system.peer('bystander-2'))
    pid, open_before = server.process.popen.pid, descriptors(server)
    attack = Attack(server.port, random.Random(WIRE_SEED))
    attack.make_group(system.peer('founder'))
    began = time.perf_counter()
    bystanders.start()
    try:
        attack.go_on(count // 50)  # fills the caches
        resident = server.status('VmRSS')
        attack.go_on(count)
    finally:
        bystanders.finish()
    seconds = time.perf_counter() - began
    echo = check_unharmed(server, system, pid, open_before)
    grown = server.status('VmRSS') - resident
    sums = attack.sums
    figure(f'{sums["streams"]:,} streams in {seconds:.1f} s ({sums["villains"]:,} of sessions, {sums["resets"]:,} '
           f'reset), {sums["answers"]:,} answers; RSS +{grown / 1024:.1f} MiB; bystanders: {bystanders.said:,} '
           f'messages, slowest {bystanders.slowest * 1000:.0f} ms; fresh login and echo {echo * 1000:.0f} ms')
    assert echo < 1 and grown < 16 * 1024 and bystanders.said > 10 and sums['answers'] > sums['streams']


def come_and_go(world, data):
    """A connection that sends `data` and ends."""
    peer = world.connect()
    peer.send_bytes(data)
    peer.half_close()
    peer.receive_all()
    peer.socket.close()
    world.peers.remove(peer)
    world.pump(lambda: not world.server.listener.channels, lambda: 'not closed')


def test_connections_that_are_gone_leave_no_timers(figure):
    """Else who connects and goes, again and again, fills the memory of --login-timeout seconds."""
    count = 400
    with closing(World()) as world:
        for _ in range(count):
            come_and_go(world, b'')
        left = len(world.loop._timers)
    figure(f'{count} connections that came and went left {left} timers')
    assert left <= 128


def count_channels():
    gc.collect()
    return sum(type(thing) is Channel for thing in gc.get_objects())


@pytest.mark.parametrize('data', [
    b'', b'GET / HTTP/1.1', encode(HeartbeatRequest(), 2), encode(LoginRequest(user_name='a', password='p'), 2),
    encode(LoginRequest(user_name='a', token='no'), 2), MAGIC_BYTES],
    ids=['nothing', 'no frame', 'heartbeat', 'login', 'refused', 'half a frame'])
def test_a_connection_that_is_gone_is_not_kept(figure, data):
    with closing(World()) as world:
        others = count_channels()  # of tests before this one
        for _ in range(50):
            come_and_go(world, data)
        world.settle()
        kept = count_channels() - others
    figure(f'of 50 that are gone {kept} are kept')
    assert kept <= 2


# Byte by byte .........................................................................................................

def requests_about(group_id):
    """One of each request that a session may send again and get the same answer; logging out comes last."""
    return [LoginRequest(user_name='alice', password='secret'), HeartbeatRequest(), DeliveryAck(message_id=INT_MAX),
            MessageRequest(to_user_id='bob', message='你好 "x"', client_seq=2),
            GroupMessageRequest(to_group_id=group_id, message='hi', client_seq=3),
            QuitGroupRequest(group_id=group_id, client_seq=4), JoinGroupRequest(group_id=group_id, client_seq=5),
            CreateGroupRequest(user_id_list=['bob', 'nobody'], group_name='g', client_seq=6),
            ListGroupMembersRequest(group_id=group_id), HistoryRequest(user_id='bob', limit=5), ListUsersRequest(),
            ListGroupsRequest(), LogoutRequest()]


def answer_to(peer, other, *pieces):
    """Send the pieces so that each arrives alone, and return the frame that answers."""
    for piece in pieces[:-1]:
        peer.socket.sendall(piece)
        assert other.is_quiet()  # the tick that answers this has read the piece
    peer.socket.sendall(pieces[-1])
    if DeliveryAck.COMMAND in b''.join(pieces)[6:7]:
        return b'' if peer.is_quiet() else b'something'
    return peer.frame()


def test_every_request_cut_at_every_byte_is_answered_as_if_whole(system, figure):
    system.server()
    system.register('bob')
    alice, other, cuts = system.peer('alice'), system.peer(), 0
    created = alice.ask(alice.numbered(CreateGroupRequest, user_id_list=['bob']), CreateGroupResponse)
    requests = requests_about(created.group_id)
    assert {request.COMMAND for request in requests} == REQUESTS
    for request in requests[:-1]:  # what is new becomes old
        answer_to(alice, other, encode(request, 2))
        if type(request) is GroupMessageRequest:
            assert alice.expect(GroupMessageResponse).message == 'hi'  # the copy of one's own
    for request in requests:
        frame = encode(request, 2)
        whole = answer_to(alice, other, frame)
        for cut in range(1, len(frame)):
            if type(request) is LogoutRequest:
                alice.login('alice')
            assert answer_to(alice, other, frame[:cut], frame[cut:]) == whole, (request, cut)
            cuts += 1
        assert alice.is_quiet(), request
    figure(f'{len(requests)} kinds of requests, cut at {cuts} places: always the answer to the whole')


def test_every_response_cut_at_every_byte_is_refused_as_if_whole(system, figure):
    """Nobody may send one; ten end a connection, so each connection sends nine."""
    system.server()
    other, cuts, maker = system.peer(), 0, Maker(random.Random(CUT_SEED))
    for command in sorted(RESPONSES):
        frame = maker.frame(command, 2)
        for first in range(0, len(frame), imserver.MAX_BAD_FRAMES - 1):
            peer = system.peer()
            for cut in range(first, min(first + imserver.MAX_BAD_FRAMES - 1, len(frame))):  # 0: whole
                refusal = answer_to(peer, other, *([frame[:cut], frame[cut:]] if cut else [frame]))
                assert decode(refusal) == ErrorResponse(command=command, code='unknown_command',
                                                        reason=f'there is no command {command} here')
                cuts += 1
            peer.socket.close()
    figure(f'{len(RESPONSES)} kinds of responses, cut at {cuts - len(RESPONSES)} places: always refused alike')


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('name', ['', 'alice'], ids=['stranger', 'session'])
def test_a_length_over_the_limit_closes_the_connection_by_the_header_alone(system, figure, name, version):
    server, limit, slowest = system.server(), MAX_BODY if name else MAX_BODY_BEFORE_LOGIN, 0.0
    peer = system.peer(name, version)
    body = b'{"x":"%s"}' % (b'x' * (limit - 8))
    peer.socket.sendall(HEADER.pack(MAGIC, version, 1, HeartbeatRequest.COMMAND, len(body)) + body)
    assert len(body) == limit and peer.frame() == encode(HeartbeatResponse(), version)
    peer.socket.sendall(HEADER.pack(MAGIC, version, 1, HeartbeatRequest.COMMAND, 0))
    assert b'unreadable body' in peer.frame() and peer.is_quiet()
    for length in limit + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF:
        peer = system.peer(name, version)
        header = HEADER.pack(MAGIC, version, 1, HeartbeatRequest.COMMAND, length)
        assert len(header) == HEADER_SIZE
        began = time.perf_counter()
        peer.socket.sendall(header)
        rest = peer.rest()
        slowest = max(slowest, time.perf_counter() - began)
        assert [type(packet) for packet in rest] == [ErrorResponse] * (version - 1)
        assert slowest < 1, length
    figure(f'limit {limit:,}: at most {slowest * 1000:.1f} ms from the header to the close; '
           f'server VmHWM {server.status("VmHWM") / 1024:.0f} MiB')

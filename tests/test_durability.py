"""What is promised for bad days: no descriptors left, kill -9 and SIGTERM under load, a full disk, damaged files.

Each test works on a server in a process of its own, as people run it.  `-m soak` runs the long versions.  Where a
test waits for a random time that is what it does to the server, never what makes it right; the seeds are fixed.
"""
import contextlib
import hashlib
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import protocol
from processes import PATIENCE, ROOT, Peer, ids, messages, pipeline, texts, wait_until
from protocol import (
    DeliveryAck, ErrorResponse, HeartbeatRequest, HeartbeatResponse, HistoryRequest, HistoryResponse, ListUsersRequest,
    ListUsersResponse, LoginRequest, LoginResponse, MessageAck, MessageRequest, MessageResponse)

pytestmark = [pytest.mark.skipif(sys.platform == 'win32', reason='kill -9 and SIGTERM'),
              pytest.mark.usefixtures('no_coverage')]
proc_only = pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='there is no /proc')


def short_and_long(short, long):
    """The values of a parameter, or of several, in the short version of a test and in the long one."""
    return [short, pytest.param(*(long if isinstance(long, tuple) else [long]), marks=pytest.mark.soak)]


# No descriptors left .................................................................................

ANSWER_TIME = 0.5  # seconds in which a heartbeat is answered, whatever else goes on; here other tests, too
NEW_LOGIN_TIME = 2.5  # seconds until a caller is served once there is room: accepting rests for one


def limit_descriptors(folder, monkeypatch, limit):
    """Have the next processes of Python begin under `ulimit -n`."""
    wrapper = folder / 'limited'
    wrapper.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec "{sys.executable}" "$@"\n', encoding='utf-8')
    wrapper.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(wrapper))


def descriptors(server):
    return len(os.listdir(f'/proc/{server.process.popen.pid}/fd'))


def slowest_heartbeat(peer, seconds):
    """Ask for a sign of life ten times a second; return the longest time that an answer took."""
    slowest, end = 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        assert peer.is_quiet()
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.1)
    return slowest


def accepted_of(peers, old):
    """Those of `peers` whom the server has accepted: they get answers."""
    for peer in peers:
        peer.send(HeartbeatRequest())
    assert old.is_quiet() and old.is_quiet()  # the first may be answered just before theirs, in the same tick
    return [peer for peer in peers if select.select([peer.socket], [], [], 0)[0]]


@proc_only
@pytest.mark.parametrize('seconds', short_and_long(3, 30))
def test_no_descriptors_left(system, tmp_path, monkeypatch, figure, seconds):
    with monkeypatch.context() as patch:
        limit_descriptors(tmp_path, patch, 64)
        server = system.server('--idle', '300', '--login-timeout', '300')
    pid, old = server.process.popen.pid, [system.peer(name) for name in ('alice', 'bob', 'carol')]
    crowd = [system.peer() for _ in range(200)]
    wait_until(lambda: 'accepting rests' in server.errors.read_text(encoding='utf-8'), 'no descriptor is left')
    assert descriptors(server) == 64
    ticks = server.cpu_ticks()
    slowest = slowest_heartbeat(old[0], seconds)
    cpu = (server.cpu_ticks() - ticks) / os.sysconf('SC_CLK_TCK') / seconds
    accepted = accepted_of(crowd, old[1])
    waiting = [peer for peer in crowd if peer not in accepted]
    ack = old[0].ask(old[0].numbered(MessageRequest, to_user_id='bob', message='still here'), MessageAck)
    assert old[1].expect(MessageResponse).message_id == ack.message_id
    for n, peer in enumerate(waiting[:20]):
        peer.send(LoginRequest(user_name=f'new{n}', password='secret'))
    for peer in accepted[:20]:
        peer.socket.close()
    began = time.monotonic()
    for peer in waiting[:20]:
        peer.expect(HeartbeatResponse)  # what `accepted_of` has asked
        assert peer.expect(LoginResponse).success
    took = time.monotonic() - began
    figure(f'{len(accepted)} of 200 callers accepted; {cpu:.1%} CPU, slowest heartbeat {slowest * 1000:.1f} ms; '
           f'20 new logins {took:.2f} s after 20 have gone')
    assert server.process.popen.poll() is None and server.process.popen.pid == pid
    assert cpu < 0.05 and slowest < ANSWER_TIME and took < NEW_LOGIN_TIME
    assert all(peer.is_quiet() for peer in old)


# kill -9 under load ..................................................................................

WINDOW = 40  # requests of a sender on their way
REPEATED = 5  # acknowledged requests that a sender repeats after each login, as if it had not heard


def received(peer):
    """The next packet; ConnectionError at the end of the connection."""
    if not (frame := peer.frame()):
        raise ConnectionError
    return protocol.decode(frame)


def logged_in(peer, name):
    peer.send(LoginRequest(user_name=name, password='secret'))
    answer = received(peer)
    assert type(answer) is LoginResponse and answer.success, answer
    return answer


class Restless(threading.Thread):
    """A user in a thread, who comes back whenever the connection ends, until `is_done`."""

    def __init__(self, port, name, is_up):
        super().__init__(daemon=True)
        self.port, self.name, self.is_up, self.is_done, self.error = port, name, is_up, False, None
        self.start()

    def run(self):
        try:
            while not self.is_done:
                assert self.is_up.wait(PATIENCE)
                with contextlib.suppress(ConnectionError):  # the server was killed
                    peer = Peer(self.port)
                    with peer.socket:
                        self.talk(peer, logged_in(peer, self.name))
        except BaseException as error:
            self.error = error

    def finish(self):
        self.join(PATIENCE)
        if self.error:
            raise self.error
        assert self.is_done, f'{self.name} does not come to an end'


class Sender(Restless):
    """Writes to bob without a pause.  What was not acknowledged is sent again, with the number it had."""

    def __init__(self, port, name, is_up, seed):
        self.sent, self.acknowledged, self.repeats = {}, {}, 0  # by clientSeq: request, MESSAGE_ACK
        self.is_stopping, self._random = False, random.Random(f'{name} {seed}')
        super().__init__(port, name, is_up)

    def talk(self, peer, answer):
        known = len(self.acknowledged)  # they are answered in order, so these are 1 to `known`
        assert known <= answer.last_client_seq <= len(self.sent)
        again = [self.sent[seq] for seq in range(max(1, known - REPEATED), len(self.sent) + 1)]
        self.repeats += len(again)
        peer.send(*again)
        expected = len(again)
        while expected or not self.is_stopping:
            while expected < WINDOW and not self.is_stopping:
                batch = [self._next() for _ in range(self._random.randint(1, 10))]
                peer.send(*batch)
                expected += len(batch)
            self._note(received(peer))
            expected -= 1
        self.is_done = True

    def _next(self):
        seq = len(self.sent) + 1
        text = f'{self.name} {seq} ' + 'x' * self._random.choice((0, 10, 100, 1000))
        self.sent[seq] = MessageRequest(to_user_id='bob', message=text, client_seq=seq)
        return self.sent[seq]

    def _note(self, ack):
        assert type(ack) is MessageAck, ack
        first = self.acknowledged.setdefault(ack.client_seq, ack)
        assert ack == first, f'answered again as {ack}, first as {first}'


class Receiver(Restless):
    """Shows each message once, by its id, and acknowledges now and then, until it is told 'the end'."""

    def __init__(self, port, name, is_up, seed):
        self.shown, self.again, self._random = {}, 0, random.Random(seed)  # by messageId: the message
        super().__init__(port, name, is_up)

    def talk(self, peer, answer):
        last_id, next_ack = 0, self._random.randint(1, 100)
        while not self.is_done:
            packet = received(peer)
            assert type(packet) is MessageResponse and packet.message_id > last_id, (packet, last_id)
            last_id = packet.message_id
            if last_id in self.shown:
                self.again += 1
                assert packet == self.shown[last_id]
            else:
                assert last_id > next(reversed(self.shown), 0), 'shown in a wrong order'
                self.shown[last_id] = packet
            next_ack -= 1
            self.is_done = packet.message == 'the end'
            if not next_ack or self.is_done:
                next_ack = self._random.randint(1, 100)
                peer.send(DeliveryAck(message_id=last_id))
        assert peer.is_quiet()


class Load:
    """Senders who do not tire, and the number of what they know to be safe."""

    def __init__(self, system, server, seed):
        self.system, self.server, self.seed, self.is_up = system, server, seed, threading.Event()
        self.users = self.senders = [self.user(Sender, name) for name in ('alice', 'carol', 'dave')]
        self.is_up.set()

    def user(self, kind, name):
        return kind(self.server.port, name, self.is_up, self.seed)

    def count(self):
        for user in self.users:
            assert user.error is None, repr(user.error)
        return sum(len(sender.acknowledged) for sender in self.senders)

    def wait_for(self, more, seconds=PATIENCE):
        least = self.count() + more
        wait_until(lambda: self.count() >= least, f'{least} messages are acknowledged', seconds)

    @contextlib.contextmanager
    def restart(self):
        """Within it the server ends; then it starts again, and all come back."""
        self.is_up.clear()
        yield
        self.server.start()
        self.is_up.set()

    def finish(self, bob, others=0):
        """Let all come to an end, and compare what the senders know with what bob was shown; return how many.  So
        many other messages are in the log."""
        for sender in self.senders:
            sender.is_stopping = True
        for sender in self.senders:
            sender.finish()
        erin = self.system.peer('erin')
        end = erin.ask(erin.numbered(MessageRequest, to_user_id='bob', message='the end'), MessageAck)
        bob.finish()
        assert list(bob.shown) == sorted(bob.shown) and max(bob.shown) == end.message_id
        for sender in self.senders:
            acks, mine = sender.acknowledged, [p for p in bob.shown.values() if p.from_user_id == sender.name]
            assert list(acks) == list(sender.sent) == list(range(1, len(acks) + 1))
            assert texts(mine) == texts(sender.sent.values())  # none lost, none twice, in order
            assert ids(mine) == ids(acks.values())
            assert [packet.sent_at for packet in mine] == [ack.sent_at for ack in acks.values()]
        assert len(bob.shown) == self.count() + 1
        assert self.system.peer('bob').is_quiet()
        self.server.terminate()
        assert holds_exactly(self.server.database, len(bob.shown) + others)
        return len(bob.shown)


def holds_exactly(database, count):
    """Whether a database is whole and has so many messages, each text once."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        assert db.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
        return db.execute('SELECT count(*), count(DISTINCT text) FROM log').fetchall() == [(count, count)]


@pytest.mark.parametrize('rounds, least', short_and_long((3, 1_500), (20, 15_000)))
def test_kills_under_load(system, figure, rounds, least, seed=20):
    server, rng = system.server(), random.Random(seed)
    system.register('bob')
    load = Load(system, server, seed)
    bob = load.user(Receiver, 'bob')
    load.users = [*load.senders, bob]
    for number in range(rounds):  # each fourth kill comes right after a start
        load.wait_for(0 if number % 4 == 3 else rng.randint(1, 2 * least // rounds))
        # Anywhere in a tick, or in a start; some only after bob's acknowledgements were written, which takes a second.
        time.sleep(rng.uniform(1, 1.3) if number % 3 == 1 else rng.uniform(0, 0.05))
        with load.restart():
            server.kill()
    load.wait_for(max(0, least - load.count()), 120)
    count = load.finish(bob)
    figure(f'{count:,} messages, {rounds} kills, {sum(sender.repeats for sender in load.senders):,} requests sent '
           f'again, {bob.again:,} messages delivered again, 0 lost, 0 shown twice')


# The receiver is killed before it acknowledges .......................................................

# It reads so many messages, shows each id once, remembers on disk which, acknowledges the first of them, and waits.
SHOWS_ONCE = """
import pathlib, sys
sys.path.append('tests')
import protocol
from processes import Peer
port, count, acknowledged, memory = *map(int, sys.argv[1:4]), pathlib.Path(sys.argv[4])
peer = Peer(port)
peer.login('bob')
packets = peer.expect_all(protocol.MessageResponse, count)
for packet in packets:
    known = memory.read_text(encoding='utf-8').split()
    print('again' if str(packet.message_id) in known else 'shown', packet.message_id, packet.message)
    memory.write_text(' '.join([*known, str(packet.message_id)]), encoding='utf-8')
if acknowledged:
    peer.send(protocol.DeliveryAck(message_id=packets[acknowledged - 1].message_id), protocol.HeartbeatRequest())
    while type(protocol.decode(peer.frame())) is not protocol.HeartbeatResponse:
        pass
print('waiting', flush=True)
sys.stdin.read()
"""


def killed_receiver(system, port, memory, pending, count, acknowledged):
    """Let bob's process read `count` of the messages that are due, acknowledge the first, and die; return its lines."""
    process = system.run('-c', SHOWS_ONCE, str(port), str(count), str(acknowledged), str(memory))
    process.expect('waiting')
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    assert [line.split()[1:] for line in process.lines[:-1]] == pending[:count]
    return process.lines[:-1]


@pytest.mark.parametrize('rounds', short_and_long(10, 200))
def test_receiver_killed_before_it_acknowledges(system, tmp_path, figure, rounds):
    port, memory, rng = system.server().port, tmp_path / 'memory', random.Random(rounds)
    memory.write_text('', encoding='utf-8')
    system.register('bob')
    alice, sent, acknowledged, lines = system.peer('alice'), [], 0, []
    for _ in range(rounds):
        for _ in range(rng.randint(1, 5)):
            text = f'text-{len(sent)}'
            ack = alice.ask(alice.numbered(MessageRequest, to_user_id='bob', message=text), MessageAck)
            sent.append([str(ack.message_id), text])
        pending = sent[acknowledged:]
        count = rng.randint(1, len(pending))
        handled = rng.randint(0, count)
        lines += killed_receiver(system, port, memory, pending, count, handled)
        acknowledged += handled
    pending = sent[acknowledged:]
    lines += killed_receiver(system, port, memory, pending, len(pending), len(pending)) if pending else []
    assert system.peer('bob').is_quiet()
    assert [line.split()[1:] for line in lines if line.startswith('shown')] == sent
    again = sum(line.startswith('again') for line in lines)
    assert again
    figure(f'{len(sent)} messages, {rounds} kills, {again} delivered again, each shown once')


# SIGTERM under load ..................................................................................

STOP_TIME, STOP_MARGIN = 5.0, 0.5  # seconds: promised; and for other tests that run here, in the short version
AT_ONCE = 0.5  # seconds for the end after a second signal


def refuses_callers(port):
    with socket.socket() as caller:
        return caller.connect_ex(('127.0.0.1', port)) != 0


def stopped(server, signals):
    """Stop it with one signal or two; return the exit code, and the time from the last signal on."""
    if signals == 2:
        server.process.popen.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_callers(server.port), 'it is stopping')
    began = time.monotonic()
    code = server.process.end(signal.SIGTERM)
    return code, time.monotonic() - began


def stop_reading(system, name):
    """Log in somebody who asks for much and reads nothing; return them once the kernel takes no more for them."""
    peer, other, caller = system.peer(), system.peer(), socket.socket()
    # The kernel tells the server of room only once a third of its buffer is free, but the last try, when the server
    # stops, uses what is free anyway: so its buffers are to be small, compared with one answer.
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    caller.settimeout(PATIENCE)
    caller.connect(peer.socket.getpeername())
    peer.socket.close()
    peer.socket = caller
    peer.login(name)
    peer.send(*[HistoryRequest(user_id='frank', limit=60)] * 20)
    assert all(other.is_quiet() for _ in range(50))  # so many ticks have passed: they are full
    return peer


@pytest.mark.parametrize('signals', [1, 2])
@pytest.mark.parametrize('rounds', short_and_long(1, 10))
def test_stops_under_load_with_somebody_who_does_not_read(system, figure, rounds, signals):
    server, rng, times = system.server(), random.Random(rounds), []
    system.register('bob', 'deaf')
    unread = messages('deaf', 60, '{} ' + 4000 * 'x')  # in one answer: 250 KB
    pipeline(system.peer('frank'), unread)
    load = Load(system, server, rounds)
    for _ in range(rounds):
        deaf = stop_reading(system, 'deaf')
        load.wait_for(rng.randint(1, 2_000))
        time.sleep(rng.uniform(0, 0.05))  # anywhere in a tick
        with load.restart():
            code, seconds = stopped(server, signals)
            assert code == signals - 1
            assert seconds < (AT_ONCE if signals == 2 else STOP_TIME + STOP_MARGIN * (rounds == 1))
            assert signals == 2 or seconds > 1, 'nobody has held it up'
        times.append(seconds)
        deaf.socket.close()
    count = load.finish(load.user(Receiver, 'bob'), len(unread))
    figure(f'{count:,} messages, {rounds} stops, exit code {code}, {max(times):.2f} s at most, 0 lost, 0 twice')


# A full disk .........................................................................................

ROOM_AGAIN = 5.0  # seconds until a message is taken once there is room


@pytest.fixture
def disk(tmp_path):
    """disk(2): the folder of a file system of 2 MiB, in memory.  Ask for it before `system`, which ends before it."""
    mounted = []

    def mount(size):
        folder = tmp_path / 'disk'
        folder.mkdir()
        command = ['mount', '-t', 'tmpfs', '-o', f'size={size}m', 'tmpfs', str(folder)]
        if not shutil.which('mount') or subprocess.run(command, capture_output=True).returncode:
            pytest.skip('no file system can be mounted here')
        mounted.append(folder)
        return folder
    yield mount
    for folder in mounted:
        subprocess.run(['umount', str(folder)], check=True)


def fill(path, left=65_536):
    """Take all the room but so many bytes."""
    with open(path, 'wb', buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - left)


def send_until_refused(alice, kept):
    """Write to bob until one message was refused five times; return it.  What was acknowledged goes to `kept`."""
    for _ in range(2_000):
        request = alice.numbered(MessageRequest, to_user_id='bob', message=f'{alice.seq} '.ljust(4000, 'x'))
        for _ in range(5):
            alice.send(request)
            answer = protocol.decode(alice.frame())
            if type(answer) is MessageAck:
                kept.append((answer.message_id, request.message))
                break
            assert type(answer) is ErrorResponse and answer.code == 'internal_error', answer
            assert answer.client_seq == request.client_seq and answer.command == MessageRequest.COMMAND
        else:
            return request
    raise AssertionError('there is no end of room')


def shown_to(peer, count):
    """The messages that come, and no more."""
    packets = peer.expect_all(MessageResponse, count)
    assert peer.is_quiet()
    return list(zip(ids(packets), texts(packets)))


def whole_history(peer, other):
    """The messages with `other`, oldest first."""
    found, before, more = [], None, True
    while more:
        peer.send(HistoryRequest(user_id=other, before=before, limit=100), HeartbeatRequest())
        page = peer.expect(HistoryResponse)  # fails at once if only the heartbeat is answered
        peer.expect(HeartbeatResponse)
        found[:0] = [(message.message_id, message.message) for message in page.messages]
        before, more = page.messages and page.messages[0].message_id, page.more
    return found


def logins_that_worked(system, token, number):
    """Try to log in by token, by password and as somebody new: it may fail only because of the disk."""
    requests = {'token': LoginRequest(user_name='carol', token=token),
                'password': LoginRequest(user_name='dave', password='secret'),
                'new': LoginRequest(user_name=f'new{number}', password='secret')}
    answers = {how: system.peer().ask(request, LoginResponse) for how, request in requests.items()}
    assert all(answer.success or answer.code == 'internal_error' for answer in answers.values()), answers
    return {how for how, answer in answers.items() if answer.success}


@pytest.mark.parametrize('size, rounds, left', short_and_long((2, 2, 65_536), (32, 10, 2**21)))
def test_full_disk(disk, system, figure, size, rounds, left):
    folder, kept, waits, worked, seen = disk(size), [], [], set(), 0
    server = system.server('--db', str(folder / 'im.db'))
    system.register('dave')
    alice, bob, token = system.peer('alice'), system.peer('bob'), system.peer().login('carol').token
    for number in range(rounds):
        fill(folder / 'filler', left)
        refused = send_until_refused(alice, kept)
        assert shown_to(bob, len(kept) - seen) == kept[seen:]
        seen = len(kept)
        began = time.monotonic()
        assert alice.is_quiet() and time.monotonic() - began < ANSWER_TIME
        assert {user.user_id for user in alice.ask(ListUsersRequest(), ListUsersResponse).user_list} >= {'alice', 'bob'}
        assert whole_history(alice, 'bob') == kept
        worked |= logins_that_worked(system, token, number)
        (folder / 'filler').unlink()
        began = time.monotonic()
        kept.append((alice.ask(refused, MessageAck).message_id, refused.message))
        waits.append(time.monotonic() - began)
        assert waits[-1] < ROOM_AGAIN
    assert shown_to(bob, len(kept) - seen) == kept[seen:]
    server.terminate()
    server.start()
    assert shown_to(system.peer('bob'), len(kept)) == whole_history(system.peer('alice'), 'bob') == kept
    server.terminate()
    assert holds_exactly(folder / 'im.db', len(kept))
    figure(f'{len(kept)} messages, {rounds} times full, room was used after {max(waits) * 1000:.1f} ms at most; '
           f'while it was full these logins worked: {", ".join(sorted(worked)) or "none"}')


@pytest.mark.parametrize('end', [signal.SIGKILL, signal.SIGTERM])
def test_starts_again_on_a_full_disk(disk, system, figure, end):
    folder, kept = disk(2), []
    server = system.server('--db', str(folder / 'im.db'))
    system.register('bob')
    alice = system.peer('alice')
    token = system.peer().login('carol').token
    fill(folder / 'filler')
    send_until_refused(alice, kept)
    assert server.process.end(end) == (0 if end == signal.SIGTERM else -end)
    server.start()
    carol = system.peer()
    assert carol.ask(LoginRequest(user_name='carol', token=token), LoginResponse).success
    assert carol.ask(ListUsersRequest(), ListUsersResponse).user_list
    (folder / 'filler').unlink()
    assert shown_to(system.peer('bob'), len(kept)) == kept
    figure(f'{len(kept)} messages')


# Damaged files .......................................................................................

START_TIME = 5.0  # seconds in which it serves or refuses


def digest(path):
    return hashlib.sha256(path.read_bytes()).digest()


def start_on(system, path):
    """Start a server on that file; return its process, and its port, or 0 if it has refused as it should."""
    before, began = digest(path), time.monotonic()
    process = system.run('-W', 'error', 'imserver.py', '--port', '0', '--db', str(path), '--password-cost', '10')
    wait_until(lambda: process.lines or process.popen.poll() is not None, 'it serves or refuses', START_TIME)
    if process.lines:
        return process, int(process.lines[0].rpartition(':')[2])
    said = process.errors.read_text(encoding='utf-8')
    assert process.wait() == 2 and time.monotonic() - began < START_TIME
    assert said.count('\n') == 1 and said.startswith('imserver.py: ') and str(path) in said, said
    assert digest(path) == before
    return process, 0


@pytest.fixture
def filled(system, tmp_path):
    """A database with 300 messages from alice to bob: its file, the messages by id, and its logId."""
    server = system.server(database='filled.db')
    system.register('bob')
    alice = system.peer()
    log_id = alice.login('alice').log_id
    requests = messages('bob', 300, 'message {:04} to bob ' + 60 * 'x')
    sent = dict(zip(ids(pipeline(alice, requests)), texts(requests)))
    server.terminate()
    return server.database, sent, log_id


def serves(port, sent, log_id, is_damaged):
    """What a server on a damaged file shows: nothing that was never sent, but for bytes that were damaged."""
    peer = Peer(port)
    with peer.socket:
        answer = peer.ask(LoginRequest(user_name='alice', password='secret'), LoginResponse)
        if not answer.success:
            assert answer.code == 'wrong_password', answer  # what is kept of it is damaged
            return 'without login'
        assert answer.log_id == log_id or is_damaged(log_id)
        found = dict(whole_history(peer, 'bob'))
        assert all(text == sent[message_id] or is_damaged(sent[message_id]) for message_id, text in found.items())
        if len(found) < len(sent):
            return 'with some missing'
        return 'as it was' if found == sent else 'with other text'


@contextlib.contextmanager
def ends_well(process):
    """Within it a server serves; then it ends.  Look at its errors here, not in `System.end`."""
    try:
        yield
    finally:
        code, said = process.end(), process.errors.read_text(encoding='utf-8')
        process.errors.unlink()
    assert code == 0 and 'Traceback' not in said, said


def outcome(system, path, sent, log_id, is_damaged=lambda text: False):
    """What becomes of a server on that file, in some words."""
    process, port = start_on(system, path)
    if not port:
        return 'refused'
    with ends_well(process):
        return serves(port, sent, log_id, is_damaged)


@pytest.mark.parametrize('count', short_and_long(4, 10))
def test_truncated_database(system, filled, tmp_path, figure, count):
    path, sent, log_id = filled
    data, copy = path.read_bytes(), tmp_path / 'copy.db'
    sizes = [100, len(data) // 2, len(data) - 1, 4096, 1, 99, 512, 4095, len(data) - 4096, len(data) - 4097][:count]
    for size in sizes:
        copy.write_bytes(data[:size])
        assert outcome(system, copy, sent, log_id) == 'refused', size
    figure(f'{count} of {count} refused')


@pytest.mark.parametrize('count', short_and_long(15, 100))
def test_flipped_bytes(system, filled, tmp_path, figure, count):
    """What SQLite cannot see, for it keeps no checksums: another text, or another stream, so that one is missing."""
    path, sent, log_id = filled
    data, rng, outcomes = path.read_bytes(), random.Random(count), Counter()
    for number in range(count):
        damaged = bytearray(data)
        for position in rng.sample(range(len(data)), rng.randint(1, 4)):
            damaged[position] ^= rng.randint(1, 255)
        copy = tmp_path / f'copy{number}.db'
        copy.write_bytes(damaged)
        outcomes[outcome(system, copy, sent, log_id, lambda text: text.encode() not in damaged)] += 1
    assert outcomes['refused']
    figure(', '.join(f'{number} {what}' for what, number in outcomes.most_common()))


def changed(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def unseen(name, statement):
    """A parameter: a damage."""
    return pytest.param(statement, id=name)


@pytest.mark.parametrize('statement', [
    unseen('text is no UTF-8', "UPDATE log SET text = CAST(x'6869ff' AS TEXT) WHERE message_id = 200"),
    unseen('text is bytes', 'UPDATE log SET text = CAST(text AS BLOB) WHERE message_id = 200'),
    unseen('kind', 'UPDATE log SET kind = 0 WHERE message_id = 200'),
    unseen('time', "UPDATE log SET sent_at = 'x' WHERE message_id = 200"),
    unseen('index has no end', "INSERT INTO log_of_stream VALUES ('alice bob', 100, '[1,2,3')"),
    unseen('index is no JSON', "INSERT INTO log_of_stream VALUES ('alice bob', 100, '[1,2,x]')"),
    unseen('index is no UTF-8', "INSERT INTO log_of_stream VALUES ('alice bob', 100, CAST(x'5b31ff5d' AS TEXT))"),
    unseen('delivered', "UPDATE users SET delivered_id = '' WHERE user_id = 'bob'"),
    unseen('cost', "UPDATE users SET cost = 99 WHERE user_id = 'bob'"),
    unseen('salt', "UPDATE users SET salt = 'x' WHERE user_id = 'bob'"),
    unseen('stream is no UTF-8', "UPDATE log SET stream = CAST(x'616c69636520626fff' AS TEXT) WHERE message_id = 200"),
    unseen('sender is bytes', 'UPDATE log SET sender = CAST(sender AS BLOB) WHERE message_id = 200'),
    unseen('index has no whole numbers', "INSERT INTO log_of_stream VALUES ('alice bob', 100, '[1.5]')"),
    unseen('name of a group is no UTF-8', "INSERT INTO groups VALUES ('9f8e7d6c', CAST(x'74ff' AS TEXT))"),
    unseen('name of a group is bytes', "INSERT INTO groups VALUES ('9f8e7d6c', CAST('team' AS BLOB))"),
    unseen('id of the log', 'UPDATE about SET log_id = CAST(log_id AS BLOB)'),
    unseen('token', "UPDATE users SET token_digest = 'x' WHERE user_id = 'bob'"),
    unseen('end of the token', "UPDATE users SET token_ends_at = 'x' WHERE user_id = 'bob'"),
    unseen('end in a group', "INSERT INTO readers VALUES ('bob', 'alice bob', 1, 'x')")])
def test_damage_that_sqlite_does_not_see(system, filled, statement):
    """One wrong byte can leave each of these, and `integrity_check` says 'ok'.  The server refuses the file, or serves
    what is behind the damage."""
    path, sent, log_id = filled
    changed(path, statement)
    process, port = start_on(system, path)
    if not port:
        return
    bob, alice = Peer(port), Peer(port)
    with ends_well(process), bob.socket, alice.socket:
        bob.socket.settimeout(2)
        alice.login('alice')
        assert not bob.ask(LoginRequest(user_name='bob', token='none'), LoginResponse).success
        answer = bob.ask(LoginRequest(user_name='bob', password='secret'), LoginResponse)
        ack = alice.ask(alice.numbered(MessageRequest, to_user_id='bob', message='news'), MessageAck)
        alice.send(HistoryRequest(user_id='bob', limit=100), HeartbeatRequest())
        history = protocol.decode(alice.frame())
        assert type(history) is HistoryResponse or getattr(history, 'code', '') == 'internal_error'
        if answer.success:
            assert answer.log_id == log_id
            bob.send(*[HeartbeatRequest()] * 20)
            assert {message_id for message_id in sent if message_id > 200} | {ack.message_id} <= set(latest(bob, 20))


def latest(peer, heartbeats):
    """The ids of the messages that come until so many heartbeats were answered."""
    found = []
    while heartbeats:
        packet = protocol.decode(peer.frame())
        if type(packet) is HeartbeatResponse:
            heartbeats -= 1
        else:
            found.append(packet.message_id)
    return found


def die_with_full_wal(system):
    """Kill a server while all messages of alice are in the -wal file; return the file, the messages and the logId."""
    server = system.server(database='killed.db')
    system.register('bob')
    alice = system.peer()
    log_id = alice.login('alice').log_id
    requests = messages('bob', 200)
    sent = [(alice.ask(request, MessageAck).message_id, request.message) for request in requests]
    server.kill()
    return server.database, sent, log_id


def beginning(port, log_id):
    """What is left of the messages between alice and bob."""
    bob, alice = Peer(port), Peer(port)
    with bob.socket, alice.socket:  # the damage may have taken their accounts too: then they are made anew
        assert bob.login('bob').log_id == alice.login('alice').log_id == log_id
        return whole_history(alice, 'bob')


@pytest.mark.parametrize('count', short_and_long(6, 60))
def test_damaged_wal(system, tmp_path, figure, count):
    """SQLite's checksums end the -wal file before the damage: a beginning of the log is left, and nothing else."""
    path, sent, log_id = die_with_full_wal(system)
    data, rng, left = Path(f'{path}-wal').read_bytes(), random.Random(count), []
    for number in range(count):
        copy, damaged = tmp_path / f'copy{number}.db', bytearray(data)
        damaged[rng.randrange(len(data))] ^= rng.randint(1, 255)
        shutil.copy(path, copy)
        Path(f'{copy}-wal').write_bytes(damaged if number % 2 else data[:rng.randrange(len(data))])
        process, port = start_on(system, copy)
        assert port
        with ends_well(process):
            found = beginning(port, log_id)
        assert found == sent[:len(found)]
        left.append(len(found))
    figure(f'{count} served, with {min(left)} to {max(left)} of {len(sent)} messages')


@pytest.mark.parametrize('statement', ['PRAGMA user_version = 99', 'PRAGMA application_id = 77'])
def test_database_of_others(system, filled, statement):
    path, sent, log_id = filled
    changed(path, statement)
    assert outcome(system, path, sent, log_id) == 'refused'


def test_no_database(system, tmp_path):
    path = tmp_path / 'im.db'
    path.write_bytes(b'hello ' * 1000)
    assert outcome(system, path, {}, '') == 'refused'


def test_file_that_may_not_be_written(system, filled):
    path, sent, log_id = filled
    path.chmod(0o444)
    if os.access(path, os.W_OK):
        pytest.skip('root may write everything')
    assert outcome(system, path, sent, log_id) == 'refused'


def test_disk_that_may_not_be_written(disk, system, filled):
    path, sent, log_id = filled
    shutil.copy(path, folder := disk(8))
    subprocess.run(['mount', '-o', 'remount,ro', str(folder)], check=True)
    assert outcome(system, folder / path.name, sent, log_id) == 'refused'
    assert os.listdir(folder) == [path.name]


# Two servers .........................................................................................

def test_two_servers_cannot_have_one_port(system, tmp_path):
    server = system.server()
    alice = system.peer('alice')
    began = time.monotonic()
    second = subprocess.run(
        [sys.executable, 'imserver.py', '--port', str(server.port), '--db', str(tmp_path / 'other.db')],
        cwd=ROOT, capture_output=True, encoding='utf-8', timeout=PATIENCE)
    assert time.monotonic() - began < 2
    assert second.returncode == 2 and second.stdout == '' and second.stderr.count('\n') == 1
    assert second.stderr.startswith(f'imserver.py: cannot listen on 127.0.0.1 port {server.port}: ')
    alice.ask(alice.numbered(MessageRequest, to_user_id='alice', message='unharmed'), MessageAck)
    assert alice.expect(MessageResponse).message == 'unharmed'
    assert system.peer('bob').is_quiet()

"""What slow readers cost the others, with a real server: memory, latency and throughput, measured."""
import os
import selectors
import statistics
import threading
import time

import pytest

import protocol
from processes import Peer, ids, wait_until
from protocol import (
    CreateGroupRequest, CreateGroupResponse, DeliveryAck, GroupMessageRequest, GroupMessageResponse, HeartbeatRequest,
    HeartbeatResponse, LoginRequest, LoginResponse, MessageAck, MessageRequest, MessageResponse, encode)

pytestmark = [pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='there is no /proc'),
              pytest.mark.usefixtures('no_coverage')]
TEXT = 'x' * 1_000
OPTIONS = ('--durability', 'off', '--rate', '0')


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


def skip_to(peer, kind):
    while type(protocol.decode(peer.frame())) is not kind:
        pass


def send_steadily(peer, count, window=100, **target):
    """Send `count` messages to a user or a group, no more than `window` of them unanswered."""
    kind = MessageRequest if 'to_user_id' in target else GroupMessageRequest
    for number in range(count):
        if number >= window:
            skip_to(peer, MessageAck)
        peer.send(peer.numbered(kind, message=TEXT, **target))
    for _ in range(min(count, window)):
        skip_to(peer, MessageAck)


def round_trip(one, other):
    """Seconds until a message from one is at the other."""
    began = time.perf_counter()
    one.send(one.numbered(MessageRequest, to_user_id='other', message='hi'))
    other.expect(MessageResponse)
    passed = time.perf_counter() - began
    one.expect(MessageAck)
    return passed


def p99(values):
    return statistics.quantiles(values, n=100)[98]


@pytest.mark.parametrize('count', [5_000, soak(100_000)])
def test_who_never_reads_costs_no_memory_and_gets_everything_in_order(system, figure, count):
    server = system.server(*OPTIONS)
    system.register('sleeper')
    senders = [system.peer(f'sender{number}') for number in range(3)]
    for sender in senders:
        send_steadily(sender, 200, to_user_id='sender0')  # warm: what the server keeps for a sender is there
    sleeper = system.peer('sleeper')
    before = server.status('VmRSS')
    threads = [threading.Thread(target=send_steadily, args=(sender, count // 3), kwargs={'to_user_id': 'sleeper'})
               for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grown = (server.status('VmRSS') - before) / 1024
    total = count // 3 * 3
    received = []
    while len(received) < total:
        received += sleeper.expect_all(MessageResponse, min(500, total - len(received)))
        sleeper.send(DeliveryAck(message_id=received[-1].message_id))
    assert sleeper.is_quiet()
    assert ids(received) == sorted(set(ids(received)))
    assert grown < 16, f'{grown} MiB'
    figure(f'{total:,} messages of 1 kB to one who does not read: the server grew by {grown:.1f} MiB; all arrived')


@pytest.mark.parametrize('count', [300, soak(3_000)])
def test_one_who_never_reads_slows_no_other_pair(system, figure, count):
    """In turns with and without the flood, so that what else this machine does hits both."""
    system.server(*OPTIONS)
    system.register('sleeper')
    one, other, sender = system.peer('one'), system.peer('other'), system.peer('sender')
    sleeper = system.peer('sleeper')
    send_steadily(sender, 3_000, to_user_id='sleeper')  # its buffer is full now
    for _ in range(5):  # again, if something else ran here
        quiet, loud = [], []
        for _ in range(count // 30):
            for waits, to in (quiet, 'sender'), (loud, 'sleeper'):
                for _ in range(30):  # the same flood both times: only who gets it differs
                    sender.send(*(sender.numbered(MessageRequest, to_user_id=to, message=TEXT) for _ in range(4)))
                    waits.append(round_trip(one, other))
                sender.send(HeartbeatRequest())
                skip_to(sender, HeartbeatResponse)
        ratio = p99(loud) / p99(quiet)
        if ratio < 2:
            break
    assert ratio < 2, (p99(quiet), p99(loud))
    figure(f'p99 of another pair {p99(loud) * 1000:.2f} ms, {ratio:.2f} times that of a flood to one who reads')
    sleeper.socket.close()


class Members:
    """The members of a group, read in one thread; `is_reading[number]` tells who reads."""

    def __init__(self, peers):
        self.peers, self.received, self.is_over = peers, [0] * len(peers), False
        self.last = 0.0  # when something was received: exact, where wait_until looks only now and then
        self.selector = selectors.DefaultSelector()
        for number, peer in enumerate(peers):
            peer.socket.setblocking(False)
            self.selector.register(peer.socket, selectors.EVENT_READ, number)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.is_over:
            for key, _ in self.selector.select(0.1):
                data, self.last = key.fileobj.recv(1 << 20), time.perf_counter()
                self.received[key.data] += len(data)  # last: then `last` is that of what was counted

    def end(self):
        self.is_over = True
        self.thread.join()
        self.selector.close()


def group_of(system, name, size, last):
    """Return the sender, its group's id, and its members; the last of them is `last` if that is a peer."""
    members = [system.peer(f'{name}{number}') for number in range(size)] + ([last] if last else [])
    sender = system.peer(f'{name}-sender')
    names = [f'{name}{number}' for number in range(size)] + (['sleeper'] if last else [f'{name}0'])
    made = sender.ask(sender.numbered(CreateGroupRequest, user_id_list=names), CreateGroupResponse)
    return sender, made.group_id, members[:size]


def seconds_for(sender, group_id, members, count):
    """Until all who read have got so many group messages."""
    frame = len(encode(GroupMessageResponse(from_group_id=group_id, from_user=protocol.User(
        user_id=f'{sender.name}', user_name=f'{sender.name}'), message=TEXT), 1))
    goal = [received + count * frame for received in members.received]
    began = time.perf_counter()
    send_steadily(sender, count, 8, to_group_id=group_id)
    wait_until(lambda: all(got >= want for got, want in zip(members.received, goal)), 'all have got it')
    return members.last - began


@pytest.mark.parametrize('size, count', [(20, 250), soak(50, 1_000)])
def test_one_member_who_stops_reading_costs_the_others_nothing(system, figure, size, count):
    system.server(*OPTIONS)
    system.register('sleeper')
    sleeper = Peer(system._servers[-1].port)
    sleeper.login('sleeper')
    crowds = []
    for name, last in ('awake', None), ('asleep', sleeper):
        sender, group_id, peers = group_of(system, name, size, last)
        sender.name = f'{name}-sender'
        crowds.append((sender, group_id, Members(peers)))
    send_steadily(crowds[0][0], 3_000, to_user_id='sleeper')
    for _ in range(5):  # again, if something else ran here
        rounds = []
        for number in range(40):  # who is first takes turns
            seconds = [seconds_for(*crowd, count) for crowd in crowds[::number % 2 * 2 - 1]]
            rounds.append(seconds[::number % 2 * 2 - 1])
        ratio = statistics.median(awake / asleep for awake, asleep in rounds)
        if ratio > 0.9:
            break
    for *_, members in crowds:
        members.end()
    sleeper.socket.close()
    assert ratio > 0.9, rounds
    figure(f'group of {size + 1}, one of whom does not read: the others get {ratio:.2f} times what they get without')


@pytest.mark.parametrize('seconds', [2, soak(30)])
def test_a_crowd_that_says_nothing_keeps_nobody_out(system, figure, seconds):
    server = system.server('--max-unauthenticated', '64', '--idle', '600')
    before = server.status('VmRSS')
    crowd, waits, count = [], [], 0
    one, other = system.peer('one'), system.peer('other')
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        crowd += [Peer(server.port) for _ in range(16)]
        count += 16
        for peer in crowd[:-128]:
            peer.socket.close()
        crowd = crowd[-128:]
        newcomer = Peer(server.port)
        newcomer.ask(LoginRequest(user_name='newcomer', password='secret'), LoginResponse)
        newcomer.socket.close()
        waits.append(round_trip(one, other))
    for peer in crowd:
        peer.socket.close()
    grown = (server.status('VmRSS') - before) / 1024
    assert grown < 16 and p99(waits) < 0.5
    figure(f'{count:,} silent callers in {seconds} s: {len(waits)} of {len(waits)} newcomers got in, '
           f'p99 of another pair {p99(waits) * 1000:.1f} ms, grown by {grown:.1f} MiB')

"""What reactor.py promises, tried on real sockets of this machine and with a clock that the test moves.

In order: the five parts of a tick; timers; what other threads and signals hand in; that idle costs
nothing; accepting; how a channel reads, sends and ends; the chain of handlers; silence.

No test sleeps to be right.  What needs time moves `net.clock.now`; what needs the network ticks until it is
there, for a few seconds at most.  IM_SELECTOR=poll (select, epoll, kqueue) runs everything under that one.
"""
import contextlib
import errno
import gc
import logging
import os
import random
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import weakref
from selectors import EVENT_READ, EVENT_WRITE

import pytest

import reactor
from reactor import (
    ACCEPT_PAUSE, ACCEPTS_A_TICK, CLOSE_TIMEOUT, HIGH_WATER_MARK, INPUT_ENDED, LOW_WATER_MARK, MAX_WAIT,
    NO_TIMER, READ_ROUNDS, READ_SIZE, READER_IDLE, SWEEP, Channel, EventLoop, Handler, IdleStateHandler, Listener)

PATIENCE = 30.0  # seconds of real time until a test gives up
SELECTORS = {'select': 'SelectSelector', 'poll': 'PollSelector', 'epoll': 'EpollSelector',
             'kqueue': 'KqueueSelector'}
RESET_ON_CLOSE = struct.pack('ii', 1, 0)  # for SO_LINGER: close() throws a reset instead of saying good-bye
posix_only = pytest.mark.skipif(sys.platform == 'win32', reason='no such limit, no such signals on Windows')


# Helpers .............................................................................................

class Clock:
    """Stands still until a test moves it."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def make_loop(clock=time.monotonic):
    name = os.environ.get('IM_SELECTOR')
    return EventLoop(selector=getattr(selectors, SELECTORS[name])() if name else None, clock=clock)


class SpySocket:
    """A socket that notes what is asked of it; it can send less than it is given, or fail."""

    def __init__(self, sock):
        self._sock = sock
        self.sends, self.recvs = [], []  # bytes taken at each send, bytes asked for at each recv
        self.limit = sys.maxsize  # bytes that a send takes
        self.on_send = self.on_recv = lambda: None  # may raise

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def send(self, data):
        self.on_send()
        sent = self._sock.send(data[:self.limit])
        self.sends.append(sent)
        return sent

    def recv(self, size):
        self.recvs.append(size)
        self.on_recv()
        return self._sock.recv(size)


class Net:
    """A loop, and whatever a test opens; all of it is closed in the end."""

    def __init__(self, clock):
        self.clock = clock
        self.loop = make_loop(clock)
        self.opened = contextlib.ExitStack()
        self.opened.callback(self.loop.close)

    def channel(self, *handlers):
        """A channel with these handlers, on a spied socket, and the socket at the other end."""
        with socket.create_server(('127.0.0.1', 0)) as server:
            for buffer in socket.SO_RCVBUF, socket.SO_SNDBUF:
                server.setsockopt(socket.SOL_SOCKET, buffer, 4 * READ_SIZE)
            peer = self.connect(server.getsockname())
            sock = SpySocket(server.accept()[0])
        self.opened.callback(sock.close)
        channel = Channel(self.loop, sock, lambda channel: channel.pipeline.add_last(*handlers))
        self.opened.callback(channel.abort)
        return channel, peer

    def connect(self, address):
        return self.opened.enter_context(socket.create_connection(address, PATIENCE))

    def listen(self, initialize=lambda channel: None, **options):
        listener = Listener(self.loop, '127.0.0.1', 0, initialize, **options)
        self.opened.callback(self.close_listener, listener)
        return listener

    def close_listener(self, listener):
        for channel in list(listener.channels):
            channel.abort()
        if listener._socket.fileno() >= 0:
            listener.close()

    def ticks(self, count):
        for _ in range(count):
            self.loop.tick(0)

    def tick_until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, 'it did not happen in time'
            self.loop.tick(0.01)

    def read(self, peer, size=None):
        """What `peer` receives while the loop ticks: `size` bytes, or everything up to the end of file."""
        data, asked = bytearray(), sys.maxsize if size is None else size
        peer.setblocking(False)

        def is_enough():
            with contextlib.suppress(BlockingIOError):
                while len(data) < asked:
                    piece = peer.recv(min(1 << 18, asked - len(data)))
                    if not piece:
                        return True
                    data.extend(piece)
            return len(data) == asked

        self.tick_until(is_enough)
        return bytes(data)

    def waits(self):
        """A list that will hold how long each select was asked to sleep; none of them really sleeps."""
        waits, select = [], self.loop.selector.select

        def noting(timeout):
            waits.append(timeout)
            return select(0)

        self.loop.selector.select = noting
        return waits

    def in_order(self, *owners):
        """From now on the events of a tick come in this order."""
        select = self.loop.selector.select

        def sorting(timeout):
            events = [event for event in select(timeout) if event[0].data.__self__ in owners]
            return sorted(events, key=lambda event: owners.index(event[0].data.__self__))

        self.loop.selector.select = sorting

    def watched(self, owner):
        """What the selector watches for a channel or listener: EVENT_READ, EVENT_WRITE, both or 0."""
        keys = self.loop.selector.get_map().values()
        return sum(key.events for key in keys if key.fileobj is owner._socket)


@pytest.fixture
def net():
    net = Net(Clock())
    with net.opened:
        yield net


@pytest.fixture
def loop(net):
    return net.loop


@pytest.fixture
def clock(net):
    return net.clock


@pytest.fixture(scope='module', autouse=True)
def _enough_descriptors():
    """Some systems begin with 256 a process; the crowds below need more."""
    if sys.platform == 'win32':
        yield
        return
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 1024:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Recorder(Handler):
    """The last handler of most tests: keeps what comes, and does nothing about it."""

    def __init__(self):
        self.events, self.received = [], bytearray()

    def channel_active(self): self.events.append('active')
    def channel_inactive(self): self.events.append('inactive')
    def user_event(self, event): self.events.append(event)

    def channel_read(self, message):
        self.events.append('read')
        self.received += message

    def writability_changed(self):
        self.events.append('writable' if self.channel.is_writable else 'not writable')


def handler(**events):
    """A handler that overrides just these events: handler(channel_read=lambda self, message: ...)."""
    return type('Scripted', (Handler,), events)()


def noting(log, name, *events):
    """A handler that notes these events and hands them on."""
    def method(event):
        def note(self, *arguments):
            log.append(f'{name}.{event}')
            getattr(Handler, event)(self, *arguments)
        return note
    return handler(**{event: method(event) for event in events})


def echo():
    return handler(channel_read=lambda self, message: self.channel.write(message))


def failing(event, error):
    def fail(self, *arguments):
        raise error
    return handler(**{event: fail})


def wait_for_input(channel, size=1):
    """Until the kernel has `size` bytes for this channel, or an end of file."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            data = channel._socket._sock.recv(size, socket.MSG_PEEK)
            if len(data) == size or not data:
                return
    pytest.fail('the bytes did not arrive')


def fill(peer):
    """Send until the kernel takes no more; how many bytes that were."""
    peer.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            count += peer.send(bytes(1 << 16))
    return count


def reset(peer):
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.close()


def errors_in(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def fail(*arguments):
    raise ZeroDivisionError('a bug on purpose')


# A tick ..............................................................................................

def test_a_tick_has_its_parts_in_order(net, loop):
    log = []
    channel, peer = net.channel(noting(log, 'handler', 'flush'), echo(), noting(log, 'handler', 'write'))
    channel._socket.on_send = lambda: log.append('send')
    channel._socket.on_recv = lambda: log.append('recv')
    loop.before_flush.append(lambda: log.append('before flush'))
    loop.call_soon(log.append, 'soon')
    loop.call_later(0, log.append, 'timer')
    peer.sendall(b'hello')
    wait_for_input(channel)
    loop.tick(0)
    assert log == ['recv', 'handler.write', 'timer', 'soon', 'before flush', 'handler.flush', 'send']


def test_what_reading_and_timers_queue_runs_in_the_same_tick(net, loop):
    log = []
    queue_it = handler(channel_read=lambda self, message: loop.call_soon(log.append, message))
    channel, peer = net.channel(queue_it)
    loop.call_later(0, loop.call_soon, log.append, 'from a timer')
    peer.sendall(b'read')
    wait_for_input(channel)
    loop.tick(0)
    assert log == [b'read', 'from a timer']


@pytest.mark.parametrize('others', (READ_ROUNDS - 1, READ_ROUNDS))
def test_who_becomes_ready_in_a_tick_is_read_in_it_a_few_times_over(net, loop, others):
    """A chain: what the first channel receives makes the second readable, and so on."""
    received, peers = [], []

    def link(number):
        def channel_read(self, message):
            received.append(number)
            if number < others:
                peers[number + 1].sendall(b'x')
                wait_for_input(channels[number + 1])
        return handler(channel_read=channel_read)

    pairs = [net.channel(link(number)) for number in range(others + 1)]
    channels, peers = [channel for channel, _ in pairs], [peer for _, peer in pairs]
    loop.before_flush.append(lambda: received.append('commit'))
    peers[0].sendall(b'x')
    wait_for_input(channels[0])
    loop.tick(0)
    assert received == [*range(min(others + 1, READ_ROUNDS)), 'commit']
    loop.tick(0)
    assert [number for number in received if number != 'commit'] == [*range(others + 1)]


def test_nobody_is_read_twice_in_a_tick(net, loop):
    received = []

    def channel_read(self, message):
        received.append(message)
        if len(received) < 3:
            peer.sendall(b'more')
            wait_for_input(channel)
    channel, peer = net.channel(handler(channel_read=channel_read))
    other, other_peer = net.channel(handler(channel_read=lambda self, message: received.append('other')))
    peer.sendall(b'first')
    wait_for_input(channel)
    other_peer.sendall(b'x')
    wait_for_input(other)
    loop.tick(0)
    assert sorted(map(str, received)) == ["b'first'", 'other']
    loop.tick(0)
    assert received[-1] == b'more' and len(received) == 3


def test_what_call_soon_queues_inside_call_soon_runs_in_the_next_tick(loop):
    log = []
    loop.call_soon(lambda: (log.append(1), loop.call_soon(log.append, 3)))
    loop.call_soon(log.append, 2)
    loop.tick(0)
    assert log == [1, 2]
    loop.tick(0)
    assert log == [1, 2, 3]


def test_what_before_flush_queues_runs_in_the_next_tick_which_does_not_sleep(net, loop):
    log, waits = [], net.waits()
    loop.before_flush.append(lambda: log or loop.call_soon(log.append, 'soon'))
    loop.tick()
    assert log == []
    loop.tick()
    assert log == ['soon'] and waits == [MAX_WAIT, 0]


@pytest.mark.parametrize('part', ['timer', 'call_soon', 'before_flush'])
def test_what_is_written_in_any_part_before_goes_out_in_the_same_tick(net, loop, part):
    channel, _ = net.channel()
    in_part = {'timer': lambda write: loop.call_later(0, write), 'call_soon': loop.call_soon,
               'before_flush': loop.before_flush.append}[part]
    in_part(lambda: channel.write(b'now'))
    loop.tick(0)
    assert channel._socket.sends == [3]


def test_a_thousand_writes_of_one_tick_are_one_flush_and_one_send(net, loop):
    log = []
    channel, peer = net.channel(noting(log, 'it', 'flush'))
    for number in range(1000):
        channel.write(b'%03d,' % number)
    assert channel._socket.sends == [] and channel.buffered == 4000
    loop.tick(0)
    assert channel._socket.sends == [4000] and channel.buffered == 0 and log == ['it.flush']
    assert net.read(peer, 4000) == b''.join(b'%03d,' % number for number in range(1000))


def test_nothing_is_sent_before_the_callbacks_of_before_flush_ran(net, loop):
    channels = [net.channel()[0] for _ in range(3)]
    seen = []
    loop.before_flush.append(lambda: seen.append([channel._socket.sends[:] for channel in channels]))
    for channel in channels:
        channel.write(b'told')
    loop.tick(0)
    assert seen == [[[], [], []]]
    assert [channel._socket.sends for channel in channels] == [[4], [4], [4]]


def test_what_is_written_while_others_are_flushed_waits_for_the_next_before_flush(net, loop):
    log = []
    other, _ = net.channel()
    other._socket.on_send = lambda: log.append('send')
    tell = handler(flush=fail, channel_inactive=lambda self: other.write(b'it is gone'))
    failing_one, _ = net.channel(tell)
    loop.before_flush.append(lambda: log.append('before flush'))
    failing_one.write(b'x')
    loop.tick(0)
    assert log == ['before flush'] and other.buffered == 10
    loop.tick(0)
    assert log == ['before flush', 'before flush', 'send']


def test_a_tick_with_something_to_send_does_not_sleep(net, loop):
    waits = net.waits()
    net.channel()[0].write(b'x')
    loop.tick()
    loop.tick()
    assert waits == [0, MAX_WAIT]


def test_run_ends_after_the_tick_in_which_stop_was_called(net, loop):
    log = []
    loop.before_flush.append(lambda: log.append('before flush'))
    loop.call_soon(loop.stop)
    loop.call_soon(log.append, 'the rest of the tick')
    loop.run()
    assert log == ['the rest of the tick', 'before flush']
    loop.call_soon(loop.stop)
    loop.run()  # and it can run again
    assert log.count('before flush') == 2


@pytest.mark.parametrize('part', ['call_soon', 'timer', 'before_flush', 'register'])
def test_a_callback_that_fails_is_logged_and_the_loop_goes_on(net, loop, caplog, part):
    log = []
    if part == 'call_soon':
        loop.call_soon(fail)
    elif part == 'timer':
        loop.call_later(0, fail)
    elif part == 'before_flush':
        loop.before_flush.append(fail)
    else:
        sock = net.opened.enter_context(socket.create_server(('127.0.0.1', 0)))
        net.connect(sock.getsockname())
        loop.register(sock, EVENT_READ, fail)
    loop.call_soon(log.append, 'soon')
    loop.before_flush.append(lambda: log.append('before flush'))
    loop.tick(0.1)
    assert log == ['soon', 'before flush']
    [record] = errors_in(caplog)
    assert record.exc_info[0] is ZeroDivisionError and record.name == 'im.reactor'


def test_register_calls_with_the_mask_until_it_is_told_to_stop(net, loop):
    log = []
    channel, peer = net.channel()
    loop.register(peer, EVENT_WRITE, log.append)
    net.ticks(2)
    assert log == [EVENT_WRITE, EVENT_WRITE]
    loop.register(peer, EVENT_READ, lambda mask: log.append('read'))
    channel.write(b'x')
    net.tick_until(lambda: 'read' in log)
    loop.register(peer, 0, log.append)
    log.clear()
    net.ticks(3)
    assert log == []


# Timers ..............................................................................................

def test_timers_run_by_their_time_and_those_of_one_moment_in_the_order_of_making(loop, clock):
    log = []
    for delay in 3, 1, 2, 1, 3, 2, 1:
        loop.call_later(delay, log.append, (delay, len(loop._timers)))
    clock.now += 3
    loop.tick(0)
    assert log == [(1, 1), (1, 3), (1, 6), (2, 2), (2, 5), (3, 0), (3, 4)]


def test_a_timer_runs_once_and_at_its_time_not_before(loop, clock):
    log = []
    loop.call_later(2, log.append, 'x')
    for now, expected in (1001.0, []), (1001.9, []), (1002.0, ['x']), (1010.0, ['x']):
        clock.now = now
        loop.tick(0)
        assert log == expected


def test_a_cancelled_timer_does_not_run(loop, clock):
    log = []
    timer = loop.call_later(1, log.append, 'cancelled')
    loop.call_later(1, log.append, 'kept')
    timer.cancel()
    timer.cancel()
    clock.now += 1
    loop.tick(0)
    assert log == ['kept'] and not loop._timers


def test_cancelled_timers_do_not_fill_the_heap(loop, clock):
    log, most = [], 0
    for number in range(1000):
        timer = loop.call_later(60, log.append, number)
        if number % 100:
            timer.cancel()
        most = max(most, len(loop._timers))
    assert most == SWEEP
    clock.now += 60
    loop.tick(0)
    assert log == list(range(0, 1000, 100))


def test_timers_that_wait_are_all_kept_however_many(loop, clock):
    log = []
    for number in range(5 * SWEEP):
        loop.call_later(1 + number % 7, log.append, number)
    clock.now += 8
    loop.tick(0)
    assert sorted(log) == list(range(5 * SWEEP))


def test_what_a_tick_did_is_told(net, loop, clock):
    def takes(seconds):
        clock.now += seconds
    told = []
    channel, peer = net.channel(Recorder())
    net.ticks(3)
    loop.on_tick = lambda counts, times: told.append((counts, times))
    start = clock.now
    peer.sendall(b'x')
    channel.write(b'y')
    loop.call_later(0, takes, 0.5)
    loop.before_flush.append(lambda: takes(0.25))
    loop.tick(1)
    assert told == [((1, 1, 1), (start, start, start + 0.5, start + 0.75, start + 0.75))]


def test_a_timer_can_cancel_another_one_of_the_same_tick(loop, clock):
    log = []
    loop.call_later(1, lambda: later.cancel())
    later = loop.call_later(1, log.append, 'cancelled')
    clock.now += 1
    loop.tick(0)
    loop.tick(0)
    assert log == []


def test_a_timer_that_arms_itself_anew_without_delay_runs_once_a_tick(loop):
    log = []

    def again():
        assert len(log) < 100, 'the tick hangs'
        log.append('x')
        loop.call_later(0, again)

    loop.call_later(0, again)
    loop.tick(0)
    assert len(log) == 1
    loop.tick(0)
    assert len(log) == 2


def test_select_sleeps_until_the_nearest_timer_but_no_longer_than_the_caller_allows(net, loop, clock):
    waits = net.waits()
    loop.tick()  # none: MAX_WAIT
    loop.call_later(1000, fail)
    loop.tick()  # one far away: MAX_WAIT
    loop.call_later(0.75, lambda: None)
    loop.tick()  # 0.75
    loop.tick(0.5)  # 0.5
    clock.now += 0.5
    loop.tick()  # 0.25
    clock.now += 7
    loop.tick()  # overdue: 0, never a negative one, which would be for ever
    assert waits == [MAX_WAIT, MAX_WAIT, 0.75, 0.5, 0.25, 0]


# Threads and signals .................................................................................

def when_it_sleeps(loop, act):
    """Run `act` in another thread as soon as the loop goes to sleep; join what is returned."""
    select, is_asleep = loop.selector.select, threading.Event()

    def noting(timeout):
        is_asleep.set()
        return select(timeout)

    def wait_and_act():
        if is_asleep.wait(PATIENCE):
            act()

    loop.selector.select = noting
    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_call_soon_threadsafe_wakes_a_sleeping_loop_and_runs_in_its_thread(net, loop):
    threads = []

    def note():
        threads.append(threading.get_ident())

    thread = when_it_sleeps(loop, lambda: loop.call_soon_threadsafe(note))
    started = time.monotonic()
    loop.tick(PATIENCE)
    assert time.monotonic() - started < PATIENCE * 0.9
    assert threads == [threading.get_ident()]
    thread.join()


def test_call_soon_threadsafe_never_blocks_even_when_its_socket_pair_is_full(loop):
    numbers = []
    started = time.monotonic()
    for number in range(100_000):
        loop.call_soon_threadsafe(numbers.append, number)
    assert time.monotonic() - started < PATIENCE
    assert numbers == []
    loop.tick(0)
    assert numbers == list(range(100_000))
    loop.call_soon_threadsafe(numbers.append, 'again')
    loop.tick(0)
    assert numbers[-1] == 'again'


def test_many_threads_hand_in_at_once_and_nothing_is_lost(net, loop):
    seen = []

    def hand_in(name):
        for number in range(500):
            loop.call_soon_threadsafe(seen.append, (name, number))

    threads = [threading.Thread(target=hand_in, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    net.tick_until(lambda: len(seen) == 2000)
    for thread in threads:
        thread.join()
    for name in range(4):
        assert [number for owner, number in seen if owner == name] == list(range(500))


def test_the_wake_up_bytes_do_not_keep_the_loop_awake(net, loop):
    for _ in range(10_000):
        loop.call_soon_threadsafe(lambda: None)
    net.ticks(3)
    assert loop.selector.select(0) == []


def test_run_in_worker_hands_result_or_error_to_a_callback_in_the_loops_thread(net, loop):
    seen = []

    def note(result, error):
        seen.append((result, error and type(error), threading.get_ident()))

    workers = []
    loop.run_in_worker(lambda: workers.append(threading.get_ident()) or 'result', note)
    loop.run_in_worker(fail, note)
    net.tick_until(lambda: len(seen) == 2)
    here = threading.get_ident()
    assert seen == [('result', None, here), (None, ZeroDivisionError, here)]
    assert workers != [here]


def test_run_in_worker_runs_one_after_the_other_in_the_order_of_the_calls(net, loop):
    running, most, results = [], [], []

    def work(number):
        running.append(number)
        most.append(len(running))
        running.remove(number)
        return number

    for number in range(200):
        loop.run_in_worker(lambda number=number: work(number), lambda result, error: results.append(result))
    net.tick_until(lambda: len(results) == 200)
    assert results == list(range(200)) and set(most) == {1}


def test_the_loop_goes_on_while_the_worker_is_busy(net, loop):
    release, seen = threading.Event(), []
    loop.run_in_worker(lambda: release.wait(PATIENCE), lambda result, error: seen.append(result))
    channel, peer = net.channel(echo())
    peer.sendall(b'are you there?')
    assert net.read(peer, 14) == b'are you there?' and seen == []
    release.set()
    net.tick_until(lambda: seen == [True])


def test_a_result_that_comes_after_the_loop_was_closed_harms_nobody(monkeypatch):
    failures, results, release = [], [], threading.Event()
    monkeypatch.setattr(threading, 'excepthook', failures.append)
    before = set(threading.enumerate())
    loop = make_loop()
    loop.run_in_worker(lambda: release.wait(PATIENCE), lambda result, error: results.append(result))
    [worker] = set(threading.enumerate()) - before
    loop.close()
    release.set()
    worker.join(PATIENCE)
    assert not worker.is_alive() and failures == [] and results == []
    assert worker.daemon  # a look-up that hangs does not keep the program from ending


@posix_only
def test_a_signal_wakes_run_though_another_thread_received_it(net, loop):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(threading.get_ident()), loop.stop()))
    thread = when_it_sleeps(loop, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
    started = time.monotonic()
    loop.call_later(0, lambda: None)  # the first tick does not sleep
    loop.run()
    assert time.monotonic() - started < PATIENCE * 0.9
    assert seen == [threading.get_ident()]
    thread.join()


@posix_only
def test_a_signal_sent_to_the_process_runs_its_callback_in_part_3(loop):
    log = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: log.append('signal'))
    loop.before_flush.append(lambda: log.append('before flush'))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert log == []  # not wherever the program happens to be
    loop.tick(PATIENCE)
    assert log == ['signal', 'before flush']


@posix_only
def test_close_restores_the_signal_handlers_of_before():
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    loop = make_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    loop.add_signal_handler(signal.SIGUSR2, lambda: None)
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) != before
    loop.close()
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before
    assert signal.set_wakeup_fd(-1) == -1


@posix_only
def test_close_restores_the_signal_handler_of_before_also_when_it_was_set_twice():
    before = signal.getsignal(signal.SIGUSR1)
    loop = make_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    loop.close()
    after = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert after == before


# Idle costs nothing ..................................................................................

@pytest.fixture
def idle_server():
    """A server with 200 connections on which nothing happens, under the real clock."""
    net = Net(time.monotonic)
    with net.opened:
        listener = net.listen(lambda channel: channel.pipeline.add_last(IdleStateHandler(60), echo()))
        for _ in range(200):
            net.connect(listener.address)
        net.tick_until(lambda: len(listener.channels) == 200)
        yield net


def test_with_200_idle_connections_select_returns_for_timers_only(idle_server):
    loop, returns = idle_server.loop, []
    select = loop.selector.select

    def noting(timeout):
        returns.append(select(timeout))
        return returns[-1]

    loop.selector.select = noting
    for delay in 0.05, 0.1, 0.15:
        loop.call_later(delay, lambda: None)
    loop.call_later(0.2, loop.stop)
    loop.run()
    assert not any(returns), 'a socket was reported'
    assert len(returns) <= 8  # 4 timers; a selector may wake a little early


def test_200_idle_connections_take_no_processor_time(idle_server):
    idle_server.loop.call_later(0.5, idle_server.loop.stop)
    started = time.process_time()
    idle_server.loop.run()
    assert time.process_time() - started < 0.1  # a busy loop would take 0.5 s


# Accepting ...........................................................................................

def test_a_listener_accepts_many_and_each_gets_a_pipeline_of_its_own(net):
    listener = net.listen(lambda channel: channel.pipeline.add_last(echo()))
    peers = [net.connect(listener.address) for _ in range(50)]
    for number, peer in enumerate(peers):
        peer.sendall(b'%02d' % number)
    assert [net.read(peer, 2) for peer in peers] == [b'%02d' % number for number in range(50)]
    assert len({id(channel.pipeline) for channel in listener.channels}) == 50


def test_port_0_gives_a_free_port_and_channels_know_the_address_of_their_peer(net):
    listener = net.listen()
    assert listener.address[0] == '127.0.0.1' and listener.address[1] > 0
    peer = net.connect(listener.address)
    net.tick_until(lambda: listener.channels)
    [channel] = listener.channels
    assert channel.address == '127.0.0.1:%d' % peer.getsockname()[1]


def test_a_listener_takes_ipv6_too(net, loop):
    try:
        listener = Listener(loop, '::1', 0, lambda channel: channel.pipeline.add_last(echo()))
    except OSError:
        pytest.skip('no IPv6 here')
    net.opened.callback(net.close_listener, listener)
    peer = net.connect(listener.address)
    peer.sendall(b'six')
    assert net.read(peer, 3) == b'six'


def test_an_address_in_use_raises_oserror(net, loop):
    listener = net.listen()
    with pytest.raises(OSError) as caught:
        Listener(loop, *listener.address, lambda channel: None)
    assert caught.value.errno == errno.EADDRINUSE


def test_no_more_than_accepts_a_tick_are_accepted_in_one_tick(net, loop):
    listener = net.listen()
    for _ in range(ACCEPTS_A_TICK + 1):
        net.connect(listener.address)
    loop.tick(PATIENCE)
    assert len(listener.channels) == ACCEPTS_A_TICK
    loop.tick(PATIENCE)
    assert len(listener.channels) == ACCEPTS_A_TICK + 1


def test_callers_beyond_max_channels_are_closed_at_once_until_somebody_leaves(net, caplog):
    listener = net.listen(lambda channel: channel.pipeline.add_last(echo()), max_channels=2)
    first, second, third = (net.connect(listener.address) for _ in range(3))
    assert net.read(third) == b''
    assert len(listener.channels) == 2 and 'refused' in caplog.text
    first.close()
    net.tick_until(lambda: len(listener.channels) == 1)
    fourth = net.connect(listener.address)
    fourth.sendall(b'in')
    assert net.read(fourth, 2) == b'in'
    second.sendall(b'still here')
    assert net.read(second, 10) == b'still here'


def test_a_channel_that_is_closing_still_counts_until_it_is_closed(net):
    listener = net.listen(max_channels=1)
    peer = net.connect(listener.address)
    net.tick_until(lambda: listener.channels)
    [channel] = listener.channels
    channel.close()
    net.ticks(3)
    assert not (channel.is_open or channel.is_closed) and listener.channels == {channel}
    peer.close()
    net.tick_until(lambda: not listener.channels)


@pytest.mark.parametrize('max_channels, expected', [(sys.maxsize, 3), (2, 2)])
def test_under_select_the_channels_are_limited_to_what_select_can_watch(monkeypatch, max_channels, expected):
    monkeypatch.setattr(reactor, 'SELECT_LIMIT', 3)
    monkeypatch.setenv('IM_SELECTOR', 'select')
    net = Net(Clock())
    with net.opened:
        listener = net.listen(max_channels=max_channels)
        peers = [net.connect(listener.address) for _ in range(5)]
        assert net.read(peers[-1]) == b''
        assert len(listener.channels) == expected


@pytest.mark.skipif(not hasattr(selectors, 'PollSelector'), reason='no poll here')
def test_other_selectors_have_no_such_limit(monkeypatch):
    monkeypatch.setattr(reactor, 'SELECT_LIMIT', 3)
    monkeypatch.setenv('IM_SELECTOR', 'poll')
    net = Net(Clock())
    with net.opened:
        listener = net.listen()
        for _ in range(5):
            net.connect(listener.address)
        net.tick_until(lambda: len(listener.channels) == 5)


def test_a_closed_listener_accepts_no_more_and_its_channels_stay(net):
    listener = net.listen(lambda channel: channel.pipeline.add_last(echo()))
    peer = net.connect(listener.address)
    net.tick_until(lambda: listener.channels)
    listener.close()
    with pytest.raises(OSError):
        net.connect(listener.address)
    peer.sendall(b'still here')
    assert net.read(peer, 10) == b'still here'


def test_a_listener_closed_earlier_in_the_tick_is_not_asked_for_callers(net, caplog):
    caplog.set_level(logging.INFO)
    listener = net.listen()
    channel, peer = net.channel(handler(channel_read=lambda self, message: listener.close()))
    net.connect(listener.address)
    peer.sendall(b'close it')
    wait_for_input(channel)
    net.in_order(channel, listener)
    net.ticks(2)
    assert listener._socket.fileno() < 0 and listener.channels == set()
    assert len(caplog.records) == 0


def test_a_listener_closed_by_its_newest_channel_accepts_no_more(net, caplog):
    caplog.set_level(logging.INFO)
    listener = net.listen(
        lambda channel: channel.pipeline.add_last(handler(channel_active=lambda self: listener.close())))
    for _ in range(3):
        net.connect(listener.address)
    net.tick_until(lambda: listener.channels)
    net.ticks(2)
    assert len(listener.channels) == 1 and len(caplog.records) == 0


def test_a_caller_who_left_before_it_was_accepted_disturbs_nobody(net, caplog):
    listener = net.listen(lambda channel: channel.pipeline.add_last(echo()))
    reset(net.connect(listener.address))
    peer = net.connect(listener.address)
    peer.sendall(b'next')
    assert net.read(peer, 4) == b'next'
    net.tick_until(lambda: len(listener.channels) == 1)
    assert errors_in(caplog) == []


def test_an_accept_that_fails_for_one_caller_does_not_stop_the_next_one(net, caplog):
    listener = net.listen(lambda channel: channel.pipeline.add_last(echo()))
    accept, failures = listener._socket.accept, [ConnectionAbortedError(errno.ECONNABORTED, 'gone')]

    class Failing(SpySocket):
        def accept(self):
            if failures:
                raise failures.pop()
            return accept()

    listener._socket = Failing(listener._socket)
    peer = net.connect(listener.address)
    peer.sendall(b'next')
    net.loop.tick(PATIENCE)
    assert len(listener.channels) == 1 and errors_in(caplog) == []
    assert net.read(peer, 4) == b'next'


def test_a_channel_that_its_handler_aborts_at_once_is_not_kept(net):
    listener = net.listen(
        lambda channel: channel.pipeline.add_last(handler(channel_active=lambda self: self.channel.abort())))
    assert net.read(net.connect(listener.address)) == b''
    assert listener.channels == set()


def test_a_caller_whose_pipeline_cannot_be_made_is_not_left_hanging(net, caplog):
    made = []

    def initialize(channel):
        made.append(channel)
        fail()

    listener = net.listen(initialize)
    net.connect(listener.address)
    net.tick_until(lambda: made)
    net.opened.callback(made[0]._socket.close)
    net.ticks(2)
    assert len(errors_in(caplog)) == 1
    assert made[0]._socket.fileno() < 0 and listener.channels == set()


# Accepting: no descriptor left .......................................................................

@contextlib.contextmanager
def no_descriptor_left():
    """Lower the limit until the next open fails.  Close the descriptor that this gives, and one is free."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    freed = []

    def free_one():
        freed.append(spare)
        os.close(spare)

    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
    try:
        yield free_one
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if not freed:
            free_one()


def listen_and_echo(net):
    """A listener, and one peer that it has accepted."""
    listener = net.listen(lambda channel: channel.pipeline.add_last(echo()))
    peer = net.connect(listener.address)
    net.tick_until(lambda: listener.channels)
    return listener, peer


@posix_only
def test_without_descriptors_the_loop_neither_dies_nor_spins(net, loop, caplog):
    listener, old = listen_and_echo(net)
    for _ in range(3):
        net.connect(listener.address)
    with no_descriptor_left():
        loop.tick(0)
        waits = net.waits()
        for _ in range(20):
            loop.tick()
        assert waits == [ACCEPT_PAUSE] * 20  # the callers who wait do not end the sleep
        assert loop.selector.select(0) == []
        old.sendall(b'still served')
        assert net.read(old, 12) == b'still served'
    assert caplog.text.count('accepting rests') == 1 and errors_in(caplog) == []
    assert len(listener.channels) == 1


@posix_only
def test_those_who_waited_for_a_descriptor_are_accepted_after_the_pause(net, clock):
    listener, _ = listen_and_echo(net)
    waiting = [net.connect(listener.address) for _ in range(3)]
    with no_descriptor_left() as free_one:
        net.ticks(2)
        free_one()
        net.ticks(2)
        assert len(listener.channels) == 1  # it rests still
        clock.now += ACCEPT_PAUSE
        net.tick_until(lambda: len(listener.channels) == 2)  # one was free: one comes in
        clock.now += ACCEPT_PAUSE
        net.ticks(3)
        assert len(listener.channels) == 2
    clock.now += ACCEPT_PAUSE
    net.tick_until(lambda: len(listener.channels) == 4)
    for peer in waiting:
        peer.sendall(b'in')
        assert net.read(peer, 2) == b'in'
    listener.close()  # awake again, so there is something to take back
    assert net.watched(listener) == 0


@posix_only
def test_a_listener_can_be_closed_while_it_rests(net, clock, caplog):
    listener, old = listen_and_echo(net)
    net.connect(listener.address)
    with no_descriptor_left():
        net.ticks(2)
        listener.close()
    clock.now += ACCEPT_PAUSE
    net.ticks(3)
    assert errors_in(caplog) == [] and len(listener.channels) == 1
    old.sendall(b'still here')
    assert net.read(old, 10) == b'still here'


# A channel reads .....................................................................................

def test_a_channel_receives_and_answers(net):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    assert recorder.events == ['active'] and channel.is_open and channel.is_reading and channel.is_writable
    peer.sendall(b'ping')
    net.tick_until(lambda: recorder.received == b'ping')
    channel.write(b'pong')
    assert net.read(peer, 4) == b'pong'
    assert recorder.events == ['active', 'read']


def test_a_channel_sends_small_messages_without_delay(net):
    channel, _ = net.channel()
    assert channel._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_channel_works_on_a_socket_pair_too(net):
    ours, peer = socket.socketpair()
    net.opened.callback(ours.close)
    net.opened.callback(peer.close)
    channel = Channel(net.loop, ours, lambda channel: channel.pipeline.add_last(echo()))
    net.opened.callback(channel.abort)
    peer.sendall(b'ping')
    assert net.read(peer, 4) == b'ping'


def test_a_tick_reads_read_size_bytes_at_most(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    peer.sendall(bytes(READ_SIZE + 1))
    wait_for_input(channel, READ_SIZE + 1)
    loop.tick(0)
    assert len(recorder.received) == READ_SIZE and recorder.events == ['active', 'read']
    loop.tick(0)
    assert len(recorder.received) == READ_SIZE + 1


def test_exactly_read_size_bytes_need_one_tick(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    peer.sendall(bytes(READ_SIZE))
    wait_for_input(channel, READ_SIZE)
    loop.tick(0)
    assert len(recorder.received) == READ_SIZE
    loop.tick(0)
    assert channel._socket.recvs == [READ_SIZE]


def test_a_flood_does_not_starve_the_quiet_one(net, loop):
    flooded, quiet = Recorder(), Recorder()
    flooded_channel, flooder = net.channel(flooded)
    quiet_channel, whisperer = net.channel(quiet)
    sent = fill(flooder)
    whisperer.sendall(b'psst')
    wait_for_input(flooded_channel, READ_SIZE + 1)
    wait_for_input(quiet_channel, 4)
    loop.tick(0)
    assert quiet.received == b'psst' and len(flooded.received) == READ_SIZE
    net.tick_until(lambda: len(flooded.received) == sent)


def test_a_socket_that_was_said_to_be_readable_and_is_not_does_no_harm(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)

    def not_yet():
        channel._socket.on_recv = lambda: None
        raise BlockingIOError(errno.EAGAIN, 'select was wrong')

    channel._socket.on_recv = not_yet
    peer.sendall(b'now')
    net.tick_until(lambda: recorder.received == b'now')
    assert recorder.events == ['active', 'read'] and len(channel._socket.recvs) == 2


def test_reading_goes_on_only_when_every_reason_to_pause_is_taken_back(net):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    channel.pause_reading('full')
    channel.pause_reading('busy')
    channel.pause_reading('busy')  # a reason counts once
    peer.sendall(b'later')
    wait_for_input(channel, 5)
    net.ticks(3)
    assert not channel.is_reading and net.watched(channel) == 0
    channel.resume_reading('busy')
    channel.resume_reading('never given')
    net.ticks(3)
    assert not channel.is_reading and recorder.received == b''
    channel.resume_reading('full')
    assert channel.is_reading and net.watched(channel) == EVENT_READ
    net.tick_until(lambda: recorder.received == b'later')


def test_a_paused_channel_still_sends(net):
    channel, peer = net.channel(Recorder())
    channel.pause_reading('full')
    channel.write(b'going out')
    assert net.read(peer, 9) == b'going out'


# Stale events: something earlier in the same tick changed what select had said ........................

def two_ready_channels(net, act):
    """Two channels with input in one tick; the handler of the first runs `act(second channel)`."""
    second = Recorder()
    channel, peer = net.channel(second)
    first_channel, first_peer = net.channel(handler(channel_read=lambda self, message: act(channel)))
    for sender, receiver in (first_peer, first_channel), (peer, channel):
        sender.sendall(b'x')
        wait_for_input(receiver)
    net.in_order(first_channel, channel)
    return second, channel


def test_a_channel_that_was_aborted_earlier_in_the_tick_is_left_alone(net, loop, caplog):
    second, channel = two_ready_channels(net, Channel.abort)
    loop.tick(0)
    assert second.events == ['active', 'inactive'] and channel._socket.recvs == []
    assert errors_in(caplog) == []


def test_a_channel_that_was_paused_earlier_in_the_tick_reads_nothing(net, loop, clock):
    second, channel = two_ready_channels(net, lambda channel: channel.pause_reading('full'))
    clock.now += 1
    loop.tick(0)
    assert second.received == b'' and channel._socket.recvs == []
    assert channel.alive_at == clock.now - 1
    channel.resume_reading('full')
    loop.tick(0)
    assert second.received == b'x'


def test_a_channel_that_was_closed_earlier_in_the_tick_handles_nothing(net, loop):
    second, channel = two_ready_channels(net, Channel.close)
    loop.tick(0)
    assert second.events == ['active', 'inactive'] and second.received == b''


def test_a_stale_event_does_not_hit_the_next_owner_of_the_descriptor_number(net, loop):
    second, channel = two_ready_channels(net, Channel.abort)
    fresh = Recorder()
    listener = net.listen(lambda channel: channel.pipeline.add_last(fresh))
    owners = [getattr(key.data, '__self__', None) for key in loop.selector.get_map().values()]
    [first_channel] = [owner for owner in owners if isinstance(owner, Channel) and owner is not channel]
    net.connect(listener.address).sendall(b'fresh')
    number = channel._socket.fileno()
    plugs = []  # so that this number is the lowest free one when it is given back
    while not plugs or plugs[-1] < number:
        plugs.append(os.dup(number))
        net.opened.callback(os.close, plugs[-1])
    del loop.selector.select  # the order of two_ready_channels
    net.in_order(first_channel, listener, channel)
    loop.tick(PATIENCE)
    assert [accepted._socket.fileno() for accepted in listener.channels] == [number]
    assert fresh.events == ['active'] and second.events == ['active', 'inactive']
    del loop.selector.select
    net.tick_until(lambda: fresh.received == b'fresh')
    assert fresh.events == ['active', 'read'] and channel._socket.recvs == []


# A channel sends .....................................................................................

def test_room_to_write_is_watched_after_a_short_send_only(net, loop):
    channel, peer = net.channel()
    channel.write(b'short')
    assert net.watched(channel) == EVENT_READ
    loop.tick(0)
    assert net.watched(channel) == EVENT_READ
    channel.write(bytes(8_000_000))
    loop.tick(0)
    assert net.watched(channel) == EVENT_READ | EVENT_WRITE
    assert len(channel._socket.sends) == 2 and channel.buffered == 8_000_005 - sum(channel._socket.sends)
    net.ticks(20)  # the peer does not read
    assert sum(channel._socket.sends) < 8_000_005 and loop.selector.select(0) == []
    net.read(peer, 8_000_005)
    net.tick_until(lambda: channel.buffered == 0)
    assert net.watched(channel) == EVENT_READ


def test_megabytes_arrive_in_order_whatever_the_sizes_of_writes_and_reads(net):
    chance = random.Random(20240607)
    channel, peer = net.channel()
    written, received = bytearray(), bytearray()
    peer.setblocking(False)
    for _ in range(400):
        for _ in range(chance.randrange(3)):
            piece = chance.randbytes(chance.choice((1, 100, 1500, 20_000, 70_000)))
            channel.write(piece)
            written += piece
        channel._socket.limit = chance.choice((1, 1000, 65_536, sys.maxsize))
        net.ticks(1)
        with contextlib.suppress(BlockingIOError):
            received += peer.recv(chance.choice((1, 10_000, 200_000)))
    channel._socket.limit = sys.maxsize
    assert len(written) > 3_000_000 and channel.buffered == len(written) - sum(channel._socket.sends)
    received += net.read(peer, len(written) - len(received))
    assert received == written and channel.buffered == 0


def test_a_send_that_would_block_is_tried_again_when_there_is_room(net, loop):
    channel, peer = net.channel()

    def no_room():
        raise BlockingIOError(errno.EAGAIN, 'full')

    channel._socket.on_send = no_room
    channel.write(b'patience')
    loop.tick(0)
    assert channel.buffered == 8 and net.watched(channel) == EVENT_READ | EVENT_WRITE
    channel._socket.on_send = lambda: None
    assert net.read(peer, 8) == b'patience'
    assert net.watched(channel) == EVENT_READ


def test_what_is_written_behind_the_rest_of_a_short_send_goes_out_by_itself(net, loop):
    channel, peer = net.channel()
    channel._socket.limit = 3
    channel.write(b'abcde')
    loop.tick(0)
    channel.write(b'fgh')
    assert net.read(peer, 8) == b'abcdefgh'
    assert channel._socket.sends == [3, 2, 3]


def test_at_the_high_mark_it_is_writable_one_byte_more_and_it_is_not(net, loop):
    recorder = Recorder()
    channel, _ = net.channel(recorder)
    channel._socket.limit = 0
    channel.write(bytes(HIGH_WATER_MARK))
    loop.tick(0)
    assert channel.is_writable and recorder.events == ['active']
    channel.write(b'x')
    assert not channel.is_writable
    channel.write(b'and more')
    net.ticks(3)
    assert recorder.events == ['active', 'not writable']


def test_one_byte_above_the_low_mark_it_is_not_writable_at_the_mark_it_is(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    channel._socket.limit = HIGH_WATER_MARK - LOW_WATER_MARK
    channel.write(bytes(HIGH_WATER_MARK + 1))
    loop.tick(0)
    channel._socket.limit = 0
    net.ticks(3)
    assert channel.buffered == LOW_WATER_MARK + 1 and not channel.is_writable
    channel._socket.limit = 1
    net.tick_until(lambda: channel.buffered <= LOW_WATER_MARK)
    assert channel.buffered == LOW_WATER_MARK and channel.is_writable
    net.tick_until(lambda: channel.buffered == 0 or channel.buffered < LOW_WATER_MARK - 50)
    assert recorder.events == ['active', 'not writable', 'writable']


def test_writability_changed_never_comes_inside_a_write_or_a_flush(net, loop):
    recorder, log = Recorder(), []
    channel, _ = net.channel(noting(log, 'handler', 'writability_changed'), recorder)
    loop.before_flush.append(lambda: log.append('before flush'))
    channel.write(bytes(HIGH_WATER_MARK + 1))
    assert log == []
    loop.tick(0)  # it rises, is told so, and sinks in part 5
    assert channel.is_writable and log == ['handler.writability_changed', 'before flush']
    loop.tick(0)
    assert log == ['handler.writability_changed', 'before flush'] * 2


# A channel ends ......................................................................................

def test_close_sends_everything_then_the_end_and_waits_for_the_peers_end(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    data = random.Random(7).randbytes(3_000_000)
    channel.write(data)
    channel.close()
    assert not (channel.is_open or channel.is_closed) and not channel.is_open
    assert recorder.events == ['active', 'inactive']
    assert net.read(peer) == data
    net.ticks(3)
    assert not (channel.is_open or channel.is_closed) and loop.selector.select(0) == []
    peer.close()
    net.tick_until(lambda: channel.is_closed)
    assert channel._socket.fileno() < 0 and recorder.events.count('inactive') == 1


def test_closing_twice_or_aborting_twice_changes_nothing(net):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    channel.close()
    channel.close()
    assert net.read(peer) == b''
    assert len(net.loop._timers) == 1
    channel.abort()
    channel.abort()
    channel.close()
    net.ticks(2)
    assert recorder.events == ['active', 'inactive'] and channel.is_closed


def test_what_is_written_after_close_is_dropped(net):
    channel, peer = net.channel()
    channel.write(b'bye')
    channel.close()
    channel.write(b'too late')
    assert channel.buffered == 3
    assert net.read(peer) == b'bye'
    channel.write(b'far too late')
    channel.abort()
    channel.write(b'never')
    net.ticks(2)
    assert channel._socket.sends == [3]


@pytest.mark.parametrize('data', [bytes(8_000_000), b'not answered', b''], ids=['much', 'little', 'none'])
def test_a_peer_that_does_not_end_its_side_is_let_go_after_close_timeout(net, clock, data):
    recorder = Recorder()
    channel, _ = net.channel(recorder)
    channel.write(data)
    clock.now += 100  # the time counts from the close
    channel.close()
    clock.now += CLOSE_TIMEOUT - 0.001
    net.ticks(3)
    assert not (channel.is_open or channel.is_closed)
    clock.now += 0.001
    net.ticks(1)
    assert channel.is_closed and channel._socket.fileno() < 0
    assert recorder.events.count('inactive') == 1


def test_a_peer_that_keeps_sending_reads_our_last_bytes_and_gets_no_reset(net):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    channel.pause_reading('so that bytes are waiting when it closes')
    peer.sendall(bytes(1000))
    wait_for_input(channel, 1000)
    channel.write(b'last words')
    channel.close()
    for _ in range(5):
        peer.sendall(bytes(1000))
        net.ticks(2)
    assert net.read(peer) == b'last words'  # a reset would raise ConnectionResetError
    peer.shutdown(socket.SHUT_WR)
    net.tick_until(lambda: channel.is_closed)
    peer.setblocking(True)
    assert peer.recv(1) == b'' and 'read' not in recorder.events


def test_while_it_still_sends_a_closing_channel_lets_input_wait(net, loop):
    channel, peer = net.channel()
    channel._socket.limit = 0
    channel.write(b'bye')
    channel.close()
    peer.sendall(b'x')
    wait_for_input(channel)
    loop.tick(0)
    assert net.watched(channel) == EVENT_WRITE and channel._socket.recvs == []


def test_abort_lets_go_at_once_and_loses_what_is_buffered(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    channel.write(b'never sent')
    channel.abort()
    assert channel.is_closed and recorder.events == ['active', 'inactive']
    assert channel._socket.fileno() < 0
    assert net.read(peer) == b''
    assert channel._socket.sends == []


def end_by_close(net, channel, peer):
    channel.close()
    net.ticks(2)
    peer.close()


def end_by_abort(net, channel, peer):
    channel.abort()


def end_by_close_and_abort(net, channel, peer):
    channel.close()
    channel.abort()


def end_by_reset(net, channel, peer):
    reset(peer)


def end_by_reset_while_closing(net, channel, peer):
    channel.close()
    net.ticks(2)
    reset(peer)


def end_by_end_of_file(net, channel, peer):
    peer.close()


def end_by_failing_send(net, channel, peer):
    def broken():
        raise BrokenPipeError(errno.EPIPE, 'gone')
    channel._socket.on_send = broken
    channel.write(b'x')
    channel.write(b'y')


def end_by_failing_send_while_closing(net, channel, peer):
    end_by_failing_send(net, channel, peer)
    channel.close()


def end_by_silence(net, channel, peer):
    net.clock.now += 10


def end_by_close_timeout(net, channel, peer):
    channel.close()
    net.clock.now += CLOSE_TIMEOUT


def end_by_bug(net, channel, peer):
    channel.pipeline.add_last(handler(channel_read=fail))
    peer.sendall(b'x')


@pytest.mark.parametrize('end', [
    end_by_close, end_by_abort, end_by_close_and_abort, end_by_reset, end_by_reset_while_closing,
    end_by_end_of_file, end_by_failing_send, end_by_failing_send_while_closing, end_by_silence,
    end_by_close_timeout, end_by_bug])
def test_channel_inactive_comes_exactly_once_however_it_ends(net, end, caplog):
    log = []
    closer = handler(user_event=lambda self, event: self.channel.abort())
    channel, peer = net.channel(IdleStateHandler(10), noting(log, 'it', 'channel_inactive'), closer)
    channel._on_closed = lambda channel: log.append('closed')
    end(net, channel, peer)
    net.tick_until(lambda: channel.is_closed)
    net.ticks(3)
    assert log == ['it.channel_inactive', 'closed']
    assert net.watched(channel) == 0 and channel._socket.fileno() < 0
    assert len(errors_in(caplog)) == (end is end_by_bug)


def test_a_send_that_fails_is_told_in_the_next_tick_not_while_others_send(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    end_by_failing_send(net, channel, peer)
    loop.tick(0)
    assert recorder.events == ['active']
    waits = net.waits()
    loop.tick()
    assert recorder.events == ['active', 'inactive'] and waits == [0]


def test_the_peers_end_of_file_is_told_once_and_then_costs_nothing(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    peer.sendall(b'question')
    peer.shutdown(socket.SHUT_WR)
    net.tick_until(lambda: INPUT_ENDED in recorder.events)
    net.ticks(20)
    assert recorder.events.count(INPUT_ENDED) == 1 and recorder.received == b'question'
    assert channel.input_ended and channel.is_open and not channel.is_reading
    assert loop.selector.select(0) == [] and net.watched(channel) == 0


def test_after_the_peers_end_of_file_answers_go_out_and_close_is_done_at_once(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    peer.shutdown(socket.SHUT_WR)
    net.tick_until(lambda: channel.input_ended)
    channel.write(b'answer')
    assert net.read(peer, 6) == b'answer'
    channel.write(b' and good-bye')
    channel.close()
    loop.tick(0)
    assert channel.is_closed and recorder.events == ['active', INPUT_ENDED, 'inactive']
    assert net.read(peer) == b' and good-bye'


def test_after_the_peers_end_of_file_megabytes_still_go_out_before_it_closes(net):
    channel, peer = net.channel()  # nobody cares for INPUT_ENDED: the tail closes
    data = random.Random(8).randbytes(2_000_000)
    channel.write(data)
    peer.shutdown(socket.SHUT_WR)
    assert net.read(peer) == data
    net.tick_until(lambda: channel.is_closed)


def test_resuming_after_the_peers_end_of_file_reads_no_more(net, loop):
    recorder = Recorder()
    channel, peer = net.channel(recorder)
    peer.shutdown(socket.SHUT_WR)
    net.tick_until(lambda: channel.input_ended)
    channel.pause_reading('full')
    channel.resume_reading('full')
    net.ticks(3)
    assert net.watched(channel) == 0 and recorder.events == ['active', INPUT_ENDED]


def test_a_paused_channel_that_closes_still_waits_for_the_peers_end(net):
    channel, peer = net.channel(Recorder())
    channel.pause_reading('full')
    channel.close()
    net.ticks(2)
    peer.close()
    net.tick_until(lambda: channel.is_closed)


def test_a_closed_channel_leaves_no_timer_that_does_anything(net, loop, clock, caplog):
    channel, peer = net.channel()
    channel.close()
    channel.abort()
    clock.now += CLOSE_TIMEOUT
    net.ticks(2)
    assert not loop._timers and errors_in(caplog) == []


def test_a_closed_channel_is_forgotten_though_its_timers_stay_in_the_heap(net, loop):
    made = []

    def initialize(channel):
        recorder = Recorder()
        made.append(weakref.ref(recorder))
        channel.pipeline.add_last(IdleStateHandler(60), recorder)

    listener = net.listen(initialize)
    with socket.create_connection(listener.address) as peer:
        net.tick_until(lambda: listener.channels)
        listener.channels.copy().pop().close()
        assert net.read(peer) == b''
    net.tick_until(lambda: not listener.channels)
    gc.collect()
    assert len(loop._timers) == 2 and made[0]() is None


# Signs of life .......................................................................................

def test_what_the_peer_sends_is_a_sign_of_life(net, clock):
    channel, peer = net.channel(Recorder())
    assert channel.alive_at == 1000
    clock.now = 1005
    net.ticks(3)
    assert channel.alive_at == 1000
    peer.sendall(b'x')
    net.tick_until(lambda: channel.alive_at == 1005)


def test_what_the_peer_reads_is_a_sign_of_life_what_we_write_is_not(net, clock):
    channel, peer = net.channel(Recorder())
    clock.now = 1005
    channel.write(bytes(8_000_000))
    net.ticks(20)
    assert channel.alive_at == 1000 and channel.buffered > 0
    clock.now = 1007
    net.read(peer, 4_000_000)
    assert channel.alive_at == 1007


def test_resuming_counts_as_a_sign_of_life_since_the_silence_was_ours(net, clock):
    channel, _ = net.channel(Recorder())
    channel.pause_reading('full')
    clock.now = 1100
    channel.resume_reading('never given')
    assert channel.alive_at == 1000
    channel.resume_reading('full')
    assert channel.alive_at == 1100


# The chain of handlers ...............................................................................

def test_inbound_walks_from_the_socket_and_outbound_towards_it(net):
    log, events = [], reactor.INBOUND + reactor.OUTBOUND
    channel, peer = net.channel(noting(log, 'a', *events), noting(log, 'b', *events), echo())
    assert log == ['a.channel_active', 'b.channel_active']
    log.clear()
    peer.sendall(b'x')
    wait_for_input(channel)
    net.ticks(1)
    assert log == ['a.channel_read', 'b.channel_read', 'b.write', 'a.write', 'b.flush', 'a.flush']
    log.clear()
    channel.close()
    assert log == ['b.close', 'a.close', 'a.channel_inactive', 'b.channel_inactive']


@pytest.mark.parametrize('event, trigger', [
    ('user_event', lambda channel: channel.pipeline.head.user_event('custom')),
    ('exception_caught', lambda channel: channel.pipeline.head.exception_caught(ValueError())),
    ('writability_changed', lambda channel: channel.pipeline.head.writability_changed()),
    ('channel_read', lambda channel: channel.pipeline.head.channel_read(b'x')),
    ('write', lambda channel: channel.write(b'x')),
    ('close', lambda channel: channel.close())])
def test_an_event_ends_where_it_is_not_handed_on(net, event, trigger):
    log = []
    keep = handler(**{event: lambda self, *arguments: log.append('kept')})
    channel, _ = net.channel(noting(log, 'a', event), keep, noting(log, 'b', event))
    trigger(channel)
    on_its_way = 'b' if event in reactor.OUTBOUND else 'a'
    assert log == [f'{on_its_way}.{event}', 'kept'] and channel.is_open and channel.buffered == 0


def test_a_handler_hands_on_something_else(net):
    recorder = Recorder()

    class Upper(Handler):
        def channel_read(self, message):
            super().channel_read(message.upper())

        def write(self, message):
            super().write(message.encode())

    channel, peer = net.channel(Upper(), recorder)
    peer.sendall(b'abc')
    net.tick_until(lambda: recorder.received == b'ABC')
    channel.write('text')
    assert net.read(peer, 4) == b'text'


def test_handlers_that_do_not_override_an_event_are_not_asked(net):
    plain = handler()
    first, last = handler(channel_read=Handler.channel_inactive), Recorder()
    reader = handler(channel_read=lambda self, message: None)
    writer = handler(write=lambda self, message: None)
    channel, _ = net.channel(writer, plain, reader, plain_too := handler(), last)
    pipeline = channel.pipeline
    assert pipeline.head._next_channel_read is reader and reader._next_channel_read is last
    assert pipeline.head._next_channel_inactive is last and last._next_channel_inactive is pipeline.tail
    assert pipeline.tail._next_write is writer and writer._next_write is pipeline.head
    assert pipeline.tail._next_flush is pipeline.head and plain_too._next_channel_read is last
    assert plain.OVERRIDES == frozenset() and first.OVERRIDES == {'channel_read'}


def test_a_subclass_of_a_handler_overrides_what_its_parent_does(net):
    class Child(Recorder):
        pass

    class Silent(Recorder):
        channel_read = Handler.channel_read

    assert Child.OVERRIDES == Recorder.OVERRIDES
    assert Silent.OVERRIDES == Recorder.OVERRIDES - {'channel_read'}


def order_with(net, *names):
    """Handlers a, b and c, where b is replaced by new ones of these names: who sees a read, in order."""
    log = []
    a, b, c, *new = (noting(log, name, 'channel_read', 'write') for name in ('a', 'b', 'c', *names))
    channel, _ = net.channel(a, b, c, handler(channel_read=lambda self, message: None))
    channel.pipeline.replace(b, *new)
    channel.pipeline.head.channel_read(b'x')
    inbound = [entry[0] for entry in log]
    log.clear()
    channel.write(b'y')
    assert [entry[0] for entry in log] == inbound[::-1]
    assert channel.buffered == 1
    return ''.join(inbound)


def test_replace_puts_one_or_several_or_none_in_the_place_of_a_handler(net):
    assert order_with(net, 'x') == 'axc'
    assert order_with(net, 'x', 'y', 'z') == 'axyzc'
    assert order_with(net) == 'ac'


def test_replace_of_a_handler_that_is_not_there_raises(net):
    channel, _ = net.channel()
    with pytest.raises(ValueError):
        channel.pipeline.replace(handler())


def test_add_last_adds_before_the_tail_in_order(net):
    log = []
    channel, _ = net.channel(noting(log, 'a', 'channel_read'))
    channel.pipeline.add_last(noting(log, 'b', 'channel_read'), noting(log, 'c', 'channel_read'))
    channel.pipeline.add_last(end := handler(channel_read=lambda self, message: log.append(self.channel)))
    channel.pipeline.head.channel_read(b'x')
    assert log == ['a.channel_read', 'b.channel_read', 'c.channel_read', channel] and end.channel is channel


def test_a_handler_that_replaces_itself_in_the_middle_of_a_read_can_hand_the_message_on(net):
    log, recorder = [], Recorder()

    class Once(Handler):
        def channel_read(self, message):
            self.channel.pipeline.replace(self, noting(log, 'new', 'channel_read'))
            super().channel_read(message)

    channel, _ = net.channel(Once(), recorder)
    channel.pipeline.head.channel_read(b'first')
    assert recorder.received == b'first' and log == []
    channel.pipeline.head.channel_read(b', second')
    assert recorder.received == b'first, second' and log == ['new.channel_read']


def test_a_handler_that_removes_itself_can_still_write(net):
    class Once(Handler):
        def channel_read(self, message):
            self.channel.pipeline.replace(self)
            super().write(message)

    channel, peer = net.channel(Once())
    channel.pipeline.head.channel_read(b'thanks')
    assert net.read(peer, 6) == b'thanks'


def test_a_message_that_nobody_handles_is_logged(net, caplog):
    channel, peer = net.channel(handler(write=Handler.write))
    peer.sendall(b'hello?')
    net.tick_until(lambda: 'nobody handles' in caplog.text)
    [record] = caplog.records
    assert record.levelno == logging.WARNING and "b'hello?'" in record.getMessage()
    assert channel.address in record.getMessage() and channel.is_open


def test_a_user_event_that_nobody_handles_changes_nothing(net):
    channel, _ = net.channel()
    channel.pipeline.head.user_event('custom')
    assert channel.is_open


def test_a_change_of_writability_that_nobody_handles_changes_nothing(net, caplog):
    channel, _ = net.channel()
    channel.write(bytes(HIGH_WATER_MARK + 1))
    net.ticks(3)
    assert channel.is_open and caplog.records == []


# Handlers that fail ..................................................................................

TRIGGERS = {
    'channel_active': lambda net, channel, peer: None,  # happened already
    'channel_read': lambda net, channel, peer: peer.sendall(b'x'),
    'write': lambda net, channel, peer: channel.write(b'x'),
    'flush': lambda net, channel, peer: channel.write(b'x'),
    'close': lambda net, channel, peer: channel.close(),
    'channel_inactive': lambda net, channel, peer: channel.close(),
    'user_event': lambda net, channel, peer: peer.shutdown(socket.SHUT_WR),
    'writability_changed': lambda net, channel, peer: channel.write(bytes(HIGH_WATER_MARK + 1)),
}


@pytest.mark.parametrize('event', TRIGGERS)
def test_a_handler_that_fails_is_logged_once_and_its_channel_alone_is_closed(net, event, caplog):
    error = ValueError('a bug on purpose')
    log = []
    witness = noting(log, 'it', 'channel_inactive')
    other, other_peer = net.channel(echo())
    channel, peer = net.channel(witness, failing(event, error))
    TRIGGERS[event](net, channel, peer)
    net.tick_until(lambda: errors_in(caplog))
    net.ticks(3)
    [record] = errors_in(caplog)
    assert record.exc_info[1] is error and record.exc_info[2] is not None
    assert channel.is_closed and log == ['it.channel_inactive']
    other_peer.sendall(b'fine')
    assert net.read(other_peer, 4) == b'fine' and other.is_open


def test_a_handler_that_fails_on_reader_idle_is_closed_like_any_other(net, clock, caplog):
    channel, _ = net.channel(IdleStateHandler(10), failing('user_event', ValueError('a bug on purpose')))
    clock.now += 10
    net.ticks(2)
    assert len(errors_in(caplog)) == 1
    assert channel.is_closed


def test_what_runs_for_a_channel_elsewhere_fails_as_if_a_handler_had(net, loop, caplog):
    other, _ = net.channel()
    channel, _ = net.channel()
    loop.before_flush.append(lambda: channel.is_open and channel.run(fail))
    loop.tick(0)
    assert channel.is_closed and other.is_open and len(errors_in(caplog)) == 1


def test_a_handler_for_errors_can_swallow_them(net, caplog):
    caught = []
    error = ValueError('tolerable')
    catcher = handler(exception_caught=lambda self, error: caught.append(error))
    channel, peer = net.channel(failing('channel_read', error), catcher)
    for count in 1, 2:
        peer.sendall(b'x')
        net.tick_until(lambda: len(caught) == count)
    assert caught == [error, error] and channel.is_open and caplog.records == []


def test_an_error_is_told_from_the_head_wherever_it_came_from(net):
    caught = []
    catcher = handler(exception_caught=lambda self, error: caught.append(error))
    error = ValueError('behind the catcher')
    channel, _ = net.channel(catcher, failing('write', error))
    channel.write(b'x')
    assert caught == [error] and channel.is_open


def test_a_message_that_is_no_bytes_closes_its_channel_alone(net, caplog):
    other, other_peer = net.channel()
    channel, _ = net.channel()
    channel.write('text')
    other.write(b'fine')
    net.ticks(2)
    assert channel.is_closed and len(errors_in(caplog)) == 1
    assert net.read(other_peer, 4) == b'fine'


@pytest.mark.parametrize('event', ['channel_read', 'flush', 'writability_changed'])
def test_a_handler_for_errors_that_fails_itself_does_not_end_the_loop(net, event, caplog):
    other, other_peer = net.channel()
    catcher = failing('exception_caught', ValueError('second'))
    channel, peer = net.channel(failing(event, ValueError('first')), catcher)
    TRIGGERS[event](net, channel, peer)
    other.write(b'fine')
    net.tick_until(lambda: errors_in(caplog))
    assert net.read(other_peer, 4) == b'fine'


# Silence .............................................................................................

def test_reader_idle_comes_after_so_many_seconds_of_silence(net, clock):
    recorder = Recorder()
    net.channel(IdleStateHandler(10), recorder)
    clock.now += 9.5
    net.ticks(2)
    assert READER_IDLE not in recorder.events
    clock.now += 0.5
    net.ticks(2)
    assert recorder.events == ['active', READER_IDLE]


def test_reader_idle_comes_again_after_as_many_seconds_more(net, clock):
    recorder = Recorder()
    net.channel(IdleStateHandler(10), recorder)
    for step, count in (10, 1), (9, 1), (1, 2), (10, 3):
        clock.now += step
        net.ticks(2)
        assert recorder.events.count(READER_IDLE) == count


def test_a_read_just_before_postpones_it_to_the_full_time_after_that_read(net, clock):
    recorder = Recorder()
    channel, peer = net.channel(IdleStateHandler(10), recorder)
    clock.now = 1009
    peer.sendall(b'x')
    net.tick_until(lambda: recorder.received == b'x')
    for now, is_idle in (1010, False), (1018.5, False), (1019, True):
        clock.now = now
        net.ticks(2)
        assert (READER_IDLE in recorder.events) is is_idle


def test_the_handler_arms_one_timer_however_many_reads_there_are(net, loop, clock):
    recorder = Recorder()
    channel, peer = net.channel(IdleStateHandler(10), recorder)
    for count in range(1, 51):
        clock.now += 1
        peer.sendall(b'x')
        net.tick_until(lambda: len(recorder.received) == count)
        assert len(loop._timers) == 1
    assert READER_IDLE not in recorder.events


def test_while_reading_is_paused_the_silence_does_not_count(net, clock):
    recorder = Recorder()
    channel, peer = net.channel(IdleStateHandler(10), recorder)
    channel.pause_reading('full')
    for _ in range(10):
        clock.now += 10
        net.ticks(2)
    channel.resume_reading('full')  # at 1100; a look is due at 1110
    clock.now += 9.5
    net.ticks(2)
    assert READER_IDLE not in recorder.events
    clock.now += 0.5
    net.ticks(2)
    assert READER_IDLE in recorder.events


def test_a_peer_that_only_reads_is_not_idle(net, clock):
    recorder = Recorder()
    channel, peer = net.channel(IdleStateHandler(10), recorder)
    channel.write(bytes(8_000_000))
    net.ticks(5)
    for _ in range(4):
        clock.now += 9
        net.read(peer, 1_500_000)
    assert READER_IDLE not in recorder.events


@pytest.mark.parametrize('end', [Channel.close, Channel.abort])
def test_an_inactive_channel_is_no_longer_looked_at(net, loop, clock, end):
    recorder = Recorder()
    channel, peer = net.channel(IdleStateHandler(10), recorder)
    end(channel)
    for _ in range(3):
        clock.now += 10
        net.ticks(2)
    assert recorder.events == ['active', 'inactive'] and not loop._timers


def test_closing_it_when_it_is_idle_is_enough(net, loop, clock):
    closer = handler(user_event=lambda self, event: self.channel.abort())
    channel, _ = net.channel(IdleStateHandler(10), closer)
    clock.now += 10
    net.ticks(1)
    assert channel.is_closed
    clock.now += 10
    net.ticks(2)
    assert not loop._timers


def test_a_channel_refused_before_its_idle_handler_is_active_leaves_no_timer(net, loop, clock, caplog):
    def refuse(self):
        self.channel.abort()
        Handler.channel_active(self)

    channel, _ = net.channel(handler(channel_active=refuse), IdleStateHandler(10))
    assert channel.is_closed and errors_in(caplog) == []
    clock.now += 10
    net.ticks(2)
    assert not loop._timers


def test_an_idle_handler_added_to_an_active_channel_does_not_disturb_its_end(net, caplog):
    recorder = Recorder()
    channel, _ = net.channel()
    channel.pipeline.add_last(IdleStateHandler(10), recorder)
    channel.abort()
    assert recorder.events == ['inactive'] and errors_in(caplog) == []


# What many connections share .........................................................................

def test_idle_handlers_share_the_timer_that_waits_for_nothing(net, loop, clock):
    NO_TIMER.cancel()
    NO_TIMER.run()
    one, two = IdleStateHandler(5), IdleStateHandler(5)
    events = []
    first, _ = net.channel(one, handler(user_event=lambda self, event: events.append(event)))
    second, _ = net.channel(two, handler(user_event=lambda self, event: events.append(event)))
    first.abort()  # cancels its own timer, not the other's
    clock.now += 6
    loop.tick(0)
    assert events == [READER_IDLE]


def test_pipelines_of_one_make_are_linked_each_to_its_own(net):
    log = []
    pairs = [net.channel(handler(channel_read=lambda self, message: log.append((self.channel, message))))
             for _ in range(3)]
    for number, (channel, _) in enumerate(pairs):
        channel.pipeline.head.channel_read(number)
    assert log == [(channel, number) for number, (channel, _) in enumerate(pairs)]


def test_a_channel_counts_what_it_has_sent(net, loop):
    channel, peer = net.channel()
    channel._socket.limit = 3
    channel.write(b'hello')
    assert (channel.sent, channel.buffered) == (0, 5)
    loop.tick(0)
    assert (channel.sent, channel.buffered) == (3, 2)
    net.tick_until(lambda: channel.buffered == 0)
    assert channel.sent == 5 and net.read(peer, 5) == b'hello'

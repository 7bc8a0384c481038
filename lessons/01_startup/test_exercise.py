"""Chapter 1: the tests of the exercise.

    python3 -m lessons check 1
    python3 -m pytest lessons/01_startup/test_exercise.py
"""
from selectors import EVENT_READ, EVENT_WRITE

from lessons.check import expect, expect_raises

ROOM = 'The room'
INTEREST = 'Ask for room only while something waits'
NAMES = {EVENT_READ: 'EVENT_READ', EVENT_WRITE: 'EVENT_WRITE', EVENT_READ | EVENT_WRITE: 'EVENT_READ | EVENT_WRITE'}


class Events(int):
    """A number of events that is shown by their names."""

    def __repr__(self):
        return NAMES.get(self, int.__repr__(self))


BOTH, READ = Events(EVENT_READ | EVENT_WRITE), Events(EVENT_READ)


class Kernel:
    """Stands for a socket and its send buffer: takes what there is room for."""

    def __init__(self, room):
        self.room, self.taken = room, ''  # as text: it can be read in an answer

    def send(self, data):
        if not self.room:
            raise BlockingIOError
        sent = bytes(data[:self.room])
        self.taken += sent.decode()
        self.room -= len(sent)
        return len(sent)


def wanted(outgoing):
    value = outgoing.wanted
    return Events(value) if isinstance(value, int) else value


def check_quiet(call, method, *arguments):
    """Call it; that there is no room is none of the caller's business."""
    error = None
    try:
        method(*arguments)
    except BlockingIOError as caught:
        error = caught
    expect(call, error, None, INTEREST)


def calls(exercise, ready, callbacks, log):
    """Return what was called in the turn, up to an exception if there is one."""
    try:
        exercise.turn(ready, callbacks)
    except (LookupError, RuntimeError) as error:  # a name that is gone; a dict that changes while it is walked
        log.append(error)
    return log


def test_a_turn_calls_each_that_is_ready_with_its_mask(exercise):
    log = []
    callbacks = {name: lambda mask, name=name: log.append((name, Events(mask))) for name in ('alice', 'bob', 'carol')}
    expect('what turn called, alice, bob and carol being registered, carol and alice ready',
           calls(exercise, [('carol', READ), ('alice', BOTH)], callbacks, log),
           [('carol', READ), ('alice', BOTH)], 'The loop')


def test_a_stale_event_reaches_nobody(exercise):
    log = []
    callbacks = {name: lambda mask, name=name: log.append(name) for name in ('bob', 'carol', 'dora')}

    def alice(mask):
        log.append('alice')
        del callbacks['bob']
        callbacks['carol'] = lambda mask: log.append("carol's new callback")

    callbacks['alice'] = alice
    expect("what turn called, all four being ready; alice's callback drops bob and gives carol a new callback",
           calls(exercise, [(name, READ) for name in ('alice', 'bob', 'carol', 'dora')], callbacks, log),
           ['alice', "carol's new callback", 'dora'], ROOM)


def test_the_bound_doubles_up_to_30_seconds(exercise):
    expect('[backoff(n, lambda: 1.0) for n in range(5)]',
           [exercise.backoff(n, lambda: 1.0) for n in range(5)], [1, 2, 4, 8, 16], 'Exercise')
    for failures in 5, 6, 1_100, 100_000:  # the last two: a number that a float cannot hold
        expect(f'backoff({failures}, lambda: 1.0)', exercise.backoff(failures, lambda: 1.0), 30, 'Exercise')


def test_chance_decides_over_the_whole_wait(exercise):
    for chance, seconds in (0.5, 15.0), (0.25, 7.5), (0.0, 0.0):
        expect(f'backoff(10, lambda: {chance})', exercise.backoff(10, lambda: chance), seconds, 'Exercise')


def test_what_the_kernel_takes_at_once_needs_no_room(exercise):
    kernel = Kernel(100)
    outgoing = exercise.Outgoing(kernel.send)
    expect('Outgoing(send).wanted', wanted(outgoing), READ, INTEREST)
    outgoing.write(b'hello')
    expect("what send took after write(b'hello')", kernel.taken, 'hello', INTEREST)
    expect("wanted after write(b'hello'), of which send took all", wanted(outgoing), READ, INTEREST)


def test_what_a_short_send_leaves_needs_room_until_it_is_gone(exercise):
    kernel = Kernel(3)
    outgoing = exercise.Outgoing(kernel.send)
    check_quiet("write(b'hello'), when send takes 3 bytes and then raises BlockingIOError", outgoing.write, b'hello')
    expect("wanted after write(b'hello'), of which send took 3 bytes", wanted(outgoing), BOTH, INTEREST)
    kernel.room = 100
    outgoing.on_writable()
    expect('wanted after on_writable(), when send took the rest', wanted(outgoing), READ, INTEREST)


def test_no_byte_is_lost_or_sent_twice_or_overtakes(exercise):
    kernel = Kernel(3)
    outgoing = exercise.Outgoing(kernel.send)
    outgoing.write(b'hello world')
    for _ in range(3):
        kernel.room = 4
        outgoing.on_writable()
    expect("what send took of write(b'hello world'), 3 bytes and then at most 4 at a time",
           kernel.taken, 'hello world', INTEREST)
    kernel = Kernel(2)
    outgoing = exercise.Outgoing(kernel.send)
    outgoing.write(b'hello')
    kernel.room = 2
    outgoing.write(b' world')
    kernel.room = 100
    outgoing.on_writable()
    expect("what send took of write(b'hello'), of which 2 bytes went out at first, and write(b' world')",
           kernel.taken, 'hello world', INTEREST)


def test_a_blocking_io_error_took_nothing(exercise):
    kernel = Kernel(0)
    outgoing = exercise.Outgoing(kernel.send)
    check_quiet("write(b'hello'), when send raises BlockingIOError", outgoing.write, b'hello')
    expect("wanted after write(b'hello'), when send raised BlockingIOError", wanted(outgoing), BOTH, INTEREST)
    check_quiet('on_writable(), when send raises BlockingIOError', outgoing.on_writable)  # a false alarm
    kernel.room = 100
    outgoing.on_writable()
    expect("what send took of write(b'hello') once there was room", kernel.taken, 'hello', INTEREST)


def test_an_error_of_the_socket_is_not_hidden(exercise):
    def send(data):
        raise ConnectionResetError

    expect_raises("write(b'hello'), when send raises ConnectionResetError",
                  lambda: exercise.Outgoing(send).write(b'hello'), ConnectionResetError, 'Exercise')


def test_each_connection_has_its_own_bytes(exercise):
    full, free = Kernel(0), Kernel(100)
    slow, fast = exercise.Outgoing(full.send), exercise.Outgoing(free.send)
    slow.write(b'for the slow one')
    fast.write(b'hello')
    expect("what the second connection's send took, the first having no room", free.taken, 'hello', INTEREST)
    expect('wanted of the second connection', wanted(fast), READ, INTEREST)

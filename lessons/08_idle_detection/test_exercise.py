"""Checks the exercise of chapter 8: python3 -m lessons check 8"""
import importlib

from lessons.check import expect

SLICES = 'A read stores the time'
ORDER = 'Arm first, then tell'
ALL = 'Idle in both directions'
LEAP = 'A clock that leaps'

handlers = importlib.import_module('lessons.08_idle_detection.handlers')
server = importlib.import_module('lessons.08_idle_detection.server')


class Loop(server.EventLoop):
    """A loop that forgets its timers when there are too many, so that a wrong answer ends too."""
    made = 0

    def call_later(self, delay, callback):
        timer = super().call_later(delay, callback)
        self.made += 1
        if self.made > 100:
            self.timers.clear()
        return timer


class Connection(handlers.Handler):
    """The first link of a chain, on a real loop whose clock a test moves; notes what is written."""

    def __init__(self, exercise, seconds=15.0):
        self.now, self.written = 100.0, []
        self.loop, self.channel, self.end = Loop(clock=lambda: self.now), self, End()
        self.handler = exercise.AllIdleHandler(seconds)
        handlers.link(self, self.handler, self.end)
        self.handler.channel_active()

    def write(self, message):
        self.written.append(message)

    def told(self, *seconds):
        """Run what is due at each of these seconds after the beginning; return those at which the end was told."""
        found = []
        for second in seconds:
            before = len(self.end.told)
            self.now = 100.0 + second
            self.loop.run_timers()
            found += [second] * (len(self.end.told) - before)
        return found


class End(handlers.Handler):
    """The last link; notes what reaches it, and may do something when it is told."""

    def __init__(self):
        self.calls, self.told, self.when_told = [], [], lambda: None

    def channel_active(self):
        self.calls.append('active')

    def channel_read(self, message):
        self.calls.append(message)

    def channel_inactive(self):
        self.calls.append('inactive')

    def user_event(self, event):
        self.told.append(event)
        self.when_told()


def last(*results):
    """Return what the last of several calls returned."""
    return results[-1]


def test_silence_in_both_directions_is_told_again_and_again(exercise):
    connection = Connection(exercise)
    expect('AllIdleHandler(15), nothing happens; told at', connection.told(*range(1, 46)), [15, 30, 45], ALL)
    expect('... the events', connection.end.told, [exercise.ALL_IDLE] * 3, ALL)
    other = Connection(exercise, 5.0)
    expect('AllIdleHandler(5) beside it; told at',
           last(connection.handler.channel_read(b'x'), other.told(*range(11))), [5, 10], ALL)


def test_a_read_ends_the_silence(exercise):
    connection = Connection(exercise)
    expect('AllIdleHandler(15); told up to second 9', connection.told(*range(10)), [], ALL)
    expect('... a read at second 9; told at',
           last(connection.handler.channel_read(b'x'), connection.told(*range(9, 40))), [24, 39], ALL)


def test_a_write_ends_the_silence(exercise):
    connection = Connection(exercise)
    expect('AllIdleHandler(15); told up to second 9', connection.told(*range(10)), [], ALL)
    expect('... a write at second 9; told at',
           last(connection.end.write('x'), connection.told(*range(9, 40))), [24, 39], ALL)


def test_everything_is_handed_on(exercise):
    connection = Connection(exercise)
    expect("write('out'): what the link before sees",
           last(connection.end.write('out'), connection.written), ['out'], SLICES)
    handler = connection.handler
    expect("channel_active(), channel_read(b'in'), channel_inactive(): what the next link sees",
           last(handler.channel_read(b'in'), handler.channel_inactive(), connection.end.calls),
           ['active', b'in', 'inactive'], SLICES)


def test_reads_and_writes_touch_no_timer(exercise):
    connection = Connection(exercise)
    for second in range(1, 11):
        connection.told(second)
        connection.handler.channel_read(b'x')
        connection.end.write('x')
    expect('when the timers in the heap are due, after 10 reads and writes in 10 seconds',
           [timer.due - 100.0 for timer in connection.loop.timers], [15.0], SLICES)


def test_who_is_told_may_close_the_channel(exercise):
    connection = Connection(exercise)
    connection.end.when_told = connection.handler.channel_inactive
    expect('who is told at second 15 closes the channel; told at', connection.told(*range(61)), [15], ORDER)


def test_a_closed_channel_is_not_judged(exercise):
    connection = Connection(exercise)
    connection.told(5)
    expect('channel_inactive() at second 5; told at',
           last(connection.handler.channel_inactive(), connection.told(*range(5, 61))), [], ORDER)
    expect('... in the heap after that', len(connection.loop.timers), 0, ORDER)


def test_a_leap_is_not_silence(exercise):
    connection = Connection(exercise)
    expect('5 s of silence, then the clock is at 3605 s; told at', connection.told(5, 3605), [], LEAP)
    expect('... and second by second from there; told at', connection.told(*range(3606, 3640)), [3620, 3635], LEAP)


def test_a_loop_that_is_only_busy_judges_as_ever(exercise):
    connection = Connection(exercise)
    expect('the timer of second 15 runs at 15.9 s; told at', connection.told(15.9), [15.9], LEAP)
    connection = Connection(exercise)
    connection.told(4)
    expect('a read at second 4, looks at 15 and 20 s, one second late; told at',
           last(connection.handler.channel_read(b'x'), connection.told(15, 20)), [20], LEAP)


def test_after_each_leap_the_silence_begins_anew(exercise):
    connection = Connection(exercise)
    expect('the clock is at 0, 100, 110, 200, 214 and 215 s; told at',
           connection.told(0, 100, 110, 200, 214, 215), [215], LEAP)
    connection = Connection(exercise)
    connection.told(9)
    expect('a read at second 9, the look of second 15 comes at second 20; told at',
           last(connection.handler.channel_read(b'x'), connection.told(*range(20, 45))), [35], LEAP)

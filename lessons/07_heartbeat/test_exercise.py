"""Checks the exercise of chapter 7: python3 -m lessons check 7"""
from lessons.check import expect

RUN = 'Running what is due'
HEAP = 'A timer, and the heap'
CANCEL = 'Cancelling'
DRIFT = 'Drift'
BUILD = 'What you build'


class Clock:
    """Seconds that stand still until a test moves them."""
    now = 0.0

    def __call__(self):
        return self.now


def make(exercise):
    clock = Clock()
    return clock, exercise.Timers(clock)


def called_at(clock, timers, seconds, called):
    """Run what is due at each of these seconds; return {second: what was added to `called` then}."""
    found = {}
    for clock.now in seconds:
        before = len(called)
        timers.run_due()
        found[clock.now] = called[before:]
    return found


def last(*results):
    """Return what the last of several calls returned."""
    return results[-1]


def test_a_timer_runs_once_and_not_before_it_is_due(exercise):
    clock, timers = make(exercise)
    other_clock, other = make(exercise)
    clock.now, called = 100.0, []
    timers.call_later(5, lambda: called.append('tea'))
    expect('call_later(5, tea) at second 100, then run_due()',
           called_at(clock, timers, (100.0, 104.9, 105.0, 106.0), called),
           {100.0: [], 104.9: [], 105.0: ['tea'], 106.0: []}, RUN)
    timers.call_later(5, lambda: called.append('cake'))
    expect('call_later(5, cake) at second 106, then run_due() of other Timers at second 200',
           called_at(other_clock, other, (200.0,), called), {200.0: []}, BUILD)


def test_timers_run_in_the_order_of_their_due_times(exercise):
    clock, timers = make(exercise)
    called = []
    for delay in (5, 9, 3, 7, 1, 8, 2):
        timers.call_later(delay, lambda delay=delay: called.append(delay))
    expect('call_later(5), 9, 3, 7, 1, 8, 2, then run_due() at seconds 3 and 20',
           called_at(clock, timers, (3.0, 20.0), called), {3.0: [1, 2, 3], 20.0: [5, 7, 8, 9]}, HEAP)


def test_of_those_due_at_the_same_time_the_one_made_first_runs_first(exercise):
    clock, timers = make(exercise)
    called = []
    for number in range(10):
        timers.call_later(2, lambda number=number: called.append(number))
    expect('10 times call_later(2, ...), then run_due() at second 2',
           called_at(clock, timers, (2.0,), called), {2.0: list(range(10))}, BUILD)


def test_what_a_callback_makes_waits_for_the_next_run(exercise):
    clock, timers = make(exercise)
    called = []

    def again():
        called.append(len(called))
        if len(called) < 5:  # so that a wrong answer ends too
            timers.call_later(0, again)

    timers.call_later(0, again)
    expect('run_due(), with a callback that calls call_later(0, itself)',
           called_at(clock, timers, (0.0,), called), {0.0: [0]}, RUN)
    expect('... and run_due() once more', called_at(clock, timers, (0.0,), called), {0.0: [1]}, RUN)


def test_a_cancelled_timer_is_not_called(exercise):
    clock, timers = make(exercise)
    called = []
    tea = timers.call_later(1, lambda: called.append('tea'))
    timers.call_later(4, lambda: called.append('cake'))
    expect('call_later(1, tea), call_later(4, cake), tea is cancelled, twice; run_due() at seconds 2 and 4',
           last(tea.cancel(), tea.cancel(), called_at(clock, timers, (2.0, 4.0), called)),
           {2.0: [], 4.0: ['cake']}, CANCEL)
    timers.call_later(1, lambda: (called.append('first'), second.cancel()))
    second = timers.call_later(1, lambda: called.append('second'))
    expect('run_due(), with two that are due, of which the first cancels the second',
           called_at(clock, timers, (7.0,), called), {7.0: ['first']}, CANCEL)


def test_a_cancelled_timer_is_not_waited_for(exercise):
    clock, timers = make(exercise)
    expect('next_due() before any timer is made', timers.next_due(), None, BUILD)
    timers.call_later(4, lambda: None)
    one, two = timers.call_later(1, lambda: None), timers.call_later(2, lambda: None)
    expect('call_later(4), 1, 2, then next_due()', timers.next_due(), 1, HEAP)
    expect('... those of seconds 1 and 2 are cancelled; next_due()',
           last(one.cancel(), two.cancel(), timers.next_due()), 4, BUILD)
    expect('... and once more', timers.next_due(), 4, BUILD)
    expect('... run_due() at second 4; next_due()', last(called_at(clock, timers, (4.0,), []), timers.next_due()),
           None, BUILD)


def test_repeats_do_not_drift(exercise):
    clock, timers = make(exercise)
    clock.now, called = 50.0, []

    def due_before(number):
        """Return next_due() before that call, and then run it, late."""
        due, clock.now = timers.next_due(), 50.0 + number * 0.1 + 0.03
        timers.run_due()
        return due

    timers.call_every(0.1, lambda: called.append(clock.now))
    expect('call_every(0.1) at second 50, each run late: next_due() before the first three',
           list(map(due_before, (1, 2, 3))), [50.0 + number * 0.1 for number in (1, 2, 3)], DRIFT)
    expect('... next_due() before call 1,000', list(map(due_before, range(4, 1001)))[-1], 50.0 + 1000 * 0.1, DRIFT)
    expect('... calls in all', len(called), 1000, DRIFT)


def test_missed_calls_are_not_made_up_one_by_one(exercise):
    clock, timers = make(exercise)
    called = []
    timers.call_every(10, lambda: called.append('beat'))
    expect('call_every(10), run_due() at seconds 10, 37, 39, 40, 60', called_at(
        clock, timers, (10.0, 37.0, 39.0, 40.0, 60.0), called),
        {10.0: ['beat'], 37.0: ['beat'], 39.0: [], 40.0: ['beat'], 60.0: ['beat']}, DRIFT)
    expect('... next_due() at second 60: calls 5 and 6 were due, 7 is next', timers.next_due(), 70, DRIFT)


def test_a_repeating_timer_may_cancel_itself(exercise):
    clock, timers = make(exercise)
    called = []

    def twice():
        called.append('beat')
        if len(called) == 2:
            timer.cancel()

    timer = timers.call_every(1, twice)
    expect('call_every(1, ...), which cancels itself in its second call; run_due() at seconds 1 to 4', called_at(
        clock, timers, (1.0, 2.0, 3.0, 4.0), called), {1.0: ['beat'], 2.0: ['beat'], 3.0: [], 4.0: []}, CANCEL)
    expect('... next_due()', timers.next_due(), None, BUILD)


def test_a_repeating_timer_keeps_its_place(exercise):
    clock, timers = make(exercise)
    called = []
    timers.call_every(1, lambda: called.append('beat'))
    timers.call_later(2, lambda: called.append('tea'))
    expect('call_every(1, beat), call_later(2, tea), run_due() at seconds 1 and 2', called_at(
        clock, timers, (1.0, 2.0), called), {1.0: ['beat'], 2.0: ['beat', 'tea']}, BUILD)

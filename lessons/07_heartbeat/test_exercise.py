"""Checks the exercise of chapter 7: python3 -m lessons check 7"""
from lessons.check import expect

RUN = 'Running what is due'
HEAP = 'A timer, and the heap'
CANCEL = 'Cancelling'
DRIFT = 'Drift'


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


def test_a_timer_runs_once_and_not_before_it_is_due(exercise):
    clock, timers = make(exercise)
    other = make(exercise)[1]
    clock.now, called = 100.0, []
    timers.call_later(5, lambda: called.append('tea'))
    expect('call_later(5, tea) at second 100, then run_due()',
           called_at(clock, timers, (100.0, 104.9, 105.0, 106.0), called),
           {100.0: [], 104.9: [], 105.0: ['tea'], 106.0: []}, RUN)
    timers.call_later(5, lambda: called.append('cake'))
    expect('next_due() of other Timers', other.next_due(), None, HEAP)


def test_timers_run_in_the_order_of_their_due_times(exercise):
    clock, timers = make(exercise)
    called = []
    for delay in (5, 9, 3, 7, 1, 8, 2):
        timers.call_later(delay, lambda delay=delay: called.append(delay))
    expect('call_later(5), 9, 3, 7, 1, 8, 2, then next_due()', timers.next_due(), 1, HEAP)
    expect('... run_due() at seconds 3 and 20', called_at(clock, timers, (3.0, 20.0), called),
           {3.0: [1, 2, 3], 20.0: [5, 7, 8, 9]}, HEAP)


def test_of_those_due_at_the_same_time_the_one_made_first_runs_first(exercise):
    clock, timers = make(exercise)
    called = []
    for number in range(10):
        timers.call_later(2, lambda number=number: called.append(number))
    clock.now = 2.0
    timers.run_due()
    expect('10 times call_later(2, ...), then run_due() at second 2', called, list(range(10)), HEAP)


def test_what_a_callback_makes_waits_for_the_next_run(exercise):
    clock, timers = make(exercise)
    called = []

    def again():
        called.append(len(called))
        if len(called) < 5:  # so that a wrong answer ends too
            timers.call_later(0, again)

    timers.call_later(0, again)
    timers.run_due()
    expect('run_due(), with a callback that calls call_later(0, itself)', called, [0], RUN)
    timers.run_due()
    expect('... and run_due() once more', called, [0, 1], RUN)


def test_a_cancelled_timer_is_not_called_and_not_waited_for(exercise):
    clock, timers = make(exercise)
    called = []
    tea = timers.call_later(1, lambda: called.append('tea'))
    timers.call_later(4, lambda: called.append('cake'))
    tea.cancel()
    tea.cancel()
    expect('call_later(1), call_later(4), the first is cancelled; next_due()', timers.next_due(), 4, CANCEL)
    expect('... run_due() at seconds 2 and 4', called_at(clock, timers, (2.0, 4.0), called),
           {2.0: [], 4.0: ['cake']}, CANCEL)
    expect('... next_due() when all have run', timers.next_due(), None, CANCEL)


def test_a_timer_that_is_due_in_the_same_run_can_be_cancelled(exercise):
    clock, timers = make(exercise)
    called = []
    timers.call_later(1, lambda: (called.append('first'), second.cancel()))
    second = timers.call_later(1, lambda: called.append('second'))
    clock.now = 3.0
    timers.run_due()
    expect('run_due(), with two that are due, of which the first cancels the second', called, ['first'], CANCEL)


def test_repeats_do_not_drift(exercise):
    clock, timers = make(exercise)
    clock.now, called, due = 50.0, [], []
    timers.call_every(0.1, lambda: called.append(clock.now))
    for number in range(1, 1001):
        due.append(timers.next_due())
        clock.now = 50.0 + number * 0.1 + 0.03  # each run comes late
        timers.run_due()
    expect('call_every(0.1) at second 50, each run late: next_due() before the first three', due[:3],
           [50.0 + number * 0.1 for number in (1, 2, 3)], DRIFT)
    expect('... next_due() before call 1,000', due[-1], 50.0 + 1000 * 0.1, DRIFT)
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
    expect('... next_due()', timers.next_due(), None, CANCEL)


def test_a_repeating_timer_keeps_its_place(exercise):
    clock, timers = make(exercise)
    called = []
    timers.call_every(1, lambda: called.append('beat'))
    timers.call_later(2, lambda: called.append('tea'))
    expect('call_every(1, beat), call_later(2, tea), run_due() at seconds 1 and 2', called_at(
        clock, timers, (1.0, 2.0), called), {1.0: ['beat'], 2.0: ['beat', 'tea']}, HEAP)

"""Chapter 7's exercise: timers that can be cancelled, and that repeat without drift.

    python3 -m lessons check 7

No socket and no loop: `clock()` returns the seconds, `run_due()` is what the loop would call in each turn.

1. `call_later(delay, callback)`: `run_due` calls it once, as soon as the clock is at `delay` seconds from now or later.
2. Timers run in the order of their due times; of those that are due at the same time, the one made first runs first.
   A timer that a callback makes, even one with delay 0, waits for the next `run_due`.
3. `timer.cancel()`: it is never called again.  That holds for a timer that is due in the same `run_due` too.
4. `next_due()`: when the next timer is due that is not cancelled; None when there is none.
5. `call_every(interval, callback)`: call number n is due at start + n * interval (calculate it so; adding up rounds),
   however late the calls before it came (start: when `call_every` was called).  When `run_due` comes so late that
   several are due, the callback runs once for all of them; the next call is the first that is due later than now (now:
   when `run_due` began).  `interval` is above 0.
6. A repeating timer may cancel itself in its own callback.  It keeps its place among timers of the same due time.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class Timer:
    """What is to be called, and when.  Of two timers that are compared, the smaller one runs first."""
    due: float  # seconds, by the clock
    made_as: int = field(compare=False)  # counted from 0, in the order in which timers are made.  TODO: compare it too
    callback: Callable[[], None] = field(compare=False)
    start: float = field(default=0.0, compare=False)  # seconds; of a repeating timer
    interval: float = field(default=0.0, compare=False)  # seconds; 0: it does not repeat
    call_number: int = field(default=1, compare=False)  # of a repeating timer: which call it is that is due at `due`
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Never call it again."""
        # TODO


class Timers:
    """Timers on a clock; those that are due run when `run_due` is called."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.heap: list[Timer] = []  # TODO: and what counts the timers

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call it once, `delay` seconds from now."""
        return Timer(self.clock(), 0, callback)  # TODO

    def call_every(self, interval: float, callback: Callable[[], None]) -> Timer:
        """Call it every `interval` seconds, the first time one `interval` from now."""
        return Timer(self.clock(), 0, callback)  # TODO

    def next_due(self) -> float | None:
        """Return when the next timer is due, by the clock; None: there is none."""
        return -1.0  # TODO

    def run_due(self) -> None:
        """Run what is due now."""
        # TODO

"""Chapter 7's exercise, solved: timers that can be cancelled, and that repeat without drift.

    python3 -m lessons check 7 --file lessons/07_heartbeat/solution.py
"""
from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class Timer:
    """What is to be called, and when.  Of two timers that are compared, the smaller one runs first."""
    due: float  # seconds, by the clock
    made_as: int  # counted from 0, in the order in which timers are made
    callback: Callable[[], None] = field(compare=False)
    start: float = field(default=0.0, compare=False)  # seconds; of a repeating timer
    interval: float = field(default=0.0, compare=False)  # seconds; 0: it does not repeat
    call_number: int = field(default=1, compare=False)  # of a repeating timer: which call it is that is due at `due`
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Never call it again."""
        self.is_cancelled = True


class Timers:
    """Timers on a clock; those that are due run when `run_due` is called."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.heap: list[Timer] = []
        self._numbers = itertools.count()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call it once, `delay` seconds from now."""
        return self._push(Timer(self.clock() + delay, next(self._numbers), callback))

    def call_every(self, interval: float, callback: Callable[[], None]) -> Timer:
        """Call it every `interval` seconds, the first time one `interval` from now."""
        start = self.clock()
        return self._push(Timer(start + interval, next(self._numbers), callback, start, interval))

    def _push(self, timer: Timer) -> Timer:
        heapq.heappush(self.heap, timer)
        return timer

    def next_due(self) -> float | None:
        """Return when the next timer is due, by the clock; None: there is none."""
        while self.heap and self.heap[0].is_cancelled:
            heapq.heappop(self.heap)
        return self.heap[0].due if self.heap else None

    def run_due(self) -> None:
        """Run what is due now."""
        now, due = self.clock(), []
        while self.heap and self.heap[0].due <= now:
            due.append(heapq.heappop(self.heap))
        for timer in due:  # all are taken out before the first runs: what a callback makes is not among them
            if not timer.is_cancelled:
                timer.callback()
                self._repeat(timer, now)

    def _repeat(self, timer: Timer, now: float) -> None:
        if timer.interval:
            while timer.due <= now:  # from the start each time: adding to `due` would add up what rounding loses
                timer.call_number += 1
                timer.due = timer.start + timer.call_number * timer.interval
            self._push(timer)

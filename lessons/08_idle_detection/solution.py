"""Chapter 8's exercise, solved: idle in both directions, and what to do when the clock leaps.

    python3 -m lessons check 8 --file lessons/08_idle_detection/solution.py
"""
from __future__ import annotations

from typing import Any

from .handlers import Handler

ALL_IDLE = 'all idle'  # user event: nothing was read or written for so long
LATE = 1.0  # seconds that a timer may be late in a loop that is only busy


class AllIdleHandler(Handler):
    """Tells of silence in both directions; not of silence that nobody could have listened to."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def channel_active(self) -> None:
        self._note_life()
        self._arm(self.seconds)
        super().channel_active()

    def channel_read(self, message: Any) -> None:
        self._note_life()
        super().channel_read(message)

    def write(self, message: Any) -> None:
        self._note_life()
        super().write(message)

    def channel_inactive(self) -> None:
        self._timer.cancel()
        super().channel_inactive()

    def look(self) -> None:
        """The timer has fired: judge the silence, and arm it again."""
        now = self.channel.loop.time()
        if now - self._timer.due > LATE:  # in this time nobody listened
            self._note_life()
        left = self._last + self.seconds - now
        self._arm(left if left > 0 else self.seconds)
        if left <= 0:
            super().user_event(ALL_IDLE)

    def _note_life(self) -> None:
        self._last = self.channel.loop.time()

    def _arm(self, delay: float) -> None:
        self._timer = self.channel.loop.call_later(delay, self.look)

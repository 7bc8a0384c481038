"""Chapter 8's exercise: idle in both directions, and what to do when the clock leaps.

    python3 -m lessons check 8

1. `AllIdleHandler(seconds)` stands in a chain.  When nothing was read and nothing was written for `seconds`, it tells
   the links behind it: user event ALL_IDLE.  It tells them again after each further `seconds` of silence.
2. What passes it is handed on as it is, in both directions.
3. One timer, re-armed lazily: a read or a write stores the time and touches no timer.  `channel_active` arms the timer,
   `channel_inactive` cancels it.  Arm first, then tell: who is told may close the channel.
4. A look that comes more than LATE seconds after the moment it was armed for shows that the loop did not run: the
   process was stopped, the machine slept, or the clock leapt.  Then nobody is told; silence is counted anew from now.
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
        # TODO: note the time, arm the timer: self.channel.loop.time(), self.channel.loop.call_later(...)
        super().channel_active()

    def channel_read(self, message: Any) -> None:
        super().channel_read(message)  # TODO

    def write(self, message: Any) -> None:
        super().write(message)  # TODO

    def channel_inactive(self) -> None:
        super().channel_inactive()  # TODO

    def look(self) -> None:
        """The timer has fired: judge the silence, and arm it again."""
        # TODO: whom it tells, it tells by super().user_event(ALL_IDLE)

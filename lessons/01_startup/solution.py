"""Chapter 1, solution: one turn of a loop, when to come back, and when to ask for room.

    python3 -m lessons check 1 --file lessons/01_startup/solution.py
"""
from __future__ import annotations

from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE

LAST_DELAY = 30.0  # seconds


def turn(ready: list[tuple[str, int]], callbacks: dict[str, Callable[[int], None]]) -> None:
    """Call the callback of each name that is ready, with its mask."""
    for name, mask in ready:
        if name in callbacks:  # else it was unregistered earlier in this turn, and the event is stale
            callbacks[name](mask)


def backoff(failures: int, rand: Callable[[], float]) -> float:
    """Return how many seconds to wait, `failures` attempts having failed before."""
    return rand() * min(LAST_DELAY, 2 ** min(failures, 5))  # 2 ** 5 is above it; more would only be a longer number


class Outgoing:
    """What one connection has yet to send."""

    def __init__(self, send: Callable[[bytes], int]) -> None:
        self.send = send
        self.unsent = b''

    @property
    def wanted(self) -> int:
        """The events to register the socket for."""
        return EVENT_READ | EVENT_WRITE if self.unsent else EVENT_READ

    def write(self, data: bytes) -> None:
        """Send `data` after all that was written before it."""
        self.unsent += data
        self.on_writable()

    def on_writable(self) -> None:
        """The selector says that there is room."""
        try:
            sent = self.send(self.unsent)
        except BlockingIOError:
            return
        self.unsent = self.unsent[sent:]

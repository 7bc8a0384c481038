"""Chapter 1, exercise: one turn of a loop, when to come back, and when to ask for room.

    python3 -m lessons check 1

1. `turn`: deal with what is ready.  `ready` is what `select` returned, here pairs of a name, which stands for a socket,
   and a mask.  `callbacks` holds the callback of each name that is registered.  Call that of each name in `ready`, in
   this order, with its mask.  Each call may change `callbacks`: a name may have a new callback when its time comes, or
   none, and then it is passed over.
2. `backoff`: how many seconds to wait before the next attempt to connect.  The bound is 1 second when no attempt
   has failed before, and doubles with each one that has: 1, 2, 4, ...  It never exceeds LAST_DELAY, also after a
   night of failures.
3. The wait is `rand()` times the bound.  `rand` is a function like `random.random`: a new number from 0 to 1 each time.
4. `Outgoing.wanted`: what the socket has to be registered for now.  Always EVENT_READ; EVENT_WRITE with it only while
   something waits.  What waits needs a place, which `__init__` makes.
5. `Outgoing.write`: keep the bytes, behind those that still wait, and send what the kernel takes.
6. `Outgoing.on_writable`: there is room again, so send what the kernel takes of what waits.  If 5 calls 6, write both
   before you check.

`send` is a function like `socket.send`: it is given bytes and returns how many of them, from the first one on, the
kernel took; when it takes none, it raises BlockingIOError.  Let any other exception pass: to
close is the channel's business, as in its `flush`.
"""
from __future__ import annotations

from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE

LAST_DELAY = 30.0  # seconds


def turn(ready: list[tuple[str, int]], callbacks: dict[str, Callable[[int], None]]) -> None:
    """Call the callback of each name that is ready, with its mask."""
    # TODO: step 1


def backoff(failures: int, rand: Callable[[], float]) -> float:
    """Return how many seconds to wait, `failures` attempts having failed before."""
    return 0.0  # TODO: steps 2 and 3


class Outgoing:
    """What one connection has yet to send."""

    def __init__(self, send: Callable[[bytes], int]) -> None:
        self.send = send
        # TODO: step 4, a place for what waits

    @property
    def wanted(self) -> int:
        """The events to register the socket for."""
        return 0  # TODO: step 4, with EVENT_READ and EVENT_WRITE

    def write(self, data: bytes) -> None:
        """Send `data` after all that was written before it."""
        # TODO: step 5

    def on_writable(self) -> None:
        """The selector says that there is room."""
        # TODO: step 6

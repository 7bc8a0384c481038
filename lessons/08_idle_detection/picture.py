"""Chapter 8's picture: the life of an idle connection, second by second; and what the lazy timer saves.

    python3 -m lessons.08_idle_detection.picture

The handler and the loop are the real ones; the clock is moved by hand, the connection is a link without a socket.
"""
from __future__ import annotations

from .handlers import READER_IDLE, Handler, IdleStateHandler, link
from .server import EventLoop

LIMIT, READS, END = 15, (0, 4, 9), 24  # seconds


class Watched(IdleStateHandler):
    """Stands between a connection and a last link; counts how often a timer is armed, notes when it looks."""

    def __init__(self) -> None:
        super().__init__(reader=LIMIT)
        self.now, self.pushes, self.looks, connection, self.end = 0, 0, [], Handler(), End()
        self.loop = connection.loop = EventLoop(clock=lambda: self.now)
        connection.channel = connection
        link(connection, self, self.end)
        self.channel_active()

    def arm(self, event: str, delay: float) -> None:
        self.pushes += 1
        super().arm(event, delay)

    def look(self, event: str) -> None:
        self.looks.append(self.now)
        super().look(event)


class Eager(Watched):
    """Not lazy: each read cancels the timer and arms another."""

    def channel_read(self, data: bytes) -> None:
        super().channel_read(data)
        self.timers[READER_IDLE].cancel()
        self.arm(READER_IDLE, LIMIT)


class End(Handler):
    told = ''

    def channel_active(self) -> None: pass
    def channel_read(self, message: object) -> None: pass
    def user_event(self, event: str) -> None: self.told = '!'


def cost(kind: type[Watched], reads: int = 10_000) -> tuple[int, int]:
    """Return (timers pushed, timers in the heap) after so many reads, one each millisecond."""
    watched = kind()
    for number in range(reads):
        watched.now = number / 1000
        watched.channel_read(b'')
    return watched.pushes, len(watched.loop.timers)


def draw() -> None:
    watched, seconds = Watched(), []
    for watched.now in range(END + 1):
        if watched.now in READS:
            watched.channel_read(b'')
        watched.loop.run_timers()
        seconds.append((watched.now, 'r' * (watched.now in READS), watched.now - watched.last[READER_IDLE],
                        watched.timers[READER_IDLE].due, 'L' * (watched.now in watched.looks), watched.end.told))
    names = 'second', 'read', 'silent for', 'armed for', 'timer looks', 'tells'
    for name, values in zip(names, zip(*seconds)):
        for title, digits in zip(('', name), zip(*(f'{value:>2}' for value in values))):  # the tens above the units
            if line := ' '.join((f'{title:12}', *digits)).rstrip():
                print(line)


if __name__ == '__main__':
    draw()
    for what, kind in ('stores the time', Watched), ('arms a timer', Eager):
        print('10,000 reads, each {}: {:,} pushed, {:,} in the heap'.format(what, *cost(kind)))

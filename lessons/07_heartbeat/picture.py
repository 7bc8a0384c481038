"""Chapter 7's picture: the heap of a real EventLoop, whose clock is moved by hand; and what a heap saves.

    python3 -m lessons.07_heartbeat.picture
"""
from __future__ import annotations

import heapq

from .server import MAX_WAIT, EventLoop, Timer

WIDTH = 56  # columns of the tree


def draw(loop: EventLoop, label: dict[int, str]) -> None:
    """Print the heap as a tree: below the timer at index i hang those at 2i + 1 and 2i + 2."""
    labels = [label[id(timer)] for timer in loop.timers]
    room = 1  # for so many timers on the level
    while labels:
        level, labels = labels[:room], labels[room:]
        print(''.join(text.center(WIDTH // room) for text in level).rstrip())
        room *= 2
        cell = WIDTH // room
        edges = '/'.rjust(cell * 3 // 4).ljust(cell) + '\\'.rjust(cell // 4).ljust(cell)
        print((edges * (room // 2))[:cell * len(labels)].rstrip(), end='\n' * bool(labels))


def show_a_life() -> None:
    now, called, label = 0.0, [], {}
    loop = EventLoop(clock=lambda: now)

    def later(delay: float) -> Timer:
        timer = loop.call_later(delay, lambda: called.append(delay))
        label[id(timer)] = f'{delay} s'
        return timer

    made = {delay: later(delay) for delay in (5, 9, 3, 7, 0.5, 8, 2)}
    print(f'second 0: call_later(5), 9, 3, 7, 0.5, 8, 2; select may sleep for {loop.wait_time():g} s')
    draw(loop, label)
    made[3].cancel()
    label[id(made[3])] = '(3 s)'
    print('\nthe timer of second 3 is cancelled; it stays where it is')
    draw(loop, label)
    for now in (2.25, 3.0):  # this moves the loop's clock
        called.clear()
        loop.run_timers()
        why = ', by MAX_WAIT' * (loop.wait_time() == MAX_WAIT)
        print(f'\nsecond {now:g}: run_timers() calls {called}; select may sleep for {loop.wait_time():g} s{why}')
        draw(loop, label)


class Counted(Timer):
    """A timer that counts how often timers are compared."""
    count = 0

    def __lt__(self, other: Timer) -> bool:
        Counted.count += 1
        return self.due < other.due


def comparisons(way: str, timers: int = 10_000) -> int:
    """Return how many it takes to add a timer to so many, and to take out (a scan: to find) the first."""
    heap = [Counted(float(due), print) for due in range(timers)]  # a sorted list is a heap too
    last, Counted.count = Counted(timers / 2 + 0.5, print), 0
    if way == 'heap':
        heapq.heappush(heap, last)
        heapq.heappop(heap)
    elif way == 'sort':
        sorted([*heap, last])
    else:
        min([*heap, last])
    return Counted.count


if __name__ == '__main__':
    show_a_life()
    print('\n10,000 timers, to add one and to take out the first; comparisons:')
    sort = comparisons('sort') // 1000 * 1000  # a few more or less, as the version of Python has it
    print(f"heap {comparisons('heap')}, sort more than {sort:,}, scan {comparisons('scan'):,}")

"""Chapter 11, measured: what it costs to have messages on disk, with and without waiting for the disk.

    python3 -m lessons.11_durable_delivery.commits

The file is made in the folder of the project, and deleted: what is measured is the disk that you work on.
"""
from __future__ import annotations

import tempfile
import time

from store import Entry, Kind, Store

from .see_it_fail import ROOT

COMMITS, MANY = 50, 100  # ticks, and the messages of one of them
ROUNDS = 3  # the best one counts


def cost(path: str, durability: str, messages: int) -> float:
    """Return the microseconds that one of so many messages a tick costs."""
    store, best = Store(path, durability), float('inf')
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(COMMITS):
            for _ in range(messages):
                store.append(Entry(Kind.MESSAGE, 'alice bob', 'alice', 'tea?', None, 0), lambda is_durable: None)
            store.commit()
        best = min(best, time.perf_counter() - start)
    store.close()
    return best / COMMITS / messages * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory(prefix='chat.db-', dir=ROOT) as folder:
        costs = {(durability, messages): cost(f'{folder}/{durability}-{messages}.db', durability, messages)
                 for messages in (1, MANY) for durability in ('normal', 'full')}
    for (durability, messages), microseconds in costs.items():
        print(f'{messages} a commit, synchronous={durability}: {microseconds:.1f} us a message')
    print(f'FULL, one at a time: {costs["full", 1] / costs["normal", 1]:.1f} times as long as NORMAL')
    print(f'FULL, {MANY} at a time instead of one: {costs["full", 1] / costs["full", MANY]:.1f} times as many messages')


if __name__ == '__main__':
    main()

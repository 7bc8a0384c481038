"""Chapter 1, what goes wrong: a server that waits for one client, and a wish that is always granted.

    python3 -m lessons.01_startup.see_it_fail
"""
from __future__ import annotations

import selectors
import socket
import threading
import time
from selectors import EVENT_READ, EVENT_WRITE

PATIENCE = 0.5  # seconds that the second client waits for an answer
IDLE_TIME = 0.3  # seconds that a connection is watched
MANY = 1000
NAIVE_INTEREST = EVENT_READ | EVENT_WRITE  # for ever


def naive_server(listener: socket.socket) -> None:
    """Serve two clients, one after the other."""
    for _ in range(2):
        sock, address = listener.accept()
        with sock:
            while data := sock.recv(1024):  # waits, for this client alone
                sock.sendall(data)


def let_the_second_wait(address: tuple[str, int]) -> None:
    first = socket.create_connection(address)
    print('first client: connected, says nothing')
    with socket.create_connection(address) as second:
        second.sendall(b'hello')
        print('second client: connected, sent 5 bytes')
        second.settimeout(PATIENCE)
        try:
            second.recv(1024)
        except TimeoutError:
            print(f'second client: no answer for {PATIENCE} s')
        first.close()
        print('first client: left')
        begin = time.monotonic()
        data = second.recv(1024)
        print(f'second client: {len(data)} bytes came back {(time.monotonic() - begin) * 1000:.2f} ms later')


def show_who_waits() -> None:
    print('-- a server that serves one client after the other')
    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=naive_server, args=(listener,), daemon=True)
        thread.start()
        let_the_second_wait(listener.getsockname())
        thread.join()


def watch(events: int) -> tuple[int, float]:
    """Watch a connection on which nothing happens.

    Return how often select said that it is ready, and for how many seconds the processor was busy.
    """
    here, there = socket.socketpair()  # two sockets, connected to each other
    with here, there, selectors.DefaultSelector() as selector:
        selector.register(here, events)
        count, begin, end = 0, time.process_time(), time.monotonic() + IDLE_TIME
        while (left := end - time.monotonic()) > 0:
            if selector.select(left):  # sleeps for `left` seconds at most
                count += 1
        return count, time.process_time() - begin


def show_what_it_costs() -> None:
    print(f'-- a connection on which nothing happens for {IDLE_TIME} s')
    for name, events in ('EVENT_READ | EVENT_WRITE', NAIVE_INTEREST), ('EVENT_READ', EVENT_READ):
        count, busy = watch(events)
        often = f'over {MANY}' if count > MANY else str(count)
        print(f'{name}: ready {often} times, the processor was busy for {busy:.2f} s')


if __name__ == '__main__':
    show_who_waits()
    show_what_it_costs()

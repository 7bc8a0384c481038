"""Chapter 8: a server that lets go of who is silent for too long.

    python3 -m lessons.08_idle_detection.server
    python3 -m lessons.08_idle_detection.server --idle 2        after 2 seconds instead of 15

A chat room with names.
"""
from __future__ import annotations

import argparse
import heapq
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from selectors import EVENT_READ, EVENT_WRITE

from protocol import ByteBuf

from .handlers import FrameHandler, Handler, HeartbeatAnswer, IdleStateHandler, Login, PacketHandler, Tail, link

MAX_WAIT = 1.0  # seconds that a select sleeps at most: on Windows a Ctrl-C is noticed only when it ends
READ_SIZE = 65_536  # bytes that one receive takes at most
SEND_SIZE = 65_536  # bytes that one send is offered at most


@dataclass(order=True)
class Timer:
    """What is to be called, and when."""
    due: float  # seconds, by the loop's clock
    callback: Callable[[], None] = field(compare=False)

    def cancel(self) -> None:
        self.callback = lambda: None  # it stays in the heap until its time: to find it there would take longer


class EventLoop:
    """Sleeps until a socket is ready or a timer is due, then calls the function that belongs to it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.time = clock  # seconds; a clock that is never set back
        self.selector = selectors.DefaultSelector()
        self.timers: list[Timer] = []  # a heap: the next one stands first
        self.is_running = True
        self.written: list[Channel] = []  # those that send at the end of this turn

    def register(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(mask)` in every turn in which one of `events` is there; 0: no longer."""
        if not events:
            self.selector.unregister(sock)
        elif sock in self.selector.get_map():
            self.selector.modify(sock, events, callback)
        else:
            self.selector.register(sock, events, callback)

    def run(self) -> None:
        while self.is_running:
            for key, mask in self.selector.select(self.wait_time()):
                key.data(mask)
            self.run_timers()
            written, self.written = self.written, []
            for channel in written:
                channel.flush()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call it once, `delay` seconds from now."""
        timer = Timer(self.time() + delay, callback)
        heapq.heappush(self.timers, timer)
        return timer

    def wait_time(self) -> float:
        """Return for how long to sleep: until the next timer, and MAX_WAIT at most."""
        return max(0.0, min(MAX_WAIT, self.timers[0].due - self.time())) if self.timers else MAX_WAIT

    def run_timers(self) -> None:
        now = self.time()
        while self.timers and self.timers[0].due <= now:
            heapq.heappop(self.timers).callback()

    def stop(self) -> None:
        self.is_running = False


class Channel(Handler):
    """One connection: its nonblocking socket, a buffer for what is to be sent.  It is the first link of its chain."""

    def __init__(self, loop: EventLoop, sock: socket.socket, *handlers: Handler) -> None:
        sock.setblocking(False)
        self.loop, self.socket, self.channel = loop, sock, self
        self.is_open = True
        self.write_buffer = ByteBuf()
        loop.register(sock, EVENT_READ, self.on_ready)
        link(self, *handlers, Tail())
        self.channel_active()

    def on_ready(self, mask: int) -> None:
        if mask & EVENT_WRITE and self.is_open:  # closed earlier in this turn: then the event is stale
            self.flush()
        if mask & EVENT_READ and self.is_open:
            self.receive()

    def receive(self) -> None:
        try:
            data = self.socket.recv(READ_SIZE)
        except BlockingIOError:  # readiness is a hint: the data may be gone again
            return
        except OSError:  # a reset: the peer is gone without a goodbye
            data = b''
        if data:
            try:
                self.channel_read(data)
            except Exception as error:  # whichever: it ends this connection, not the server
                self.exception_caught(error)
        else:
            self.close()

    def write(self, data: bytes) -> None:
        if not self.write_buffer.readable_bytes:
            self.loop.written.append(self)
        self.write_buffer.write_bytes(data)

    def flush(self) -> None:
        """Send what the kernel takes, and ask to be told of more room only while something is left."""
        buffer = self.write_buffer
        if not self.is_open:
            return
        try:
            sent = self.socket.send(buffer.get_bytes(buffer.reader_index, min(buffer.readable_bytes, SEND_SIZE)))
        except BlockingIOError:  # no room at all
            sent = 0
        except OSError:
            self.close()
            return
        buffer.reader_index += sent
        buffer.discard_read_bytes()
        self.loop.register(self.socket, EVENT_READ | (EVENT_WRITE if buffer.readable_bytes else 0), self.on_ready)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.loop.register(self.socket, 0, self.on_ready)
            self.socket.close()
            self.channel_inactive()


class Listener:
    """The socket that clients call at.  Raises OSError when the port cannot be had."""

    def __init__(self, loop: EventLoop, port: int, on_accept: Callable[[socket.socket], None]) -> None:
        self.on_accept = on_accept
        self.socket = socket.create_server(('127.0.0.1', port))  # chapter 1's steps in one call
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        loop.register(self.socket, EVENT_READ, self.on_ready)

    def on_ready(self, mask: int) -> None:
        try:
            sock, _ = self.socket.accept()
        except OSError:  # the caller is gone again
            return
        self.on_accept(sock)


def main() -> None:
    parser = argparse.ArgumentParser(description='a chat room')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--idle', type=float, default=15, help='seconds of silence that end a connection')
    options = parser.parse_args()
    if options.idle < 0:
        parser.error('--idle cannot be negative')
    loop, members = EventLoop(), []
    try:
        listener = Listener(loop, options.port, lambda sock: Channel(
            loop, sock, IdleStateHandler(reader=options.idle), FrameHandler(), PacketHandler(), HeartbeatAnswer(),
            Login(members)))
    except OSError as error:
        sys.exit(f'cannot listen: {error.strerror}')
    print(f'listening on 127.0.0.1:{listener.port}', flush=True)
    try:
        loop.run()
    except KeyboardInterrupt:
        print('stopped')


if __name__ == '__main__':
    main()

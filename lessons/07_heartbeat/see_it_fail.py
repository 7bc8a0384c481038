"""Chapter 7, the wrong version first: one handler sleeps in the loop, and everyone waits with it.

    python3 -m lessons.07_heartbeat.see_it_fail

A real server of this chapter runs in a thread; alice and bob are plain sockets that block.  A message that begins
with "later" is to be said a second later.
"""
from __future__ import annotations

import contextlib
import io
import socket
import threading
import time

from protocol import FrameDecoder, LoginRequest, MessageRequest, Packet, decode, encode

from .handlers import FrameHandler, Handler, Login, PacketHandler
from .server import Channel, EventLoop, Listener

HAS_BEGUN = threading.Event()  # set by a reminder that was asked for


class NaiveReminder(Handler):
    """Wrong: while it sleeps the loop does nothing, for nobody."""

    def channel_read(self, packet: Packet) -> None:
        if is_for_later(packet):
            time.sleep(1)
        super().channel_read(packet)


class Reminder(Handler):
    """Right: it says when it wants to be called, and returns."""

    def channel_read(self, packet: Packet) -> None:
        hand_on = super().channel_read
        if is_for_later(packet):
            self.channel.loop.call_later(1, lambda: hand_on(packet))
        else:
            hand_on(packet)


def is_for_later(packet: Packet) -> bool:
    if isinstance(packet, MessageRequest) and packet.message.startswith('later'):
        HAS_BEGUN.set()
        return True
    return False


def enter(port: int, name: str) -> socket.socket:
    sock = socket.create_connection(('127.0.0.1', port))
    sock.sendall(encode(LoginRequest(user_name=name), 1))
    sock.recv(1024)  # the answer: from now on this one is in the room
    return sock


def say(sock: socket.socket, text: str) -> None:
    sock.sendall(encode(MessageRequest(to_user_id='all', message=text), 1))


def waits(reminder: type[Handler]) -> dict[str, float]:
    """Return how long bob waits for his own hello, and for what alice wanted to be said later."""
    HAS_BEGUN.clear()
    loop, members, waited, decoder = EventLoop(), [], {}, FrameDecoder()
    listener = Listener(loop, 0, lambda sock: Channel(
        loop, sock, FrameHandler(), PacketHandler(), reminder(), Login(members)))
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    alice, bob = enter(listener.port, 'alice'), enter(listener.port, 'bob')
    say(alice, 'later: tea')
    HAS_BEGUN.wait()
    start = time.monotonic()
    say(bob, 'hello')
    while len(waited) < 2:
        decoder.feed(bob.recv(1024))
        waited |= {decode(frame).message: time.monotonic() - start for frame in decoder}
    loop.stop()
    for guest in alice, bob:
        guest.close()  # this wakes the loop
    thread.join()
    for key in list(loop.selector.get_map().values()):
        key.fileobj.close()
    return waited


def main() -> None:
    for reminder in NaiveReminder, Reminder:
        with contextlib.redirect_stdout(io.StringIO()):  # what the room prints
            waited = waits(reminder)
        print(f'{reminder.__name__}: alice has something said later, then bob says hello')
        print(f'  later: tea  reaches bob after {waited["later: tea"]:.2f} s')
        print(f'  hello       reaches bob after {waited["hello"]:.2f} s{": frozen" * (waited["hello"] > 0.5)}')


if __name__ == '__main__':
    main()

"""Chapter 2, wrong: a buffer made of `bytes` and slices, and a channel that sends at each write.

    python3 -m lessons.02_bytebuf.see_it_fail
"""
import socket
import time
from importlib import import_module

from protocol import ByteBuf

PIECE = b'x' * 256
SIZES = (262_144, 524_288, 1_048_576)  # bytes
ROUNDS = 3  # the best one counts: a busy machine makes the others longer
ANSWERS = 100  # lines in one turn


class NaiveBuffer:
    """Wrong, as `unsent` in chapter 1: `bytes` cannot change, so each write and each read copies all that it holds."""

    def __init__(self) -> None:
        self.data = b''
        self.copied = 0  # bytes

    def write_bytes(self, piece: bytes) -> None:
        self.data = self.data + piece
        self.copied += len(self.data)

    def read_bytes(self, count: int) -> bytes:
        piece, self.data = self.data[:count], self.data[count:]
        self.copied += len(piece) + len(self.data)
        return piece


class CountedBuf(ByteBuf):
    """A ByteBuf that counts, too: a growth in full, as if all that the buffer holds had to move for it."""
    copied = 0  # bytes

    def write_bytes(self, data: bytes) -> None:
        before = self.capacity
        super().write_bytes(data)
        self.copied += len(data) + (before if self.capacity > before else 0)

    def read_bytes(self, count: int) -> bytes:
        self.copied += count
        return super().read_bytes(count)


def carry(kind: type, size: int) -> tuple[float, int]:
    """Write `size` bytes in pieces, then read them in pieces; return the seconds and the bytes that were copied."""
    buffer, start = kind(), time.perf_counter()
    for _ in range(size // len(PIECE)):
        buffer.write_bytes(PIECE)
    for _ in range(size // len(PIECE)):
        buffer.read_bytes(len(PIECE))
    return time.perf_counter() - start, buffer.copied


def show_carrying(kind: type) -> None:
    print(f'{kind.__name__}, {len(PIECE)} bytes at a time:')
    before = None
    for size in SIZES:
        seconds, copied = min(carry(kind, size) for _ in range(ROUNDS))
        growth = f', {seconds / before:.1f} times as long' if before else ''
        print(f'  {size:>9,} bytes: {copied:>13,} copied, {seconds:.3f} s{growth}')
        before = seconds


class CountingSocket(socket.socket):
    sends = 0

    def send(self, data: bytes) -> int:
        self.sends += 1
        return super().send(data)


class Answerer:  # a handler that answers whatever comes, and lets this turn of the loop be the last
    channel_active = channel_inactive = lambda self: None

    def channel_read(self, arrived: object) -> None:
        for number in range(ANSWERS):
            self.channel.write(b'line %d\n' % number)
        self.channel.loop.stop()


def show_sends(chapter: str) -> None:
    server = import_module(f'lessons.{chapter}.server')
    peer, ours = socket.socketpair()
    loop = server.EventLoop()
    with peer, CountingSocket(fileno=ours.detach()) as counting, loop.selector:
        server.Channel(loop, counting, Answerer())
        peer.send(b'go\n')
        loop.run()
        print(f'{chapter}: {ANSWERS} lines in one turn, calls of send: {counting.sends}')


if __name__ == '__main__':
    show_carrying(NaiveBuffer)
    show_carrying(CountedBuf)
    show_sends('01_startup')
    show_sends('02_bytebuf')

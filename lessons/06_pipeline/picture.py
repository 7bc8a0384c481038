"""Chapter 6: a real chain, what each of its links is called with, and what a login changes in it.

    python3 -m lessons.06_pipeline.picture
"""
from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator
from typing import Any

from protocol import LoginRequest, MessageRequest, Packet, encode

from .handlers import VERSION, FrameHandler, Handler, Login, PacketHandler, Tail
from .server import Channel, EventLoop

NAME, CELL = 15, 22  # columns
CUT = 20  # bytes of a frame that arrive first; then the rest


def walk(link: Handler) -> Iterator[Handler]:
    """From the socket to the end, along the links."""
    yield link
    while not isinstance(link, Tail):
        link = link.next
        yield link


def spy(handler: Handler, event: str) -> list[str]:
    """Return a list that will hold each message that `event` is called with."""
    seen, call = [], getattr(handler, event)

    def noting(message: Any) -> None:
        seen.append(f'{len(message)} bytes' if isinstance(message, bytes) else type(message).__name__)
        call(message)
    setattr(handler, event, noting)
    return seen


def arrive(peer: socket.socket, channel: Channel, packet: Packet) -> None:
    """Let a packet arrive in two pieces."""
    frame = encode(packet, VERSION)
    for piece in frame[:CUT], frame[CUT:]:
        peer.sendall(piece)
        for key, mask in channel.loop.selector.select():  # as the loop does it
            key.data(mask)


def draw(peer: socket.socket, channel: Channel, packet: Packet) -> None:
    rows = [(handler, spy(handler, 'channel_read'), spy(handler, 'write')) for handler in walk(channel)]
    with contextlib.redirect_stdout(io.StringIO()):  # what the server says is not wanted here
        arrive(peer, channel, packet)
    print(f'{type(packet).__name__} arrives in two pieces')
    print(f'{"":{NAME}}  {"inbound":{CELL}}  outbound\n{"socket":{NAME}}| {"":{CELL}}^')
    for handler, inbound, outbound in rows:
        down, up = 'v' if inbound else ' ', '|' if outbound else ' '
        row = f'{type(handler).__name__:{NAME}}{down} {", ".join(inbound):{CELL}}{up} {", ".join(outbound)}'
        print(row.rstrip())
        del handler.channel_read, handler.write  # the spies: the methods of the class are there again
    print()


def main() -> None:
    loop, (ours, theirs), login = EventLoop(), socket.socketpair(), Login([])
    with ours, theirs:
        channel = Channel(loop, ours, FrameHandler(), PacketHandler(), login)
        draw(theirs, channel, LoginRequest(user_name='alice'))
        draw(theirs, channel, MessageRequest(to_user_id='all', message='hi'))
        print('the Login that was replaced still has its links:')
        print(f'  {type(login.previous).__name__} <- Login -> {type(login.next).__name__}')
    loop.selector.close()


if __name__ == '__main__':
    main()

"""Chapter 7: what every chain is made of, and the links that may stand in it; those of the heartbeat are new.

      socket --> channel -> frames -> packets -> ... -> tail     inbound: channel_active, channel_read, ...
      socket <-- channel <- frames <- packets <- ...             outbound: write, close
"""
from __future__ import annotations

import traceback
from typing import Any

from protocol import (BadPacket, FrameDecoder, HeartbeatRequest, HeartbeatResponse, LoginRequest, LoginResponse,
                      MessageRequest, MessageResponse, Packet, ProtocolError, decode, encode)

VERSION = 1


class Handler:
    """One link of a chain: override the events that you care for, and hand on what is not yours by `super()`."""
    channel: Any  # the connection: the first link of the chain
    previous: Handler  # the link towards the socket
    next: Handler  # the link away from it

    def channel_active(self) -> None: self.next.channel_active()
    def channel_read(self, message: Any) -> None: self.next.channel_read(message)
    def channel_inactive(self) -> None: self.next.channel_inactive()
    def exception_caught(self, error: Exception) -> None: self.next.exception_caught(error)
    def write(self, message: Any) -> None: self.previous.write(message)
    def close(self) -> None: self.previous.close()

    def replace(self, *new: Handler) -> None:
        """Put `new` in the place of this one; nothing: remove it.  It keeps its own links: what it is doing goes on."""
        link(self.previous, *new, self.next)


def link(*handlers: Handler) -> None:
    """Make neighbours of each two that stand side by side."""
    for left, right in zip(handlers, handlers[1:]):
        left.next, right.previous, right.channel = right, left, left.channel


class Tail(Handler):
    """The last link: what no handler cared for."""

    def channel_active(self) -> None: pass
    def channel_inactive(self) -> None: pass

    def channel_read(self, message: Any) -> None:
        print(f'nobody handles {message}', flush=True)

    def exception_caught(self, error: Exception) -> None:
        if not isinstance(error, (ProtocolError, BadPacket)):  # not the peer's mistake but a bug of ours
            traceback.print_exception(error)
        print(f'closing: {error}', flush=True)
        self.channel.close()


class FrameHandler(Handler):
    """Bytes to frames."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()

    def channel_read(self, data: bytes) -> None:
        self.decoder.feed(data)
        for frame in self.decoder:
            if self.channel.is_open:  # the frame before may have closed it
                super().channel_read(frame)


class PacketHandler(Handler):
    """Frames to packets, and packets to frames."""

    def channel_read(self, frame: bytes) -> None:
        super().channel_read(decode(frame))

    def write(self, packet: Packet) -> None:
        super().write(encode(packet, VERSION))


class HeartbeatAnswer(Handler):
    """The server's side: answers each heartbeat, logged in or not."""

    def channel_read(self, packet: Packet) -> None:
        if isinstance(packet, HeartbeatRequest):
            self.write(HeartbeatResponse())
        else:
            super().channel_read(packet)


class Heartbeat(Handler):
    """The client's side: sends one every `seconds`, as long as the connection is there."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def channel_active(self) -> None:
        self.timer = self.channel.loop.call_later(self.seconds, self.beat)
        super().channel_active()

    def beat(self) -> None:
        print('heartbeat', flush=True)
        self.write(HeartbeatRequest())
        self.timer = self.channel.loop.call_later(self.seconds, self.beat)

    def channel_read(self, packet: Packet) -> None:
        if isinstance(packet, HeartbeatResponse):
            print('heartbeat answered', flush=True)
        else:
            super().channel_read(packet)

    def channel_inactive(self) -> None:
        self.timer.cancel()
        super().channel_inactive()


class Login(Handler):
    """Lets nothing pass but a login; then a Member takes its place."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    def channel_read(self, packet: Packet) -> None:
        if isinstance(packet, LoginRequest):
            name = packet.user_name
            self.replace(Member(self.members, name))
            self.write(LoginResponse(success=True, user_name=name, user_id=name))


class Member(Handler):
    """Somebody in the room."""

    def __init__(self, members: list[Member], name: str) -> None:
        self.members, self.name = members, name
        self.members.append(self)
        print(f'{self.name} joined', flush=True)

    def channel_read(self, packet: Packet) -> None:
        if isinstance(packet, MessageRequest):
            self.on_message(packet)
        else:
            super().channel_read(packet)

    def on_message(self, packet: MessageRequest) -> None:
        message = MessageResponse(from_user_id=self.name, from_user_name=self.name, message=packet.message)
        for member in self.members:
            member.write(message)

    def channel_inactive(self) -> None:
        self.members.remove(self)
        print(f'{self.name} left', flush=True)
        super().channel_inactive()

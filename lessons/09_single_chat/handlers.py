"""The links of the chains, on `reactor`.

      idle -> FrameHandler -> PacketHandler -> Login or Session     the server's: nobody is logged in, or somebody is
      idle -> FrameHandler -> PacketHandler -> Heartbeat -> User    the client's; the last two are in client.py
"""
from __future__ import annotations

from collections import namedtuple
from collections.abc import Collection
from typing import Any

import protocol
from protocol import BadPacket, Command, Packet, ProtocolError
from reactor import READER_IDLE, Handler

VERSION = 1
Entry = namedtuple('Entry', 'stream sender text')  # what was said: to whom, by whom


class FrameHandler(Handler):
    """Bytes to frames."""

    def __init__(self) -> None:
        self.decoder = protocol.FrameDecoder(protocol.MAX_BODY_CLIENT)  # a server allows less

    def channel_read(self, data: bytes) -> None:
        self.decoder.feed(data)
        try:
            for frame in self.decoder:
                if self.channel.is_open:  # the frame before may have closed it
                    super().channel_read(frame)
        except ProtocolError as error:
            super().user_event(error)


class PacketHandler(Handler):
    """Frames to packets, and packets to frames.  Takes only `commands`, those of one direction."""

    def __init__(self, commands: Collection[int]) -> None:
        self.commands = commands

    def channel_read(self, frame: bytes) -> None:
        try:
            packet = protocol.decode(frame, VERSION, self.commands)
        except BadPacket as error:
            super().user_event(error)
        else:
            super().channel_read(packet)

    def write(self, packet: Packet) -> None:
        super().write(protocol.encode_for(packet, VERSION))


class Refused(Exception):
    """The peer asked for what it may not have: expected, and answered."""

    def __init__(self, code: str, reason: str) -> None:
        self.code, self.reason = code, reason


def need(condition: object, code: str, reason: str) -> None:
    """Raise Refused unless `condition` holds."""
    if not condition:
        raise Refused(code, reason)


def refusal(request: Packet, refused: Refused) -> Packet:
    """Return the answer that says no: its own response where that can say so, else an ERROR_RESPONSE."""
    if request.COMMAND == Command.LOGIN_REQUEST:
        return protocol.LoginResponse(success=False, user_name=request.user_name, **vars(refused))
    about = vars(refused) | {'client_seq': getattr(request, 'client_seq', None)}  # version 1 does not number
    return protocol.ErrorResponse(command=request.COMMAND, **about)


class Dispatcher(Handler):
    """The last link: has a method for each command that it takes, on_message_request for MESSAGE_REQUEST."""

    def channel_read(self, packet: Packet) -> None:
        handle = getattr(self, f'on_{Command(packet.COMMAND).name.lower()}', self.on_other)
        try:
            handle(packet)
        except Refused as refused:
            self.channel.write(refusal(packet, refused))

    def on_other(self, packet: Packet) -> None:
        raise Refused('unknown_command', 'that is not for now')

    def on_heartbeat_request(self, request: protocol.HeartbeatRequest) -> None:
        self.channel.write(protocol.HeartbeatResponse())

    def on_bad_packet(self, error: BadPacket) -> None:
        self.channel.write(protocol.ErrorResponse(**vars(error)))

    def user_event(self, event: Any) -> None:
        if isinstance(event, BadPacket):
            self.on_bad_packet(event)
        elif event is READER_IDLE or isinstance(event, ProtocolError):
            print(f'closing: {"reader idle" if event is READER_IDLE else event}', flush=True)
            self.channel.close()
        else:
            super().user_event(event)


class Login(Dispatcher):
    """Nobody is logged in.  At a good login a Session takes its place."""

    def __init__(self, server: Any, frames: FrameHandler) -> None:
        self.server, self.frames = server, frames
        frames.decoder.max_body = protocol.MAX_BODY_BEFORE_LOGIN

    def on_login_request(self, request: protocol.LoginRequest) -> None:
        session = Session(self.server, self.frames, request.user_name)
        self.server.log_in(session)
        self.channel.pipeline.replace(self, session)
        session.begin()

    def on_other(self, packet: Packet) -> None:
        raise Refused('not_logged_in', 'log in first')


class Session(Dispatcher):
    """A user is logged in: what they ask for."""

    def __init__(self, server: Any, frames: FrameHandler, user_id: str) -> None:
        self.server, self.frames, self.user_id = server, frames, user_id

    def begin(self) -> None:
        self.frames.decoder.max_body = protocol.MAX_BODY
        self.channel.write(protocol.LoginResponse(success=True, user_id=self.user_id, user_name=self.user_id))
        for entry in self.server.unread(self.user_id):
            self.channel.write(self.server.packet_of(entry))

    def channel_inactive(self) -> None:
        self.server.log_out(self)

    def on_login_request(self, request: protocol.LoginRequest) -> None:
        raise Refused('already_logged_in', f'you are {self.user_id}, log out first')

    def on_logout_request(self, request: protocol.LogoutRequest) -> None:
        self.server.log_out(self)
        self.channel.write(protocol.LogoutResponse(success=True))
        self.channel.pipeline.replace(self, Login(self.server, self.frames))

    def on_message_request(self, request: protocol.MessageRequest) -> None:
        self.server.deliver(Entry(request.to_user_id, self.user_id, request.message))

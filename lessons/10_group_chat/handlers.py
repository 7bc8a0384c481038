"""The links of the chains, on `reactor`.

      idle -> FrameHandler -> PacketHandler -> Login or Session     the server's: nobody is logged in, or somebody is
      idle -> FrameHandler -> PacketHandler -> Heartbeat -> User    the client's; the last two are in client.py
"""
from __future__ import annotations

from collections import namedtuple
from collections.abc import Collection
from enum import Enum
from typing import Any

import protocol
from protocol import BadPacket, Command, Packet, ProtocolError
from reactor import READER_IDLE, Handler

VERSION = 1
Kind = Enum('Kind', 'MESSAGE GROUP_MESSAGE CREATE_GROUP JOIN_GROUP QUIT_GROUP')
Entry = namedtuple('Entry', 'kind stream sender text')  # what has happened: where (a user, a group), by whom


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

    def write(self, message: Packet | bytes) -> None:
        super().write(message if type(message) is bytes else protocol.encode_for(message, VERSION))


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
    if request.COMMAND in (Command.JOIN_GROUP_REQUEST, Command.QUIT_GROUP_REQUEST):
        response = protocol.PACKETS[request.COMMAND + 1]  # a response has the number after its request's
        return response(success=False, group_id=request.group_id, **about)
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
        self.append(request, Kind.MESSAGE, request.to_user_id, request.message)

    def on_create_group_request(self, request: protocol.CreateGroupRequest) -> None:
        self.append(request, Kind.CREATE_GROUP, self.server.new_group({self.user_id, *request.user_id_list}))

    def on_join_group_request(self, request: protocol.JoinGroupRequest) -> None:
        members = self.server.members(request.group_id)
        need(self.user_id not in members, 'already_a_member', 'you are in this group')
        self.channel.write(protocol.JoinGroupResponse(success=True, group_id=request.group_id))
        self.append(request, Kind.JOIN_GROUP, request.group_id)
        members.add(self.user_id)

    def on_quit_group_request(self, request: protocol.QuitGroupRequest) -> None:
        self.need_member(request.group_id)
        self.server.members(request.group_id).remove(self.user_id)
        self.channel.write(protocol.QuitGroupResponse(success=True, group_id=request.group_id))
        self.append(request, Kind.QUIT_GROUP, request.group_id)

    def on_group_message_request(self, request: protocol.GroupMessageRequest) -> None:
        self.need_member(request.to_group_id)
        self.append(request, Kind.GROUP_MESSAGE, request.to_group_id, request.message)

    def need_member(self, group_id: str) -> None:
        need(self.user_id in self.server.members(group_id), 'not_a_member', 'you are not in this group')

    def append(self, request: Packet, kind: Kind, stream: str, text: str = '') -> None:
        """Note that it has happened; those whom it is for will be told."""
        self.server.deliver(Entry(kind, stream, self.user_id, text))

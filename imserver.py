#!/usr/bin/env python3
"""The server: `python3 imserver.py`, then `python3 imclient.py --user alice` in other terminals.

What it does: decides who may do what, and who hears of it.  What it leaves to others: bytes (protocol.py), sockets
and time (reactor.py), memory (store.py).  The pipeline of a connection:

      idle -> frames -> packets -> heartbeat -> login      before login and after logout
      idle -> frames -> packets -> heartbeat -> session    in between

A request changes nothing when it is read.  It is judged (in part 3 if it was held), and becomes an entry of the log;
in part 4 all entries are committed at once, and only then all hear: the sender its answer, the readers the message.

A `Session` is *live*, and gets entries straight from the commit, or it is *lagging* (just logged in, or slow to read)
and is fed from the log, a page a tick, until it has caught up.  What waits for it waits on disk.
"""
from __future__ import annotations

import argparse
import functools
import gc
import getpass
import json
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import protocol
from protocol import Command, Packet, ProtocolError, decode, encode
from reactor import INPUT_ENDED, READER_IDLE, Channel, EventLoop, Handler, IdleStateHandler, Listener, Timer
from store import (
    FOREVER, GROUP_MESSAGE, MAX_NAME, MESSAGE, SERVER_NAME, Entry, Kind, PasswordHash, Store, StoreError, Then,
    direct_stream, hash_password, is_valid_name, name_key, normalize, password_matches)

MAX_GROUP_NAME = 64  # code points
MAX_MESSAGE = 4_096  # code points: escaped and with its frame it fits MIN_MAX_BODY
MIN_MAX_BODY = 32_768  # bytes: so much --max-body allows at least
MAX_BAD_FRAMES = 10  # a connection's frames that are no packets; with the last it is closed
HISTORY_LIMIT, HISTORY_DEFAULT = 100, 20  # messages of an answer
HISTORY_SIZE = 262_144 - 4_096  # bytes of an answer's body, less a margin for all but the messages
USERS_LIMIT, GROUPS_LIMIT = 200, 2_000  # of a list; so many groups with the longest names fit what a client takes
PAGE, PAGES_A_TICK = 256, 16  # entries that a lagging session gets in a tick; such sessions: some 20 ms of work
SAVE_INTERVAL = 1.0  # seconds in which acknowledgements are gathered before they are written
STOP_TIMEOUT, STOP_LOOK = 5.0, 0.02  # seconds for what is buffered when the server stops; between two looks at it
MEMBERS_CACHE, TEMPLATES = 10_000, 8_192  # groups whose members are kept; senders whose frames are, half encoded
RUN_SIZE = MAX_MESSAGE  # characters of messages that are written to their readers at once
YOUNG_OBJECTS = 50_000  # before the garbage collector looks: those of a tick die with it.  1.1 times as many messages
logger = logging.getLogger('im.server')


# What is answered ....................................................................................

class Refused(Exception):
    """The peer asked for what it may not have: expected, and answered."""
    def __init__(self, code: str, reason: str) -> None:
        self.code, self.reason = code, reason


def need(condition: object, code: str, reason: str) -> None:
    """Raise Refused unless `condition` holds."""
    if not condition:
        raise Refused(code, reason)


NOT_WRITTEN = Refused('internal_error', 'the server could not write to its disk')


def frame_for(packet: Packet, version: int) -> bytes:
    """Encode `packet`; for version 1, where it has no such packet, another one that says the same."""
    if version == 1:
        if isinstance(packet, (protocol.ErrorResponse, protocol.KickedNotice)):
            name = SERVER_NAME
            packet = protocol.MessageResponse(from_user_id=name, from_user_name=name, message=packet.reason)
        elif isinstance(packet, protocol.GroupNotice):
            packet = protocol.GroupMessageResponse(from_group_id=packet.group_id, from_user=packet.user,
                                                   message=f'{packet.event} the group')
    return encode(packet, version)


def refusal(request: Packet, refused: Refused, address: str) -> Packet:
    """The answer that refuses `request`: its own response where that can say no, else an ERROR_RESPONSE."""
    logger.info('%s: refused %s: %s', address, Command(request.COMMAND).name, refused.code)
    why = {'code': refused.code, 'reason': refused.reason}
    if request.COMMAND == Command.LOGIN_REQUEST:
        return protocol.LoginResponse(user_name=request.user_name, success=False, **why)
    why['client_seq'] = getattr(request, 'client_seq', None)
    if request.COMMAND in (Command.JOIN_GROUP_REQUEST, Command.QUIT_GROUP_REQUEST):
        response = protocol.PACKETS[request.COMMAND + 1]  # a response has the number after its request's
        return response(group_id=request.group_id, success=False, **why)
    return protocol.ErrorResponse(command=request.COMMAND, **why)


# From bytes to packets ...............................................................................

class FrameHandler(Handler):
    """Bytes to frames (Netty's ByteToMessageDecoder).  While reading is paused nothing is handed on either, so that
    what waits is bounded.  Bytes that can be no frame become a user event: the ProtocolError."""
    __slots__ = ('decoder',)

    def __init__(self) -> None:
        self.decoder = protocol.FrameDecoder(protocol.MAX_BODY_BEFORE_LOGIN)

    def channel_read(self, data: bytes) -> None:
        self.decoder.feed(data)
        self._hand_on()

    def _hand_on(self) -> None:
        frames = iter(self.decoder)
        while self.channel.is_reading:
            try:
                frame = next(frames, None)
            except ProtocolError as error:
                super().user_event(error)
                return
            if frame is None:
                return
            self._next_channel_read.channel_read(frame)  # as super().channel_read does, a call shorter

    def writability_changed(self) -> None:
        """A peer that does not read its answers is not read from."""
        change = self.channel.resume_reading if self.channel.is_writable else self.channel.pause_reading
        change('unread answers')
        self._hand_on()
        super().writability_changed()

    def hold(self) -> None:
        """Hand nothing on until `release`: the frame just handed on has to be answered first."""
        self.channel.pause_reading(self)

    def release(self) -> None:
        self.channel.loop.call_soon(self._go_on)  # not now: what follows is work for part 3, this is part 4

    def _go_on(self) -> None:
        self.channel.resume_reading(self)
        self.channel.run(self._hand_on)


class PacketHandler(Handler):
    """Frames to packets and back; refuses what is none."""
    __slots__ = ('version', 'session_version', '_bad_frames')

    def __init__(self) -> None:
        self.session_version: int | None = None
        self.version, self._bad_frames = 1, 0  # in which is answered: the session's, or that of the last frame

    def channel_read(self, frame: bytes) -> None:
        self.version = self.session_version or frame[4]
        try:
            packet = decode(frame, self.version, protocol.REQUESTS)
        except protocol.BadPacket as error:
            logger.info('%s: bad packet: %s', self.channel.address, error)
            self.write(protocol.ErrorResponse(**vars(error)))
            self._bad_frames += 1
            if self._bad_frames >= MAX_BAD_FRAMES:
                self.channel.close()
        else:
            self._next_channel_read.channel_read(packet)

    def user_event(self, event: Any) -> None:
        if isinstance(event, protocol.TooLongFrame) and event.version == 2:
            self.version = self.session_version or 2
            self.write(protocol.ErrorResponse(command=event.command, code='bad_request', reason=str(event)))
        if isinstance(event, ProtocolError):
            logger.info('%s: closed: %s', self.channel.address, event)
            self.channel.close()
        else:
            super().user_event(event)

    def write(self, message: Packet | bytes) -> None:
        self._next_write.write(message if type(message) is bytes else frame_for(message, self.version))


class HeartbeatHandler(Handler):
    """Answers heartbeats, whoever sends them."""
    __slots__ = ()
    def channel_read(self, packet: Packet) -> None:
        if type(packet) is protocol.HeartbeatRequest:
            self.channel.write(protocol.HeartbeatResponse())
        else:
            self._next_channel_read.channel_read(packet)


# Who it is ...........................................................................................

class PeerHandler(Handler):
    """A connection with or without a user: closed when silent or ended.  `end()`: nothing more on its behalf."""
    __slots__ = ('server', 'frames', 'packets')

    def __init__(self, server: Server, frames: FrameHandler, packets: PacketHandler) -> None:
        self.server, self.frames, self.packets = server, frames, packets

    def user_event(self, event: Any) -> None:
        if event is READER_IDLE:
            self.give_up(f'silent for {self.server.options.idle:g} s')
        elif event is INPUT_ENDED:
            self.end()
            self.server.store.after_commit(lambda is_durable: self.channel.close())  # answers that wait go first
        else:
            super().user_event(event)

    def give_up(self, reason: str) -> None:
        logger.info('%s: closed: %s', self.channel.address, reason)
        self.channel.close()

    def channel_inactive(self) -> None: self.end()


class LoginHandler(PeerHandler):
    """Nobody is logged in.  Judges one LOGIN_REQUEST at a time; at a good one a Session takes its place."""
    __slots__ = ('_timer', '_deadline', '_time_left')

    def channel_active(self) -> None: self.start_clock(self.server.options.login_timeout)
    def end(self) -> None: self._timer.cancel()

    def start_clock(self, seconds: float) -> None:
        loop = self.channel.loop
        self._deadline, self._timer = loop.time() + seconds, loop.call_later(seconds, self.give_up, 'did not log in')

    def channel_read(self, packet: Packet) -> None:
        if packet.COMMAND != Command.LOGIN_REQUEST:
            self.channel.write(refusal(packet, Refused('not_logged_in', 'log in first'), self.channel.address))
            return
        self._timer.cancel()  # the time that judging takes is ours
        self._time_left = self._deadline - self.channel.loop.time()
        self.frames.hold()
        self._judge(packet)

    def _judge(self, request: Any) -> None:
        try:
            self._look_at(request, normalize(request.user_name))
        except Refused as refused:
            self._conclude(request, refused)

    def _look_at(self, request: Any, name: str) -> None:
        store, token = self.server.store, request.token
        need(token is not None or request.password is not None, 'bad_request', 'a password or a token is needed')
        if token is not None:
            need(store.token_matches(name, token, self.server.wall_clock()), 'bad_token', 'the token is not valid')
            self._conclude(request, name)
        elif known := store.password_of(name):
            self._in_worker(lambda: password_matches(request.password, known),
                            lambda is_good: self._check(request, name, is_good))
        else:
            need(is_valid_name(name), 'invalid_name', f'a name has 1 to {MAX_NAME} letters, digits, "_", "-" or "."')
            need(not store.name_is_taken(name_key(name)), 'invalid_name', 'a user has a name that looks the same')
            need(not self.server.options.closed_registration, 'registration_closed', 'new accounts are not taken')
            self._in_worker(lambda: hash_password(request.password, self.server.options.password_cost),
                            lambda password: self._register(request, name, password))

    def _in_worker(self, slow: Callable[[], Any], then: Callable[[Any], None]) -> None:
        def done(result: Any, error: Exception | None) -> None:
            if error is not None:
                raise error  # a bug of ours: this connection ends with it
            if self.channel.is_open:
                then(result)
        self.channel.loop.run_in_worker(slow, lambda *outcome: self.channel.run(done, *outcome))

    def _register(self, request: Any, name: str, password: PasswordHash) -> None:
        if self.server.store.name_is_taken(name_key(name)):
            self._judge(request)  # by somebody, meanwhile: now it is a login, or a name too much like another
        else:
            self.server.store.add_user(name, name_key(name), password)
            self._check(request, name, True)

    def _check(self, request: Any, name: str, is_good: bool) -> None:
        if is_good and not self.server.store.user_exists(name):
            self._judge(request)  # who was registered when we looked, in a tick that could not be written
        elif is_good:
            self._conclude(request, name, self.server.store.new_token(name, self.server.wall_clock()))
        else:
            self._conclude(request, Refused('wrong_password', 'that is not the password of this name'))

    def _conclude(self, request: Any, outcome: str | Refused, token: str | None = None) -> None:
        """Answer in its turn, after the commit: a name is logged in."""
        def then(is_durable: bool) -> None:
            if self.channel.is_open:
                self._answer(request, outcome if is_durable or isinstance(outcome, Refused) else NOT_WRITTEN, token)
                self.frames.release()
        self.server.store.after_commit(then)

    def _answer(self, request: Any, outcome: str | Refused, token: str | None) -> None:
        if isinstance(outcome, Refused):
            self.channel.write(refusal(request, outcome, self.channel.address))
            self.start_clock(self._time_left)
        else:
            session = Session(self.server, self.frames, self.packets, outcome)
            self.channel.pipeline.replace(self, session)
            session.begin(request.resume_after, token)


def _question(answer: Callable[[Session, Any], None]) -> Callable[[Session, Any], None]:
    """Answer in its place: after the commit of what was asked for before it, while what comes behind it is held."""
    def handle(session: Session, request: Any) -> None:
        session.frames.hold()
        session.server.store.after_commit(lambda is_durable: session._attempt(answer, request))
        session.server.store.after_commit(lambda is_durable: session.frames.release())
    return handle


class Session(PeerHandler):
    """A user is logged in: what they ask for, and what is delivered to them."""
    __slots__ = ('user_id', 'version', 'sent_id', 'delivered_id', 'is_live', 'has_ended', '_sent_mark')

    def __init__(self, server: Server, frames: FrameHandler, packets: PacketHandler, user_id: str) -> None:
        super().__init__(server, frames, packets)
        self.user_id = user_id
        self.version = packets.session_version = packets.version
        self.is_live, self.has_ended, self._sent_mark = False, False, 0  # what `channel.sent` is once the last entry is
        frames.decoder.max_body = server.options.max_body

    def begin(self, resume_after: int | None, token: str | None) -> None:
        """Take the user over from an older session, say that they are logged in, and start to feed this one."""
        store, name = self.server.store, self.user_id
        if older := self.server.sessions.get(name):
            older.kick()
        self.server.sessions[name] = self
        self.sent_id = self.delivered_id = store.delivered_id(name)
        self.send(protocol.LoginResponse(success=True, user_id=name, user_name=name, token=token, log_id=store.log_id,
                                         last_client_seq=store.last_client_seq(name)))
        self.acknowledge(resume_after or 0)
        self.server.feed_later(self)
        logger.info('%s: %s logged in, version %d', self.channel.address, name, self.version)

    def send(self, packet: Packet) -> None:
        """Write in the version of this session, also once it has ended and another may have begun."""
        self.channel.write(frame_for(packet, self.version))

    def end(self) -> None:
        """The user is no longer reached here.  What was not acknowledged stays in the log."""
        if not self.has_ended:
            self.has_ended = True
            del self.server.sessions[self.user_id]
            self.note_sent()
            self.server.store.save_delivered(self.user_id)
            logger.info('%s: %s is no longer here', self.channel.address, self.user_id)

    def kick(self) -> None:
        self.end()
        self.channel.pause_reading(self)  # and the rest not now: answers that wait for this commit go first
        self.channel.loop.call_soon(self.send, protocol.KickedNotice(reason='logged in elsewhere'))
        self.channel.loop.call_soon(self.channel.close)

    def deliver(self, message_id: int, frames: bytes) -> None:
        """Write committed entries up to that id, unless this session lags; then it will get them from the log."""
        channel = self.channel
        self.is_live = self.is_live and channel.is_writable
        if self.is_live:
            channel.write(frames)
            self.sent_id = message_id
            if self.version == 1:
                self._sent_mark = channel.sent + channel.buffered
                self.server.save_later()

    def feed(self) -> None:
        """Write a page of what is in the log above `sent_id`; live again once there is nothing left."""
        if self.has_ended or self.is_live or not self.channel.is_writable:
            return  # writability_changed will ask for the next page
        page = self.server.store.unread(self.user_id, self.sent_id, PAGE)
        self.is_live = True
        for entry in page:
            self.deliver(entry.message_id, self.server.frame_of(entry, self.version))
        if len(page) == PAGE or not self.is_live:
            self.is_live = False
            self.server.feed_later(self)

    def writability_changed(self) -> None:
        if self.channel.is_writable and not self.is_live:
            self.server.feed_later(self)

    def acknowledge(self, message_id: int) -> None:
        """Everything up to that id was handled."""
        if (message_id := min(message_id, self.server.store.committed_id)) > self.delivered_id:
            self.delivered_id = message_id
            self.sent_id = max(self.sent_id, message_id)
            self.server.store.set_delivered(self.user_id, message_id)
            self.server.save_later()

    def note_sent(self) -> None:
        """Version 1 acknowledges nothing: what was sent counts as delivered once it has left the write buffer."""
        if self.version == 1 and self._sent_mark <= self.channel.sent:
            self.acknowledge(self.sent_id)

    def channel_read(self, packet: Packet) -> None:
        self._attempt(REQUEST_HANDLERS[packet.COMMAND], packet)

    def _attempt(self, handle: Callable[[Session, Any], None], request: Packet) -> None:
        try:
            handle(self, request)
        except Refused as refused:
            self.send(refusal(request, refused, self.channel.address))

    def on_delivery_ack(self, request: Any) -> None: self.acknowledge(request.message_id)

    def on_login_request(self, request: Packet) -> None:
        raise Refused('already_logged_in', f'you are logged in as {self.user_id}; log out first')

    def on_logout_request(self, request: Packet) -> None:
        self.end()
        self.server.store.end_token(self.user_id)
        answer = protocol.LogoutResponse(success=True)  # the session has ended, also where the token could not be
        self.server.store.after_commit(lambda is_durable: self.send(answer))
        self.packets.session_version, self.frames.decoder.max_body = None, protocol.MAX_BODY_BEFORE_LOGIN
        login = LoginHandler(self.server, self.frames, self.packets)
        self.channel.pipeline.replace(self, login)
        login.start_clock(self.server.options.login_timeout)

    def on_message_request(self, request: Any) -> None:
        recipient = normalize(request.to_user_id)
        entry = self._entry(MESSAGE, request, direct_stream(self.user_id, recipient), request.message)
        if not self._answer_repeat(request, entry):
            self._need_user(recipient)
            self._append_text(request, entry)

    def on_group_message_request(self, request: Any) -> None:
        entry = self._entry(GROUP_MESSAGE, request, request.to_group_id, request.message)
        if not self._answer_repeat(request, entry):
            self._need_member(request.to_group_id, self.user_id in self.server.members(request.to_group_id))
            self._append_text(request, entry)

    def on_create_group_request(self, request: Any) -> None:
        store, name, named = self.server.store, request.group_name, [normalize(u) for u in request.user_id_list]
        entry = self._entry(Kind.CREATE_GROUP, request, store.new_group_id(), json.dumps([name, named]))
        if not self._answer_repeat(request, entry):
            members = {self.user_id, *store.known_users(named)}
            need(name is None or 0 < len(name) <= MAX_GROUP_NAME, 'bad_request',
                 f'a group name has 1 to {MAX_GROUP_NAME} characters')
            self._need_room(len(members))
            self._append(request, entry, lambda entry, then: store.create_group(entry, name, members, then))

    def on_join_group_request(self, request: Any) -> None:
        store, group_id = self.server.store, request.group_id
        entry = self._entry(Kind.JOIN_GROUP, request, group_id, '')
        if not self._answer_repeat(request, entry):
            need(store.group_exists(group_id), 'unknown_group', 'there is no such group')
            need(not store.is_member(self.user_id, group_id), 'already_a_member', 'you are in this group')
            self._need_room(store.count_members(group_id) + 1)
            self._append(request, entry, store.join_group)

    def on_quit_group_request(self, request: Any) -> None:
        store, group_id = self.server.store, request.group_id
        entry = self._entry(Kind.QUIT_GROUP, request, group_id, '')
        if not self._answer_repeat(request, entry):
            self._need_member(group_id, store.is_member(self.user_id, group_id))
            self._append(request, entry, store.quit_group)

    def _entry(self, kind: Kind, request: Any, stream: str, text: str) -> Entry:
        client_seq = request.client_seq if self.version == 2 else 0
        need(client_seq > 0 or self.version == 1, 'bad_request', 'clientSeq begins at 1')
        return Entry(kind, stream, self.user_id, text, client_seq, int(self.server.wall_clock() * 1000))

    def _answer_repeat(self, request: Packet, entry: Entry) -> bool:
        """Answer again if `entry` was made before, whatever has become of the right to it; return whether it was."""
        store, client_seq = self.server.store, entry.client_seq
        if not client_seq or client_seq > store.last_client_seq(self.user_id):
            return False
        first = store.find_entry(self.user_id, client_seq)
        need(first and first.is_repeated_by(entry), 'seq_conflict', f'clientSeq {client_seq} was something else')
        self._append(request, first, lambda entry, then: store.after_commit(then))
        return True

    def _append_text(self, request: Packet, entry: Entry) -> None:
        if not 0 < len(entry.text) <= MAX_MESSAGE:
            need(entry.text, 'bad_request', 'the message is empty')
            raise Refused('message_too_long', f'a message has at most {MAX_MESSAGE} characters')
        self.server.store.append(entry, functools.partial(self._answer, request, entry))

    def _append(self, request: Packet, entry: Entry, append: Callable[[Entry, Then], None]) -> None:
        """Answer once it is known whether `entry` is on disk.  What changes membership holds what is behind it."""
        holds = entry.kind > GROUP_MESSAGE

        def then(is_durable: bool) -> None:  # a repeated one is, though this tick may have failed
            self._answer(request, entry, is_durable or self.server.store.is_durable(entry))
            if holds:
                self.frames.release()
        if holds:
            self.frames.hold()
        append(entry, then)

    def _answer(self, request: Packet, entry: Entry, is_durable: bool) -> None:
        """Answer the request that made `entry`."""
        seq = entry.client_seq or None
        if not is_durable:
            self.send(refusal(request, NOT_WRITTEN, self.channel.address))
        elif entry.kind is MESSAGE or entry.kind is GROUP_MESSAGE:
            if self.version == 2:
                self.send(protocol.MessageAck(client_seq=seq, message_id=entry.message_id, sent_at=entry.sent_at))
        elif entry.kind is Kind.CREATE_GROUP:
            response = self.server.packet_of(entry)
            unknown = set(json.loads(entry.text)[1]) - set(response.user_name_list)
            response.unknown_user_id_list, response.client_seq = sorted(unknown) or None, seq
            self.send(response)
        else:
            response = protocol.PACKETS[request.COMMAND + 1]  # a response has the number after its request's
            self.send(response(group_id=entry.stream, success=True, client_seq=seq))

    def _need_user(self, user_id: str) -> None:
        if not self.server.store.user_exists(user_id):
            raise Refused('unknown_user', f'there is no user {user_id}')

    def _need_member(self, group_id: str, is_member: bool) -> None:
        need(is_member or self.server.store.group_exists(group_id), 'unknown_group', 'there is no such group')
        need(is_member, 'not_a_member', 'you are not in this group')

    def _need_room(self, count: int) -> None:
        limit = self.server.options.max_group
        need(count <= limit, 'group_full', f'a group has at most {limit} members')

    @_question
    def on_list_group_members_request(self, request: Any) -> None:
        store, group_id = self.server.store, request.group_id
        self._need_member(group_id, store.is_member(self.user_id, group_id))
        members = map(self.server.user, store.members(group_id, store.committed_id))
        self.send(protocol.ListGroupMembersResponse(group_id=group_id, session_list=list(members)))

    @_question
    def on_list_users_request(self, request: Packet) -> None:
        sessions = self.server.sessions
        users = sorted(sessions) + [user for user in self.server.store.list_users(USERS_LIMIT) if user not in sessions]
        self.send(protocol.ListUsersResponse(user_list=list(map(self.server.user, users[:USERS_LIMIT]))))

    @_question
    def on_list_groups_request(self, request: Packet) -> None:
        groups = [protocol.Group(group_id=group_id, group_name=name, member_count=count)
                  for group_id, name, count in self.server.store.groups_of(self.user_id)[:GROUPS_LIMIT]]
        self.send(protocol.ListGroupsResponse(group_list=groups))

    @_question
    def on_history_request(self, request: Any) -> None:
        limit = HISTORY_DEFAULT if request.limit is None else request.limit
        need((request.user_id is None) != (request.group_id is None) and 0 < limit <= HISTORY_LIMIT, 'bad_request',
             f'name a user or a group, and a limit of 1 to {HISTORY_LIMIT}')
        page = _page_of(self._history(request), limit)
        self.send(protocol.HistoryResponse(user_id=request.user_id, group_id=request.group_id, **page))

    def _history(self, request: Any) -> Iterator[Entry]:
        store, before = self.server.store, FOREVER if request.before is None else request.before
        if request.user_id is not None:
            peer = normalize(request.user_id)
            self._need_user(peer)
            return store.history_with(self.user_id, peer, before)
        self._need_member(request.group_id, store.was_member(self.user_id, request.group_id))
        return store.history_of_group(self.user_id, request.group_id, before)


def _page_of(newest_first: Iterator[Entry], limit: int) -> dict[str, Any]:
    """At most `limit` messages and HISTORY_SIZE bytes, oldest first, and whether there are more."""
    page, size = [], 0
    for entry in newest_first:
        size += len(json.dumps(entry.text, ensure_ascii=False).encode()) + 250  # the rest of it: names and numbers
        if len(page) == limit or size > HISTORY_SIZE:
            return {'messages': page[::-1], 'more': True}
        page.append(protocol.HistoryMessage(message_id=entry.message_id, sent_at=entry.sent_at,
                                            from_user_id=entry.sender, message=entry.text))
    return {'messages': page[::-1], 'more': False}


# Command.MESSAGE_REQUEST -> Session.on_message_request, and so on; a request without its method fails here, at once.
REQUEST_HANDLERS = {int(command): getattr(Session, f'on_{command.name.lower()}')
                    for command in protocol.REQUESTS - {Command.HEARTBEAT_REQUEST}}


# The whole ...........................................................................................

def _runs_of(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Cut into runs with the same readers: neighbours in a stream, RUN_SIZE characters; a join or quit stands alone."""
    run, size = [], 0
    for entry in entries:
        length = len(entry.text) if entry.kind <= GROUP_MESSAGE else RUN_SIZE + 1
        size += length
        if run and (size > RUN_SIZE or entry.stream != run[-1].stream):
            yield run
            run, size = [], length
        run.append(entry)
    if run:
        yield run


@functools.lru_cache(TEMPLATES)
def _template(sender: str, group_id: str, version: int) -> Callable[[str, int, int], bytes]:
    """What makes the frames of a sender's messages to a group, or to a user ('')."""
    packet: Any = protocol.MessageResponse(from_user_id=sender, from_user_name=sender, message='')
    if group_id:
        user = protocol.User(user_id=sender, user_name=sender)
        packet = protocol.GroupMessageResponse(from_group_id=group_id, from_user=user, message='')
    return protocol.message_template(packet, version)


class Server:
    """Joins loop, store and sessions.  `options` are those of `make_parser`; `wall_clock`: seconds since 1970."""
    def __init__(self, loop: EventLoop, store: Store, options: argparse.Namespace,
                 wall_clock: Callable[[], float] = time.time) -> None:
        self.loop, self.store, self.options, self.wall_clock = loop, store, options, wall_clock
        self.sessions: dict[str, Session] = {}
        self._lagging: deque[Session] = deque()  # those to feed
        self._save_timer: Timer | None = None
        # A cache: groups as of the entry delivered last.  The store is ahead: a join may stand behind it in the tick.
        self._members: dict[str, set[str]] = {}
        self._applied_id, self._is_stopping = store.committed_id, False
        self.listener = Listener(loop, options.host, options.port, self._initialize, options.max_connections)
        loop.before_flush.append(self._before_flush)

    def _initialize(self, channel: Channel) -> None:
        idle, frames, packets = IdleStateHandler(self.options.idle), FrameHandler(), PacketHandler()
        channel.pipeline.add_last(idle, frames, packets, HeartbeatHandler(), LoginHandler(self, frames, packets))

    def _before_flush(self) -> None:
        """Part 4 of each tick: commit, answer, deliver, feed."""
        for run in _runs_of(self.store.commit()):
            try:
                self._deliver(run)
            except Exception:  # a bug of ours must not leave a gap behind which newer entries are acknowledged
                logger.exception('bug: %d was not delivered; all are fed from the log', run[-1].message_id)
                self._feed_all(run[-1].message_id)
        for _ in range(min(len(self._lagging), PAGES_A_TICK)):
            self._lagging.popleft().feed()
        if self._lagging:
            self.feed_later()  # the next tick is not to wait for a socket

    def _deliver(self, run: list[Entry]) -> None:
        frames: dict[int, bytes] = {}  # by version: encoded once, however many read it
        last_id, sessions = run[-1].message_id, self.sessions
        for user_id in self._readers_of(run[0]):
            if session := sessions.get(user_id):
                if (version := session.version) not in frames:
                    frames[version] = b''.join([self.frame_of(entry, version) for entry in run])
                session.deliver(last_id, frames[version])
        self._applied_id = last_id

    def _readers_of(self, entry: Entry) -> Iterable[str]:
        if entry.kind is MESSAGE:
            return entry.recipient,
        members = self.members(entry.stream)
        if entry.kind is GROUP_MESSAGE:
            return members
        self._applied_id = entry.message_id
        readers = members - {entry.sender}  # who creates, joins or quits has the answer instead
        self._members[entry.stream] = readers if entry.kind is Kind.QUIT_GROUP else members | {entry.sender}
        return readers

    def members(self, group_id: str) -> set[str]:
        """Those in the group as of `_applied_id`."""
        members = self._members.get(group_id)
        if members is None and (members := set(self.store.members(group_id, self._applied_id))):
            if len(self._members) >= MEMBERS_CACHE:
                self._members.clear()
            self._members[group_id] = members
        return members

    def frame_of(self, entry: Entry, version: int) -> bytes:
        """The frame that tells a reader of `entry`."""
        if entry.kind is MESSAGE or entry.kind is GROUP_MESSAGE:
            fill = _template(entry.sender, '' if entry.kind is MESSAGE else entry.stream, version)
            return fill(entry.text, entry.message_id, entry.sent_at)
        return frame_for(self.packet_of(entry), version)

    def packet_of(self, entry: Entry) -> Any:
        """The packet that tells a reader of a change of membership."""
        common: dict[str, Any] = {'group_id': entry.stream, 'message_id': entry.message_id, 'sent_at': entry.sent_at}
        if entry.kind is Kind.CREATE_GROUP:
            members = self.store.members(entry.stream, entry.message_id)
            name = self.store.group_name(entry.stream)
            return protocol.CreateGroupResponse(success=True, user_name_list=members, group_name=name, **common)
        event = 'joined' if entry.kind is Kind.JOIN_GROUP else 'left'
        user = protocol.User(user_id=entry.sender, user_name=entry.sender)
        return protocol.GroupNotice(event=event, user=user, **common)

    def user(self, user_id: str) -> protocol.User:
        return protocol.User(user_id=user_id, user_name=user_id, online=user_id in self.sessions)

    def feed_later(self, *sessions: Session) -> None:  # in part 4 of this tick, or of the next
        self._lagging.extend(sessions)
        self.loop.call_soon(lambda: None)

    def _feed_all(self, applied_id: int) -> None:
        self._members, self._applied_id = {}, applied_id
        for session in self.sessions.values():
            session.is_live = False
        self.feed_later(*self.sessions.values())

    def save_later(self) -> None:
        if self._save_timer is None:
            self._save_timer = self.loop.call_later(SAVE_INTERVAL, self._save)

    def _save(self) -> None:
        self._save_timer = None
        for session in self.sessions.values():
            session.note_sent()
            if session.delivered_id < session.sent_id and session.version == 1:
                self.save_later()  # to look again
        self.store.save_delivered()

    def stop(self) -> None:
        """Accept and read no more, answer what was judged, send what is buffered, then end the loop."""
        if self._is_stopping:
            os._exit(1)  # asked a second time: at once.  What was committed is on disk
        self._is_stopping = True
        self.listener.close()
        for channel in self.listener.channels:
            channel.pause_reading(self)
        self.store.after_commit(lambda is_durable: self._close_all())
        self.loop.call_later(STOP_TIMEOUT, self.loop.stop)

    def _close_all(self) -> None:
        for channel in list(self.listener.channels):
            channel.close()  # nothing happens to one that is closing already
        is_sent = not any(channel.buffered for channel in self.listener.channels)
        self.loop.stop() if is_sent else self.loop.call_later(STOP_LOOK, self._close_all)

    def close(self) -> None:
        """Give everything back; for the end of the process."""
        for channel in list(self.listener.channels):
            channel.abort()
        self.store.close()
        self.loop.close()


# The command line ....................................................................................

class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""
    def error(self, message: object) -> NoReturn:
        self.exit(2, f'{self.prog}: {message}\n')


def _between(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    def number(text: str) -> Any:  # argparse shows this name: "invalid number value"
        if not low <= (value := kind(text)) <= high:
            raise argparse.ArgumentTypeError(f'{text} is not between {low} and {high}')
        return value
    return number


def make_parser() -> Parser:
    parser = Parser(prog='imserver.py', description='The chat server.', allow_abbrev=False,
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add, seconds = parser.add_argument, _between(1, 86400, float)
    add('--host', default='127.0.0.1', help='address to listen on')
    add('--port', type=_between(0, 65535), default=8000, help='0: any that is free')
    add('--db', default='im.db', metavar='FILE', help='where everything is kept; :memory: keeps nothing')
    add('--durability', choices=('full', 'normal', 'off'), default='full', help='only full survives a power cut')
    add('--idle', type=seconds, default=15.0, metavar='SECONDS', help='silence after which a connection is closed')
    add('--login-timeout', type=seconds, default=60.0, metavar='SECONDS', help='time to log in')
    add('--max-connections', type=_between(1, 1000000), default=10000, metavar='N', help='at one time')
    add('--max-body', type=_between(MIN_MAX_BODY, 2**31), default=protocol.MAX_BODY, metavar='BYTES', help='of a frame')
    add('--max-group', type=_between(1, 3000), default=500, metavar='N', help='members of a group')
    add('--password-cost', type=_between(10, 20), default=14, metavar='N', help="log2 of scrypt's N")
    add('--closed-registration', action='store_true', help='only accounts that exist may log in')
    add('--set-password', metavar='NAME', default=argparse.SUPPRESS, help='make an account or reset it, and exit')
    add('--log-level', choices=('debug', 'info', 'warning', 'error'), default='info', help='what is logged on stderr')
    return parser


def _set_password(parser: Parser, store: Store, options: argparse.Namespace) -> None:
    """Make or reset the account that --set-password names."""
    name, password = normalize(options.set_password), os.environ.get('IM_PASSWORD')
    if password is None and not os.isatty(0):
        parser.error('no password: set IM_PASSWORD, or run it in a terminal')
    try:
        password = getpass.getpass('New password: ') if password is None else password
    except (EOFError, KeyboardInterrupt):
        parser.exit(130)
    if any('\ud800' <= c <= '\udfff' for c in name + password):  # how Python shows bytes that are no text
        parser.error('the name and the password must be text')
    wrong = store.set_password(name, hash_password(password, options.password_cost))
    store.close()
    parser.error(wrong) if wrong else print(f'{name} has a new password')


def main() -> None:
    options = (parser := make_parser()).parse_args()
    logging.basicConfig(level=options.log_level.upper(), format='%(asctime)s %(levelname)s %(name)s %(message)s')
    try:
        store = Store(options.db, options.durability)
    except StoreError as error:
        parser.error(error)
    if hasattr(options, 'set_password'):
        return _set_password(parser, store, options)
    try:
        server = Server(EventLoop(), store, options)
    except OSError as error:
        store.close()
        reason = (error.strerror or str(error)).partition(' (while')[0]  # what create_server adds says it again
        parser.error(f'cannot listen on {options.host} port {options.port}: {reason} (--port N: on another)')
    for number in (signal.SIGINT, signal.SIGTERM):
        server.loop.add_signal_handler(number, server.stop)
    host, port = server.listener.address
    if not host.startswith('127.') and host != '::1':
        logger.warning('passwords and messages cross the network in the clear: anyone on the way can read them')
    print(f'listening on {f"[{host}]" if ":" in host else host}:{port}', flush=True)
    gc.set_threshold(YOUNG_OBJECTS)
    server.loop.run()
    server.close()


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""The server: `python3 imserver.py`, then `python3 imclient.py --user alice` in other terminals.

What it does: decides who may do what, and who hears of it.  What it leaves to others: bytes (protocol.py), sockets
and time (reactor.py), memory (store.py).  The pipeline of a connection, whose end changes at login and at logout:

      [tls] -> idle -> frames -> packets -> heartbeat -> login or session

A request changes nothing when it is read.  It is judged (in part 3 if it was held), and becomes an entry of the log;
in part 4 all entries are committed at once, and only then all hear: the sender its answer, the readers the message.
A `Session` is *live*, and gets entries straight from the commit, or it is *lagging* (just logged in, or slow to read)
and is fed from the log, a page a tick, until it has caught up.  What waits for it waits on disk.
"""
from __future__ import annotations

import argparse
import functools
import gc
import inspect
import json
import logging
import os
import re
import signal
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import protocol
from console import Parser, ask, between
from protocol import MAX_BODY, Command, Packet, ProtocolError, decode, encode_for
from reactor import (
    INPUT_ENDED, NO_TIMER, READER_IDLE, Channel, EventLoop, Handler, IdleStateHandler, Listener, Timer, TlsHandler)
from store import (
    FOREVER, GROUP_MESSAGE, MAX_NAME, MESSAGE, Entry, Kind, Passwords, Store, StoreError, Then, direct_stream,
    hash_password, is_valid_name, name_key, normalize)

MAX_GROUP_NAME, MAX_MESSAGE = 64, 4_096  # code points: as our client writes a message, it fits MIN_MAX_BODY
MIN_MAX_BODY = 32_768  # bytes: so much --max-body allows at least
MAX_BAD_FRAMES = 10  # a connection's frames that are no packets; with the last it is closed
FRAME_TIMEOUT = 10.0  # seconds, up to twice that, without any whole frame, though one has begun
RATE_PAUSE = 0.05  # seconds, or more, that a session is not read once the requests of a second are spent (--rate)
HISTORY_LIMIT, HISTORY_DEFAULT = 100, 20  # messages of an answer
HISTORY_SIZE = 262_144 - 4_096  # bytes of an answer's body, less a margin for all but the messages
USERS_LIMIT, GROUPS_LIMIT = 200, 2_000  # of a list; so many groups with the longest names fit what a client takes
PAGE, PAGES_A_TICK = 256, 16  # entries that a lagging session gets in a tick; such sessions: some 20 ms of work
SAVE_INTERVAL = 1.0  # seconds in which acknowledgements are gathered before they are written
STOP_TIMEOUT, STOP_LOOK = 4.5, 0.02  # seconds for what is buffered when it stops: over within 5; between two looks
MEMBERS_CACHE, TEMPLATES, TICKS = 10_000, 8_192, 10_000  # groups, senders' half encoded frames, ticks that are kept
RUN_SIZE = MAX_MESSAGE  # characters of messages that are written to their readers at once
YOUNG_OBJECTS = 50_000  # before the garbage collector looks: those of a tick die with it.  1.1 times as many messages
TICK = 'tick: %d sockets, %d timers, %d sent to | ms: read %.2f, timers %.2f, commit %.2f, flush %.2f, all %.2f'
STATS = ('%d connections, %d logged in | messages a second: %.0f in, %.0f out | loop lag in ms: p50 %.2f, p99 %.2f, '
         'max %.2f | commit %.2f ms | %d bytes wait')
logger, trace = logging.getLogger('im.server'), logging.getLogger('im.trace')
trace.setLevel(logging.INFO)  # it was asked for by name, whatever --log-level says


# What is answered ....................................................................................
class Refused(Exception):  # the peer asked for what it may not have: expected, and answered
    def __init__(self, code: str, reason: str) -> None: self.code, self.reason = code, reason


def need(condition: object, code: str, reason: str) -> None:  # raise Refused unless `condition` holds
    if not condition:
        raise Refused(code, reason)


NOT_WRITTEN = Refused('internal_error', 'the server could not write to its disk')


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
    __slots__ = ('decoder', 'timer', '_progress')
    def __init__(self) -> None:  # `_progress` counts frames and pauses, `timer` looks whether it does
        self.decoder, self.timer, self._progress = protocol.FrameDecoder(protocol.MAX_BODY_BEFORE_LOGIN), NO_TIMER, 0

    def channel_read(self, data: bytes) -> None:
        self.decoder.feed(data)
        self._hand_on()

    def _hand_on(self) -> None:
        frames = iter(self.decoder)
        while self.channel.is_reading:
            try:
                frame = next(frames, None)
            except ProtocolError as error:
                return super().user_event(error)
            if frame is None:
                if self.timer is NO_TIMER and self.decoder.buffer.readable_bytes:
                    self.timer = self.channel.loop.call_later(FRAME_TIMEOUT, self._look_at_rest, self._progress)
                return
            self._progress += 1
            self._next_channel_read.channel_read(frame)  # as super().channel_read does, a call shorter

    def _look_at_rest(self, progress: int) -> None:
        self.timer = NO_TIMER
        if self.channel.is_reading and self.decoder.buffer.readable_bytes and progress == self._progress:
            super().user_event(ProtocolError(f'a frame was not whole after {FRAME_TIMEOUT:g} s'))
        else:
            self._hand_on()  # there is nothing, but it will be looked at again

    def writability_changed(self) -> None:  # a peer that does not read its answers is not read from
        change = self.go_on if self.channel.is_writable else self.channel.pause_reading
        change('unread answers')
        super().writability_changed()

    def go_on(self, reason: object) -> None:  # it was a reason not to read
        self._progress += 1
        self.channel.resume_reading(reason)
        self.channel.run(self._hand_on)

    def hold(self) -> None: self.channel.pause_reading(self)  # until `release`: the frame is to be answered first
    def release(self) -> None: self.channel.loop.call_soon(self.go_on, self)  # what follows is work for part 3


class PacketHandler(Handler):  # frames to packets and back; refuses what is none
    __slots__ = ('version', 'session_version', '_bad_frames', '_traces')
    def __init__(self, traces: bool) -> None:  # answers are in the version of the last frame, if a session has none
        self.session_version, self._bad_frames, self.version, self._traces = None, 0, 1, traces

    def channel_read(self, frame: bytes) -> None:
        if self._traces:
            self._tell('received', frame)
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
        if isinstance(event, (ProtocolError, ssl.SSLError)):
            logger.info('%s: closed: %s', self.channel.address, event)
            self.channel.close()
        else:
            super().user_event(event)

    def write(self, message: Packet | bytes) -> None:
        frames = message if type(message) is bytes else encode_for(message, self.version)
        if self._traces:
            self._tell('sends', frames)
        self._next_write.write(frames)

    def _tell(self, what: str, frames: bytes) -> None:  # --trace.  `describe` masks what is secret
        (decoder := protocol.FrameDecoder(protocol.INT_MAX)).feed(frames)
        for frame in decoder:
            trace.info('%s %s\n%s', self.channel.address, what, protocol.describe(frame))


class HeartbeatHandler(Handler):  # answers heartbeats, whoever sends them
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

    def channel_inactive(self) -> None:
        self.frames.timer.cancel()
        self.end()


class LoginHandler(PeerHandler):  # nobody is logged in: judges one LOGIN_REQUEST at a time; a good one makes a Session
    __slots__ = ('request', '_timer', '_deadline', '_asked_at', '_judging')
    def channel_active(self) -> None:  # at the beginning, and after a logout
        self.request: Any = None  # the one that is being judged
        self._start_clock(self.server.options.login_timeout)
        strangers = self.server.strangers
        strangers[self] = None
        if len(strangers) > self.server.options.max_unauthenticated:  # who waits longest, with no login to judge, goes
            longest = next(login for login in strangers if login.request is None)
            longest.give_up('makes room for others')
            longest.channel.abort()

    def _start_clock(self, seconds: float) -> None:
        self._timer = self.channel.loop.call_later(seconds, self.give_up, 'did not log in')
        self._deadline = self.channel.loop.time() + seconds

    def end(self) -> None:
        self._timer.cancel()
        self.server.strangers.pop(self, None)

    def channel_read(self, packet: Any) -> None:
        if packet.COMMAND != Command.LOGIN_REQUEST:
            return self.channel.write(refusal(packet, Refused('not_logged_in', 'log in first'), self.channel.address))
        self._timer.cancel()
        self.request, self._asked_at = packet, self.channel.loop.time()
        self.frames.hold()
        self._judging = self._judge(normalize(packet.user_name), packet.password, packet.token)
        self._go_on()

    def _go_on(self, result: Any = None, error: Exception | None = None) -> None:  # up to the next job for the worker
        if not self.channel.is_open:
            return
        try:
            slow = self._judging.throw(error) if error else self._judging.send(result)
        except StopIteration as end:
            self._conclude(*end.value)
        except Refused as refused:
            self._conclude(refused)
        else:  # nothing more is read meanwhile: so as many wait as --max-unauthenticated says
            self.channel.loop.run_in_worker(lambda: slow() if self.channel.is_open else None,
                                            lambda *outcome: self.channel.run(self._go_on, *outcome))

    def _judge(self, name: str, password: str | None, token: str | None) -> Generator[Callable[[], Any], Any, Any]:
        """Return the name and its new token, if it gets one; raises Refused.  Yields what takes long."""
        store, options, now = self.server.store, self.server.options, self.server.wall_clock()
        need(token is not None or password is not None, 'bad_request', 'a password or a token is needed')
        if token is not None:
            need(store.token_matches(name, token, now), 'bad_token', 'the token is not valid')
            return name, None
        while not (known := store.password_of(name)):
            need(is_valid_name(name), 'invalid_name', f'a name has 1 to {MAX_NAME} letters, digits, "_", "-" or "."')
            need(not store.name_is_taken(name_key(name)), 'invalid_name', 'a user has a name that looks the same')
            need(not options.closed_registration, 'registration_closed', 'new accounts are not taken')
            made = yield lambda: hash_password(password, options.password_cost)
            if not store.name_is_taken(name_key(name)):  # by somebody, meanwhile: then look again
                store.add_user(name, name_key(name), made)
                return name, store.new_token(name, now)
        address = self.channel.address.rpartition(':')[0]
        is_right = yield lambda: self.server.passwords.judge(address, name, password, known)
        need(is_right is not None, 'too_many_attempts', 'too many wrong passwords: wait a minute')
        need(is_right, 'wrong_password', 'that is not the password of this name')
        if store.user_exists(name):
            return name, store.new_token(name, now)
        return (yield from self._judge(name, password, None))  # the tick that registered them could not be written

    def _conclude(self, outcome: str | Refused, token: str | None = None) -> None:  # in its turn, after the commit
        def then(is_durable: bool) -> None:
            if self.channel.is_open:
                self._answer(outcome if is_durable or isinstance(outcome, Refused) else NOT_WRITTEN, token)
                self.frames.release()
        self.server.store.after_commit(then)

    def _answer(self, outcome: str | Refused, token: str | None) -> None:
        request, self.request = self.request, None
        if isinstance(outcome, Refused):
            self.channel.write(refusal(request, outcome, self.channel.address))
            self._start_clock(self._deadline - self._asked_at)  # the time that judging took is ours
        else:
            self.end()
            session = Session(self.server, self.frames, self.packets, outcome)
            self.channel.pipeline.replace(self, session)
            session.begin(request.resume_after, token)


class Session(PeerHandler):  # a user is logged in: what they ask for, and what is delivered to them
    __slots__ = ('user_id', 'version', 'sent_id', 'delivered_id', 'is_live', '_sent_mark', '_budget', '_filled_at')
    def __init__(self, server: Server, frames: FrameHandler, packets: PacketHandler, user_id: str) -> None:
        super().__init__(server, frames, packets)
        self.version = packets.session_version = packets.version
        self.user_id, self.is_live, self._sent_mark = user_id, False, 0  # what `channel.sent` is once the last entry is
        self._budget, self._filled_at = server.options.rate or float('inf'), server.loop.time()  # requests; since when
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

    def send(self, packet: Packet) -> None: self.channel.write(encode_for(packet, self.version))  # this session's own

    def end(self) -> None:  # the user is no longer reached here.  What was not acknowledged stays in the log
        if self.server.sessions.get(self.user_id) is self:
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

    def feed(self) -> None:  # write a page of what is in the log above `sent_id`; live again once there is nothing left
        if self.is_live or not self.channel.is_writable or self.server.sessions.get(self.user_id) is not self:
            return  # writability_changed will ask for the next page
        page = self.server.store.unread(self.user_id, self.sent_id, PAGE)
        self.is_live = True
        for entry in page:
            self.deliver(entry.message_id, self.server.frame_of(entry, self.version))
            self.server.messages_out += self.is_live
        if len(page) == PAGE or not self.is_live:
            self.is_live = False
            self.server.feed_later(self)

    def writability_changed(self) -> None:
        if self.channel.is_writable and not self.is_live:
            self.server.feed_later(self)

    def acknowledge(self, message_id: int) -> None:  # everything up to that id was handled
        if (message_id := min(message_id, self.server.store.committed_id)) > self.delivered_id:
            self.delivered_id = message_id
            self.sent_id = max(self.sent_id, message_id)
            self.server.store.set_delivered(self.user_id, message_id)
            self.server.save_later()

    def note_sent(self) -> None:  # version 1 acknowledges nothing: what has left the write buffer was delivered
        if self.version == 1 and self._sent_mark <= self.channel.sent:
            self.acknowledge(self.sent_id)

    def channel_read(self, packet: Packet) -> None:
        if type(packet) is not protocol.DeliveryAck:
            self._spend_budget()
        if packet.COMMAND in QUESTIONS:  # answered after the commit of what is before it; what is behind it is held
            self.frames.hold()
            self.server.store.after_commit(lambda is_durable: self._attempt(packet))
            self.server.store.after_commit(lambda is_durable: self.frames.release())
        else:
            self._attempt(packet)

    def _spend_budget(self) -> None:  # one request, after what --rate adds for the time since; below 0 the rest waits
        now, rate = self.channel.alive_at, self.server.options.rate
        self._budget = min(rate or self._budget, self._budget + rate * (now - self._filled_at)) - 1
        self._filled_at = now
        if self._budget < 0:
            self.channel.pause_reading('rate')
            self.server.loop.call_later(max(RATE_PAUSE, (1 - self._budget) / rate), self.frames.go_on, 'rate')

    def _attempt(self, request: Packet) -> None:
        try:
            REQUEST_HANDLERS[request.COMMAND](self, request)
        except Refused as refused:
            self.send(refusal(request, refused, self.channel.address))

    def on_delivery_ack(self, request: Any) -> None: self.acknowledge(request.message_id)

    def on_login_request(self, request: Packet) -> None:
        raise Refused('already_logged_in', f'you are logged in as {self.user_id}; log out first')

    def on_logout_request(self, request: Packet) -> None:
        self.end()
        self.server.store.end_token(self.user_id)  # where that cannot be written, the session has ended all the same
        self.server.store.after_commit(lambda is_durable: self.send(protocol.LogoutResponse(success=True)))
        self.packets.session_version, self.frames.decoder.max_body = None, protocol.MAX_BODY_BEFORE_LOGIN
        login = LoginHandler(self.server, self.frames, self.packets)
        self.channel.pipeline.replace(self, login)
        login.channel_active()

    def on_message_request(self, request: Any) -> None:
        recipient = normalize(request.to_user_id)
        if entry := self._entry(MESSAGE, request, direct_stream(self.user_id, recipient), request.message):
            self._need_user(recipient)
            self._append_text(request, entry)

    def on_group_message_request(self, request: Any) -> None:
        if entry := self._entry(GROUP_MESSAGE, request, request.to_group_id, request.message):
            self._need_member(request.to_group_id, self.user_id in self.server.members(request.to_group_id))
            self._append_text(request, entry)

    def on_create_group_request(self, request: Any) -> None:
        store, name, named = self.server.store, request.group_name, [normalize(u) for u in request.user_id_list]
        if entry := self._entry(Kind.CREATE_GROUP, request, store.new_group_id(), json.dumps([name, named])):
            members = {self.user_id, *store.known_users(named)}
            need(name is None or 0 < len(name) <= MAX_GROUP_NAME, 'bad_request',
                 f'a group name has 1 to {MAX_GROUP_NAME} characters')
            need(len(members) <= self.server.options.max_group, 'group_full', 'so many cannot be in a group')
            self._append(request, entry, lambda entry, then: store.create_group(entry, name, members, then))

    def on_join_group_request(self, request: Any) -> None:
        store, group_id = self.server.store, request.group_id
        if entry := self._entry(Kind.JOIN_GROUP, request, group_id, ''):
            need(store.group_exists(group_id), 'unknown_group', 'there is no such group')
            need(not store.is_member(self.user_id, group_id), 'already_a_member', 'you are in this group')
            need(store.count_members(group_id) < self.server.options.max_group, 'group_full', 'the group is full')
            self._append(request, entry, store.join_group)

    def on_quit_group_request(self, request: Any) -> None:
        store, group_id = self.server.store, request.group_id
        if entry := self._entry(Kind.QUIT_GROUP, request, group_id, ''):
            self._need_member(group_id, store.is_member(self.user_id, group_id))
            self._append(request, entry, store.quit_group)

    def _entry(self, kind: Kind, request: Any, stream: str, text: str) -> Entry | None:
        """What `request` makes; None: it made that before, and is answered again, whatever the right to it is now."""
        store, client_seq = self.server.store, request.client_seq if self.version == 2 else 0
        need(client_seq > 0 or self.version == 1, 'bad_request', 'clientSeq begins at 1')
        entry = Entry(kind, stream, self.user_id, text, client_seq, int(self.server.wall_clock() * 1000))
        if not client_seq or client_seq > store.last_client_seq(self.user_id):
            return entry
        first = store.find_entry(self.user_id, client_seq)
        need(first and first.is_repeated_by(entry), 'seq_conflict', f'clientSeq {client_seq} was something else')
        self._append(request, first, lambda entry, then: store.after_commit(then))
        return None

    def _append_text(self, request: Packet, entry: Entry) -> None:
        need(entry.text, 'bad_request', 'the message is empty')
        if len(entry.text) > MAX_MESSAGE:
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

    def _answer(self, request: Packet, entry: Entry, is_durable: bool) -> None:  # answer the request that made `entry`
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

    def on_list_group_members_request(self, request: Any) -> None:
        store, group_id = self.server.store, request.group_id
        self._need_member(group_id, store.is_member(self.user_id, group_id))
        members = map(self.server.user, store.members(group_id, store.committed_id))
        self.send(protocol.ListGroupMembersResponse(group_id=group_id, session_list=list(members)))

    def on_list_users_request(self, request: Packet) -> None:
        sessions = self.server.sessions
        users = sorted(sessions) + [user for user in self.server.store.list_users(USERS_LIMIT) if user not in sessions]
        self.send(protocol.ListUsersResponse(user_list=list(map(self.server.user, users[:USERS_LIMIT]))))

    def on_list_groups_request(self, request: Packet) -> None:
        groups = [protocol.Group(group_id=group_id, group_name=name, member_count=count)
                  for group_id, name, count in self.server.store.groups_of(self.user_id)[:GROUPS_LIMIT]]
        self.send(protocol.ListGroupsResponse(group_list=groups))

    def on_history_request(self, request: Any) -> None:
        store, user, group = self.server.store, request.user_id, request.group_id
        limit = HISTORY_DEFAULT if request.limit is None else request.limit
        need((user is None) != (group is None) and 0 < limit <= HISTORY_LIMIT, 'bad_request',
             f'name a user or a group, and a limit of 1 to {HISTORY_LIMIT}')
        if user is not None:
            self._need_user(normalize(user))
            ask: Any = functools.partial(store.history_with, self.user_id, normalize(user))
        else:
            self._need_member(group, store.was_member(self.user_id, group))
            ask = functools.partial(store.history_of_group, self.user_id, group)
        page, more = _page_of(ask(FOREVER if request.before is None else request.before), limit)
        self.send(protocol.HistoryResponse(user_id=user, group_id=group, messages=page[::-1], more=more))


def _page_of(newest_first: Iterator[Entry], limit: int) -> tuple[list[protocol.HistoryMessage], bool]:
    """At most `limit` messages and HISTORY_SIZE bytes, and whether there are more."""
    page, size = [], 0
    for entry in newest_first:
        size += len(json.dumps(entry.text, ensure_ascii=False).encode()) + 250  # the rest of it: names and numbers
        if len(page) == limit or size > HISTORY_SIZE:
            return page, True
        page.append(protocol.HistoryMessage(message_id=entry.message_id, sent_at=entry.sent_at,
                                            from_user_id=entry.sender, message=entry.text))
    return page, False


# Command.MESSAGE_REQUEST -> Session.on_message_request, and so on; a request without its method fails here, at once.
REQUEST_HANDLERS = {int(command): getattr(Session, f'on_{command.name.lower()}')
                    for command in protocol.REQUESTS - {Command.HEARTBEAT_REQUEST}}
QUESTIONS = {command for command in protocol.REQUESTS if command.name.startswith(('LIST_', 'HISTORY_'))}


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


class Server:
    """Joins loop, store and sessions.  `options` are those of `make_parser`; `wall_clock`: seconds since 1970."""
    def __init__(self, loop: EventLoop, store: Store, options: argparse.Namespace,
                 wall_clock: Callable[[], float] = time.time, tls: ssl.SSLContext | None = None) -> None:
        self.loop, self.store, self.options, self.wall_clock, self._tls = loop, store, options, wall_clock, tls
        self.sessions: dict[str, Session] = {}
        self.strangers: dict[LoginHandler, None] = {}  # who is not logged in, by the time of coming
        self.passwords = Passwords(loop.time)
        self._template = functools.lru_cache(TEMPLATES)(protocol.message_template)
        self._lagging: dict[Session, None] = {}  # those to feed, each once: else some would come ever more often
        self._save_timer: Timer | None = None
        # A cache: groups as of the entry delivered last.  The store is ahead: a join may stand behind it in the tick.
        self._members: dict[str, set[str]] = {}
        self._applied_id, self._is_stopping = store.committed_id, False
        self.listener = Listener(loop, options.host, options.port, self._initialize, options.max_connections)
        loop.before_flush.append(self._before_flush)
        loop.on_tick = self._on_tick
        self._ticks = deque[tuple[float, float]](maxlen=TICKS)  # seconds: of a whole tick but its sleep, of its commit
        self.messages_out, self._reported = 0, (loop.time(), store.committed_id, 0)  # when, and how many by then
        if options.stats:
            loop.call_later(options.stats, self.report, True)

    def _initialize(self, channel: Channel) -> None:
        idle, frames, packets = IdleStateHandler(self.options.idle), FrameHandler(), PacketHandler(self.options.trace)
        channel.pipeline.add_last(*[TlsHandler(self._tls)] if self._tls else [], idle, frames, packets,
                                  HeartbeatHandler(), LoginHandler(self, frames, packets))

    def _before_flush(self) -> None:  # part 4 of each tick: commit, answer, deliver, feed
        for run in _runs_of(self.store.commit()):
            try:
                self._deliver(run)
            except Exception:  # a bug of ours must not leave a gap behind which newer entries are acknowledged
                logger.exception('bug: %d was not delivered; all are fed from the log', run[-1].message_id)
                self._members, self._applied_id = {}, run[-1].message_id
                for session in self.sessions.values():
                    session.is_live = False
                self.feed_later(*self.sessions.values())
        if len(self._members) > MEMBERS_CACHE:
            self._members.clear()
        for _ in range(min(len(self._lagging), PAGES_A_TICK)):
            self._lagging.pop(session := next(iter(self._lagging)))
            session.feed()
        if self._lagging:
            self.feed_later()  # the next tick is not to wait for a socket

    def _deliver(self, run: list[Entry]) -> None:
        frames: dict[int, bytes] = {}  # by version: encoded once, however many read it
        last_id, sessions, told = run[-1].message_id, self.sessions, 0
        for user_id in self._readers_of(run[0]):
            if session := sessions.get(user_id):
                if (version := session.version) not in frames:
                    frames[version] = b''.join([self.frame_of(entry, version) for entry in run])
                session.deliver(last_id, frames[version])
                told += session.is_live
        self._applied_id, self.messages_out = last_id, self.messages_out + told * len(run)

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

    def members(self, group_id: str) -> set[str]:  # those in the group as of `_applied_id`
        members = self._members.get(group_id)
        if members is None and (members := set(self.store.members(group_id, self._applied_id))):
            self._members[group_id] = members
        return members

    def frame_of(self, entry: Entry, version: int) -> bytes:  # the frame that tells a reader of `entry`
        if entry.kind is MESSAGE or entry.kind is GROUP_MESSAGE:
            fill = self._template(entry.sender, '' if entry.kind is MESSAGE else entry.stream, version)
            return fill(entry.text, entry.message_id, entry.sent_at)
        return encode_for(self.packet_of(entry), version)

    def packet_of(self, entry: Entry) -> Any:  # the packet that tells a reader of a change of membership
        common: dict[str, Any] = {'group_id': entry.stream, 'message_id': entry.message_id, 'sent_at': entry.sent_at}
        if entry.kind is Kind.CREATE_GROUP:
            members, name = self.store.members(entry.stream, entry.message_id), self.store.group_name(entry.stream)
            return protocol.CreateGroupResponse(success=True, user_name_list=members, group_name=name, **common)
        event = 'joined' if entry.kind is Kind.JOIN_GROUP else 'left'
        user = protocol.User(user_id=entry.sender, user_name=entry.sender)
        return protocol.GroupNotice(event=event, user=user, **common)

    def _on_tick(self, counts: tuple[int, ...], times: tuple[float, ...]) -> None:
        self._ticks.append((times[4] - times[0], times[3] - times[2]))
        if self.options.trace_ticks:
            parts = [1000 * (after - before) for before, after in zip(times, times[1:])]
            trace.info(TICK, *counts, *parts, sum(parts))

    def report(self, again: bool = False) -> None:
        """One line on the time since the last one, of its turns the last TICKS: what --stats and SIGUSR1 tell."""
        channels, ticks = self.listener.channels, sorted(self._ticks) or [(0.0, 0.0)]
        now = self.loop.time(), self.store.committed_id, self.messages_out
        seconds, came, went = (new - old for new, old in zip(now, self._reported))
        trace.info(STATS, len(channels), len(self.sessions), came / (seconds or 1), went / (seconds or 1), *(
            1000 * ticks[int(len(ticks) * share)][0] for share in (0.5, 0.99)), 1000 * ticks[-1][0],
            1000 * sum(commit for _, commit in ticks) / len(ticks), sum(channel.buffered for channel in channels))
        self._reported, self._ticks = now, deque[tuple[float, float]](maxlen=TICKS)
        if again:
            self.loop.call_later(self.options.stats, self.report, True)

    def user(self, user_id: str) -> protocol.User:
        return protocol.User(user_id=user_id, user_name=user_id, online=user_id in self.sessions)

    def feed_later(self, *sessions: Session) -> None:  # in part 4 of this tick, or of the next
        self._lagging.update(dict.fromkeys(sessions))
        self.loop.call_soon(lambda: None)

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

    def stop(self) -> None:  # accept and read no more, answer what was judged, send what is buffered, then end the loop
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

    def close(self) -> None:  # give everything back; for the end of the process
        for channel in list(self.listener.channels):
            channel.abort()
        self.store.close()
        self.loop.close()


# The command line ....................................................................................
def make_parser() -> Parser:
    parser = Parser(prog='imserver.py', description='The chat server.', allow_abbrev=False)
    add, seconds, number = parser.add_argument_group('where').add_argument, between(1, 86400, float), between(1, 10**6)
    add('--host', default='127.0.0.1', help='address to listen on (%(default)s)')
    add('--port', type=between(0, 65535), default=8000, help='0: any that is free (%(default)s)')
    add('--db', default='im.db', metavar='FILE', help='what keeps everything; :memory: keeps nothing (%(default)s)')
    add('--durability', choices=('full', 'normal', 'off'), default='full', help='only full survives a power cut (full)')
    add('--tls-cert', metavar='FILE', help='certificate (PEM): then all connections are TLS (none)')
    add('--tls-key', metavar='FILE', help='its key; if it is not in the same file')
    add = parser.add_argument_group('limits').add_argument
    add('--idle', type=seconds, default=15.0, metavar='SECONDS', help='of silence that end a connection (%(default)s)')
    add('--login-timeout', type=seconds, default=60.0, metavar='SECONDS', help='time to log in (%(default)s)')
    add('--max-connections', type=number, default=10000, metavar='N', help='at one time (%(default)s)')
    add('--max-unauthenticated', type=number, default=256, metavar='N', help='of these not logged in (%(default)s)')
    add('--max-body', type=between(MIN_MAX_BODY, 2**31), default=MAX_BODY, metavar='BYTES', help='(%(default)s)')
    add('--max-group', type=between(1, 3000), default=500, metavar='N', help='members of a group (%(default)s)')
    add('--rate', type=between(0, 10**6), default=1000, metavar='N', help='requests a second; 0: no end (%(default)s)')
    add('--limits', action='store_true', help='print every limit, and exit')
    add = parser.add_argument_group('accounts').add_argument
    add('--password-cost', type=between(10, 20), default=14, metavar='N', help="log2 of scrypt's N (%(default)s)")
    add('--closed-registration', action='store_true', help='only accounts that exist may log in')
    add('--set-password', metavar='NAME', default=argparse.SUPPRESS, help='make an account or reset it, and exit')
    add = parser.add_argument_group('to watch it, on standard error').add_argument
    add('--trace', action='store_true', help='each frame that comes and goes, annotated')
    add('--trace-ticks', action='store_true', help='what each turn of the loop did')
    add('--stats', type=seconds, metavar='SECONDS', help='a line so often (never; at once on SIGUSR1)')
    add('--log-level', choices=('debug', 'info', 'warning', 'error'), default='info', help='what is logged (info)')
    return parser


def _limits(options: argparse.Namespace) -> str:  # those of the options, and the lines of the source that name one
    lines = [f'--{name.replace("_", "-")} {n}' for name, n in vars(options).items() if type(n) in (int, float)]
    for module in map(inspect.getmodule, (decode, EventLoop, Store, Server)):
        limits = re.findall('^[A-Z][A-Z_, ]+ = [-0-9M].*  # .*', inspect.getsource(module), re.MULTILINE)
        lines += ['', f'{os.path.basename(module.__file__)}:', *limits]
    return '\n'.join(lines)


def _tls_context(parser: Parser, options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return parser.error('--tls-key needs --tls-cert') if options.tls_key else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key, password='')  # '': else it would ask, here
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        parser.error(f'cannot use the certificate {options.tls_cert}: {error.strerror or error}')
    return context


def _set_password(parser: Parser, store: Store, options: argparse.Namespace) -> None:  # --set-password
    name, password = normalize(options.set_password), os.environ.get('IM_PASSWORD')
    password = ask(parser, 'New password: ') if password is None else password
    if not password or any('\ud800' <= c <= '\udfff' for c in name + password):  # bytes that are no text
        parser.error('the name and the password must be text, and not empty')
    is_known, wrong = store.user_exists(name), store.set_password(name, hash_password(password, options.password_cost))
    store.close()
    parser.error(wrong) if wrong else print(name, 'has a new password' if is_known else 'has an account now')


def main() -> None:
    options = (parser := make_parser()).parse_args()
    logging.basicConfig(level=options.log_level.upper(), format='%(asctime)s %(levelname)s %(name)s %(message)s')
    if options.limits:
        return print(_limits(options))
    tls = _tls_context(parser, options)
    os.umask(0o077)  # what people write here is for nobody else on this machine
    try:
        store = Store(options.db, options.durability)
    except StoreError as error:
        parser.error(error)
    if hasattr(options, 'set_password'):
        return _set_password(parser, store, options)
    try:
        server = Server(EventLoop(), store, options, tls=tls)
    except OSError as error:
        store.close()
        reason = (error.strerror or str(error)).partition(' (while')[0]  # what create_server adds says it again
        parser.error(f'cannot listen on {options.host} port {options.port}: {reason} (--port N: on another)')
    for name, react in {'SIGINT': server.stop, 'SIGTERM': server.stop, 'SIGUSR1': server.report}.items():
        if hasattr(signal, name):
            server.loop.add_signal_handler(getattr(signal, name), react)
    host, port = server.listener.address
    if not (tls or host.startswith('127.') or host == '::1'):
        logger.warning('passwords and messages cross the network in the clear: anyone on the way can read them')
    print(f'listening on {f"[{host}]" if ":" in host else host}:{port}', flush=True)
    gc.set_threshold(YOUNG_OBJECTS)
    server.loop.run()
    server.close()


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""The client: `python3 imclient.py --user alice` chats in a terminal, and so do scripts through a pipe.

What it does: connects (`Connector`), logs in and stays (`Client`, to import: one user), reads and shows (`App`).  What
it leaves to others: bytes (protocol.py), sockets and time (reactor.py), keys and text (console.py).

A request that makes an entry of the server's log has a number, `client_seq`, and stays on the client's list until it
is answered.  After a lost connection what is on the list is sent again, and the server, which knows the numbers, does
nothing twice.  It in turn sends again what was not acknowledged, and the client shows each id once.

      client                                            server
        | --- MESSAGE_REQUEST clientSeq 7 ---------------> |  writes it down
        |                                  X-- MESSAGE_ACK |  lost, with the connection
        | --- LOGIN_REQUEST token -----------------------> |
        | --- MESSAGE_REQUEST clientSeq 7 ---------------> |  has that: no second message
        | <------------ MESSAGE_ACK clientSeq 7, id 4711 - |
"""
from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import json
import logging
import os
import random
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import protocol
from console import (
    GROUP_ID, Chats, Key, Parser, PlainTerminal, Terminal, ask, between, keep_line, load_history, make_terminal,
    render)
from protocol import Command, Packet, encode
from reactor import INPUT_ENDED, NO_TIMER, READER_IDLE, Channel, EventLoop, Handler, IdleStateHandler, TlsHandler

CONNECT_TIMEOUT, LEAVE_TIMEOUT = 10.0, 1.0  # seconds for an attempt to connect; for the server to close too
BACKOFF_FIRST, BACKOFF_LAST = 1.0, 30.0  # seconds between attempts, doubling from the one to the other
HEARTBEAT_INTERVAL, SERVER_IDLE = 5.0, 15.0  # seconds; without a byte for three heartbeats the server counts as dead
LOGIN_PATIENCE = 60.0  # seconds for a login, in silence: the passwords of a class are judged one after the other
PATIENCE, END_TIMEOUT = 60.0, 10.0  # seconds that a script waits for a lost server; for answers after its last line
BACKLOG_PAUSE = 0.5  # seconds without a message: then all that had waited has come
MAX_USERS = 30_000  # of a list, counted by its braces, which no name has: a MiB of `{}` would become 100 MiB of objects
LARGEST_REQUEST = 32_736  # bytes of a frame without its number that every server takes; else it closes the connection
WINDOW, LINES_AHEAD = 64, 1_000  # of a script: unanswered requests; lines that wait for them (a file is read at once)
HISTORY_FILE = Path(os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state'), 'im', 'history')
Event = dict[str, Any]  # {'event': 'message', ...}; the other keys are named as on the wire


# Connecting ..........................................................................................
def backoff(failures: int, rand: Callable[[], float] = random.random) -> float:
    """Return the seconds before the next attempt, drawn from 0 to a bound that doubles: clients that lost one server do
    not come back together.  Full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015)."""
    return rand() * min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(failures, 10))


class Connector:
    """Connects to a server; `initialize(channel)` fills the pipeline of the channel that it makes, `on_failed(error)`
    tells that an attempt came to nothing.  Each looks the name up (in the worker: that may block) and tries its
    addresses in turn, for CONNECT_TIMEOUT seconds in all."""
    def __init__(self, loop: EventLoop, host: str, port: int, initialize: Callable[[Channel], None],
                 on_failed: Callable[[Exception], None]) -> None:
        self._loop, self._target, self._initialize, self._on_failed = loop, (host, port), initialize, on_failed
        self._attempt, self._timer, self._socket = 0, NO_TIMER, None  # that of the address that is tried

    def connect(self) -> None:  # begin an attempt; one that is under way is dropped
        self.cancel()
        attempt = self._attempt
        self._timer = self._loop.call_later(CONNECT_TIMEOUT, self._fail, TimeoutError('no answer'))
        self._loop.run_in_worker(lambda: socket.getaddrinfo(*self._target, type=socket.SOCK_STREAM),
                                 lambda found, error: self._try(attempt, iter(found or ()), error))

    def cancel(self) -> None:
        self._attempt += 1  # what still comes of an older one is dropped
        self._timer.cancel()
        if self._socket:
            self._loop.register(self._socket, 0, id)
            self._socket.close()
            self._socket = None

    def _try(self, attempt: int, addresses: Iterator[Any], error: Exception | None) -> None:  # that of the last one
        if attempt != self._attempt:
            return
        for family, kind, number, _, address in addresses:
            try:
                sock = socket.socket(family, kind, number)
            except OSError as failure:  # no descriptor, or no such family here
                error = failure
                continue
            sock.setblocking(False)
            failure = sock.connect_ex(address)
            if failure in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):  # the last: Windows' way to say in progress
                self._socket = sock  # writable: it is connected, or it has failed
                return self._loop.register(sock, EVENT_WRITE, lambda mask: self._on_ready(attempt, addresses))
            sock.close()
            error = OSError(failure, os.strerror(failure))
        self._fail(error or OSError('the name has no address'))

    def _on_ready(self, attempt: int, addresses: Iterator[Any]) -> None:
        if attempt != self._attempt:  # cancelled earlier in this tick
            return
        sock, self._socket = self._socket, None
        self._loop.register(sock, 0, id)
        if failure := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
            self._try(attempt, addresses, OSError(failure, os.strerror(failure)))
        else:
            self.cancel()
            Channel(self._loop, sock, self._initialize)

    def _fail(self, error: Exception) -> None:
        self.cancel()
        self._on_failed(error)


class ServerHandler(Handler):
    """The last handler of a connection to a server: bytes to packets for `client`."""
    def __init__(self, client: Client) -> None:
        self._client, self._decoder, self._has_read = client, protocol.FrameDecoder(protocol.MAX_BODY_CLIENT), False

    def channel_active(self) -> None: self._client.on_connected(self.channel)
    def channel_inactive(self) -> None: self._give_up('the connection was closed')

    def channel_read(self, data: bytes) -> None:
        self._has_read = True
        self._decoder.feed(data)
        frames = iter(self._decoder)
        while self.channel.is_open and (frame := self._next_of(frames)):
            try:
                if frame[6] in (10, 26) and frame.count(b'{') > MAX_USERS:  # the lists of members and of users
                    raise protocol.BadPacket('bad_request', 'too many users', frame[6])
                packet = protocol.decode(frame, None, protocol.RESPONSES)
            except protocol.BadPacket as error:
                self._client.tell('error', reason=f'the server sent something unreadable: {error}')
            else:
                self._client.on_packet(packet, frame[4])

    def _next_of(self, frames: Any) -> bytes | None:
        try:
            return next(frames, None)
        except protocol.ProtocolError as error:
            return self._give_up(f'the server does not speak this protocol: {error}')

    def _give_up(self, reason: str) -> None:
        hint = 'is it one with TLS?' if self._client.uses_tls else 'with --tls?'
        self._client.on_lost(reason if self._has_read else f'{reason} before a word: {hint}')

    def user_event(self, event: Any) -> None:
        if event is READER_IDLE and not self._client.is_logging_in:
            self._give_up(f'the server was silent for {SERVER_IDLE:g} s')
        elif event is INPUT_ENDED:
            self._give_up('the server closed the connection')
        elif isinstance(event, ssl.SSLError) and (self._has_read or self._client.lost_at is not None):
            self._give_up(str(event))  # it was good before
        elif isinstance(event, ssl.SSLError):
            self._client.give_up(f'{event} (a server without TLS, or with a certificate for --tls-ca?)')


# The client ..........................................................................................
# The command that answers each request.
ANSWERS = {request: request + 1 for request in protocol.REQUESTS} | {
    Command.MESSAGE_REQUEST: Command.MESSAGE_ACK, Command.GROUP_MESSAGE_REQUEST: Command.MESSAGE_ACK}
LISTS = {Command.LIST_GROUP_MEMBERS_RESPONSE: 'members', Command.HISTORY_RESPONSE: 'history',
         Command.LIST_USERS_RESPONSE: 'users', Command.LIST_GROUPS_RESPONSE: 'groups'}  # and their events


@dataclass(eq=False)  # two that say the same are two
class Pending:  # a request that is not answered yet
    packet: Any
    times_sent: int = 0


class Client:
    """One user of a chat server.  Requests may be made at any time: they are sent once the user is logged in.
    `on_event(event)` tells what happens in a dict: the key 'event' says what, the others are named as on the wire.  A
    lone surrogate is a ValueError.  `retries`: further attempts to reach the server at first.  `patience`: seconds to
    try once it was lost; None: for ever.  Where it gives up, the event is 'gave_up'."""
    def __init__(self, loop: EventLoop, host: str, port: int, on_event: Callable[[Event], None], *,
                 retries: int = 5, patience: float | None = None, rand: Callable[[], float] = random.random,
                 tls: ssl.SSLContext | None = None) -> None:
        self._loop, self._on_event = loop, on_event
        self._target, self.uses_tls = {'host': host, 'port': port}, tls is not None
        self._retries, self._patience, self._random = retries, patience, rand
        self._connector = Connector(loop, host, port, lambda channel: channel.pipeline.add_last(*[TlsHandler(
            tls, host)] if tls else [], IdleStateHandler(SERVER_IDLE), ServerHandler(self)), self._on_failed)
        self._channel: Channel | None = None
        self._failures, self._timer = 0, NO_TIMER  # the next heartbeat, or the next attempt to connect
        self.lost_at: float | None = None  # when it was lost, and no login has succeeded since
        self.user_name = self.user_id = ''
        self._password = self._token = self._log_id = None  # str, as soon as there is one
        self.version = 2  # of the session; 1 once a server has answered in it
        self.wants_login = self.is_logged_in = False  # login was called, and nothing has ended that; it succeeded
        self.pending: list[Pending] = []
        self._next_seq, self._highest_id = 1, 0  # of requests; of the entries shown
        self._acknowledges, self._heard_version = False, 2  # soon; of the last frame

    def login(self, user_name: str, password: str) -> None:
        """Log in, connecting first if need be; the first login with a free name makes the account."""
        if self.is_logged_in:
            return self.tell('error', code='already_logged_in', reason=f'you are {self.user_name}; log out first')
        if user_name != self.user_name:
            self._drop(list(self.pending))  # what one user asked for is not to be done as another
            self._forget()
        if self.wants_login:  # one is under way: its answer must not be taken for that of this one
            self.close()
        self.user_name, self._password, self.wants_login = user_name, password, True
        self._token, self._failures, self.lost_at = None, 0, None
        if self._channel:
            self._send_login()
        else:
            self._timer.cancel()
            self._connector.connect()

    def send_message(self, user_id: str, text: str) -> None:
        self.request(protocol.MessageRequest(to_user_id=user_id, message=text))

    def send_group_message(self, group_id: str, text: str) -> None:
        self.request(protocol.GroupMessageRequest(to_group_id=group_id, message=text))

    def close(self) -> Channel | None:
        """Send what is buffered, close, and do not come back.  Return the channel: it needs some ticks for that."""
        self.wants_login = self.is_logged_in = False
        self._connector.cancel()
        self._timer.cancel()
        channel, self._channel = self._channel, None  # not lost: given up
        if channel:
            channel.close()
        return channel

    def tell(self, event: str, **fields: Any) -> None:
        self._on_event({'event': event} | {name: value for name, value in fields.items() if value is not None})

    def on_connected(self, channel: Channel) -> None:
        self._channel, self.version, self._asked_at = channel, 2, self._loop.time()
        self.tell('connected', **self._target)
        self._beat()
        self._send_login()

    @property
    def is_logging_in(self) -> bool: return self.wants_login and not self.is_logged_in

    def _beat(self) -> None:
        if self.is_logging_in and self._loop.time() - self._asked_at >= LOGIN_PATIENCE:
            return self.on_lost(f'the login was not answered within {LOGIN_PATIENCE:g} s')
        self._timer = self._loop.call_later(HEARTBEAT_INTERVAL, self._beat)
        self._write(protocol.HeartbeatRequest())

    def _send_login(self) -> None:
        self._asked_at = self._loop.time()
        secret = {'token': self._token} if self._token else {'password': self._password}
        self._write(protocol.LoginRequest(user_name=self.user_name, **secret))

    def on_lost(self, reason: str) -> None:  # end the connection; come back if the user is to be logged in
        channel, self._channel, self.is_logged_in = self._channel, None, False
        if channel is None:  # given up by ourselves
            return
        channel.abort()
        self.lost_at = self._loop.time() if self.lost_at is None else self.lost_at
        self._timer.cancel()
        self.tell('disconnected', reason=reason)
        if self.wants_login:
            self._connect_later(reason)

    def _on_failed(self, error: Exception) -> None:
        self._connect_later(getattr(error, 'strerror', None) or str(error), 'cannot reach the server: ')

    def _connect_later(self, reason: str, news: str = '') -> None:
        gives_up = self._failures >= self._retries if self.lost_at is None else (
            self._patience is not None and self._loop.time() - self.lost_at >= self._patience)
        if gives_up:
            return self.give_up(reason)
        delay = backoff(self._failures, self._random)
        self._failures += 1
        self.tell('reconnecting', delay=delay, attempt=self._failures, reason=news + reason if news else None)
        self._timer = self._loop.call_later(delay, self._connector.connect)

    def give_up(self, reason: str) -> None:
        self.close()
        self.tell('gave_up', reason='cannot reach {host} port {port}: {}'.format(reason, **self._target))

    def _write(self, packet: Packet) -> None:
        if self._channel:
            self._channel.write(encode(packet, self.version))

    def request(self, packet: Packet) -> None:
        """Make any request of the protocol but a login.  Its number is given here."""
        size = len(encode(packet, 2))  # raises ValueError now and not when others wait behind it
        if not self.is_logged_in and not self.wants_login:
            return self.tell('error', code='not_logged_in', reason='log in first')
        if size > LARGEST_REQUEST:
            return self.tell('error', code='message_too_long', reason=f'more than {LARGEST_REQUEST} bytes')
        self.pending.append(Pending(packet))
        if self.is_logged_in:
            self._send(self.pending[-1])

    def _send(self, request: Pending) -> None:
        packet = request.packet
        if self.version == 1 and packet.COMMAND > protocol.LAST_COMMAND_OF_VERSION_1:
            self.pending.remove(request)
            return self.tell('error', reason='this server speaks version 1, which has no such request')
        if self.version == 2 and getattr(packet, 'client_seq', 0) is None:
            packet.client_seq, self._next_seq = self._next_seq, self._next_seq + 1
        if self.version == 1 and self.user_id not in getattr(packet, 'user_id_list', [self.user_id]):
            packet.user_id_list.append(self.user_id)  # such a server adds nobody who is not named
        request.times_sent += 1
        self._write(packet)
        if self.version == 1 and ANSWERS[packet.COMMAND] == Command.MESSAGE_ACK:  # nobody will answer
            self.pending.remove(request)
            self._tell_sent(packet)

    def _take(self, matches: Callable[[Any], bool]) -> Pending | None:  # the first such request, off the list
        if found := next((request for request in self.pending if matches(request.packet)), None):
            self.pending.remove(found)
        return found

    def _drop(self, requests: list[Pending]) -> None:  # done or not: without a number, to ask again might do it twice
        for request in requests:
            self.pending.remove(request)
            self.tell('error', command=Command(request.packet.COMMAND).name, reason='not answered')

    def _answered(self, response: Any) -> Pending | None:  # off the list.  A number tells which; else the first such
        client_seq = getattr(response, 'client_seq', None)
        return self._take(lambda packet: ANSWERS[packet.COMMAND] == response.COMMAND
                          and (client_seq is None or packet.client_seq == client_seq)
                          and getattr(packet, 'group_id', None) in (None, getattr(response, 'group_id', None)))

    def _refused(self, request: Pending | None, command: int | None, code: str | None, reason: str | None) -> None:
        if request and code == 'seq_conflict' and request.times_sent > 1:
            # Somebody else used the number as this user while we were away: ours was not done and gets a new one.
            request.packet.client_seq, request.times_sent = None, 0
            self.pending.append(request)
            return self._send(request)
        name = Command(command).name if command in protocol.PACKETS else None
        self.tell('error', command=name, code=code, reason=reason or 'refused')

    def _forget(self) -> None:  # another user or another database: ids, numbers and the token mean nothing there
        self._token, self._log_id, self._next_seq, self._highest_id = None, None, 1, 0
        for request in self.pending:
            request.times_sent = 0
            if hasattr(request.packet, 'client_seq'):
                request.packet.client_seq = None

    def on_packet(self, packet: Any, version: int) -> None:  # the frame's version
        self._heard_version = version
        getattr(self, f'_on_{Command(packet.COMMAND).name.lower()}')(packet)

    def _on_login_response(self, packet: protocol.LoginResponse) -> None:
        if self.is_logged_in or not self.wants_login:
            return
        if not packet.success:
            return self._on_login_refused(packet)
        if packet.log_id != self._log_id:
            self._forget()
        self.version, self._failures, self.lost_at = self._heard_version, 0, None
        self.user_id = packet.user_id or self.user_name
        self._log_id, self._token = packet.log_id, packet.token or self._token
        self._next_seq = max(self._next_seq, (packet.last_client_seq or 0) + 1)
        self.tell('login', userName=packet.user_name or self.user_name, userId=self.user_id, version=self.version)
        self.is_logged_in = True  # not before: what is asked for at that event has its place behind what waits
        self._acknowledge()
        self._drop([request for request in self.pending if self.version == 1 and request.times_sent])
        for request in list(self.pending):
            self._send(request)

    def _on_login_refused(self, packet: Any) -> None:
        if self.lost_at is not None and packet.code in ('too_many_attempts', 'internal_error'):
            self.on_lost(packet.reason or packet.code)  # it was good before: again, later
        elif self._token and self._password is not None:  # the token has ended: try the password
            self._token = None
            self._send_login()
        else:
            self.wants_login = False
            self.tell('login_failed', code=packet.code, reason=packet.reason or 'refused')

    def _on_logout_response(self, packet: protocol.LogoutResponse) -> None:
        self._answered(packet)
        if not packet.success:
            return self._refused(None, Command.LOGOUT_REQUEST, None, packet.reason)
        self.wants_login, self.is_logged_in, self._token = False, False, None
        self.tell('logged_out')

    def _on_kicked_notice(self, packet: protocol.KickedNotice) -> None:
        self.wants_login = self.is_logged_in = False  # to come back would kick the other, and so on for ever
        self.tell('kicked', reason=packet.reason)

    def _on_error_response(self, packet: protocol.ErrorResponse) -> None:
        if packet.command == Command.LOGIN_REQUEST:
            self._on_login_refused(packet)
        elif packet.command != Command.DELIVERY_ACK:  # sent as the session ended: nothing that the user asked for
            number = packet.client_seq
            request = self._take(lambda pending: pending.COMMAND == packet.command and (
                number is None or getattr(pending, 'client_seq', number) == number))
            self._refused(request, packet.command, packet.code, packet.reason)

    def _on_message_ack(self, packet: protocol.MessageAck) -> None:
        if request := self._answered(packet):
            self._tell_sent(request.packet, messageId=packet.message_id, sentAt=packet.sent_at,
                            clientSeq=packet.client_seq)

    def _tell_sent(self, packet: Any, **ids: int) -> None:
        self.tell('sent', toUserId=getattr(packet, 'to_user_id', None), toGroupId=getattr(packet, 'to_group_id', None),
                  message=packet.message, **ids)

    def _on_membership(self, packet: Any) -> None:
        request, event = self._answered(packet), 'joined' if packet.COMMAND == Command.JOIN_GROUP_RESPONSE else 'left'
        if packet.success:
            self.tell(event, groupId=packet.group_id)
        else:
            self._refused(request, packet.COMMAND - 1, packet.code, packet.reason)

    def _on_create_group_response(self, packet: protocol.CreateGroupResponse) -> None:
        # To its creator it is an answer and no entry to acknowledge: entries with lower ids may follow it.
        is_answer = (packet.client_seq is not None or self.version == 1) and self._answered(packet) is not None
        if not packet.success:
            self._refused(None, Command.CREATE_GROUP_REQUEST, None, packet.reason)
        elif is_answer or packet.client_seq is None and self._is_new(packet):
            self.tell('group_created', groupId=packet.group_id, groupName=packet.group_name,
                      userNameList=packet.user_name_list or [], unknownUserIdList=packet.unknown_user_id_list)

    def _is_new(self, packet: Any) -> bool:  # not shown before.  Entries of the log come in the order of their ids
        if self.version == 1 or packet.message_id is None:
            return True
        if not self._acknowledges:
            self._acknowledges = True
            self._loop.call_soon(self._acknowledge)  # once for all that arrived together
        if packet.message_id <= self._highest_id:
            return False
        self._highest_id = packet.message_id
        return True

    def _acknowledge(self) -> None:
        self._acknowledges = False
        if self.is_logged_in and self.version == 2 and self._highest_id:
            self._write(protocol.DeliveryAck(message_id=self._highest_id))

    def _on_message_response(self, packet: protocol.MessageResponse) -> None:
        if self._is_new(packet):
            self.tell('message', **{'fromUserName': '', **_fields_of(packet)})

    def _on_group_message_response(self, packet: protocol.GroupMessageResponse) -> None:
        if self._is_new(packet):
            who = packet.from_user or protocol.User()
            self.tell('group_message', groupId=packet.from_group_id, fromUserId=who.user_id, fromUserName=who.user_name,
                      message=packet.message, messageId=packet.message_id, sentAt=packet.sent_at)

    def _on_group_notice(self, packet: protocol.GroupNotice) -> None:
        if self._is_new(packet):
            self.tell('notice', groupId=packet.group_id, userId=packet.user.user_id or '', action=packet.event,
                      userName=packet.user.user_name or '', messageId=packet.message_id, sentAt=packet.sent_at)

    def _on_list(self, packet: Any) -> None:
        self._answered(packet)
        self.tell(LISTS[packet.COMMAND], **_fields_of(packet))

    def _on_heartbeat_response(self, packet: Packet) -> None: pass
    _on_join_group_response = _on_quit_group_response = _on_membership
    _on_list_group_members_response = _on_history_response = _on_list_users_response = _on_list
    _on_list_groups_response = _on_list


def _fields_of(body: protocol.Body) -> dict[str, Any]:  # by their names on the wire; None is left out
    return {f.name: [_fields_of(item) for item in value] if f.many and f.kind is not str else value
            for f in body.FIELDS if (value := getattr(body, f.attribute)) is not None}


# The command line ....................................................................................
ALIASES = {'sendToUser': '/msg', 'sendToGroup': '/group', 'createGroup': '/create', 'joinGroup': '/join',
           'quitGroup': '/quit', 'listGroupMembers': '/members', 'logout': '/logout'}
SIGNALS = {'SIGINT': 130, 'SIGTERM': 143, 'SIGHUP': 129}  # and the exit code: 128 and its number, as shells have it


class App:
    """Lines of standard input to requests, events to standard output.  In a terminal every line is done at once; in a
    pipe or a file it waits for the login and for most of the answers, and the end of the input waits for the rest."""
    def __init__(self, options: argparse.Namespace, terminal: PlainTerminal) -> None:
        is_person = os.isatty(0) and os.isatty(1)
        self._options, self._terminal, self._waits = options, terminal, not is_person
        self._color = isinstance(terminal, Terminal) and not (options.no_color or os.environ.get('NO_COLOR'))
        self._loop, self._chats = EventLoop(), Chats()
        retries = (5 if is_person else 0) if options.retries is None else options.retries
        self.client = Client(self._loop, options.host, options.port, self._on_event, retries=retries,
                             patience=None if is_person else PATIENCE, tls=options.tls)
        self._arrived, self._logged_in_at, self._exit_code = 0, 0.0, 0  # messages that had waited at that time
        self._quiet: list[str] | None = None  # lists that nobody asked to see; None: there was no login yet
        self._looked_up = deque[str]()  # whose history was asked for, in this order
        self._lines: deque[str | Key] = deque()  # read, and not done yet; Key.END is the last
        self._is_watched: bool | None = False  # the input, by the loop; None: by a thread
        self._at_end, self._is_ending = False, False  # the input is over; it is time to leave
        self._login_name, self._left, self._timer, self._backlog_timer = '', 0, NO_TIMER, NO_TIMER  # who logs in

    def run(self) -> int:  # until it is time to leave; the exit code
        for name in SIGNALS.keys() & vars(signal):
            self._loop.add_signal_handler(getattr(signal, name), lambda code=SIGNALS[name]: self._exit(code))
        if isinstance(self._terminal, Terminal):
            self._loop.add_signal_handler(signal.SIGWINCH, self._terminal.redraw)
            self._loop.add_signal_handler(signal.SIGCONT, lambda: (self._terminal.close(), self._terminal.open()))
            self._terminal.editor.history, self._terminal.editor.complete = load_history(HISTORY_FILE), self._complete
        self._loop.before_flush.append(self._work)
        self.client.login(self._options.user, self._options.password)
        with self._terminal:
            self._show_prompt()
            self._begin_reading()
            self._loop.run()
        if channel := self.client.close():
            self._loop.call_later(LEAVE_TIMEOUT, lambda: channel.buffered or channel.abort())
            while not channel.is_closed:  # to leave with its bytes unread might destroy what it has yet to read
                self._loop.tick()
        self._loop.close()
        lost = sum(hasattr(request.packet, 'client_seq') for request in self.client.pending)  # questions are not
        if self._exit_code > 128 and lost:
            print(f'imclient.py: of {lost} on the way nobody knows whether they arrived', file=sys.stderr)
        return self._exit_code

    def _exit(self, code: int) -> None:
        self._exit_code, self._is_ending = max(self._exit_code, code), True
        self._lines.clear()
        self._loop.stop()

    def _begin_reading(self) -> None:
        try:
            self._watch(True)
        except (OSError, ValueError):  # a plain file; on Windows: whatever is no socket
            self._is_watched = None
            threading.Thread(target=self._read_in_thread, daemon=True).start()
            if not self._waits:
                self.client.tell('info', text='this keyboard gives whole lines: what arrives may cut into yours')

    def _watch(self, is_watched: bool) -> None:
        if self._is_watched is not None and is_watched != self._is_watched:
            self._loop.register(0, EVENT_READ if is_watched else 0, self._on_readable)
            self._is_watched = is_watched

    def _read_in_thread(self) -> None:
        while data := os.read(0, 65536):
            self._loop.call_soon_threadsafe(self._feed, data)
        self._loop.call_soon_threadsafe(self._feed, b'')

    def _on_readable(self, mask: int) -> None:
        data = b''
        with contextlib.suppress(OSError):  # EIO: the terminal was closed
            data = os.read(0, 65536)
        self._feed(data)

    def _feed(self, data: bytes) -> None:  # b'': the end of it
        self._at_end = not data
        for result in self._terminal.feed(data) if data else self._terminal.finish():
            if result is Key.INTERRUPT:
                self._exit(130)
            elif result is Key.EMPTY:  # nothing to clear; or a password, and then there is no login
                self.client.tell('info', text=f'{self._login_name and "nobody logs in; "}Ctrl-C once more leaves')
                self._login_name = ''
            elif result is Key.SUSPEND:
                self._terminal.close()
                os.kill(0, signal.SIGTSTP)  # the whole job, as terminals do it.  Does nothing where no shell watches it
                self._terminal.open()
            else:
                self._lines.append(result)

    def _complete(self, text: str) -> list[str]:  # what the last word of a line that begins so may become
        *before, word = text.split(' ')
        chats, kinds = self._chats, COMMANDS[before[0]][0] if before and before[0] in COMMANDS else ''
        names = {*map(chats.title, chats.groups)} if 'GROUP' in kinds else set[str]()
        names |= chats.users if 'USER' in kinds else set[str]()
        is_name = before and (len(before) == 1 or '...' in kinds)
        return sorted(name for name in (names if is_name else COMMANDS) if word and name.startswith(word))

    def _work(self) -> None:  # part 4 of each tick: do what was read, as far as the server keeps up
        while self._lines and not self._must_wait():
            self._do(self._lines.popleft())
            self._show_prompt()
        self._watch(len(self._lines) < LINES_AHEAD and not self._at_end)
        if self._is_ending and not (self.client.pending and self.client.wants_login):
            self._loop.stop()
        elif self._at_end or self._is_ending:
            self._wait_for_answers()

    def _must_wait(self) -> bool:
        is_leaving = any(request.packet.COMMAND == Command.LOGOUT_REQUEST for request in self.client.pending)
        is_busy = is_leaving or self.client.is_logging_in or len(self.client.pending) >= WINDOW
        return self._is_ending or self._waits and is_busy

    def _wait_for_answers(self) -> None:  # for END_TIMEOUT seconds after the last progress
        before, self._left = self._left, len(self._lines) + len(self.client.pending) + 1
        if not before or self._left < before:
            self._timer.cancel()
            self._timer = self._loop.call_later(END_TIMEOUT, self._miss_answers)

    def _miss_answers(self) -> None:
        left = len(self.client.pending) + len(self._lines) - self._lines.count(Key.END)
        self.client.tell('error', reason=f'no answer within {END_TIMEOUT:g} s; not done: {left}')
        self._exit(1)

    def _do(self, line: str | Key) -> None:
        if line is Key.END:  # in its turn among the lines: the one before it may be a password
            return self._leave()
        if self._login_name and line:  # a mere Enter is no password: it was pasted, or pressed in doubt
            name, self._login_name = self._login_name, ''
            if isinstance(self._terminal, Terminal):  # pasted before it was asked for, it looked like any other line
                self._terminal.editor.history[:] = [old for old in self._terminal.editor.history if old != line]
            if name != self.client.user_name and not self.client.is_logged_in:
                self._chats, self._quiet = Chats(), None
            return self.client.login(name, line)
        word, rest = [*line.split(None, 1), '', ''][:2]  # at any blank: that of a Chinese keyboard is U+3000
        if isinstance(self._terminal, Terminal) and word and (self.client.wants_login or word in COMMANDS):  # password?
            keep_line(HISTORY_FILE, ' '.join(line.split()[:2]) if word.startswith('/login') else line)
        word = word if (front := self._chats.front) else ALIASES.get(word, word)
        if word.startswith('/'):
            self._command(word, rest.strip())
        elif word and not front:
            self.client.tell('error', reason='say to whom: /chat USER, or /msg USER TEXT')
        elif word:
            (self.client.send_group_message if self._is_group(front) else self.client.send_message)(front, line.strip())

    def _leave(self) -> None:
        self._is_ending = True
        if self.client.pending and not self._waits:
            self.client.tell('info', text='waits for what is on the way; Ctrl-C leaves')

    def _command(self, word: str, rest: str) -> None:
        usage, _, do = COMMANDS.get(word, ('', '', None))
        if do is None:
            near = [f'did you mean {command}?' for command in difflib.get_close_matches(word, COMMANDS, 1)]
            self.client.tell('error', reason=f'there is no command {word}; {"".join(near) or "/help lists them"}')
        elif len(rest.split()) < len(usage.split()) - usage.count('['):
            self.client.tell('error', reason=f'usage: {word} {usage}')
        else:
            do(self, rest)

    def _is_group(self, target: str) -> bool:  # by version 1 users are named so too: what was one before
        is_id = self.client.version == 2 and target not in self._chats.users and GROUP_ID.fullmatch(target)
        return bool(is_id) or target in self._chats.groups

    def _about(self, kind: type[Packet] | None, word: str) -> None:  # None: its history
        if not (target := self._chats.find(word) if word else self._chats.front):
            return self.client.tell('error', reason=f'which group is {word}? /groups shows yours, with their ids'
                                    if word else 'about whom: a user, or a group (/groups shows yours)')
        field = 'group_id' if kind or self._is_group(target) else 'user_id'
        self.client.request(asked := (kind or protocol.HistoryRequest)(**{field: target}))
        if not (kind or self._waits or self._options.json) and any(p.packet is asked for p in self.client.pending):
            self._looked_up.append(target)  # else the client has refused it, and there will be no answer

    def _chat(self, word: str) -> None:
        self._chats.front = self._chats.find(word)
        if word and not self._waits:
            self._about(None, word)

    def _create(self, words: str) -> None:
        name, _, users = words.replace(',', ' ').rpartition(':')
        self.client.request(protocol.CreateGroupRequest(user_id_list=users.split(), group_name=name.strip() or None))

    def _login(self, name: str) -> None:
        if self._waits:
            return self.client.login(name, self._options.password)
        self._login_name = name.split()[0]
        self._terminal.ask(f'Password of {self._login_name}: ', secret=True)

    def _on_event(self, event: Event) -> None:
        kind = event['event']
        if kind == 'gave_up':
            self._terminal.close()
            self._options.json and self._print(event)
            print(f'imclient.py: {event["reason"]}; is imserver.py running there? (--host, --port)', file=sys.stderr)
            return self._exit(2)
        before = self._quiet and self._chats.unread()
        self._chats.note(event, self.client.user_id)
        about = event.get('command', '')[5:-8].lower() if kind == 'error' else kind  # LIST_USERS_REQUEST: users
        if about in (self._quiet or ()):
            self._quiet.remove(about)
            if before == self._chats.unread():  # else a group that was shown by its id has a name now: the list says so
                return
        self._print(event)
        if kind in ('error', 'login_failed', 'kicked'):
            self._exit_code = max(self._exit_code, 1)
            if kind != 'error' and self._waits:
                self._exit(1)
        if not (self._waits or self._options.json):
            self._on_news(event)
        self._loop.call_soon(self._show_prompt)

    def _on_news(self, event: Event) -> None:  # what a person gets beyond it: how to begin, a word on a long absence
        if event['event'] == 'login':
            self._arrived, self._logged_in_at = 0, time.time() * 1000
            if self._quiet is None and self.client.version == 2:
                self._quiet = ['groups', 'users']
                self.client.tell('info', text='/chat NAME talks to somebody, /users shows who is there, /help the rest')
                for kind in protocol.ListGroupsRequest, protocol.ListUsersRequest:
                    self._loop.call_soon(lambda kind=kind: self.client.is_logged_in and self.client.request(kind()))
        elif event['event'] == 'joined' and self._quiet is not None:  # by its id, perhaps: the list tells its name
            self._quiet.append('groups')
            self.client.request(protocol.ListGroupsRequest())
        elif event['event'] in ('message', 'group_message') and event.get('sentAt', 0) < self._logged_in_at:
            self._arrived += 1
            self._backlog_timer.cancel()
            self._backlog_timer = self._loop.call_later(BACKLOG_PAUSE, self._tell_backlog)
        elif self._looked_up and (event['event'] == 'history' or event.get('command') == 'HISTORY_REQUEST'):
            if self._looked_up.popleft() == self._chats.front and event.get('code', '').startswith('unknown_'):
                self._chats.front = ''  # /chat has named nobody

    def _tell_backlog(self) -> None:
        if self._arrived > shutil.get_terminal_size().lines:
            self.client.tell('info', text=f'{self._arrived} messages had waited; /chat NAME shows the last ones')

    def _print(self, event: Event) -> None:
        if self._options.json:
            text = json.dumps(event)  # printable ASCII, so nothing in it steers a terminal
        elif event['event'] == 'sent' and 'toGroupId' in event:
            return  # one's own copy of a group message follows
        else:
            text = render(event, me=self.client.user_id, color=self._color, title=self._chats.title,
                          multiline=isinstance(self._terminal, Terminal))
        try:
            self._terminal.print(text)
        except OSError:  # who read our output has gone, or there is no room for it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self._exit(1)

    def _show_prompt(self) -> None:
        client = self.client
        if not self._login_name:
            state = '' if client.is_logged_in else ' (connecting)' if client.wants_login else ' (not logged in)'
            waiting = sum(ANSWERS[request.packet.COMMAND] == Command.MESSAGE_ACK for request in client.pending)
            way = f' ({waiting} on the way)' if waiting else ''
            target = f' -> {self._chats.title(self._chats.front)}' if self._chats.front else ''
            self._terminal.ask(f'{client.user_name}{state}{way}{target}{self._chats.unread()}> ')


# What follows the word (in brackets: or not), what it does, how.
COMMANDS: dict[str, tuple[str, str, Callable[[App, str], None]]] = {
    '/msg': ('USER TEXT', 'write to a user', lambda app, rest: app.client.send_message(*rest.split(None, 1))),
    '/chat': ('[USER|GROUP]', 'where other lines go', App._chat),
    '/create': ('[NAME:] USER...', 'make a group of these users and yourself', App._create),
    '/join': ('GROUP', 'join a group', lambda app, rest: app._about(protocol.JoinGroupRequest, rest)),
    '/quit': ('GROUP', 'leave a group', lambda app, rest: app._about(protocol.QuitGroupRequest, rest)),
    '/members': ('[GROUP]', 'who is in it', lambda app, rest: app._about(protocol.ListGroupMembersRequest, rest)),
    '/group': ('GROUP TEXT', 'write to a group', lambda app, rest: app.client.send_group_message(
        app._chats.find(rest.split()[0]), rest.split(None, 1)[1])),
    '/history': ('[USER|GROUP]', 'the last messages', lambda app, rest: app._about(None, rest)),
    '/users': ('', 'who there is', lambda app, rest: app.client.request(protocol.ListUsersRequest())),
    '/groups': ('', 'the groups you are in', lambda app, rest: app.client.request(protocol.ListGroupsRequest())),
    '/login': ('USER', 'be somebody else', App._login),
    '/logout': ('', 'stay connected, as nobody', lambda app, rest: app.client.request(protocol.LogoutRequest())),
    '/help': ('', 'this', lambda app, rest: app.client.tell('info', text=HELP)),
    '/exit': ('', 'leave', lambda app, rest: app._leave()),
}
HELP = '\n'.join(f'{f"{word} {usage}":<24}{what}' for word, (usage, what, _) in COMMANDS.items())


def make_parser() -> Parser:
    parser = Parser(prog='imclient.py', description='The chat client (/help lists what to type).', allow_abbrev=False)
    add = parser.add_argument_group('the server').add_argument
    add('--host', default='127.0.0.1', help='its name or address (%(default)s)')
    add('--port', type=between(1, 65535), default=8000, metavar='N', help='(%(default)s)')
    add('--tls', action='store_true', help='only to a server whose certificate is good')
    add('--tls-ca', metavar='FILE', help="who may have signed it (PEM), if not one of the system's; implies --tls")
    add('--retries', type=int, metavar='N', help='further attempts to reach it at first (5; not in a terminal: 0)')
    add = parser.add_argument_group('you').add_argument
    add('--user', metavar='NAME', help='the first login with a free name makes the account (asked for)')
    add('--password', default=os.getenv('IM_PASSWORD'), help='others here may see it (IM_PASSWORD, or asked for)')
    add = parser.add_argument_group('the output').add_argument
    add('--json', action='store_true', help='one JSON object an event')
    add('--no-color', action='store_true', help='no escape character at all, as with NO_COLOR')
    return parser


def main() -> None:
    while os.open(os.devnull, os.O_RDWR) < 3:  # 0, 1 or 2 was closed: it would become the number of a socket
        pass
    options = (parser := make_parser()).parse_args()
    logging.basicConfig(level='WARNING', format='%(name)s: %(message)s')
    wants_tls = options.tls or options.tls_ca is not None  # '' too: else it would go in the clear
    try:
        options.tls = ssl.create_default_context(cafile=options.tls_ca) if wants_tls else None
    except OSError as error:  # ssl.SSLError is one
        parser.error(f'cannot use {options.tls_ca}: {error.strerror or error}')
    if not options.user and os.isatty(0):
        options.user = ask(parser, 'Name (the first login with a free one makes the account): ', input)
    options.password = ask(parser, 'Password: ') if options.user and options.password is None else options.password
    if not (options.user and options.password):
        parser.error('a name and a password are needed: neither may be empty')
    if any('\ud800' <= char <= '\udfff' for char in options.user + options.password):  # bytes that are no text
        parser.error('the name and the password must be text')
    terminal = (PlainTerminal if options.json else make_terminal)(open(1, 'wb', closefd=False))
    raise SystemExit(App(options, terminal).run())


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""The client: `python3 imclient.py --user alice` chats in a terminal, and so do scripts through a pipe.

What it does: connects, logs in, keeps the connection, and sees to it that everything sent arrives once and everything
that arrives is shown once.  What it leaves to others: bytes (protocol.py), sockets and time (reactor.py), keys and
text (console.py).

`Connector` makes connections, `Client` is one user (to import: `from imclient import Client`), `App` the command line.

A request that makes an entry of the server's log has a number, `client_seq`, and stays in the client's list until it
is answered.  When the connection is lost the client connects again, and sends what is on the list again: the server
knows the numbers it has seen, and answers those again instead of doing the thing twice.  The other way round the
server sends again what the client has not acknowledged, and the client shows each id once.

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
import errno
import getpass
import json
import logging
import os
import random
import re
import signal
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import protocol
from console import Key, Parser, PlainTerminal, Terminal, between, make_terminal, render
from protocol import Command, Packet, encode
from reactor import (
    INPUT_ENDED, NO_TIMER, READER_IDLE, Channel, EventLoop, Handler, IdleStateHandler, TlsHandler)

CONNECT_TIMEOUT = 10.0  # seconds for an attempt to connect
BACKOFF_FIRST, BACKOFF_LAST = 1.0, 30.0  # seconds between attempts, doubling from the one to the other
HEARTBEAT_INTERVAL = 5.0  # seconds
SERVER_IDLE = 15.0  # seconds without a byte after which the server counts as dead: three heartbeats
LOGIN_PATIENCE = 60.0  # seconds for a login, in silence: the passwords of a class are judged one after the other
PATIENCE = 60.0  # seconds that a script waits for a lost server to come back
END_TIMEOUT = 10.0  # seconds that a script waits for answers after its last line
KNOWN_GROUPS, LONGEST_ID = 2_000, 64  # ids that are remembered, as many as a server lists; their characters
GROUP_ID = re.compile('[0-9a-f]{8}')  # a user may have such a name too: then /msg writes to the user
MAX_USERS = 30_000  # of a list, counted by its braces, which no name has: a MiB of `{}` would become 100 MiB of objects
LARGEST_REQUEST = 32_768  # bytes of a frame that every server takes; for a larger one it would close the connection
WINDOW = 64  # requests of a script that are sent and not answered; further lines wait
LINES_AHEAD = 1_000  # lines of a script that are read and wait; beyond them a pipe waits (a file is read at once)
Event = dict[str, Any]  # {'event': 'message', ...}; the other keys are named as on the wire


# Connecting ..........................................................................................
def backoff(failures: int, rand: Callable[[], float] = random.random) -> float:
    """Return how many seconds to wait before the next attempt: drawn evenly from 0 to a bound that doubles each time.
    Full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015): clients that lost one server together
    do not come back together."""
    return rand() * min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(failures, 10))


class Connector:
    """Connects to a server; `initialize(channel)` fills the pipeline of the channel that it makes.

    One attempt looks the name up (in the worker: that may block) and tries its addresses in turn, for CONNECT_TIMEOUT
    seconds in all.  `on_failed(error)` is called when it came to nothing; to try again is the caller's decision."""
    def __init__(self, loop: EventLoop, host: str, port: int, initialize: Callable[[Channel], None],
                 on_failed: Callable[[Exception], None]) -> None:
        self._loop, self._target, self._initialize, self._on_failed = loop, (host, port), initialize, on_failed
        self._attempt, self._timer = 0, NO_TIMER
        self._addresses: list[Any] = []
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Begin an attempt; one that is under way is dropped."""
        self.cancel()
        attempt = self._attempt
        self._timer = self._loop.call_later(CONNECT_TIMEOUT, self._fail, TimeoutError('no answer'))
        self._loop.run_in_worker(lambda: socket.getaddrinfo(*self._target, type=socket.SOCK_STREAM),
                                 lambda found, error: self._on_found(attempt, found, error))

    def cancel(self) -> None:
        self._attempt += 1  # what the worker finds for an older one is dropped
        self._timer.cancel()
        if sock := self._release():
            sock.close()

    def _release(self) -> socket.socket | None:
        sock, self._socket = self._socket, None
        if sock:
            self._loop.register(sock, 0, self._on_ready)
        return sock

    def _on_found(self, attempt: int, found: list[Any] | None, error: Exception | None) -> None:
        if attempt == self._attempt:
            self._addresses = found or []
            self._try_next(error or OSError('the name has no address'))

    def _try_next(self, error: Exception) -> None:
        while self._addresses:
            family, kind, number, _, address = self._addresses.pop(0)
            try:
                self._begin(socket.socket(family, kind, number), address)
                return
            except OSError as failure:
                error = failure
        self._fail(error)

    def _begin(self, sock: socket.socket, address: Any) -> None:
        sock.setblocking(False)
        failure = sock.connect_ex(address)
        if failure not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):  # the last: Windows' way to say in progress
            sock.close()
            raise OSError(failure, os.strerror(failure))
        self._socket = sock
        self._loop.register(sock, EVENT_WRITE, self._on_ready)  # writable: it is connected, or it has failed

    def _on_ready(self, mask: int) -> None:
        if not (sock := self._release()):  # cancelled earlier in this tick
            return
        if failure := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
            self._try_next(OSError(failure, os.strerror(failure)))
        else:
            self.cancel()
            Channel(self._loop, sock, self._initialize)

    def _fail(self, error: Exception) -> None:
        self.cancel()
        self._on_failed(error)


class ServerHandler(Handler):
    """The last handler of a connection to a server: bytes to packets for `client`."""
    __slots__ = ('_client', '_decoder')
    def __init__(self, client: Client) -> None:
        self._client, self._decoder = client, protocol.FrameDecoder(protocol.MAX_BODY_CLIENT)

    def channel_active(self) -> None: self._client.on_connected(self.channel)
    def channel_inactive(self) -> None: self._client.on_lost('the connection was closed')

    def channel_read(self, data: bytes) -> None:
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
        self._client.on_lost(reason)
        self.channel.abort()

    def user_event(self, event: Any) -> None:
        if event is READER_IDLE and not self._client.is_logging_in:
            self._give_up(f'the server was silent for {SERVER_IDLE:g} s')
        elif event is INPUT_ENDED:
            hint = ', the login unanswered: ' + ('has it TLS?' if self._client.uses_tls else 'with --tls?')
            self._give_up('the server closed the connection' + (hint if self._client.is_logging_in else ''))
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
    """One user of a chat server, on a loop of the caller's.

        loop = EventLoop()
        client = Client(loop, '127.0.0.1', 8000, print)
        client.login('alice', 'secret')
        client.send_message('bob', 'hello')
        loop.run()

    Requests may be made at any time: they are sent once the user is logged in.  What happens is told by
    `on_event(event)`, a dict: the key 'event' says what, the others are named as on the wire.  A lone surrogate in a
    text raises ValueError.  `retries`: attempts to reach the server after the first one failed.  `patience`: seconds
    to try after a connection was lost; None: without end.  Where it gives up, the event is 'gave_up'."""
    def __init__(self, loop: EventLoop, host: str, port: int, on_event: Callable[[Event], None], *,
                 retries: int = 5, patience: float | None = None, rand: Callable[[], float] = random.random,
                 tls: ssl.SSLContext | None = None) -> None:
        self._loop, self._on_event = loop, on_event
        self._target, self.uses_tls = {'host': host, 'port': port}, tls is not None
        self._retries, self._patience, self._random = retries, patience, rand
        self._connector = Connector(loop, host, port, lambda channel: channel.pipeline.add_last(
            *[TlsHandler(tls, host)] if tls else [], IdleStateHandler(SERVER_IDLE), ServerHandler(self)), self._on_failed)
        self._channel: Channel | None = None
        self._failures, self._timer = 0, NO_TIMER  # the next heartbeat, or the next attempt to connect
        self._lost_at: float | None = None  # when it was lost, and no login has succeeded since
        self.user_name = self.user_id = ''
        self._password = self._token = self._log_id = None  # str, as soon as there is one
        self.version = 2  # of the session; 1 once a server has answered in it
        self.wants_login = self.is_logged_in = False  # login was called, and nothing has ended that; it succeeded
        self.pending: list[Pending] = []
        self._next_seq, self._highest_id = 1, 0  # of requests; of the entries shown
        self._acknowledges = False  # soon

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
        self._token, self._failures, self._lost_at = None, 0, None
        if self._channel:
            self._send_login()
        else:
            self._timer.cancel()
            self._connector.connect()

    def logout(self) -> None:  # the connection stays, for a login as somebody else
        self._request(protocol.LogoutRequest())

    def send_message(self, user_id: str, text: str) -> None:
        self._request(protocol.MessageRequest(to_user_id=user_id, message=text))

    def send_group_message(self, group_id: str, text: str) -> None:
        self._request(protocol.GroupMessageRequest(to_group_id=group_id, message=text))

    def create_group(self, user_ids: list[str], group_name: str | None = None) -> None:
        self._request(protocol.CreateGroupRequest(user_id_list=user_ids, group_name=group_name))

    def join_group(self, group_id: str) -> None: self._request(protocol.JoinGroupRequest(group_id=group_id))
    def quit_group(self, group_id: str) -> None: self._request(protocol.QuitGroupRequest(group_id=group_id))
    def list_members(self, group_id: str) -> None: self._request(protocol.ListGroupMembersRequest(group_id=group_id))
    def list_users(self) -> None: self._request(protocol.ListUsersRequest())
    def list_groups(self) -> None: self._request(protocol.ListGroupsRequest())

    def history(self, *, user_id: str | None = None, group_id: str | None = None, before: int | None = None,
                limit: int | None = None) -> None:
        """The last messages with a user or of a group; `before` a message id."""
        self._request(protocol.HistoryRequest(user_id=user_id, group_id=group_id, before=before, limit=limit))

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
        self._channel = channel
        self.version, self._asked_at = 2, self._loop.time()
        self.tell('connected', **self._target)
        self._beat()
        self._send_login()

    @property
    def is_logging_in(self) -> bool: return self.wants_login and not self.is_logged_in

    def _beat(self) -> None:
        if self.is_logging_in and self._loop.time() - self._asked_at >= LOGIN_PATIENCE:
            channel = self._channel
            self.on_lost(f'the login was not answered within {LOGIN_PATIENCE:g} s')
            return channel.abort()
        self._timer = self._loop.call_later(HEARTBEAT_INTERVAL, self._beat)
        self._write(protocol.HeartbeatRequest())

    def _send_login(self) -> None:
        self._asked_at = self._loop.time()
        secret = {'token': self._token} if self._token else {'password': self._password}
        self._write(protocol.LoginRequest(user_name=self.user_name, **secret))

    def on_lost(self, reason: str) -> None:
        """The connection is gone.  If the user still wants to be logged in, come back."""
        if self._channel is None:
            return
        self._channel, self.is_logged_in = None, False
        self._lost_at = self._loop.time() if self._lost_at is None else self._lost_at
        self._timer.cancel()
        self.tell('disconnected', reason=reason)
        if self.wants_login:
            self._connect_later(reason)

    def _on_failed(self, error: Exception) -> None:
        reason = getattr(error, 'strerror', None) or str(error)
        self._connect_later(reason, f'cannot reach the server: {reason}')

    def _connect_later(self, reason: str, news: str | None = None) -> None:
        if self._lost_at is None:
            gives_up = self._failures >= self._retries
        else:
            gives_up = self._patience is not None and self._loop.time() - self._lost_at >= self._patience
        if gives_up:
            return self.give_up(reason)
        delay = backoff(self._failures, self._random)
        self._failures += 1
        self.tell('reconnecting', delay=delay, attempt=self._failures, reason=news)
        self._timer = self._loop.call_later(delay, self._connector.connect)

    def give_up(self, reason: str) -> None:
        self.close()
        self.tell('gave_up', reason='cannot reach {host} port {port}: {}'.format(reason, **self._target))

    def _write(self, packet: Packet) -> None:
        if self._channel:
            self._channel.write(encode(packet, self.version))

    def _request(self, packet: Packet) -> None:
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
            self.tell('error', reason='this server speaks version 1, which has no such request')
            return
        if self.version == 2 and getattr(packet, 'client_seq', 0) is None:
            packet.client_seq, self._next_seq = self._next_seq, self._next_seq + 1
        if self.version == 1 and self.user_id not in getattr(packet, 'user_id_list', [self.user_id]):
            packet.user_id_list.append(self.user_id)  # such a server adds nobody who is not named
        request.times_sent += 1
        self._write(packet)
        if self.version == 1 and ANSWERS[packet.COMMAND] == Command.MESSAGE_ACK:  # nobody will answer
            self.pending.remove(request)
            self._tell_sent(packet)

    def _take(self, matches: Callable[[Any], bool]) -> Pending | None:
        """Take the first request that `matches` off the list."""
        for index, request in enumerate(self.pending):
            if matches(request.packet):
                return self.pending.pop(index)
        return None

    def _drop(self, requests: list[Pending]) -> None:
        """Give up what may have been done or not: without a number, to ask again might do it twice."""
        for request in requests:
            self.pending.remove(request)
            self.tell('error', command=Command(request.packet.COMMAND).name, reason='not answered')

    def _answered(self, response: Any) -> Pending | None:
        """Take the request that `response` answers off the list.  A number tells which; else the first of its kind."""
        client_seq = getattr(response, 'client_seq', None)
        return self._take(lambda packet: ANSWERS[packet.COMMAND] == response.COMMAND
                          and (client_seq is None or packet.client_seq == client_seq)
                          and getattr(packet, 'group_id', None) in (None, getattr(response, 'group_id', None)))

    def _refused(self, request: Pending | None, command: int | None, code: str | None, reason: str | None) -> None:
        if request and code == 'seq_conflict' and request.times_sent > 1:
            # Somebody else used the number as this user while we were away: ours was not done and gets a new one.
            request.packet.client_seq, request.times_sent = None, 0
            self.pending.append(request)
            self._send(request)
            return
        name = Command(command).name if command in protocol.PACKETS else None
        self.tell('error', command=name, code=code, reason=reason or 'refused')

    def _forget(self) -> None:
        """Another user, or another database: ids, numbers and the token mean nothing there."""
        self._token, self._log_id, self._next_seq, self._highest_id = None, None, 1, 0
        for request in self.pending:
            request.times_sent = 0
            if hasattr(request.packet, 'client_seq'):
                request.packet.client_seq = None

    def on_packet(self, packet: Any, version: int) -> None:  # the frame's version
        if packet.COMMAND == Command.LOGIN_RESPONSE:
            self._on_login(packet, version)
        elif handle := self._HANDLERS.get(packet.COMMAND):
            handle(self, packet)

    def _on_login(self, packet: protocol.LoginResponse, version: int) -> None:
        if self.is_logged_in or not self.wants_login:
            return
        if not packet.success:
            self._on_login_refused(packet)
            return
        if packet.log_id != self._log_id:
            self._forget()
        self.version, self._failures, self._lost_at = version, 0, None
        self.user_id = packet.user_id or self.user_name
        self._log_id, self._token = packet.log_id, packet.token or self._token
        self._next_seq = max(self._next_seq, (packet.last_client_seq or 0) + 1)
        self.tell('login', userName=packet.user_name or self.user_name, userId=self.user_id, version=version)
        self.is_logged_in = True  # not before: what is asked for at that event has its place behind what waits
        self._acknowledge()
        self._drop([request for request in self.pending if version == 1 and request.times_sent])
        for request in list(self.pending):
            self._send(request)

    def _on_login_refused(self, packet: Any) -> None:
        if self._token and self._password is not None:  # the token has ended: try the password
            self._token = None
            self._send_login()
        else:
            self.wants_login = False
            self.tell('login_failed', code=packet.code, reason=packet.reason or 'refused')

    def _on_logout(self, packet: protocol.LogoutResponse) -> None:
        self._answered(packet)
        if packet.success:
            self.wants_login, self.is_logged_in, self._token = False, False, None
            self.tell('logged_out')
        else:
            self._refused(None, Command.LOGOUT_REQUEST, None, packet.reason)

    def _on_kicked(self, packet: protocol.KickedNotice) -> None:
        self.wants_login = self.is_logged_in = False  # to come back would kick the other, and so on for ever
        self.tell('kicked', reason=packet.reason)

    def _on_error(self, packet: protocol.ErrorResponse) -> None:
        if packet.command == Command.LOGIN_REQUEST:
            self._on_login_refused(packet)
        elif packet.command != Command.DELIVERY_ACK:  # sent as the session ended: nothing that the user asked for
            number = packet.client_seq
            request = self._take(lambda pending: pending.COMMAND == packet.command and (
                number is None or getattr(pending, 'client_seq', number) == number))
            self._refused(request, packet.command, packet.code, packet.reason)

    def _on_ack(self, packet: protocol.MessageAck) -> None:
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

    def _on_group_created(self, packet: protocol.CreateGroupResponse) -> None:
        # To its creator it is an answer and no entry to acknowledge: entries with lower ids may follow it.
        may_answer = packet.client_seq is not None or self.version == 1
        is_answer = may_answer and self._answered(packet) is not None
        if not packet.success:
            self._refused(None, Command.CREATE_GROUP_REQUEST, None, packet.reason)
        elif is_answer or packet.client_seq is None and self._is_new(packet):
            self.tell('group_created', groupId=packet.group_id, groupName=packet.group_name,
                      userNameList=packet.user_name_list or [], unknownUserIdList=packet.unknown_user_id_list)

    def _is_new(self, packet: Any) -> bool:
        """Whether this entry of the log was not shown before.  They come in the order of their ids."""
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

    def _on_message(self, packet: protocol.MessageResponse) -> None:
        if self._is_new(packet):
            self.tell('message', **{'fromUserName': '', **_fields_of(packet)})

    def _on_group_message(self, packet: protocol.GroupMessageResponse) -> None:
        if self._is_new(packet):
            user = packet.from_user or protocol.User()
            self.tell('group_message', groupId=packet.from_group_id, fromUserId=user.user_id,
                      fromUserName=user.user_name, message=packet.message, messageId=packet.message_id,
                      sentAt=packet.sent_at)

    def _on_notice(self, packet: protocol.GroupNotice) -> None:
        if self._is_new(packet):
            self.tell('notice', groupId=packet.group_id, userId=packet.user.user_id or '', action=packet.event,
                      userName=packet.user.user_name or '', messageId=packet.message_id, sentAt=packet.sent_at)

    def _on_list(self, packet: Any) -> None:
        self._answered(packet)
        self.tell(LISTS[packet.COMMAND], **_fields_of(packet))

    _HANDLERS: dict[int, Callable[[Client, Any], None]] = {
        Command.MESSAGE_RESPONSE: _on_message, Command.GROUP_MESSAGE_RESPONSE: _on_group_message,
        Command.GROUP_NOTICE: _on_notice, Command.CREATE_GROUP_RESPONSE: _on_group_created,
        Command.JOIN_GROUP_RESPONSE: _on_membership, Command.QUIT_GROUP_RESPONSE: _on_membership,
        Command.MESSAGE_ACK: _on_ack, Command.ERROR_RESPONSE: _on_error, Command.KICKED_NOTICE: _on_kicked,
        Command.LOGOUT_RESPONSE: _on_logout, **dict.fromkeys(LISTS, _on_list)}


def _fields_of(body: protocol.Body) -> dict[str, Any]:
    """The fields of a packet or of a part of one by their names on the wire, without those that are None."""
    return {f.name: [_fields_of(item) for item in value] if f.many and f.kind is not str else value
            for f in body.FIELDS if (value := getattr(body, f.attribute)) is not None}


# The command line ....................................................................................
ALIASES = {'sendToUser': '/msg', 'sendToGroup': '/group', 'createGroup': '/create', 'joinGroup': '/join',
           'quitGroup': '/quit', 'listGroupMembers': '/members', 'logout': '/logout'}
SIGNALS = {'SIGINT': 130, 'SIGTERM': 143, 'SIGHUP': 129}  # and the exit code: 128 and its number, as shells have it


class App:
    """Lines of standard input to requests, events to standard output.

    In a terminal every line is done at once.  Elsewhere (a pipe, a file) a line waits until the user is logged in and
    the server has answered most of what was sent, and the end of the input waits for the rest."""
    def __init__(self, options: argparse.Namespace, terminal: PlainTerminal) -> None:
        is_person = os.isatty(0) and os.isatty(1)
        self._options, self._terminal, self._waits = options, terminal, not is_person
        self._color = isinstance(terminal, Terminal) and not options.no_color and 'NO_COLOR' not in os.environ
        self._loop = EventLoop()
        retries = (5 if is_person else 0) if options.retries is None else options.retries
        self.client = Client(self._loop, options.host, options.port, self._on_event, retries=retries,
                              patience=None if is_person else PATIENCE, tls=options.tls)
        self._target, self._groups = '', set[str]()  # where plain text goes; the groups heard of
        self._login_name, self._exit_code = '', 0  # whose password the next line is
        self._lines: deque[str | Key] = deque()  # read, and not done yet; Key.END is the last
        self._is_watched: bool | None = False  # the input, by the loop; None: by a thread
        self._at_end, self._is_ending = False, False  # the input is over; it is time to leave
        self._left, self._timer = 0, NO_TIMER  # see _wait_for_answers

    def run(self) -> int:
        """Return the exit code."""
        for name in SIGNALS.keys() & vars(signal):
            self._loop.add_signal_handler(getattr(signal, name), lambda code=SIGNALS[name]: self._exit(code))
        if hasattr(signal, 'SIGWINCH'):
            self._loop.add_signal_handler(signal.SIGWINCH, self._terminal.redraw)
        self._loop.before_flush.append(self._work)
        self.client.login(self._options.user, self._options.password)
        with self._terminal:
            self._show_prompt()
            self._begin_reading()
            self._loop.run()
        if channel := self.client.close():
            while channel.buffered and not channel.is_closed:
                self._loop.tick()
            channel.abort()  # else it would wait for the server to close too
        self._loop.close()
        return self._exit_code

    def _exit(self, code: int) -> None:
        self._exit_code = max(self._exit_code, code)
        self._lines.clear()
        self._loop.stop()

    def _begin_reading(self) -> None:
        try:
            self._watch(True)
        except (OSError, ValueError):  # a plain file; on Windows: whatever is no socket
            self._is_watched = None
            threading.Thread(target=self._read_in_thread, daemon=True).start()

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

    def _feed(self, data: bytes) -> None:
        """Take what was read; b'' is the end of it."""
        if not data:
            self._at_end = True
        for result in self._terminal.feed(data) if data else self._terminal.finish():
            if result is Key.INTERRUPT:
                self._exit(130)
            else:
                self._lines.append(result)

    def _work(self) -> None:
        """Part 4 of each tick: do what was read, as far as the server keeps up."""
        while self._lines and not self._must_wait():
            self._do(self._lines.popleft())
            self._show_prompt()
        self._watch(len(self._lines) < LINES_AHEAD and not self._at_end)
        if self._is_ending and not (self.client.pending and self.client.wants_login):
            self._loop.stop()
        elif self._at_end or self._is_ending:
            self._wait_for_answers()

    def _must_wait(self) -> bool:
        client = self.client
        is_leaving = any(request.packet.COMMAND == Command.LOGOUT_REQUEST for request in client.pending)
        return self._is_ending or self._waits and (client.is_logging_in or is_leaving or len(client.pending) >= WINDOW)

    def _wait_for_answers(self) -> None:
        """Give up END_TIMEOUT seconds after the last progress."""
        left = len(self._lines) + len(self.client.pending) + 1
        if not self._left or left < self._left:
            self._timer.cancel()
            self._timer = self._loop.call_later(END_TIMEOUT, self._miss_answers)
        self._left = left

    def _miss_answers(self) -> None:
        left = len(self.client.pending) + len(self._lines) - self._lines.count(Key.END)
        self.client.tell('error', reason=f'no answer within {END_TIMEOUT:g} s; not done: {left}')
        self._exit(1)

    def _do(self, line: str | Key) -> None:
        if line is Key.END:  # in its turn among the lines: the one before it may be a password
            self._is_ending = True
            return
        if self._login_name:
            name, self._login_name = self._login_name, ''
            self._terminal.ask('')
            self.client.login(name, line)
            return
        word, _, rest = line.strip().partition(' ')
        if not self._target:
            word = ALIASES.get(word, word)
        if word.startswith('/'):
            self._command(word, rest.strip())
        elif word and not self._target:
            self.client.tell('error', reason='say to whom: /chat USER, or /msg USER TEXT')
        elif word:
            send = self.client.send_group_message if self._is_group(self._target) else self.client.send_message
            send(self._target, line.strip())

    def _command(self, word: str, rest: str) -> None:
        usage, _, do = COMMANDS.get(word, ('', '', None))
        if do is None:
            self.client.tell('error', reason=f'there is no command {word}; /help lists them')
        elif len(rest.split()) < len(usage.split()) - usage.count('['):
            self.client.tell('error', reason=f'usage: {word} {usage}')
        else:
            do(self, rest)

    def _is_group(self, target: str) -> bool:
        # A server of version 1 names users so too: there only what was a group before is one.
        return target in self._groups or self.client.version == 2 and bool(GROUP_ID.fullmatch(target))

    def _about(self, target: str, ask: Callable[[str], None]) -> None:
        target = target or self._target
        ask(target) if target else self.client.tell('error', reason='about whom: name a user or a group')

    def _history(self, target: str) -> None:
        self.client.history(**{'group_id' if self._is_group(target) else 'user_id': target})

    def _login(self, name: str) -> None:
        if self._waits:
            self.client.login(name, self._options.password)
            return
        self._login_name = name
        self._terminal.ask(f'Password of {name}: ', secret=True)

    def _on_event(self, event: Event) -> None:
        kind = event['event']
        if kind == 'gave_up':
            self._terminal.close()
            print(f'imclient.py: {event["reason"]}', file=sys.stderr)
            self._exit(2)
            return
        self._print(event)
        if len(event.get('groupId', '')) <= LONGEST_ID and 'groupId' in event and len(self._groups) < KNOWN_GROUPS:
            self._groups.add(event['groupId'])
        if kind in ('error', 'login_failed', 'kicked'):
            self._exit_code = max(self._exit_code, 1)
            if kind != 'error' and self._waits:
                self._exit(1)
        self._loop.call_soon(self._show_prompt)

    def _print(self, event: Event) -> None:
        if self._options.json:
            text = json.dumps(event)  # printable ASCII, so nothing in it steers a terminal
        elif event['event'] == 'sent' and 'toGroupId' in event:
            return  # one's own copy of a group message follows
        else:
            text = render(event, me=self.client.user_id, color=self._color,
                          multiline=isinstance(self._terminal, Terminal))
        try:
            self._terminal.print(text)
        except OSError:  # who read our output has gone, or there is no room for it
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self._exit(1)

    def _show_prompt(self) -> None:
        if not self._login_name:
            state = ' (connecting)' if self.client.wants_login else ' (not logged in)'
            state = '' if self.client.is_logged_in else state
            target = f' -> {self._target}' if self._target else ''
            self._terminal.prompt = f'{self.client.user_name}{state}{target}> '


# What follows the word (in brackets: or not), what it does, how.
COMMANDS: dict[str, tuple[str, str, Callable[[App, str], None]]] = {
    '/msg': ('USER TEXT', 'write to a user', lambda app, rest: app.client.send_message(*rest.split(None, 1))),
    '/chat': ('[USER|GROUP]', 'where other lines go', lambda app, rest: setattr(app, '_target', rest)),
    '/create': ('USER...', 'make a group of these users and yourself',
                lambda app, rest: app.client.create_group(rest.replace(',', ' ').split())),
    '/join': ('GROUP', 'join a group', lambda app, rest: app.client.join_group(rest)),
    '/quit': ('GROUP', 'leave a group', lambda app, rest: app.client.quit_group(rest)),
    '/members': ('[GROUP]', 'who is in a group', lambda app, rest: app._about(rest, app.client.list_members)),
    '/group': ('GROUP TEXT', 'write to a group', lambda app, rest: app.client.send_group_message(*rest.split(None, 1))),
    '/history': ('[USER|GROUP]', 'the last messages', lambda app, rest: app._about(rest, app._history)),
    '/users': ('', 'who there is', lambda app, rest: app.client.list_users()),
    '/groups': ('', 'the groups you are in', lambda app, rest: app.client.list_groups()),
    '/login': ('USER', 'be somebody else', App._login),
    '/logout': ('', 'stay connected, as nobody', lambda app, rest: app.client.logout()),
    '/help': ('', 'this', lambda app, rest: app.client.tell('info', text=HELP)),
    '/exit': ('', 'leave', lambda app, rest: setattr(app, '_is_ending', True)),
}
HELP = '\n'.join(f'{f"{word} {usage}":<24}{what}' for word, (usage, what, _) in COMMANDS.items())


def make_parser() -> Parser:
    parser = Parser(prog='imclient.py', description='The chat client.', allow_abbrev=False)
    add = parser.add_argument
    add('--host', default='127.0.0.1', help='of the server (default: 127.0.0.1)')
    add('--port', type=between(1, 65535), default=8000, help='(default: 8000)')
    add('--user', metavar='NAME', help='asked for if not given; the first login with a free name makes the account')
    add('--password', help='IM_PASSWORD, or asked for, if not given; here others on this machine may see it')
    add('--tls', action='store_true', help='only to a server whose certificate is good')
    add('--tls-ca', metavar='FILE', help="who may have signed it (PEM), if not one of the system's; implies --tls")
    add('--retries', type=int, metavar='N', help='attempts to reach the server at the start (5; not in a terminal: 0)')
    add('--json', action='store_true', help='one JSON object an event')
    add('--no-color', action='store_true', help='no escape codes for colour')
    return parser


def main() -> None:
    while os.open(os.devnull, os.O_RDWR) < 3:  # 0, 1 or 2 was closed: it would become the number of a socket
        pass
    parser = make_parser()
    options = parser.parse_args()
    logging.basicConfig(level='WARNING', format='%(name)s: %(message)s')
    try:
        wants_tls = options.tls or options.tls_ca is not None  # '' too: else it would go in the clear
        options.tls = ssl.create_default_context(cafile=options.tls_ca) if wants_tls else None
    except OSError as error:  # ssl.SSLError is one
        parser.error(f'cannot use {options.tls_ca}: {error.strerror or error}')
    options.password = os.environ.get('IM_PASSWORD') if options.password is None else options.password
    if not os.isatty(0) and (not options.user or options.password is None):
        parser.error('give --user, and the password in IM_PASSWORD: there is no terminal to ask for them')
    try:
        options.user = options.user or input('Name: ')
        options.password = getpass.getpass() if options.password is None else options.password
        (options.user + options.password).encode()
    except (EOFError, KeyboardInterrupt):
        raise SystemExit(130) from None
    except UnicodeEncodeError:
        parser.error('the name and the password must be text')
    output = open(1, 'wb', closefd=False)
    raise SystemExit(App(options, PlainTerminal(output) if options.json else make_terminal(output, 0)).run())


if __name__ == '__main__':
    main()

"""Chapter 11: a client that sends again what was not answered, and shows nothing twice.

    python3 -m lessons.11_durable_delivery.client alice "msg bob hello" logout     waits until it is safe
"""
from __future__ import annotations

import argparse
import errno
import signal
import socket
from collections.abc import Callable
from selectors import EVENT_WRITE

import protocol
from protocol import RESPONSES, Packet
from reactor import Channel, EventLoop, Handler, IdleStateHandler

from .handlers import Dispatcher, FrameHandler, PacketHandler

IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)  # the last is how Windows says it
FIRST_DELAY, LAST_DELAY, MAX_ATTEMPTS = 0.5, 8.0, 8  # seconds between attempts, doubling; how many there are
BEAT, IDLE = 5, 15  # seconds between heartbeats; seconds of silence that make the server dead
INSTRUCTIONS: dict[str, Callable[..., Packet]] = {
    'msg': lambda user, text: protocol.MessageRequest(to_user_id=user, message=text),
    'create': lambda *users: protocol.CreateGroupRequest(user_id_list=' '.join(users).split()),
    'join': lambda group: protocol.JoinGroupRequest(group_id=group),
    'quit': lambda group: protocol.QuitGroupRequest(group_id=group),
    'group': lambda group, text: protocol.GroupMessageRequest(to_group_id=group, message=text),
    'logout': protocol.LogoutRequest,
}


def instruction(line: str) -> Packet:
    """Make a packet of what was typed: 'msg bob hello'.  Raises ValueError."""
    word, *rest = line.split(' ', 2)
    try:
        return INSTRUCTIONS[word](*rest)
    except (KeyError, TypeError):
        raise ValueError(f'not understood: {line}') from None


class Connector:
    """Connects, and tries again when nobody is there yet, or no longer."""

    def __init__(self, loop: EventLoop, port: int, user: User) -> None:
        self.loop, self.port, self.user = loop, port, user
        self.attempts = 0

    def connect(self) -> None:
        self.attempts += 1
        self.socket = socket.socket()
        self.socket.setblocking(False)
        error = self.socket.connect_ex(('127.0.0.1', self.port))
        if error in IN_PROGRESS:
            self.loop.register(self.socket, EVENT_WRITE, self.on_ready)
        else:
            self.retry(error)

    def on_ready(self, mask: int) -> None:
        """Writable: it is connected, or it has failed.  The socket knows which."""
        self.loop.register(self.socket, 0, self.on_ready)
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.retry(error)
        else:
            self.attempts = 0
            Channel(self.loop, self.socket, self.user.initialize, self.on_closed)

    def on_closed(self, channel: Channel) -> None:
        if self.user.has_ended:
            self.loop.stop()
        else:
            self.loop.call_later(FIRST_DELAY, self.connect)

    def retry(self, error: int) -> None:
        self.socket.close()
        if self.attempts == MAX_ATTEMPTS:
            print(f'no server after {self.attempts} attempts')
            self.loop.stop()
            return
        delay = min(LAST_DELAY, FIRST_DELAY * 2 ** (self.attempts - 1))
        print(f'no server ({errno.errorcode.get(error, error)}), next attempt in {delay} s', flush=True)
        self.loop.call_later(delay, self.connect)


class Heartbeat(Handler):
    """Beats every BEAT seconds, whatever else was sent."""

    def channel_active(self) -> None:
        self.timer = self.channel.loop.call_later(BEAT, self.beat)
        super().channel_active()

    def beat(self) -> None:
        self.channel.write(protocol.HeartbeatRequest())
        self.timer = self.channel.loop.call_later(BEAT, self.beat)

    def channel_inactive(self) -> None:
        self.timer.cancel()
        super().channel_inactive()


class User(Dispatcher):
    """The last link of the chain: logs in, sends its instructions all at once, and prints what comes."""

    def __init__(self, name: str, instructions: list[Packet]) -> None:
        self.name = name
        self.instructions = instructions
        self.unanswered: dict[int, Packet] = {}  # by their numbers
        self.shown_id = 0  # the highest message id that was shown
        self.has_ended = False  # then it does not come back

    def initialize(self, channel: Channel) -> None:
        channel.pipeline.add_last(IdleStateHandler(IDLE), FrameHandler(), PacketHandler(RESPONSES), Heartbeat(), self)

    def channel_active(self) -> None:
        self.channel.write(protocol.LoginRequest(user_name=self.name))

    def channel_read(self, packet: Packet) -> None:
        client_seq, message_id = getattr(packet, 'client_seq', None), getattr(packet, 'message_id', None)
        self.unanswered.pop(client_seq, None)
        if message_id and not client_seq:  # not an answer: something that has happened
            self.channel.write(protocol.DeliveryAck(message_id=message_id))
            if message_id <= self.shown_id:
                return
            self.shown_id = message_id
        super().channel_read(packet)

    def channel_inactive(self) -> None:
        print('disconnected', flush=True)

    def on_other(self, packet: Packet) -> None:
        print(packet, flush=True)

    on_bad_packet = on_other
    def on_message_ack(self, ack: protocol.MessageAck) -> None: print(f'{ack.client_seq} is safe', flush=True)
    def on_kicked_notice(self, notice: protocol.KickedNotice) -> None: self.end(notice.reason)
    def on_heartbeat_response(self, response: protocol.HeartbeatResponse) -> None: pass  # bytes came: it is there

    def on_login_response(self, response: protocol.LoginResponse) -> None:
        if response.success:
            print(f'logged in as {response.user_name}', flush=True)
            while self.instructions:
                packet = self.instructions.pop(0)
                packet.client_seq = (response.last_client_seq or 0) + len(self.unanswered) + 1
                self.unanswered[packet.client_seq] = packet
            for packet in self.unanswered.values():
                self.channel.write(packet)
        else:
            self.end(f'not logged in: {response.reason}')

    def on_logout_response(self, response: protocol.LogoutResponse) -> None:
        self.end('logged out')

    def end(self, reason: str) -> None:
        print(reason, flush=True)
        self.has_ended = True
        self.channel.close()

    def on_message_response(self, response: protocol.MessageResponse) -> None:
        print(f'{response.from_user_name}: {response.message}', flush=True)

    def on_create_group_response(self, response: protocol.CreateGroupResponse) -> None:
        print(f'group {response.group_id}: {", ".join(response.user_name_list)}', flush=True)

    def on_join_group_response(self, response: protocol.JoinGroupResponse) -> None:
        print(f'group {response.group_id}: {"you are in" if response.success else response.reason}', flush=True)

    def on_quit_group_response(self, response: protocol.QuitGroupResponse) -> None:
        print(f'group {response.group_id}: {"you are out" if response.success else response.reason}', flush=True)

    def on_group_message_response(self, response: protocol.GroupMessageResponse) -> None:
        print(f'group {response.from_group_id}: {response.from_user.user_name}: {response.message}', flush=True)

    def on_group_notice(self, notice: protocol.GroupNotice) -> None:
        print(f'group {notice.group_id}: {notice.user.user_name} {notice.event}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description='a chat client')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('name')
    parser.add_argument('instruction', nargs='*', help=', '.join(INSTRUCTIONS))
    options = parser.parse_args()
    try:
        user = User(options.name, list(map(instruction, options.instruction)))
    except ValueError as error:
        parser.error(str(error))
    loop = EventLoop()
    loop.add_signal_handler(signal.SIGINT, loop.stop)
    Connector(loop, options.port, user).connect()
    loop.run()


if __name__ == '__main__':
    main()

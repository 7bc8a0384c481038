"""Chapter 11's picture: a server is killed at four moments, and what catches each.

    python3 -m lessons.11_durable_delivery.picture [exercise]       with the session of exercise.py

Each server is a process that kills itself where it would call some method.  Logins and heartbeats are not drawn."""
import os
import signal
import sys
import tempfile
from importlib import import_module

from protocol import Command, HeartbeatRequest, HeartbeatResponse, LoginResponse, LogoutRequest, MessageRequest, Packet

from . import client, handlers, server
from .see_it_fail import Process, run

KILL = getattr(signal, 'SIGKILL', signal.SIGTERM)  # Windows has only the latter, and it kills there
MOMENTS = dict(record='unanswered', answer='unanswered', on_logout_request='the log', on_delivery_ack='shown_id')
WIDTH, DRAWN = 23, (3, 4, 19, 20)  # columns between two lifelines; commands


def serve(db: str, port: str, method: str = 'none', *exercise: str) -> None:
    """Run the chapter's server, and let it die where it would call that method of a session."""
    if exercise:
        handlers.Session = import_module('.exercise', __package__).NumberedSession
    setattr(server.Session, method, lambda *given: os.kill(os.getpid(), KILL))
    sys.argv[1:] = '--db', db, '--port', port
    server.main()


class Scene:
    """A server that will be killed, and what passes between it and alice, at the left, and bob."""

    def __init__(self, db: str, method: str) -> None:
        self.command, self.mark, self.catcher = ('-m', __spec__.name, db), '', f'  caught by {MOMENTS[method]}'
        print(f'killed before {method}')
        self.server = Process(*self.command, '0', method, *sys.argv[1:])
        for user in Drawn('alice', [MessageRequest(to_user_id='bob', message='tea at five?')]), Drawn('bob', []):
            user.scene = self
            shown = run(client, self.server.port, user)
        print('bob is shown:', ', '.join(line for line in shown if line.startswith('alice')), end='\n\n')
        self.server.kill()

    def draw(self, packet: Packet, name: str, to_right: bool) -> None:
        if packet.COMMAND in DRAWN:
            text = f' {packet.COMMAND} {Command(packet.COMMAND).name} '
            arrow = f'{text:->{WIDTH - 1}}>' if to_right else f'<{text:-<{WIDTH - 1}}'
            self.row(f'{arrow}|{"":{WIDTH}}|' if name == 'alice' else f'{"":{WIDTH}}|{arrow}|')

    def row(self, text: str) -> None:
        print(f'|{text}{self.mark}', file=sys.__stdout__)
        self.mark = ''

    def start_again(self) -> None:
        self.server.wait()
        self.row(f'{"":{WIDTH}}X  kill -9{"|":>{WIDTH - 8}}')
        self.server, self.mark = Process(*self.command, str(self.server.port), 'none', *sys.argv[1:]), self.catcher


class Drawn(client.User):
    """The chapter's client, drawn.  It logs out when all that was there has come."""

    def write(self, packet: Packet) -> None:
        self.scene.draw(packet, self.name, self.name == 'alice')
        super().write(packet)

    def channel_read(self, packet: Packet) -> None:
        self.scene.draw(packet, self.name, self.name == 'bob')
        super().channel_read(packet)
        if then := {LoginResponse: HeartbeatRequest, HeartbeatResponse: LogoutRequest}.get(type(packet)):
            self.channel.write(then())

    def channel_inactive(self) -> None: self.has_ended or self.scene.start_again()


if __name__ == '__main__':
    len(sys.argv) > 2 and serve(*sys.argv[1:])  # the process of a server ends there
    with tempfile.TemporaryDirectory() as folder:
        [Scene(f'{folder}/{each}.db', each) for each in MOMENTS]

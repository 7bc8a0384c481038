"""Checks the exercise of chapter 11: python3 -m lessons check 11"""
import importlib

import pytest

import protocol
import store
from lessons.check import expect

NUMBERS = 'A number for each request'
CONFLICT = 'A number that meant something else'
COMMIT = 'Write first, tell then'
KILLED = 'Four moments to be killed at'
NEVER_STORED = '\ud800'  # half a character: the store cannot write it, and the commit fails as on a full disk

handlers, picture, see_it_fail, server = (importlib.import_module(f'lessons.11_durable_delivery.{name}')
                                          for name in ('handlers', 'picture', 'see_it_fail', 'server'))


class Connection:
    """A session without a socket: a test says what comes, and what is written is noted."""

    def __init__(self, exercise, server, name):
        self.server, self.written = server, []
        self.session = exercise.NumberedSession(server, handlers.FrameHandler(), name)
        self.session.channel = self
        server.log_in(self.session)
        self.session.begin()

    def write(self, packet): self.written.append(protocol.decode(packet) if isinstance(packet, bytes) else packet)

    def close(self): self.server.log_out(self.session)

    def send(self, number, text, to='bob'):
        self.session.channel_read(protocol.MessageRequest(to_user_id=to, message=text, client_seq=number))

    def heard(self):
        """End the tick; return what was written since the last time."""
        self.server.before_flush()
        written, self.written = self.written, []
        return list(map(about, written))


def about(packet):
    match packet:
        case protocol.LoginResponse():
            return f'welcome, last number {packet.last_client_seq}'
        case protocol.MessageAck():
            return f'{packet.client_seq} is entry {packet.message_id}'
        case protocol.CreateGroupResponse():
            return f'{packet.client_seq} is group {packet.group_id}'
        case protocol.ErrorResponse():
            return f'{packet.client_seq} refused: {packet.code}'
    return packet.message


@pytest.fixture
def world(monkeypatch):
    def tell(text, then):  # what fails after a commit is only logged by the store: here it is told
        if not callable(then):
            raise TypeError(f'after_commit was given {then!r}, which is no function')
        raise
    monkeypatch.setattr(store.logger, 'exception', tell)
    world = server.Server(store.Store(':memory:'))
    yield world
    world.store.close()


def test_a_new_number_is_stored(exercise, world):
    alice = Connection(exercise, world, 'alice')
    alice.send(1, 'one'), alice.send(4, 'four')
    expect('alice writes with the numbers 1 and 4; she hears', alice.heard(),
           ['welcome, last number 0', '1 is entry 1', '4 is entry 2'], NUMBERS)
    alice.close()
    expect('... she logs in again (was `client_seq` set before the entry was recorded?)',
           Connection(exercise, world, 'alice').heard(), ['welcome, last number 4'], NUMBERS)


def test_a_repeat_is_answered_and_makes_no_second_entry(exercise, world):
    alice, bob = (Connection(exercise, world, name) for name in ('alice', 'bob'))
    alice.send(1, 'hello'), alice.heard(), alice.send(1, 'hello'), alice.send(2, 'bye')
    expect("alice writes (1, 'hello'), and again, and (2, 'bye'); she hears the last two answered", alice.heard(),
           ['1 is entry 1', '2 is entry 2'], NUMBERS)
    expect('... bob, who has been here all the time, has heard', bob.heard()[1:], ['hello', 'bye'], NUMBERS)


def test_an_old_number_is_known_too(exercise, world):
    alice = Connection(exercise, world, 'alice')
    for number in (1, 2, 3):
        alice.send(number, f'text {number}')
    alice.heard(), alice.send(2, 'text 2')
    expect('alice has used 1, 2 and 3, and repeats 2; she hears', alice.heard(), ['2 is entry 2'], NUMBERS)


def test_a_repeat_in_the_same_tick_waits_for_the_commit(exercise, world):
    alice = Connection(exercise, world, 'alice')
    alice.heard(), alice.send(1, 'hello'), alice.send(1, 'hello')
    expect("alice writes (1, 'hello') twice within one tick; before the commit she hears",
           list(map(about, alice.written)), [], COMMIT)
    expect('... after it', alice.heard(), ['1 is entry 1', '1 is entry 1'], COMMIT)
    expect('... and the log ends with entry', world.store.committed_id, 1, NUMBERS)
    alice.send(2, NEVER_STORED), alice.send(2, NEVER_STORED)
    expect('alice writes another twice within one tick, and its commit fails; she hears', alice.heard(),
           ['2 refused: internal_error', '2 refused: internal_error'], COMMIT)
    alice.send(2, 'bye')
    expect('... 2 has made no entry, so she may use it again; she hears', alice.heard(), ['2 is entry 2'], NUMBERS)


@pytest.mark.parametrize('text, to', [('something else', 'bob'), ('hello', 'carol')])
def test_another_message_with_a_used_number_is_refused(exercise, world, text, to):
    alice = Connection(exercise, world, 'alice')
    alice.send(1, 'hello'), alice.heard(), alice.send(1, text, to)
    expect(f"alice has written (1, 'hello') to bob, and writes (1, {text!r}) to {to}; she hears", alice.heard(),
           ['1 refused: seq_conflict'], CONFLICT)
    expect('... and the log ends with entry', world.store.committed_id, 1, CONFLICT)


def test_a_number_that_was_passed_over_is_refused(exercise, world):
    alice = Connection(exercise, world, 'alice')
    alice.send(5, 'five'), alice.heard(), alice.send(3, 'three')
    expect('alice has used 5, but never 3, and now 3; she hears', alice.heard(), ['3 refused: seq_conflict'], CONFLICT)


def test_a_group_is_made_once(exercise, world):
    alice = Connection(exercise, world, 'alice')
    request = protocol.CreateGroupRequest(user_id_list=['bob'], client_seq=1)
    alice.heard(), alice.session.channel_read(request)
    first = alice.heard()
    alice.session.channel_read(request)
    expect('alice creates a group and repeats the request; she hears', alice.heard(), first, NUMBERS)
    alice.send(1, '')
    expect('... the same number, for a message', alice.heard(), ['1 refused: seq_conflict'], CONFLICT)


def test_each_user_has_numbers_of_their_own(exercise, world):
    alice, carol = (Connection(exercise, world, name) for name in ('alice', 'carol'))
    alice.send(2, 'from alice'), carol.send(1, 'from carol')
    expect('alice has used 2, then carol uses 1; she hears', carol.heard()[1:], ['1 is entry 2'], NUMBERS)


def test_the_numbers_outlive_the_server(exercise, tmp_path):
    for answers in (['welcome, last number 0', '1 is entry 1'], ['welcome, last number 1', '1 is entry 1']):
        world = server.Server(store.Store(str(tmp_path / 'chat.db')))
        alice = Connection(exercise, world, 'alice')
        heard = alice.send(1, 'hello') or alice.heard()
        world.store.close()
        expect("alice writes (1, 'hello') to a server, and again to the next one with that file; she hears", heard,
               answers, NUMBERS)


# Processes that are killed ...........................................................................

CHILD = '''
import sys
from importlib import import_module
from pathlib import Path
from lessons.check import load
handlers, picture, server = (import_module(f'lessons.11_durable_delivery.{name}')
                             for name in ('handlers', 'picture', 'server'))
handlers.Session = server.Session = load(Path(sys.argv[1]), 'lessons.11_durable_delivery.exercise').NumberedSession
picture.serve(*sys.argv[2:])
'''


class Killed:
    """A server made with the exercise, a process that kills itself at a moment and is started again."""

    def __init__(self, exercise, db, moment):
        self.command = '-c', CHILD, exercise.__file__, str(db)
        self.server, self.restarts = see_it_fail.Process(*self.command, '0', moment), 0

    def start_again(self):
        self.server.kill()  # it has done so itself, unless the exercise raised something that closed the connection
        self.restarts += 1
        self.user.has_ended = self.restarts > 2
        if not self.user.has_ended:
            self.server = see_it_fail.Process(*self.command, str(self.server.port))

    def draw(self, *packet): pass

    def shows(self, name, *requests):
        """Run a client; return the messages that it shows."""
        if self.restarts > 2:
            return 'nothing: the server has closed the connection again and again'
        self.user = picture.Drawn(name, list(requests))
        self.user.scene = self
        lines = see_it_fail.run(picture.client, self.server.port, self.user)
        return [line for line in lines if line.startswith('alice: ')]


@pytest.mark.parametrize('moment', picture.MOMENTS)
def test_a_message_is_shown_once_although_the_server_is_killed(exercise, tmp_path, moment):
    killed = Killed(exercise, tmp_path / 'chat.db', moment)
    try:
        killed.shows('alice', protocol.MessageRequest(to_user_id='bob', message='hello'))
        expect(f'alice writes to bob, the server is killed before {moment} and started again; bob is shown',
               killed.shows('bob'), ['alice: hello'], KILLED)
    finally:
        killed.server.kill()

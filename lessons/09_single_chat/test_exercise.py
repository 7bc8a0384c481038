"""Checks the exercise of chapter 9: python3 -m lessons check 9"""
import importlib

import pytest

from lessons.check import expect
from protocol import KickedNotice, LoginRequest, MessageRequest

WINS = 'The newer login wins'
ORDER = 'Who goes, and in which order'
MAP = 'A map that knows who is here'
LATER = "log_in(older), log_in(newer), both of 'bob'; the channel of the older calls log_out only later, not in close"

handlers = importlib.import_module('lessons.09_single_chat.handlers')
see_it_fail = importlib.import_module('lessons.09_single_chat.see_it_fail')


class Channel:
    """Stands in for a connection: notes what happens to it."""

    def __init__(self, when_closed):
        self.calls, self.when_closed = [], when_closed

    def write(self, packet):
        self.calls.append(packet)

    def close(self):
        self.calls.append('close')
        self.when_closed()

    def abort(self):
        self.calls.append('abort')
        self.when_closed()


def session(server, name, ends='at once'):
    """Return a session of a connection that tells the server of its end at once, or only when a test does."""
    made = handlers.Session(server, handlers.FrameHandler(), name)
    made.channel = Channel(lambda: server.log_out(made) if ends == 'at once' else None)
    return made


def log_in(server, *sessions):
    """Log them in, one after the other; return what was refused, or 'all are in'."""
    try:
        for one in sessions:
            server.log_in(one)
    except handlers.Refused as refused:
        return f'refused: {refused.reason}'
    return 'all are in'


def log_out(server, *sessions):
    try:
        for one in sessions:
            server.log_out(one)
    except KeyError as error:
        return f'KeyError: {error}'
    return 'done'


def who(server, **sessions):
    """Return what is in the server's map, by the names that the test has for them."""
    names = {id(one): name for name, one in sessions.items()}
    return {user: names.get(id(one), 'another') for user, one in server.sessions.items()}


def test_the_newer_one_is_in_the_map(exercise):
    server = exercise.TakeoverServer()
    older, newer = session(server, 'bob'), session(server, 'bob')
    expect("log_in(older), log_in(newer), both of 'bob'", log_in(server, older, newer), 'all are in', WINS)
    expect('... sessions', who(server, older=older, newer=newer), {'bob': 'newer'}, MAP)


def test_it_is_there_before_the_older_one_logs_out(exercise):
    server = exercise.TakeoverServer()
    older, newer = session(server, 'bob', 'later'), session(server, 'bob')
    expect(LATER, log_in(server, older, newer), 'all are in', MAP)
    expect('... sessions', who(server, older=older, newer=newer), {'bob': 'newer'}, MAP)


def test_the_older_one_is_told_and_then_closed(exercise):
    server = exercise.TakeoverServer()
    older, newer, carol = session(server, 'bob'), session(server, 'bob'), session(server, 'carol')
    log_in(server, carol, older)
    expect('log_in(newer)', log_in(server, newer), 'all are in', WINS)
    expect('... what happened to the channel of the older', older.channel.calls,
           [KickedNotice(reason=exercise.KICKED), 'close'], ORDER)
    expect('... to the channel of the newer', newer.channel.calls, [], ORDER)
    expect('... to the channel of carol', carol.channel.calls, [], ORDER)
    expect('... who is in sessions', sorted(server.sessions), ['bob', 'carol'], MAP)


@pytest.mark.parametrize('times', [1, 2])
def test_the_end_of_the_older_one_changes_nothing(exercise, times):
    server = exercise.TakeoverServer()
    older, newer = session(server, 'bob', 'later'), session(server, 'bob')
    expect(LATER, log_in(server, older, newer), 'all are in', MAP)
    expect(f'... log_out(older), {times} times', log_out(server, *[older] * times), 'done', MAP)
    expect('... sessions', who(server, newer=newer), {'bob': 'newer'}, MAP)


def test_the_end_of_the_newer_one_ends_it(exercise):
    server = exercise.TakeoverServer()
    older, newer = session(server, 'bob', 'later'), session(server, 'bob')
    expect(LATER, log_in(server, older, newer), 'all are in', MAP)
    expect('... log_out(newer), log_out(older)', log_out(server, newer, older), 'done', MAP)
    expect('... sessions', who(server), {}, MAP)


def test_the_third_kicks_the_second(exercise):
    server = exercise.TakeoverServer()
    first, second, third = (session(server, 'bob') for _ in range(3))
    expect('log_in(first), log_in(second), log_in(third)', log_in(server, first, second, third), 'all are in', WINS)
    expect('... closed: first, second, third', [one.channel.calls.count('close') for one in (first, second, third)],
           [1, 1, 0], ORDER)


def test_a_refused_login_kicks_nobody(exercise):
    server = exercise.TakeoverServer()
    older = session(server, 'bob')
    log_in(server, older)
    expect("log_in(session of 'server')", log_in(server, session(server, 'server')),
           'refused: that is no name for a user', ORDER)
    expect('... sessions', who(server, older=older), {'bob': 'older'}, ORDER)
    expect('... what happened to the channel of bob', older.channel.calls, [], ORDER)


# On real connections .................................................................................

@pytest.fixture
def world(exercise):
    world = see_it_fail.World(exercise.TakeoverServer())
    yield world
    world.close()


def enter(world, name):
    peer = see_it_fail.Peer(world)
    peer.say(LoginRequest(user_name=name))
    return peer


def texts(peer):
    """Return what a peer hears, as text; 'the end' when it was closed."""
    found = [getattr(packet, 'message', None) or ('welcome' if packet.success else packet.reason)
             for packet in peer.heard()]
    return found + ['the end'] * peer.has_ended


def test_the_newer_connection_hears_what_is_for_its_user(world):
    alice, older = enter(world, 'alice'), enter(world, 'bob')
    expect('bob logs in', texts(older), ['welcome'], WINS)
    newer = enter(world, 'bob')
    expect('bob logs in again, on another connection', texts(newer), ['welcome'], WINS)
    expect('... the older connection hears', texts(older), ['logged in elsewhere', 'the end'], ORDER)
    alice.say(MessageRequest(to_user_id='bob', message='hello'))
    expect('... alice writes to bob; the newer one hears', (texts(alice), texts(newer))[1], ['hello'], MAP)


def test_what_was_written_before_goes_first(world):
    older = enter(world, 'bob')
    texts(older)
    newer = enter(world, 'bob')
    world.server.deliver(handlers.Entry('bob', 'alice', 'in the last moment'))  # in the buffer, not sent yet
    expect('bob logs in again; the newer connection hears', texts(newer), ['welcome'], WINS)
    expect('... the older one hears', texts(older), ['in the last moment', 'logged in elsewhere', 'the end'], ORDER)


def test_what_was_kept_is_for_the_next_one_only(world):
    alice = enter(world, 'alice')
    alice.say(MessageRequest(to_user_id='bob', message='kept'))
    texts(alice)
    expect('bob logs in and hears', texts(enter(world, 'bob')), ['welcome', 'kept'], MAP)
    expect('... bob logs in again and hears', texts(enter(world, 'bob')), ['welcome'], WINS)


def test_a_kicked_connection_does_nothing_more(world):
    older, alice = enter(world, 'bob'), enter(world, 'alice')
    texts(older), texts(alice)
    newer = enter(world, 'bob')
    expect('bob logs in again', texts(newer), ['welcome'], WINS)
    older.say(MessageRequest(to_user_id='alice', message='from the older'))
    newer.say(MessageRequest(to_user_id='alice', message='from the newer'))
    texts(newer), texts(older)
    expect('... both connections write to alice; she hears', texts(alice), ['from the newer'], ORDER)

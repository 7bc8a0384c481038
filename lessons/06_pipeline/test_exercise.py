"""Checks the exercise of chapter 6: `python3 -m lessons check 6`."""
from contextlib import suppress
from importlib import import_module
from operator import attrgetter

import pytest

from lessons.check import expect
from protocol import LoginRequest, LoginResponse, MessageRequest, MessageResponse, encode

handlers = import_module('lessons.06_pipeline.handlers')  # an import statement takes no name that begins with a digit

HANDS_ON = 'A link hands on'
BYTES = 'Bytes, frames, packets'
LEAVES = 'A login that leaves'
counted = attrgetter('frames_in', 'bytes_in', 'frames_out', 'bytes_out')


class Sentence(str):
    """Shown without quotes."""
    __repr__ = str.__str__


RETURNS, ENDLESS = Sentence('it returns'), Sentence('it calls itself, without end')


class End(handlers.Handler):
    """One end of a chain: keeps what arrives at it, in the order in which it came to all ends."""
    is_open = True

    def __init__(self, came):
        self.channel, self.came = self, came

    def channel_read(self, message):
        self.came.append(('in', message))

    def write(self, message):
        self.came.append(('out', message))


class Chain:
    """The given handlers between two ends."""

    def __init__(self, *links):
        self.came = []
        self.first, self.last = End(self.came), End(self.came)
        handlers.link(self.first, *links, self.last)

    def names(self):
        """Walk to the end and back."""
        there, back = [self.first], [self.last]
        while there[-1] is not self.last and len(there) < 9:
            there.append(there[-1].next)
        while back[-1] is not self.first and len(back) < 9:
            back.append(back[-1].previous)
        ends = {self.first: 'first', self.last: 'last'}
        return both_ways(*([ends.get(link, type(link).__name__) for link in way] for way in (there, back)))


def both_ways(there, back=None):
    """A walk in words, without `back` one that is right."""
    return Sentence(f'forwards: {" > ".join(there)}; backwards: {" > ".join(back or reversed(there))}')


def call(link, event, *messages):
    """Call a method of a link with each message: inside `expect`, so that what it raises is told with the call."""
    for message in messages:
        name, got = f'{type(link).__name__}.{event}({message!r})', ENDLESS
        with suppress(RecursionError):  # in which line it came to that says nothing
            expect(name, [getattr(link, event)(message)] and RETURNS, RETURNS, HANDS_ON)
            got = RETURNS
        expect(name, got, RETURNS, HANDS_ON)


def hi(text='hi'):
    return MessageRequest(to_user_id='all', message=text)


def welcome():
    return MessageResponse(from_user_id='server', from_user_name='server', message='welcome')


@pytest.mark.parametrize('event, way, expected', [('channel_read', 'in', (2, 7, 0, 0)), ('write', 'out', (0, 0, 2, 7))],
                         ids=['in', 'out'])
def test_frames_are_counted_and_handed_on_as_they_were(exercise, event, way, expected):
    chain = Chain(counter := exercise.Counter())
    call(counter, event, b'three', b'22')
    calls = f"after {event}(b'three') and {event}(b'22')"
    expect(f'frames_in, bytes_in, frames_out, bytes_out {calls}', counted(counter), expected, BYTES)
    expect(f'what comes {"behind" if way == "in" else "before"} a Counter, {calls}',
           chain.came, [(way, b'three'), (way, b'22')], HANDS_ON)


def test_each_connection_has_its_own_numbers(exercise):
    one, other = exercise.Counter(), exercise.Counter()
    Chain(one), Chain(other)
    call(one, 'channel_read', b'three')
    call(one, 'write', b'22')
    expect('the numbers of another Counter, that nothing has passed', counted(other), (0, 0, 0, 0), HANDS_ON)


def test_two_counters_in_one_chain_count_the_same(exercise):
    chain = Chain(near := exercise.Counter(), far := exercise.Counter())
    call(near, 'channel_read', b'three')
    call(far, 'write', b'22')
    expect("the numbers of two Counters side by side, when b'three' has come in and b'22' has gone out",
           [counted(near), counted(far)], [(1, 5, 1, 2)] * 2, BYTES)


def test_a_frame_that_comes_in_two_pieces_is_one_frame(exercise):
    frame = encode(LoginRequest(user_name='alice'), 1)
    counter = exercise.Counter()
    chain = Chain(handlers.FrameHandler(), counter, handlers.PacketHandler(), handlers.Login([]))
    for piece in frame[:20], frame[20:]:
        call(chain.first.next, 'channel_read', piece)
    answer = encode(LoginResponse(success=True, user_name='alice', user_id='alice'), 1)
    expect('frames_in, bytes_in, frames_out, bytes_out between FrameHandler and PacketHandler, after a login',
           counted(counter), (1, len(frame), 1, len(answer)), BYTES)


def test_the_first_message_is_greeted_and_handed_on(exercise):
    chain = Chain(greeting := exercise.Greeting('welcome'))
    call(greeting, 'channel_read', hi())
    expect("what leaves Greeting('welcome') when the first MessageRequest comes",
           chain.came, [('out', welcome()), ('in', hi())], LEAVES)


def test_a_packet_that_is_no_message_is_handed_on_and_changes_nothing(exercise):
    chain = Chain(greeting := exercise.Greeting('welcome'))
    login = LoginRequest(user_name='alice')
    call(greeting, 'channel_read', login)
    expect('what leaves a Greeting when a LoginRequest comes', chain.came, [('in', login)], HANDS_ON)
    expect('the chain there and back, after that', chain.names(), both_ways(['first', 'Greeting', 'last']), LEAVES)


def test_the_chain_is_without_it_after_the_first_message(exercise):
    chain = Chain(greeting := exercise.Greeting('welcome'))
    call(greeting, 'channel_read', hi())
    expect('the chain there and back, after the first MessageRequest',
           chain.names(), both_ways(['first', 'last']), LEAVES)


def test_the_second_message_gets_no_greeting(exercise):
    chain = Chain(exercise.Greeting('welcome'))
    for text in 'one', 'two':
        call(chain.first.next, 'channel_read', hi(text))
    expect("what leaves Greeting('welcome') when two messages come",
           chain.came, [('out', welcome()), ('in', hi('one')), ('in', hi('two'))], LEAVES)


def test_the_greeting_reaches_the_socket_as_a_frame(exercise):
    chain = Chain(handlers.FrameHandler(), handlers.PacketHandler(), exercise.Greeting('welcome'))
    call(chain.first.next, 'channel_read', encode(hi(), 1))
    expect('what goes out towards the socket when a Greeting stands behind a PacketHandler',
           [message for way, message in chain.came if way == 'out'], [encode(welcome(), 1)], BYTES)

"""Checks the exercise of chapter 6: `python3 -m lessons check 6`."""
from importlib import import_module

import pytest

from lessons.check import expect
from protocol import LoginRequest, LoginResponse, MessageRequest, MessageResponse, encode

handlers = import_module('lessons.06_pipeline.handlers')  # an import statement takes no name that begins with a digit

HANDS_ON = 'A link hands on'
BYTES = 'Bytes, frames, packets'
LEAVES = 'A login that leaves'


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
        return [type(link).__name__ for link in (*there, *back)]


def counted(counter):
    return counter.frames_in, counter.bytes_in, counter.frames_out, counter.bytes_out


def hi(text='hi'):
    return MessageRequest(to_user_id='all', message=text)


def welcome():
    return MessageResponse(from_user_id='server', from_user_name='server', message='welcome')


@pytest.mark.parametrize('event, expected', [('channel_read', (2, 7, 0, 0)), ('write', (0, 0, 2, 7))],
                         ids=['in', 'out'])
def test_frames_and_their_bytes_are_counted(exercise, event, expected):
    counter = exercise.Counter()
    Chain(counter)
    for frame in b'three', b'22':
        getattr(counter, event)(frame)
    expect(f"frames_in, bytes_in, frames_out, bytes_out after {event}(b'three') and {event}(b'22')",
           counted(counter), expected, BYTES)


def test_what_was_counted_is_handed_on_as_it_was(exercise):
    chain = Chain(counter := exercise.Counter())
    counter.channel_read(b'three')
    counter.write(b'22')
    expect("what comes behind a Counter, and before it, after channel_read(b'three') and write(b'22')",
           chain.came, [('in', b'three'), ('out', b'22')], HANDS_ON)


def test_each_connection_has_its_own_numbers(exercise):
    one, other = exercise.Counter(), exercise.Counter()
    Chain(one), Chain(other)
    one.channel_read(b'three')
    one.write(b'22')
    expect('the numbers of another Counter, that nothing has passed', counted(other), (0, 0, 0, 0), HANDS_ON)


def test_a_frame_that_comes_in_two_pieces_is_one_frame(exercise):
    frame = encode(LoginRequest(user_name='alice'), 1)
    counter = exercise.Counter()
    chain = Chain(handlers.FrameHandler(), counter, handlers.PacketHandler(), handlers.Login([]))
    for piece in frame[:20], frame[20:]:
        chain.first.next.channel_read(piece)
    answer = encode(LoginResponse(success=True, user_name='alice', user_id='alice'), 1)
    expect('frames_in, bytes_in, frames_out, bytes_out between FrameHandler and PacketHandler, after a login',
           counted(counter), (1, len(frame), 1, len(answer)), BYTES)


def test_the_first_message_is_greeted_and_handed_on(exercise):
    chain = Chain(greeting := exercise.Greeting('welcome'))
    greeting.channel_read(hi())
    expect("what leaves Greeting('welcome') when the first MessageRequest comes",
           chain.came, [('out', welcome()), ('in', hi())], LEAVES)


def test_a_packet_that_is_no_message_is_handed_on_and_changes_nothing(exercise):
    chain = Chain(greeting := exercise.Greeting('welcome'))
    login = LoginRequest(user_name='alice')
    greeting.channel_read(login)
    expect('what leaves a Greeting when a LoginRequest comes', chain.came, [('in', login)], HANDS_ON)
    expect('the chain there and back, after that', chain.names(), ['End', 'Greeting', 'End'] * 2, LEAVES)


def test_the_chain_is_without_it_after_the_first_message(exercise):
    chain = Chain(greeting := exercise.Greeting('welcome'))
    greeting.channel_read(hi())
    expect('the chain there and back, after the first MessageRequest', chain.names(), ['End'] * 4, LEAVES)


def test_the_second_message_gets_no_greeting(exercise):
    chain = Chain(exercise.Greeting('welcome'))
    for text in 'one', 'two':
        chain.first.next.channel_read(hi(text))
    expect("what leaves Greeting('welcome') when two messages come",
           chain.came, [('out', welcome()), ('in', hi('one')), ('in', hi('two'))], LEAVES)


def test_the_greeting_reaches_the_socket_as_a_frame(exercise):
    chain = Chain(handlers.FrameHandler(), handlers.PacketHandler(), exercise.Greeting('welcome'))
    chain.first.next.channel_read(encode(hi(), 1))
    expect('what goes out towards the socket when a Greeting stands behind a PacketHandler',
           [message for way, message in chain.came if way == 'out'], [encode(welcome(), 1)], BYTES)

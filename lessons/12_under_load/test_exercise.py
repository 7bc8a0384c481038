"""Checks the exercise of chapter 12: python3 -m lessons check 12"""
import contextlib
import importlib

import pytest

import protocol
from lessons.check import expect
from protocol import HeartbeatRequest, QuitGroupRequest, QuitGroupResponse, decode, encode
from reactor import HIGH_WATER_MARK, Handler, Pipeline

BETWEEN = 'Between two frames'
PAUSE = 'Leave it in the kernel'
HELD = 'What has stayed must go on'

see_it_fail, server = (importlib.import_module(f'lessons.12_under_load.{name}') for name in ('see_it_fail', 'server'))


def frames(*numbers):
    """Return frames that can be told apart: a number of spaces in the body of a heartbeat."""
    beats = [encode(HeartbeatRequest(), 2) for _ in numbers]
    return [beat[:7] + (2 + number).to_bytes(4, 'big') + b'{' + b' ' * number + b'}'
            for beat, number in zip(beats, numbers)]


class End(Handler):
    """The last link: notes what comes, and may do something at each frame."""

    def __init__(self):
        self.calls, self.when_read = [], {}

    def channel_read(self, frame):
        number = len(frame) - protocol.HEADER_SIZE - 2
        self.calls.append(number)
        self.when_read.get(number, lambda: None)()

    def writability_changed(self):
        self.calls.append('changed')

    def user_event(self, event):
        self.calls.append(type(event).__name__)


class Connection:
    """Stands in for a channel: a test says whether it is writable."""

    def __init__(self, exercise):
        self.is_open, self.is_writable, self.pauses, self.address = True, True, set(), 'nowhere'
        self.handler, self.end, self.pipeline = exercise.PatientFrameHandler(), End(), Pipeline(self)
        self.pipeline.add_last(self.handler, self.end)
        self.pause_reading, self.resume_reading = self.pauses.add, self.pauses.discard

    def __getattr__(self, name):
        raise AttributeError(f'no channel.{name} here: is_open, is_writable, pause_reading, resume_reading are enough')

    @property
    def is_reading(self):
        return self.is_open and not self.pauses

    def fill(self):
        self.is_writable = False

    def read(self, data):
        """Let bytes arrive; return what the last link has noted since the last time."""
        self.pipeline.head.channel_read(data)
        return self.noted()

    def change(self, is_writable):
        """Let the buffer reach a mark."""
        self.is_writable = is_writable
        self.pipeline.head.writability_changed()
        return self.noted()

    def go_on(self):
        """Let the buffer be writable again; return what was handed on."""
        return [call for call in self.change(True) if call != 'changed']

    def noted(self):
        calls, self.end.calls = self.end.calls, []
        return calls


@pytest.fixture
def connection(exercise):
    return Connection(exercise)


def test_frames_are_handed_on(connection):
    data = b''.join(frames(1, 2, 3))
    expect('three frames, cut in the middle of the second; first part', connection.read(data[:20]), [1], BETWEEN)
    expect('... second part', connection.read(data[20:]), [2, 3], BETWEEN)


def test_it_stops_between_two_frames(connection):
    connection.end.when_read[2] = connection.fill
    expect('five frames at once, and the answer to the second fills the buffer; handed on',
           connection.read(b''.join(frames(1, 2, 3, 4, 5))), [1, 2], BETWEEN)
    expect('... a sixth arrives', connection.read(*frames(6)), [], BETWEEN)


def test_reading_pauses_and_resumes(connection):
    connection.change(False)
    expect('not writable; is the channel reading?', connection.is_reading, False, PAUSE)
    expect('... is `self` the one reason', connection.pauses == {connection.handler}, True, PAUSE)
    connection.change(True)
    expect('... writable; is the channel reading?', connection.is_reading, True, PAUSE)


def test_what_has_stayed_goes_on(connection):
    connection.end.when_read[2] = connection.fill
    connection.read(b''.join(frames(1, 2, 3, 4)))
    connection.change(False)
    handed_on = connection.go_on()
    lost = '; 3 was taken out of the decoder, and dropped' if handed_on == [4] else ''
    expect(f'four frames, full after the second, then writable again, and no new byte; handed on then{lost}',
           handed_on, [3, 4], HELD)


def test_it_may_stop_again(connection):
    connection.end.when_read = {number: connection.fill for number in (1, 3)}
    connection.read(b''.join(frames(1, 2, 3, 4, 5)))
    connection.change(False)
    expect('five frames, full after the first and third; writable again: handed on', connection.go_on(), [2, 3], HELD)
    expect('... so it is full again already; is the channel reading?', connection.is_reading, False, HELD)
    connection.read(*frames(6))
    connection.change(False)
    expect('... a sixth arrives; and writable once more', connection.go_on(), [4, 5, 6], HELD)


def test_a_buffer_that_was_full_for_a_moment(connection):
    connection.end.when_read[1] = connection.fill
    connection.read(b''.join(frames(1, 2)))
    expect('full after the first of two frames, and empty again before anyone is told; writability_changed()',
           connection.go_on(), [2], HELD)
    expect('... is the channel reading?', connection.is_reading, True, HELD)


def test_the_others_are_told_too(connection):
    expect('not writable, writable: the next handler is told',
           connection.change(False) + connection.change(True), ['changed', 'changed'], PAUSE)


def test_who_is_closed_is_not_handled(connection):
    connection.end.when_read[1] = lambda: setattr(connection, 'is_open', False)
    expect('two frames, and the first closes the channel; handed on', connection.read(b''.join(frames(1, 2))), [1],
           BETWEEN)


def test_what_is_no_frame_is_an_event(connection):
    connection.end.when_read[1] = connection.fill
    expect('a frame that fills the buffer, and garbage behind it', connection.read(frames(1)[0] + b'garbage'), [1],
           BETWEEN)
    expect('... writable again: the next handler is told', connection.go_on(), ['ProtocolError'], HELD)


# On real connections .................................................................................

REQUESTS, GROUP_ID = 20_000, 'x' * 500  # the answer has the id too


def send_some(sock, data):
    """Send what the kernel takes; return how much that was."""
    with contextlib.suppress(BlockingIOError):
        return sock.send(data[:65_536])
    return 0


def receive_some(sock):
    with contextlib.suppress(BlockingIOError):
        return sock.recv(1_000_000)
    return b''


@pytest.fixture
def world(exercise, monkeypatch):
    monkeypatch.setattr(server, 'FrameHandler', exercise.PatientFrameHandler)
    world = see_it_fail.World(server.Server)
    yield world
    world.close()


def test_who_reads_no_answers_fills_no_memory(world):
    data = b''.join(encode(QuitGroupRequest(group_id=GROUP_ID, client_seq=number + 1), 2) for number in range(REQUESTS))
    channel, most, idle, answers, decoder = world.server.sessions['alice'].channel, 0, 0, 0, protocol.FrameDecoder()
    while idle < 20:  # alice sends, and reads nothing
        sent = send_some(world.alice, data)
        data, idle = data[sent:], 0 if sent else idle + 1
        world.turn()
        most = max(most, channel.buffered)
    expect(f'{REQUESTS:,} requests, no answer is read: bytes that wait to be sent, at most',
           most if most > HIGH_WATER_MARK + 1_000 else 'about the high mark', 'about the high mark', BETWEEN)
    while idle < 40 and answers < REQUESTS:  # alice reads
        data = data[send_some(world.alice, data):]
        world.turn()
        decoder.feed(receive_some(world.alice))
        found = sum(isinstance(packet, QuitGroupResponse) for packet in map(decode, decoder))
        answers, idle = answers + found, 0 if found else idle + 1
    expect('... then all are read: answers', answers, REQUESTS, HELD)

"""The checks of chapter 13's exercise: `python3 -m lessons check 13`."""
import importlib

from lessons.check import Wrong, expect, expect_raises, shown
from protocol import HEADER, HEADER_SIZE, JSON, MAGIC, MAX_BODY, FrameDecoder, MessageRequest, ProtocolError, encode

fuzzer = importlib.import_module('lessons.13_coverage_guided_tests.fuzzer')

ORACLE = 'What is right?'
SEED = 'Where coverage gives no hint'
KEEP = 'A finding becomes a test'
FRAME = encode(MessageRequest(to_user_id='bob', message='hi'), 1)
EMPTY = HEADER.pack(MAGIC, 1, JSON, 5, 0)
STREAMS = {'nothing': b'', 'a frame': FRAME, 'two frames': FRAME + FRAME, 'a header without a body': EMPTY,
           'half a magic number': FRAME[:2], 'a frame and half a header': FRAME + FRAME[:6],
           'a wrong magic number': b'GET / HTTP/1.1', 'a frame and what is none': FRAME + b'?',
           'version 7': FRAME[:4] + b'\7' + FRAME[5:], 'serializer 7': FRAME[:5] + b'\7' + FRAME[6:],
           'a length over the limit': HEADER.pack(MAGIC, 1, JSON, 3, MAX_BODY + 1)}


class Good:
    """What FrameDecoder does, with a `feed` that returns the frames."""

    def __init__(self):
        self.decoder = FrameDecoder()

    def feed(self, data):
        self.decoder.feed(data)
        return list(self.decoder)


class NotMended(Good):
    """What `Decoder` in exercise.py does as you got it."""
    waits = False

    def feed(self, data):
        return [frame for byte in data for frame in self.take(byte)]

    def take(self, byte):
        frames = [] if self.waits else super().feed(bytes([byte]))
        self.waits |= any(len(frame) == HEADER_SIZE for frame in frames)
        return [] if self.waits else frames


class LosesTheSecondFrame(Good):
    def feed(self, data):
        return super().feed(data)[:1]


class SpoilsTheLastFrame(Good):
    def feed(self, data):
        return [*(frames := super().feed(data))[:-1], *(frame[:-1] + b'?' for frame in frames[-1:])]


class RefusesNothing(Good):
    def feed(self, data):
        try:
            return super().feed(data)
        except ProtocolError:
            return []


class RefusesHalfAHeader(Good):
    def feed(self, data):
        frames = super().feed(data)
        if 0 < self.decoder.buffer.readable_bytes < HEADER_SIZE:
            raise ProtocolError('half a header')
        return frames


class ForgetsThePieceBefore(Good):
    def feed(self, data):
        self.decoder = FrameDecoder()
        return super().feed(data)


class RaisesIndexError(Good):
    def feed(self, data):
        frames = super().feed(data)
        if self.decoder.buffer.readable_bytes == 2:
            raise IndexError('bytearray index out of range')
        return frames


class RaisesWhatIsNoRefusal(Good):
    def feed(self, data):
        try:
            return super().feed(data)
        except ProtocolError as error:
            raise IndexError('bytearray index out of range') from error


def outcome(decoder, data):
    """The frames that it makes of the data, byte by byte; or how it ended."""
    try:
        return [frame for byte in data for frame in decoder.feed(bytes([byte]))]
    except ProtocolError:
        return 'refused'
    except Exception as error:
        return type(error)


def expect_agreement(exercise, decoder, stream, wanted):
    expect(f'agrees({decoder.__name__}, {stream})', exercise.agrees(decoder, STREAMS[stream]), wanted, ORACLE)


def test_who_does_the_same_agrees(exercise):
    for stream in STREAMS:
        expect_agreement(exercise, Good, stream, True)


def test_other_frames_are_no_agreement(exercise):
    expect_agreement(exercise, LosesTheSecondFrame, 'a frame', True)
    expect_agreement(exercise, LosesTheSecondFrame, 'two frames', False)
    expect_agreement(exercise, SpoilsTheLastFrame, 'a frame', False)
    expect_agreement(exercise, SpoilsTheLastFrame, 'two frames', False)


def test_who_refuses_too_little_or_too_much_does_not_agree(exercise):
    expect_agreement(exercise, RefusesNothing, 'a frame', True)
    expect_agreement(exercise, RefusesNothing, 'a wrong magic number', False)
    expect_agreement(exercise, RefusesHalfAHeader, 'a frame and half a header', False)


def test_another_exception_is_no_agreement(exercise):
    expect_agreement(exercise, RaisesIndexError, 'half a magic number', False)
    expect_agreement(exercise, RaisesWhatIsNoRefusal, 'a frame', True)
    expect_agreement(exercise, RaisesWhatIsNoRefusal, 'a wrong magic number', False)


def test_byte_by_byte_it_has_to_agree_too(exercise):
    expect_agreement(exercise, ForgetsThePieceBefore, 'two frames', False)
    expect_agreement(exercise, RefusesHalfAHeader, 'a frame', False)


def test_a_seed_is_a_frame(exercise):
    if set(map(type, exercise.SEEDS)) != {bytes}:
        raise Wrong('SEEDS', shown(exercise.SEEDS), 'a list of bytes, in brackets', SEED)
    expect('whether FrameDecoder finds a frame in one of SEEDS',
           any(map(exercise.right, exercise.SEEDS)), True, SEED)


def need_finding(exercise):
    """What comes behind it would tell what is to be found."""
    if exercise.FINDING == b'':
        raise Wrong('FINDING', 'no bytes: it is still empty', 'what the hunt shows: hunt first', KEEP)
    expect('type(FINDING)', type(exercise.FINDING), bytes, KEEP)
    expect(f'whether Decoder, not mended yet, does with {shown(exercise.FINDING)} what FrameDecoder does',
           outcome(NotMended(), exercise.FINDING) == outcome(Good(), exercise.FINDING), False, KEEP)


def test_the_finding_shows_the_bug(exercise):
    need_finding(exercise)
    expect('agrees(Decoder, not mended yet, FINDING)', exercise.agrees(NotMended, exercise.FINDING), False, ORACLE)


def test_the_test_finds_the_bug_and_passes_without_it(exercise):
    call = 'test_what_was_found(make_decoder), where make_decoder gives '
    expect(f'{call}a good one', exercise.test_what_was_found(Good), None, KEEP)
    expect_raises(f'{call}the decoder with the bug',
                  lambda: exercise.test_what_was_found(NotMended), AssertionError, KEEP)


def test_the_decoder_is_mended(exercise):
    need_finding(exercise)
    for name, stream in STREAMS.items():
        expect(f'Decoder().feed(...) of each byte of {name}',
               outcome(exercise.Decoder(), stream), outcome(Good(), stream), KEEP)
    expect("target(a frame), which asks `agrees`", exercise.target(FRAME), None, ORACLE)


def test_the_fuzzer_finds_nothing_more(exercise):
    need_finding(exercise)

    def same(data):
        assert outcome(exercise.Decoder(), data) == outcome(Good(), data)

    hunt = fuzzer.Fuzzer(same, [exercise.__file__], 1, corpus=[FRAME, EMPTY + FRAME])
    hunt.run(4_000)
    expect('what the fuzzer finds in 4,000 inputs', hunt.finding, None, KEEP)

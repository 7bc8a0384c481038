"""Chapter 4, the checks of the exercise: `python3 -m lessons check 4`."""
import sys
import tracemalloc
from contextlib import suppress
from time import perf_counter

from lessons.check import expect, expect_raises
from protocol import HEADER, HEADER_SIZE, JSON, MAGIC, MAGIC_BYTES, FrameDecoder, MessageRequest, ProtocolError, encode

FEED = 'Feed it, then ask'
WHOLE = 'A whole frame, or not yet'
MAGIC_CUT = 'A magic number that is cut'
LINEAR = 'Linear in the bytes'
TIMES_SLOWER = 12  # a splitter that copies all for each piece is over 30 times slower here, a good one about 3 times
ROUNDS = 5  # of which the best counts, each way by itself: a busy machine makes some slow


def frame_of(body):
    """A frame with this body, whatever that is: to a splitter it is only bytes."""
    return HEADER.pack(MAGIC, 1, JSON, 3, len(body)) + body


HELLO = encode(MessageRequest(to_user_id='all', message='hello'), 1)
MEAN = frame_of(b'a body with a magic number in it: ' + MAGIC_BYTES)
EMPTY = frame_of(b'')


def test_3_bytes_of_a_magic_number_are_no_mistake(exercise):
    expect('Splitter(100).feed(the first 3 bytes of a frame)', exercise.Splitter(100).feed(HELLO[:3]), [], MAGIC_CUT)


def test_a_frame_comes_out_as_bytes_when_it_is_whole(exercise):
    expect('Splitter(100).feed(a whole frame)', exercise.Splitter(100).feed(HELLO), [HELLO], WHOLE)
    expect('type(Splitter(100).feed(a whole frame)[0])', type(exercise.Splitter(100).feed(HELLO)[0]), bytes, WHOLE)
    splitter = exercise.Splitter(100)
    expect('Splitter(100).feed(the first 20 bytes of a frame)', splitter.feed(HELLO[:20]), [], WHOLE)
    expect('the same splitter .feed(the rest)', splitter.feed(HELLO[20:]), [HELLO], FEED)


def test_two_splitters_share_nothing(exercise):
    one, other = exercise.Splitter(100), exercise.Splitter(100)
    expect('one.feed(the first 20 bytes of a frame)', one.feed(HELLO[:20]), [], WHOLE)
    expect('other.feed(a whole frame), when 20 bytes wait in the splitter `one`', other.feed(MEAN), [MEAN], FEED)
    expect('one.feed(the rest)', one.feed(HELLO[20:]), [HELLO], FEED)


def test_glued_frames_and_empty_ones_come_out_in_their_order(exercise):
    expect('Splitter(100).feed(three frames, glued)',
           exercise.Splitter(100).feed(HELLO + MEAN + HELLO), [HELLO, MEAN, HELLO], FEED)

    expect('Splitter(0).feed(a header whose length is 0)', exercise.Splitter(0).feed(EMPTY), [EMPTY], WHOLE)
    expect('Splitter(0).feed(two of them, glued)', exercise.Splitter(0).feed(EMPTY * 2), [EMPTY] * 2, WHOLE)


def test_a_magic_number_that_is_cut_waits_for_its_rest(exercise):
    for before, arrived in ((b'', []), (HELLO, [HELLO])):
        for count in (1, 2, 3):
            splitter, cut = exercise.Splitter(100), len(before) + count
            where = f'{"a whole frame and " * bool(before)}{count} byte{"s"[:count > 1]} of a magic number'
            expect(f'Splitter(100).feed({where})', splitter.feed((before + MEAN)[:cut]), arrived, MAGIC_CUT)
            expect('the same splitter .feed(the rest)', splitter.feed((before + MEAN)[cut:]), [MEAN], MAGIC_CUT)


def test_however_frames_are_cut_the_same_come_out(exercise):
    glued = HELLO + MEAN
    for cut in range(len(glued) + 1):
        splitter = exercise.Splitter(100)
        whole = [HELLO, MEAN][:(cut >= len(HELLO)) + (cut >= len(glued))]
        expect(f'Splitter(100).feed(the first {cut} of {len(glued)} bytes of two frames)',
               splitter.feed(glued[:cut]), whole, FEED)
        expect(f'the same splitter .feed(the other {len(glued) - cut} bytes)',
               splitter.feed(glued[cut:]), [HELLO, MEAN][len(whole):], FEED)
    splitter = exercise.Splitter(100)
    for number, frame in enumerate((HELLO, EMPTY, MEAN), 1):
        for count in range(1, len(frame) + 1):
            expect(f'feed(one byte), byte {count} of {len(frame)} of frame {number}',
                   splitter.feed(frame[count - 1:count]), [frame][:count == len(frame)], FEED)


def test_a_wrong_byte_of_the_magic_number_raises_at_once(exercise):
    for right in range(4):
        for wrong in (b'\0', MAGIC_BYTES[:1], bytes([MAGIC_BYTES[right] ^ 1])):
            if wrong != MAGIC_BYTES[right:right + 1]:
                start = MAGIC_BYTES[:right] + wrong
                for before in (b'', HELLO):
                    call = f'Splitter(100).feed({"a whole frame and " * bool(before)}{start.hex(" ")})'
                    expect_raises(call, lambda: exercise.Splitter(100).feed(before + start), ProtocolError, MAGIC_CUT)
                splitter = exercise.Splitter(100)
                expect(f'Splitter(100).feed(a whole frame and {right} bytes of a magic number)',
                       splitter.feed(HELLO + MAGIC_BYTES[:right]), [HELLO], MAGIC_CUT)
                expect_raises(f'the same splitter .feed({wrong.hex()}), which is no part of a magic number here',
                              lambda: splitter.feed(wrong), ProtocolError, MAGIC_CUT)


def test_a_body_over_the_limit_is_refused_before_it_arrives(exercise):
    for limit, length in ((100, 101), (0, 1), (4_096, 2**31), (4_096, 2**32 - 1)):
        header, splitter = HEADER.pack(MAGIC, 1, JSON, 3, length), exercise.Splitter(limit)
        expect(f'Splitter({limit:_}).feed({HEADER_SIZE - 1} of {HEADER_SIZE} bytes of a header)',
               splitter.feed(header[:-1]), [], WHOLE)
        expect_raises(f'Splitter({limit:_}), fed a header whose length is {length:_}, at its last byte',
                      lambda: splitter.feed(header[-1:]), ProtocolError, WHOLE)
    for limit in (100, 4_096):
        frame = frame_of(bytes(limit))
        expect(f'Splitter({limit:_}).feed(a frame with a body of {limit:_} bytes)',
               exercise.Splitter(limit).feed(frame), [frame], WHOLE)


def test_it_does_without_frame_decoder(exercise, monkeypatch):
    workers = []
    monkeypatch.setattr(FrameDecoder, 'feed', lambda self, data: workers.append('FrameDecoder of protocol.py'))
    with suppress(Exception):  # of which the other tests tell
        exercise.Splitter(100).feed(HELLO)
    workers.append('your own code')
    expect('who does the work in Splitter(100).feed(a whole frame)', workers[0], 'your own code', 'Exercise')


def test_it_keeps_nothing_that_it_has_handed_out(exercise):
    splitter, frame, count = exercise.Splitter(1_000), frame_of(bytes(1_000)), 1_000
    tracemalloc.start()
    try:
        expect('Splitter(1_000).feed(the first byte of a frame)', splitter.feed(frame[:1]), [], FEED)
        for _ in range(count):
            expect('the same splitter .feed(the rest, and the first byte of the next frame)',
                   splitter.feed(frame[1:] + frame[:1]), [frame], FEED)
        kept, _ = tracemalloc.get_traced_memory()  # bytes that were allocated since the start
    finally:
        tracemalloc.stop()
    expect(f'the memory that is in use when {count:,} frames of {len(frame):,} bytes have been handed out',
           'little' if kept < count * len(frame) / 4 else f'{kept:,} bytes', 'little', WHOLE)


def seconds(exercise, pieces, frames):
    """The time in which a splitter makes so many frames of the pieces."""
    splitter, found, trace = exercise.Splitter(2**23), [], sys.gettrace()
    sys.settrace(None)  # who measures coverage makes each line slow, and hides what is copied
    try:
        start = perf_counter()
        for piece in pieces:
            found += splitter.feed(piece)
        time = perf_counter() - start
    finally:
        sys.settrace(trace)
    expect(f'the number of frames in {len(pieces):,} pieces of {len(pieces[0]):,} bytes', len(found), frames, FEED)
    return time


def test_its_time_grows_with_the_bytes_only(exercise):
    small, count = frame_of(bytes(2_037)), 2_000
    big = frame_of(bytes(count * len(small) - HEADER_SIZE))
    cut = [big[start:start + len(small)] for start in range(0, len(big), len(small))]
    ways = (([small] * count, count), (cut, 1), ([small * count], count))
    rounds, end = [], perf_counter() + 3
    while len(rounds) < ROUNDS and perf_counter() < end:
        rounds.append([seconds(exercise, *way) for way in ways])
    usual, *others = map(min, zip(*rounds))
    for what, time in zip((f'one frame in {count:,} pieces', f'{count:,} frames in one piece'), others):
        expect(f'the time for {what}, against as many bytes in {count:,} pieces of a frame each',
               'about as long' if time < TIMES_SLOWER * usual else f'{time / usual:.0f} times as long',
               'about as long', LINEAR)

"""Chapter 4, the checks of the exercise: `python3 -m lessons check 4`."""
from time import perf_counter

from lessons.check import expect, expect_raises
from protocol import HEADER, HEADER_SIZE, JSON, MAGIC, MAGIC_BYTES, MessageRequest, ProtocolError, encode

FEED = 'Feed it, then ask'
WHOLE = 'A whole frame, or not yet'
MAGIC_CUT = 'A magic number that is cut'
LINEAR = 'Linear in the bytes'
TIMES_SLOWER = 8  # a splitter that copies all for each piece is over 30 times slower here, a good one not even twice


def frame_of(body):
    """A frame with this body, whatever that is: to a splitter it is only bytes."""
    return HEADER.pack(MAGIC, 1, JSON, 3, len(body)) + body


HELLO = encode(MessageRequest(to_user_id='all', message='hello'), 1)
MEAN = frame_of(b'a body with a magic number in it: ' + MAGIC_BYTES)
EMPTY = frame_of(b'')


def fed(splitter, pieces):
    """All that comes out when the pieces go in, one after the other."""
    return [frame for piece in pieces for frame in splitter.feed(piece)]


def test_a_whole_frame_comes_out_as_bytes(exercise):
    found = exercise.Splitter(100).feed(HELLO)
    expect('Splitter(100).feed(a whole frame)', found, [HELLO], WHOLE)
    expect('type(Splitter(100).feed(a whole frame)[0])', type(found[0]), bytes, WHOLE)


def test_three_glued_frames_come_out_in_their_order(exercise):
    expect('Splitter(100).feed(three frames, glued)',
           exercise.Splitter(100).feed(HELLO + MEAN + EMPTY), [HELLO, MEAN, EMPTY], FEED)


def test_a_body_of_0_bytes_makes_a_frame_too(exercise):
    expect('Splitter(0).feed(a header whose length is 0)', exercise.Splitter(0).feed(EMPTY), [EMPTY], WHOLE)
    expect('Splitter(0).feed(two of them, glued)', exercise.Splitter(0).feed(EMPTY * 2), [EMPTY] * 2, WHOLE)


def test_every_cut_of_two_frames_gives_the_same_two(exercise):
    glued = HELLO + MEAN
    for cut in range(len(glued) + 1):
        splitter = exercise.Splitter(100)
        whole = [HELLO, MEAN][:(cut >= len(HELLO)) + (cut >= len(glued))]
        expect(f'Splitter(100).feed(the first {cut} of {len(glued)} bytes of two frames)',
               splitter.feed(glued[:cut]), whole, FEED)
        expect(f'the same splitter .feed(the other {len(glued) - cut} bytes)',
               splitter.feed(glued[cut:]), [HELLO, MEAN][len(whole):], FEED)


def test_bytes_that_arrive_one_by_one_give_the_same_frames(exercise):
    splitter = exercise.Splitter(100)
    for number, frame in enumerate((HELLO, EMPTY, MEAN), 1):
        for count in range(1, len(frame) + 1):
            expect(f'feed(one byte), byte {count} of {len(frame)} of frame {number}',
                   splitter.feed(frame[count - 1:count]), [frame][:count == len(frame)], FEED)


def test_a_magic_number_that_is_cut_waits_for_its_rest(exercise):
    for before, arrived in ((b'', []), (HELLO, [HELLO])):
        for count in (1, 2, 3):
            splitter, cut = exercise.Splitter(100), len(before) + count
            where = f'{"a whole frame and " * bool(before)}{count} bytes of a magic number'
            expect(f'Splitter(100).feed({where})', splitter.feed((before + MEAN)[:cut]), arrived, MAGIC_CUT)
            expect('the same splitter .feed(the rest)', splitter.feed((before + MEAN)[cut:]), [MEAN], MAGIC_CUT)


def test_a_wrong_byte_of_the_magic_number_raises_at_once(exercise):
    for right in range(4):
        for wrong in (b'\0', MAGIC_BYTES[:1], bytes([MAGIC_BYTES[right] ^ 1])):
            if wrong != MAGIC_BYTES[right:right + 1]:
                start = MAGIC_BYTES[:right] + wrong
                for before in (b'', HELLO):
                    call = f'Splitter(100).feed({"a whole frame and " * bool(before)}{start.hex(" ")})'
                    expect_raises(call, lambda: exercise.Splitter(100).feed(before + start), ProtocolError, MAGIC_CUT)
                splitter = exercise.Splitter(100)
                splitter.feed(HELLO + MAGIC_BYTES[:right])
                expect_raises(f'feed({wrong.hex()}), when {right} bytes of the magic number wait',
                              lambda: splitter.feed(wrong), ProtocolError, MAGIC_CUT)


def test_a_body_over_the_limit_is_refused_before_it_arrives(exercise):
    for limit, length in ((100, 101), (0, 1), (4_096, 2**31), (4_096, 2**32 - 1)):
        header, splitter = HEADER.pack(MAGIC, 1, JSON, 3, length), exercise.Splitter(limit)
        expect(f'Splitter({limit:_}).feed({HEADER_SIZE - 1} of {HEADER_SIZE} bytes of a header)',
               splitter.feed(header[:-1]), [], WHOLE)
        expect_raises(f'the same splitter .feed(the last byte), a header whose length is {length:_}',
                      lambda: splitter.feed(header[-1:]), ProtocolError, WHOLE)
    for limit in (100, 4_096):
        frame = frame_of(bytes(limit))
        expect(f'Splitter({limit:_}).feed(a frame with a body of {limit:_} bytes)',
               exercise.Splitter(limit).feed(frame), [frame], WHOLE)


def test_two_splitters_share_nothing(exercise):
    one, other = exercise.Splitter(100), exercise.Splitter(0)
    one.feed(HELLO[:20])
    expect('other.feed(a whole frame), when 20 bytes of one wait in another splitter',
           other.feed(EMPTY), [EMPTY], FEED)
    expect('one.feed(the rest)', one.feed(HELLO[20:]), [HELLO], FEED)


def seconds(exercise, pieces, frames):
    """The time in which a splitter makes so many frames of the pieces: the best of three."""
    times = []
    for _ in range(3):
        splitter, start = exercise.Splitter(2**21), perf_counter()
        found = fed(splitter, pieces)
        times.append(perf_counter() - start)
        expect(f'the number of frames in {len(pieces):,} pieces of {len(pieces[0]):,} bytes', len(found), frames, FEED)
    return min(times)


def test_its_time_grows_with_the_bytes_only(exercise):
    small, count = frame_of(bytes(500)), 4_000
    big = frame_of(bytes(count * len(small) - HEADER_SIZE))
    cut = [big[start:start + len(small)] for start in range(0, len(big), len(small))]
    usual = seconds(exercise, [small] * count, count)
    for what, pieces, frames in (('one frame in 4,000 pieces', cut, 1),
                                 ('4,000 frames in one piece', [small * count], count)):
        ratio = seconds(exercise, pieces, frames) / usual
        expect(f'the time for {what}, against as many bytes in 4,000 pieces of a frame each',
               'about as long' if ratio < TIMES_SLOWER else f'{ratio:.0f} times as long', 'about as long', LINEAR)

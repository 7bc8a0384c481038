"""What chapter 2's exercise has to do."""
import pytest

from lessons.check import expect, expect_raises

INDICES = 'Two indices'
BOUNDS = 'Nobody reads what was not written'
GROWTH = 'Room that doubles'
DISCARD = 'Discard'


def written(exercise, data):
    buffer = exercise.Buffer()
    buffer.write_bytes(data)
    return buffer


def indices(buffer):
    return buffer.reader_index, buffer.writer_index


def test_getting_moves_nothing_and_may_look_back(exercise):
    buffer = written(exercise, b'abcdef')
    buffer.reader_index = 4
    expect("write_bytes(b'abcdef'), reader_index = 4, get_bytes(1, 4)", buffer.get_bytes(1, 4), b'bcde', INDICES)
    expect('reader_index, writer_index behind it', indices(buffer), (4, 6), INDICES)


@pytest.mark.parametrize('index, count', [(0, 3), (2, 1), (-1, 1), (0, -1), (-2, 2), (1, 15), (1, 99)])
def test_only_what_was_written_can_be_got(exercise, index, count):
    buffer = written(exercise, b'hi')
    expect_raises(f"write_bytes(b'hi'), get_bytes({index}, {count})", lambda: buffer.get_bytes(index, count),
                  IndexError, BOUNDS)


def test_reading_moves_the_reader_index_only(exercise):
    buffer = written(exercise, b'abcdef')
    expect("write_bytes(b'abcdef'), read_bytes(2)", buffer.read_bytes(2), b'ab', INDICES)
    expect('then read_bytes(0)', buffer.read_bytes(0), b'', INDICES)
    expect('then read_bytes(3)', buffer.read_bytes(3), b'cde', INDICES)
    expect('reader_index, writer_index behind it', indices(buffer), (5, 6), INDICES)


@pytest.mark.parametrize('count', [3, 5, 17, -1, -2])
def test_a_read_that_cannot_be_raises_and_moves_nothing(exercise, count):
    buffer = written(exercise, b'abcd')
    expect("write_bytes(b'abcd'), read_bytes(2)", buffer.read_bytes(2), b'ab', INDICES)
    expect_raises(f'then, with 2 readable, read_bytes({count})', lambda: buffer.read_bytes(count), IndexError, BOUNDS)
    expect(f'reader_index, writer_index behind read_bytes({count})', indices(buffer), (2, 4), BOUNDS)
    expect('then read_bytes(2)', buffer.read_bytes(2), b'cd', BOUNDS)


def test_discard_takes_what_was_read_and_nothing_else(exercise):
    buffer = written(exercise, b'abcdef')
    piece = buffer.read_bytes(4)
    buffer.discard_read_bytes()
    expect('write 6 bytes, read 4, discard: the indices', indices(buffer), (0, 2), DISCARD)
    buffer.write_bytes(b'ghi')
    expect("then write_bytes(b'ghi'), read_bytes(5)", buffer.read_bytes(5), b'efghi', DISCARD)
    expect('what read_bytes gave before the discard', piece, b'abcd', DISCARD)
    expect('its type', type(piece), bytes, DISCARD)


def test_what_was_discarded_is_never_seen_again(exercise):
    buffer = written(exercise, b'secret')
    buffer.reader_index = 6
    buffer.discard_read_bytes()
    buffer.write_bytes(b'hi')
    expect("write b'secret', read it, discard, write b'hi': the indices", indices(buffer), (0, 2), DISCARD)
    expect_raises('then read_bytes(6)', lambda: buffer.read_bytes(6), IndexError, BOUNDS)
    expect_raises('then get_bytes(0, 6)', lambda: buffer.get_bytes(0, 6), IndexError, BOUNDS)


@pytest.mark.parametrize('mark, reader, moved', [(2, 4, 0), (4, 4, 0), (5, 3, 2)])
def test_the_mark_moves_down_with_the_bytes(exercise, mark, reader, moved):
    buffer = written(exercise, b'abcdef')
    buffer.reader_index = mark
    buffer.mark_reader_index()
    buffer.reader_index = reader
    buffer.discard_read_bytes()
    buffer.reset_reader_index()
    expect(f'mark at {mark}, reader_index at {reader}, discard, reset: reader_index', buffer.reader_index, moved,
           DISCARD)
    expect('then get_bytes up to the end', buffer.get_bytes(0, 6 - reader), b'abcdef'[reader:], DISCARD)


def test_room_that_was_given_back_is_used_again(exercise):
    buffer = exercise.Buffer()
    for number in range(1000):
        buffer.write_bytes(b'line %04d\n' % number)
        expect('write_bytes, read_bytes, discard_read_bytes, 1000 times: a line', buffer.read_bytes(10),
               b'line %04d\n' % number, DISCARD)
        buffer.discard_read_bytes()
    expect('len(data) <= 100 behind it', len(buffer.data) <= 100, True, DISCARD)


def test_growth_keeps_what_is_there(exercise):
    buffer = written(exercise, b'abc')
    expect("write_bytes(b'abc'), read_bytes(1)", buffer.read_bytes(1), b'a', INDICES)
    buffer.discard_read_bytes()
    for number in range(256):
        buffer.write_bytes(bytes([number]))
    expect('then a discard, and 256 bytes written one by one: the first four', buffer.read_bytes(4), b'bc\0\1', GROWTH)
    expect('and the last', buffer.get_bytes(buffer.writer_index - 1, 1), b'\xff', GROWTH)

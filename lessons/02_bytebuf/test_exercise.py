"""What chapter 2's exercise has to do."""
import pytest

from lessons.check import expect, expect_raises

INDICES = 'Two indices'
BOUNDS = 'Nobody reads what was not written'
MARK = 'Mark, try, reset'
DISCARD = 'Discard'


def written(exercise, data, reader_index=0):
    buffer = exercise.Buffer()
    buffer.write_bytes(data)
    buffer.reader_index = reader_index
    return buffer


def indices(buffer):
    return buffer.reader_index, buffer.writer_index


def test_getting_moves_nothing(exercise):
    buffer = written(exercise, b'abcdef', 1)
    call = "write_bytes(b'abcdef'), reader_index = 1, get_bytes"
    expect(f'{call}(2, 3)', buffer.get_bytes(2, 3), b'cde', BOUNDS)
    expect(f'{call}(1, 5)', buffer.get_bytes(1, 5), b'bcdef', BOUNDS)
    expect('the type of what get_bytes(1, 5) returns', type(buffer.get_bytes(1, 5)), bytes, BOUNDS)
    expect('reader_index, writer_index after it', indices(buffer), (1, 6), BOUNDS)


@pytest.mark.parametrize('where', [(1, 2), (0, 4), (-1, 1), (3, 2), (4, 1), (3, -1), (2, 14), (2, 99)],
                         ids='get_bytes{}'.format)
def test_only_what_is_readable_can_be_got(exercise, where):
    buffer = written(exercise, b'abcd', 2)
    expect_raises(f"write_bytes(b'abcd'), reader_index = 2, get_bytes{where}", lambda: buffer.get_bytes(*where),
                  IndexError, BOUNDS)


def test_reading_moves_the_reader_index_only(exercise):
    buffer = written(exercise, b'abcdef')
    expect("write_bytes(b'abcdef'), read_bytes(2)", buffer.read_bytes(2), b'ab', INDICES)
    expect('then read_bytes(0)', buffer.read_bytes(0), b'', INDICES)
    expect('then read_bytes(3)', buffer.read_bytes(3), b'cde', INDICES)
    expect('reader_index, writer_index after it', indices(buffer), (5, 6), INDICES)


@pytest.mark.parametrize('count', [3, 5, 17, -1, -2], ids='read_bytes({})'.format)
def test_a_read_that_cannot_be_raises_and_moves_nothing(exercise, count):
    buffer = written(exercise, b'abcd')
    expect("write_bytes(b'abcd'), read_bytes(2)", buffer.read_bytes(2), b'ab', INDICES)
    expect_raises(f'then, with 2 readable, read_bytes({count})', lambda: buffer.read_bytes(count), IndexError, BOUNDS)
    expect(f'reader_index, writer_index after read_bytes({count})', indices(buffer), (2, 4), BOUNDS)
    expect('then read_bytes(2)', buffer.read_bytes(2), b'cd', BOUNDS)


@pytest.mark.parametrize('read', [0, 2, 4, 6], ids='{} read'.format)
def test_discard_moves_the_rest_to_the_front_and_keeps_the_room(exercise, read):
    buffer = written(exercise, b'abcdef', read)
    call, data = f'write 6 bytes, read {read}, discard', buffer.data
    buffer.discard_read_bytes()
    expect(f'{call}: reader_index, writer_index', indices(buffer), (0, 6 - read), DISCARD)
    expect(f'{call}: len(data), which was 16', len(buffer.data), 16, DISCARD)
    expect(f'{call}: data is the same object', buffer.data is data, True, DISCARD)
    buffer.write_bytes(b'gh')
    expect(f"{call}, write b'gh': all that is readable", buffer.read_bytes(8 - read), b'abcdefgh'[read:], DISCARD)


def test_lines_come_whole_one_by_one(exercise):
    buffer = written(exercise, b'ab\n\ncd')
    expect(r"write b'ab\n\ncd', read_line()", buffer.read_line(), b'ab', MARK)
    expect('reader_index, writer_index after it', indices(buffer), (3, 6), MARK)
    expect('read_line() again', buffer.read_line(), b'', MARK)
    expect('read_line() again', buffer.read_line(), None, MARK)
    expect('reader_index, writer_index after it', indices(buffer), (4, 6), MARK)
    buffer.write_bytes(b'e\n')
    expect(r"write b'ab\n\ncd', read_line() three times, write b'e\n', read_line()", buffer.read_line(), b'cde', MARK)
    expect('reader_index, writer_index after it', indices(buffer), (8, 8), MARK)


def test_a_line_break_that_was_discarded_ends_no_line(exercise):
    buffer = written(exercise, b'bye\nbye\n')
    expect(r"write b'bye\nbye\n', read_bytes(8)", buffer.read_bytes(8), b'bye\nbye\n', INDICES)
    buffer.discard_read_bytes()
    buffer.write_bytes(b'hi')
    expect(r"write b'bye\nbye\n', read_bytes(8), discard, write b'hi', read_line()", buffer.read_line(), None, DISCARD)


def test_no_byte_is_searched_twice(exercise):
    buffer = written(exercise, b'abc')
    expect("write b'abc', read_line()", buffer.read_line(), None, MARK)
    buffer.data[0:3] = b'\n\n\n'  # who looks there again finds them
    buffer.write_bytes(b'd\n')
    expect(r"write b'abc', read_line(), (the check writes b'\n\n\n' over what was searched: nobody is to look there "
           r"again), write b'd\n', read_line()", buffer.read_line(), b'\n\n\nd', MARK)


def test_a_discard_moves_the_end_of_the_search(exercise):
    buffer = written(exercise, b'abcdef')
    expect("write b'abcdef', read_line()", buffer.read_line(), None, MARK)
    expect("write b'abcdef', read_line(), read_bytes(4)", buffer.read_bytes(4), b'abcd', INDICES)
    buffer.discard_read_bytes()
    buffer.data[0:2] = b'\n\n'
    buffer.write_bytes(b'\n')
    expect('the same, and discard: searched', buffer.searched, 2, DISCARD)
    expect(r"the same, (the check writes b'\n\n' over what was searched), write b'\n', read_line()",
           buffer.read_line(), b'\n\n', DISCARD)


@pytest.mark.parametrize('discard', ['', ' discard,'], ids=['read', 'discarded'])
def test_the_search_leaves_out_what_was_read(exercise, discard):
    buffer = written(exercise, b'ab')
    expect("write b'ab', read_line()", buffer.read_line(), None, MARK)
    buffer.write_bytes(b'c\nde\n')
    expect(r"write b'ab', read_line(), write b'c\nde\n', read_bytes(4)", buffer.read_bytes(4), b'abc\n', INDICES)
    if discard:
        buffer.discard_read_bytes()
    expect(f'the same,{discard} read_line()', buffer.read_line(), b'de', MARK)

"""What chapter 3's exercise has to do."""
import pytest

from lessons.check import expect
from protocol import CreateGroupRequest, LoginResponse, LogoutRequest, MessageRequest, encode

MAGIC = 'The magic number'
COMMAND = 'The command'
LENGTH = 'The length, and no delimiter'
ENDIAN = 'Big-endian'
BODY = 'The body'
EXERCISE = 'Exercise'


class Raised(str):
    """What was raised, shown without quotes."""
    __repr__ = str.__str__


VALUE_ERROR = Raised('ValueError is raised')


def outcome(function):
    """What a function returns or raises, with the module of the error: `error` alone could be anybody's."""
    try:
        return function()
    except ValueError:
        return VALUE_ERROR
    except Exception as error:
        kind = type(error)
        return Raised(f'{kind.__module__}.{kind.__name__} is raised: {error}'.removeprefix('builtins.'))


def text_of(body):
    """The body as people read it; bytes that are not UTF-8 stay what they are."""
    return body.decode('utf-8', 'surrogateescape')


def check(exercise, values, packet):
    """Compare field by field, so that the answer names the first that is wrong."""
    call, right = f'encode_by_hand({packet.COMMAND}, {values})', encode(packet, 1)
    expect(f'the type of {call}', type(got := exercise.encode_by_hand(packet.COMMAND, values)), bytes, EXERCISE)
    for part, name in (slice(0, 4), '[0:4], the magic number'), (slice(7, 11), '[7:11], the length'):
        if got[part] == right[part][::-1]:  # the right number, from the wrong end
            expect(call + name, got[part], right[part], ENDIAN)
    expect(f'{call}[0:4], the magic number', got[0:4], right[0:4], MAGIC)
    expect(f'{call}[4:7], version, serializer, command', got[4:7], right[4:7], COMMAND)
    expect(f'{call}[11:], the body', text_of(got[11:]), text_of(right[11:]), BODY)
    expect(f'{call}[7:11], the length', got[7:11], right[7:11], LENGTH)


def test_a_message_is_the_frame_that_the_client_sends(exercise):
    check(exercise, {'message': 'hello', 'toUserId': 'all'}, MessageRequest(to_user_id='all', message='hello'))


def test_the_command_is_the_one_that_was_given(exercise):
    check(exercise, {}, LogoutRequest())


@pytest.mark.parametrize('values', [
    {'toUserId': 'bob', 'message': 'hi'}, {'message': 'hi', 'toUserId': 'bob'}], ids=['descending', 'ascending'])
def test_keys_come_in_ascii_order_whatever_order_they_were_given_in(exercise, values):
    check(exercise, values, MessageRequest(to_user_id='bob', message='hi'))


def test_white_space_goes_between_the_tokens_but_not_out_of_a_text(exercise):
    text = 'a, b: {"c": 1}\n\t\\ '
    check(exercise, {'message': text, 'toUserId': 'bob'}, MessageRequest(to_user_id='bob', message=text))


@pytest.mark.parametrize('text', ['你好', 'na\u00efve', '\U0001f600'], ids=['Chinese', 'French', 'emoji'])
def test_the_length_counts_bytes_and_text_is_utf_8(exercise, text):
    check(exercise, {'toUserId': 'bob', 'message': text}, MessageRequest(to_user_id='bob', message=text))


@pytest.mark.parametrize('count', [256, 70_000])
def test_a_long_body_has_a_length_of_four_bytes_all_the_same(exercise, count):
    values = {'toUserId': 'b', 'message': 'x' * count}
    right = encode(MessageRequest(to_user_id='b', message='x' * count), 1)
    call = f'encode_by_hand(3, a message of {count} characters)'
    expect(f'{call}[7:11], the length', exercise.encode_by_hand(3, values)[7:11], right[7:11], ENDIAN)
    expect(f'len({call})', len(exercise.encode_by_hand(3, values)), len(right), LENGTH)


def test_none_is_left_out_and_what_is_false_or_empty_is_not(exercise):
    values = {'success': False, 'reason': '', 'userId': None, 'userName': None}
    given = dict(values)
    check(exercise, values, LoginResponse(success=False, reason=''))
    expect('`values` after the call', values, given, 'Exercise')


def test_a_list_keeps_its_order(exercise):
    names = ['carol', 'alice', '鲍勃']
    check(exercise, {'userIdList': names}, CreateGroupRequest(user_id_list=names))


@pytest.mark.parametrize('frame, wanted', [
    (encode(MessageRequest(to_user_id='bob', message='hi'), 1), (0x12345678, 1, 1, 3, 33)),
    (encode(MessageRequest(to_user_id='bob', message='x' * 70_000), 1), (0x12345678, 1, 1, 3, 70_031))],
    ids=['short', 'long'])
def test_a_header_is_read_field_by_field_whatever_comes_behind(exercise, frame, wanted):
    expect(f'read_header({frame[:11].hex(" ")})', tuple(exercise.read_header(frame[:11])), wanted, ENDIAN)
    expect(f'read_header({frame[:11].hex(" ")} and the body)', tuple(exercise.read_header(frame)), wanted, EXERCISE)


def test_the_fields_behind_the_magic_are_read_and_not_judged(exercise):
    frame, wanted = bytes.fromhex('12345678 02 03 04 a5060708'), (0x12345678, 2, 3, 4, 0xa5060708)
    expect(f'read_header({frame.hex(" ")})', tuple(exercise.read_header(frame)), wanted, EXERCISE)


@pytest.mark.parametrize('start', [b'', b'\x12\x34\x56', bytes.fromhex('12345678 01 01 03 000000')],
                         ids=['nothing', '3 bytes', '10 bytes'])
def test_less_than_a_header_raises_value_error(exercise, start):
    expect(f'read_header({start.hex(" ") or "no bytes"})', outcome(lambda: exercise.read_header(start)), VALUE_ERROR,
           EXERCISE)


def test_another_magic_raises_value_error(exercise):
    browser, reversed_magic = b'GET / HTTP/1.1\r\n', bytes.fromhex('78563412 01 01 03 00000000')
    expect(f'read_header({browser})', outcome(lambda: exercise.read_header(browser)), VALUE_ERROR, MAGIC)
    expect(f'read_header({reversed_magic.hex(" ")})', outcome(lambda: exercise.read_header(reversed_magic)),
           VALUE_ERROR, ENDIAN)

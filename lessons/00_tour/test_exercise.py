"""Checks the exercise of chapter 0: `python3 -m lessons check 0`."""
from lessons.check import expect
from protocol import HEADER_SIZE, LogoutRequest, MessageRequest, decode, encode

FIRST = encode(MessageRequest(to_user_id='dave', message='lunch?'), 1)
BY_HAND = 'A frame'
PICTURE = 'What happened'


class Sentence(str):
    """Shown without quotes: it says where to look, and is not the value."""
    __repr__ = str.__str__


def find(name, found, right, where):
    """Say where to look, not what is there."""
    where = Sentence(where)
    expect(name, where if found == right and type(found) is type(right) else found, where, BY_HAND)


def test_the_magic_is_found(exercise):
    find('MAGIC', exercise.MAGIC, int.from_bytes(FIRST[:4], 'big'), 'the four bytes from offset 0 on, as one number')


def test_the_command_is_found(exercise):
    find('COMMAND', exercise.COMMAND, FIRST[6], 'the byte at offset 6, a number')


def test_the_length_is_found(exercise):
    find('LENGTH', exercise.LENGTH, len(FIRST) - HEADER_SIZE, 'the four bytes from offset 7 on, as one decimal number')


def test_the_body_is_found(exercise):
    find('BODY_BEGINS_AT', exercise.BODY_BEGINS_AT, HEADER_SIZE,
         'the offset behind the last byte of the length, where 7b stands: {')


def test_who_is_written_to_is_found(exercise):
    find('WRITTEN_TO', exercise.WRITTEN_TO, decode(FIRST).to_user_id, 'what stands behind "toUserId": in the body')


def test_parts_of_agrees_with_what_was_found_by_hand(exercise):
    expect('parts_of(FIRST)', exercise.parts_of(FIRST),
           (3, 38, '{"message":"lunch?","toUserId":"dave"}'), BY_HAND)


def test_a_body_may_be_longer_than_one_byte_can_count(exercise):
    frame = encode(MessageRequest(to_user_id='dave', message='x' * 300), 1)
    expect('parts_of(a frame whose length is 00 00 01 4c)[:2]', exercise.parts_of(frame)[:2], (3, 332), BY_HAND)


def test_the_length_counts_bytes_and_not_characters(exercise):
    frame = encode(MessageRequest(to_user_id='dave', message='你好'), 1)
    expect('parts_of(a frame with the message 你好, and FIRST behind it)', exercise.parts_of(frame + FIRST),
           (3, 38, '{"message":"你好","toUserId":"dave"}'), PICTURE)


def test_what_stands_behind_the_frame_is_not_its_own(exercise):
    data = encode(LogoutRequest(), 1) + FIRST
    expect('parts_of(a LOGOUT_REQUEST, and FIRST behind it)', exercise.parts_of(data), (5, 2, '{}'), BY_HAND)

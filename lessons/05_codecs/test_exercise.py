"""The checks of chapter 5's exercise: `python3 -m lessons check 5`."""
import protocol
from lessons.check import expect, expect_raises
from protocol import (INT_MAX, INT_MIN, PACKETS, BadPacket, Body, CreateGroupRequest, DeliveryAck, FrameDecoder,
                      GroupMessageResponse, HistoryMessage, HistoryResponse, JoinGroupResponse, JsonSerializer,
                      ListUsersResponse, LoginRequest, LoginResponse, LogoutRequest, MessageRequest, MessageResponse,
                      User, decode, encode)

FORMAT = 'The format'
ONE_SERIALIZER = 'A serializer, by number'
VERSIONS = 'Old and new'
STRICT = 'Decode: judge first, then build'
SAMPLES = {str: 'bob', int: 7, bool: True}


def sample(cls, wanted):
    """An object of the class with a value in each field that is wanted, made of its FIELDS."""
    arguments = {}
    for field in cls.FIELDS:
        if wanted(field):
            value = sample(field.kind, wanted) if issubclass(field.kind, Body) else SAMPLES[field.kind]
            arguments[field.attribute] = [value, value] if field.many else value
    return cls(**arguments)


def expect_it_comes_back(exercise, packet):
    """What comes back is to be what JSON gives, by the names on the wire."""
    binary, json = exercise.BinarySerializer(), JsonSerializer()
    expect(f'deserialize(serialize({packet}, 2))', binary.deserialize(binary.serialize(packet, 2)),
           json.deserialize(json.serialize(packet, 2)), FORMAT)


def test_a_login_has_exactly_these_bytes(exercise):
    packet = LoginRequest(user_name='bob', password='x')
    expect(f'serialize({packet}, 1)', exercise.BinarySerializer().serialize(packet, 1),
           bytes.fromhex('01 02 00 01 78 03 03 62 6f 62'), FORMAT)


def test_numbers_of_64_bits_and_negative_ones_come_back(exercise):
    for number in (0, 1, -1, 255, 256, INT_MAX, INT_MIN):
        expect_it_comes_back(exercise, DeliveryAck(message_id=number))
    expect('serialize(DeliveryAck(message_id=-2), 2)',
           exercise.BinarySerializer().serialize(DeliveryAck(message_id=-2), 2),
           bytes.fromhex('14 01 00 ff ff ff ff ff ff ff fe'), FORMAT)


def test_every_packet_comes_back(exercise):
    for cls in list(PACKETS.values()):
        expect_it_comes_back(exercise, sample(cls, lambda field: True))
        expect_it_comes_back(exercise, sample(cls, lambda field: field.required))


def test_chinese_and_long_texts_and_long_lists_come_back(exercise):
    for text in ('你好,鲍勃', '😀', 'x' * 254, 'x' * 255, '长' * 85, '长' * 10_000):
        expect_it_comes_back(exercise, MessageRequest(to_user_id='鲍勃', message=text))
    expect_it_comes_back(exercise, CreateGroupRequest(user_id_list=['bob', ''] * 200))


def test_none_is_left_out_but_empty_and_false_are_not(exercise):
    empty = LoginResponse(success=False, user_name='', last_client_seq=0)
    expect_it_comes_back(exercise, empty)
    expect_it_comes_back(exercise, ListUsersResponse(user_list=[]))
    expect_it_comes_back(exercise, ListUsersResponse(user_list=[User()]))
    expect('serialize(LogoutRequest(), 2)', exercise.BinarySerializer().serialize(LogoutRequest(), 2), b'\5\0', FORMAT)


def test_version_1_gets_no_field_of_version_2(exercise):
    binary, user = exercise.BinarySerializer(), User(user_id='1', user_name='bob', online=True)
    for packet, wanted in (
            (LoginRequest(user_name='bob', token='t', resume_after=7), {'userName': 'bob'}),
            (GroupMessageResponse(from_group_id='g', from_user=user, message='hi', message_id=1, sent_at=2),
             {'fromGroupId': 'g', 'fromUser': {'userId': '1', 'userName': 'bob'}, 'message': 'hi'})):
        got = binary.deserialize(binary.serialize(packet, 1))
        expect(f'deserialize(serialize({packet}, 1))', got, wanted, VERSIONS)
        expect_it_comes_back(exercise, packet)


def test_it_is_smaller_than_json(exercise):
    line = HistoryMessage(message_id=1, sent_at=1_700_000_000_000, from_user_id='7', message='hello')
    for packet in (MessageRequest(to_user_id='bob', message='hi'), JoinGroupResponse(
            group_id='bf19f15e', success=True), CreateGroupRequest(user_id_list=['bob', 'carol', 'dave']),
            MessageResponse(from_user_id='7', from_user_name='alice', message='a longer one, 也有中文' * 20),
            HistoryResponse(messages=[line] * 20, more=True)):
        binary = exercise.BinarySerializer()
        expect_it_comes_back(exercise, packet)
        small, large = len(binary.serialize(packet, 2)), len(JsonSerializer().serialize(packet, 2))
        expect(f'{small} bytes < {large}, those of JSON, for {packet}', small < large, True, FORMAT)


def test_a_body_cut_anywhere_is_a_value_error(exercise):
    user = User(user_id='1', user_name='鲍勃', online=True)
    for packet in (ListUsersResponse(user_list=[user, user]), DeliveryAck(message_id=7),
                   MessageRequest(to_user_id='bob', message='长' * 100)):
        body = exercise.BinarySerializer().serialize(packet, 2)
        expect_it_comes_back(exercise, packet)
        for end in range(len(body)):
            expect_raises(f'deserialize(the first {end} of {len(body)} bytes of {packet!r:.40}...)',
                          lambda: exercise.BinarySerializer().deserialize(body[:end]), ValueError, STRICT)


def test_bytes_that_mean_nothing_are_a_value_error(exercise):
    for body, why in ((b'\5\0\0', 'a byte behind the end'), (b'\0\0', 'there is no command 0'),
                      (b'\x63\0', 'there is no command 99'), (b'\5\1\0\1', 'LogoutRequest has no field 0'),
                      (b'\x14\1\1' + bytes(8), 'DeliveryAck has one field'), (b'\3\1\1\1\xff', 'no UTF-8'),
                      (b'\2\1\4\2', 'a bool of 2: field 4 of LoginResponse is success')):
        expect_raises(f'deserialize({body!r}): {why}', lambda: exercise.BinarySerializer().deserialize(body),
                      ValueError, STRICT)


def test_frames_carry_it_as_number_2(exercise, monkeypatch):
    monkeypatch.setitem(protocol.SERIALIZERS, 2, exercise.BinarySerializer())
    packet = MessageRequest(to_user_id='bob', message='你好', client_seq=1)
    decoder = FrameDecoder()
    decoder.feed(encode(packet, 2, serializer=2) * 2)
    for frame in decoder:
        expect(f'decode(encode({packet}, 2, serializer=2))', packet_or_reason(frame), packet, ONE_SERIALIZER)


def packet_or_reason(frame):
    try:
        return decode(frame)
    except BadPacket as error:
        return f'BadPacket: {error}'

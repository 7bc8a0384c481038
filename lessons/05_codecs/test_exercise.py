"""The checks of chapter 5's exercise: `python3 -m lessons check 5`.  They come in the order of its TODOs."""
import struct
import traceback
from pathlib import Path

import protocol
from lessons.check import expect, shown
from protocol import (INT_MAX, INT_MIN, PACKETS, Body, ByteBuf, CreateGroupRequest, DeliveryAck, FrameDecoder,
                      GroupMessageResponse, JsonSerializer, ListGroupMembersResponse, ListUsersResponse, LoginRequest,
                      LoginResponse, LogoutRequest, MessageRequest, User, decode, encode)

FORMAT = 'The format'
ONE_SERIALIZER = 'A serializer, by number'
VERSIONS = 'Old and new'
GIVEN = ('take', 'take_byte', 'read_size')
SAMPLES = {str: 'bob', int: 7, bool: True}
TEXTS = (('bob', '03 62 6f 62'), ('你好', '06 e4 bd a0 e5 a5 bd'), ('', '00'), ('x' * 254, 'fe' + '78' * 254),
         ('x' * 255, 'ff 00 00 00 ff' + '78' * 255), ('长' * 10_000, 'ff 00 00 75 30' + 'e9 95 bf' * 10_000))
NUMBERS = (1, -1, 0, 255, 256, INT_MAX, INT_MIN)
OBJECTS = (  # a packet, its bytes as an object, what is read from them
    (LoginRequest(user_name='bob', password='x'), '02 00 01 78 03 03 62 6f 62', {'password': 'x', 'userName': 'bob'}),
    (DeliveryAck(message_id=-2), '01 00 ff ff ff ff ff ff ff fe', {'messageId': -2}),
    (LoginResponse(success=True), '01 04 01', {'success': True}),
    (CreateGroupRequest(user_id_list=['bob', 'al']), '01 02 02 03 62 6f 62 02 61 6c', {'userIdList': ['bob', 'al']}),
    (CreateGroupRequest(user_id_list=[''] * 300), '01 02 ff 00 00 01 2c' + '00' * 300, {'userIdList': [''] * 300}),
    (GroupMessageResponse(from_group_id='g', from_user=User(user_name='al'), message='hi'),
     '03 00 01 67 01 01 02 02 61 6c 02 02 68 69',
     {'fromGroupId': 'g', 'fromUser': {'userName': 'al'}, 'message': 'hi'}),
    (ListUsersResponse(user_list=[User(user_id='7'), User(online=True)]), '01 00 02 01 01 01 37 01 00 01',
     {'userList': [{'userId': '7'}, {'online': True}]}),
    (LogoutRequest(), '00', {}))


class Raised:
    """What stands for the answer of a call that raised, so that it is shown beside the right one."""

    def __init__(self, error, file):
        steps = [step for step in traceback.extract_tb(error.__traceback__)
                 if step.filename == file and step.name not in GIVEN]
        self.error = error
        place = f' ({Path(file).name}, line {steps[-1].lineno}: {steps[-1].line})' if steps else ''
        self.text = f'{type(error).__name__}: {error}{place}'

    def __repr__(self):
        return self.text


class Refusal:
    """The right answer to bytes that mean nothing: it is equal to a ValueError that was Raised."""

    def __eq__(self, other):
        return isinstance(other, Raised) and isinstance(other.error, ValueError)

    def __repr__(self):
        return 'ValueError is raised'


def answer(exercise, function, *arguments):
    """What the function returns, or Raised."""
    try:
        return function(*arguments)
    except Exception as error:
        return Raised(error, exercise.__file__)


def written(exercise, name, value, version):
    """The bytes that the writer of this name leaves in an empty buffer, or Raised."""
    buffer = ByteBuf()
    found = answer(exercise, getattr(exercise, name), buffer, value, version)
    return found if isinstance(found, Raised) else buffer.read_bytes(buffer.readable_bytes)


def expect_written(exercise, name, value, version, wanted):
    expect(f'{name}(buffer, {shown(value)}, {version}), what the buffer holds then',
           written(exercise, name, value, version), bytes.fromhex(wanted), FORMAT)


def expect_read(exercise, name, kind, data, wanted):
    """The reader of this name is to return what is wanted, and to take no byte more than that is long."""
    buffer = ByteBuf(bytes.fromhex(data) + b'*')
    call = f'{name}(buffer, {kind.__name__}), the buffer holds {shown(bytes.fromhex(data))} and one byte more'
    expect(call, answer(exercise, getattr(exercise, name), buffer, kind), wanted, FORMAT)
    expect(f'{call}: buffer.readable_bytes afterwards', buffer.readable_bytes, 1, FORMAT)


def expect_it_comes_back(exercise, packet):
    """What comes back is to be what JSON gives, by the names on the wire."""
    binary, json = exercise.BinarySerializer(), JsonSerializer()
    expect(f'deserialize(serialize({shown(packet)}, 2))',
           answer(exercise, lambda: binary.deserialize(binary.serialize(packet, 2))),
           json.deserialize(json.serialize(packet, 2)), FORMAT)


def expect_refused(exercise, body, why):
    expect(f'deserialize({shown(body)}): {why}',
           answer(exercise, lambda: exercise.BinarySerializer().deserialize(body)), Refusal(), ONE_SERIALIZER)


def sample(cls, wanted):
    """An object of the class with a value in each field that is wanted, made of its FIELDS."""
    arguments = {}
    for field in cls.FIELDS:
        if wanted(field):
            value = sample(field.kind, wanted) if issubclass(field.kind, Body) else SAMPLES[field.kind]
            arguments[field.attribute] = [value, value] if field.many else value
    return cls(**arguments)


def test_a_text_is_its_size_in_bytes_and_its_utf_8(exercise):
    for text, data in TEXTS:
        expect_written(exercise, 'write_str', text, 1, data)
    for text, data in TEXTS:
        expect_read(exercise, 'read_str', str, data, text)


def test_a_number_is_eight_bytes_with_its_sign(exercise):
    for number in NUMBERS:
        expect_written(exercise, 'write_int', number, 1, struct.pack('>q', number).hex())
    for number in NUMBERS:
        expect_read(exercise, 'read_int', int, struct.pack('>q', number).hex(), number)


def test_an_object_is_how_many_fields_and_of_each_its_number_and_its_value(exercise):
    for packet, data, _ in OBJECTS:
        expect_written(exercise, 'write_object', packet, 2, data)


def test_none_is_left_out_but_0_and_false_and_what_is_empty_are_not(exercise):
    for packet, data in ((DeliveryAck(message_id=0), '01 00' + '00' * 8), (LoginResponse(success=False), '01 04 00'),
                         (LoginResponse(success=True, user_name=''), '02 04 01 07 00'),
                         (ListUsersResponse(user_list=[]), '01 00 00'),
                         (ListUsersResponse(user_list=[User()]), '01 00 01 00')):
        expect_written(exercise, 'write_object', packet, 2, data)


def test_version_1_gets_no_field_of_version_2(exercise):
    user = User(user_id='1', online=True)
    for packet, data in (
            (LoginRequest(user_name='bob', token='t', resume_after=7), '01 03 03 62 6f 62'),
            (GroupMessageResponse(from_group_id='g', from_user=user, message='hi', message_id=1, sent_at=2),
             '03 00 01 67 01 01 01 01 31 02 02 68 69'),
            (ListGroupMembersResponse(group_id='g', session_list=[user]), '02 00 01 67 01 01 01 01 01 31')):
        expect(f'write_object(buffer, {packet}, 1), what the buffer holds then',
               written(exercise, 'write_object', packet, 1), bytes.fromhex(data), VERSIONS)


def test_an_object_is_read_into_a_dict(exercise):
    for packet, data, values in OBJECTS:
        expect_read(exercise, 'read_object', type(packet), data, values)


def test_every_packet_comes_back_and_is_smaller_than_json(exercise):
    for cls in list(PACKETS.values()):
        expect_it_comes_back(exercise, sample(cls, lambda field: True))
        expect_it_comes_back(exercise, sample(cls, lambda field: field.required))
    for cls in [cls for cls in PACKETS.values() if cls.FIELDS]:
        packet = sample(cls, lambda field: True)
        small, large = (len(made.serialize(packet, 2)) for made in (exercise.BinarySerializer(), JsonSerializer()))
        expect(f'{small} bytes < {large}, those of JSON, for {packet}', small < large, True, FORMAT)


def test_bytes_that_mean_nothing_are_a_value_error(exercise):
    for body, why in (('00 00', 'there is no command 0'), ('63 00', 'there is no command 99'),
                      ('05 01 00 01', 'LogoutRequest has no field 0'),
                      ('14 01 01' + '00' * 8, 'DeliveryAck has no field 1, only field 0'),
                      ('02 01 04 02', 'a bool of 2: field 4 of LoginResponse is success'),
                      ('03 01 01 01 ff', 'ff is no UTF-8'), ('05 00 00', 'a byte is left over')):
        expect_refused(exercise, bytes.fromhex(body), why)


def test_a_body_cut_anywhere_is_a_value_error(exercise):
    user = User(user_id='1', user_name='鲍勃', online=True)
    for packet in (ListUsersResponse(user_list=[user, user]), DeliveryAck(message_id=7),
                   MessageRequest(to_user_id='bob', message='长' * 100)):
        expect_it_comes_back(exercise, packet)
        body = exercise.BinarySerializer().serialize(packet, 2)
        for end in range(len(body)):
            expect_refused(exercise, body[:end],
                           f'the first {end} of the {len(body)} bytes of a {type(packet).__name__}')


def test_frames_carry_it_as_number_2(exercise, monkeypatch):
    monkeypatch.setitem(protocol.SERIALIZERS, 2, exercise.BinarySerializer())
    packet = MessageRequest(to_user_id='bob', message='你好', client_seq=1)

    def carried():
        decoder = FrameDecoder()
        decoder.feed(encode(packet, 2, serializer=2) * 2)
        return [decode(frame) for frame in decoder]

    expect(f'decode of two frames, each encode({packet}, 2, serializer=2)', answer(exercise, carried),
           [packet, packet], ONE_SERIALIZER)

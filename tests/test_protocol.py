"""What protocol.py promises, tried with bytes alone: no socket, no clock, no chance (every seed is fixed).

Held here: the frames of version 1 byte for byte as the tutorial's Java ends write them; every packet there
and back; the decoder that finds the same frames wherever TCP cuts the stream; each byte of a header that
can be wrong; each way in which a body can be wrong (refused, never a crash); which fields, kinds and
commands each version has; the bytes that `encode` writes; ByteBuf; a second serializer; what `describe`
shows and hides; and that the picture, the tables and the error codes are those of the wire format.

The helpers come first.  Whatever they say about the header is written out here once more, by hand: a test
that used protocol.HEADER would agree with every mistake in it.
"""
import json
import random
import struct
import tracemalloc
from copy import deepcopy

import pytest

import protocol
from protocol import (
    ERROR_CODES, HEADER, HEADER_SIZE, INT_MAX, INT_MIN, MAX_BODY, MAX_BODY_BEFORE_LOGIN, MAX_BODY_CLIENT,
    PACKETS, REQUESTS, RESPONSES, SERIALIZERS, BadPacket, Body, ByteBuf, Command, CreateGroupRequest,
    CreateGroupResponse, DeliveryAck, ErrorResponse, FrameDecoder, Group, GroupMessageRequest,
    GroupMessageResponse, GroupNotice, HeartbeatRequest, HeartbeatResponse, HistoryMessage, HistoryRequest,
    HistoryResponse, JoinGroupRequest, JoinGroupResponse, JsonSerializer, KickedNotice,
    ListGroupMembersRequest, ListGroupMembersResponse, ListGroupsRequest, ListGroupsResponse,
    ListUsersRequest, ListUsersResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse,
    MessageAck, MessageRequest, MessageResponse, Packet, ProtocolError, QuitGroupRequest, QuitGroupResponse,
    Serializer, TooLongFrame, User, decode, describe, encode, encode_for, message_template)

# Helpers: frames by hand .............................................................................

MAGIC = bytes.fromhex('12 34 56 78')
DELIVERY_ACK = 20  # its body is one int, messageId
KICKED_NOTICE = 22  # its body is one text, reason


def header(length, command=17, version=2, serializer=1):
    return MAGIC + bytes((version, serializer, command)) + length.to_bytes(4, 'big')


def frame_of(body, command=DELIVERY_ACK, version=2):
    """A frame with any body: text, bytes, or a value to be written as JSON."""
    if not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode('utf-8')
    return header(len(body), command, version) + body


def body_of(packet, version=2):
    return encode(packet, version)[HEADER_SIZE:]


def refusal(body, command=DELIVERY_ACK, version=2, **options):
    """Decode what must be refused and return the BadPacket, whose promises are the same everywhere."""
    with pytest.raises(BadPacket) as caught:
        decode(frame_of(body, command, version), **options)
    error = caught.value
    assert error.command == command
    assert error.code in ERROR_CODES
    assert error.reason == str(error) != ''
    return error


def frames_of(decoder, *pieces):
    """Feed one piece after the other, asking for frames after each."""
    frames = []
    for piece in pieces:
        decoder.feed(piece)
        frames += decoder
    return frames


def bytewise(data):
    return [data[at:at + 1] for at in range(len(data))]


def stream_refusal(decoder, *pieces):
    """Feed a stream that must be refused; return the frames before the refusal, and the error."""
    frames = []
    with pytest.raises(ProtocolError) as caught:
        for piece in pieces:
            decoder.feed(piece)
            for frame in decoder:
                frames.append(frame)
    return frames, caught.value


# Helpers: an example of every packet, with every field that it can have ...............................

ZHANGSAN = User(user_id='1a2b3c4d', user_name='zhangsan', online=True)
LISI = User(user_id='5e6f7a8b', user_name='李四', online=False)
LONG_AGO = 1_500_000_000_000

EXAMPLES = {type(packet): packet for packet in (
    LoginRequest(user_name='张三', password='pwd', token='t-1', resume_after=0),
    LoginResponse(success=True, user_name='张三', user_id='张三', reason='r', code='bad_token', token='t-2',
                  last_client_seq=0, log_id='9f8e'),
    MessageRequest(to_user_id='李四', message='你好 😀', client_seq=1),
    MessageResponse(from_user_id='张三', from_user_name='张三', message='你好 😀', message_id=2, sent_at=LONG_AGO),
    LogoutRequest(),
    LogoutResponse(success=True, reason='r'),
    CreateGroupRequest(user_id_list=['a', 'b'], group_name='朋友', client_seq=3),
    CreateGroupResponse(success=True, group_id='9f8e7d6c', user_name_list=['a', 'b'], reason='r',
                        group_name='朋友', unknown_user_id_list=['nobody'], client_seq=3, message_id=4,
                        sent_at=LONG_AGO),
    ListGroupMembersRequest(group_id='9f8e7d6c'),
    ListGroupMembersResponse(group_id='9f8e7d6c', session_list=[ZHANGSAN, LISI]),
    JoinGroupRequest(group_id='9f8e7d6c', client_seq=5),
    JoinGroupResponse(group_id='9f8e7d6c', success=False, reason='r', code='group_full', client_seq=5),
    QuitGroupRequest(group_id='9f8e7d6c', client_seq=6),
    QuitGroupResponse(group_id='9f8e7d6c', success=False, reason='r', code='not_a_member', client_seq=6),
    GroupMessageRequest(to_group_id='9f8e7d6c', message='"quoted" \\ and\nbroken', client_seq=7),
    GroupMessageResponse(from_group_id='9f8e7d6c', from_user=LISI, message='\x00\x1f\x7f\u2028',
                         message_id=8, sent_at=LONG_AGO),
    HeartbeatRequest(),
    HeartbeatResponse(),
    MessageAck(client_seq=9, message_id=10, sent_at=LONG_AGO),
    DeliveryAck(message_id=10),
    ErrorResponse(command=3, code='unknown_user', reason='r', client_seq=11),
    KickedNotice(reason='r'),
    HistoryRequest(user_id='a', group_id='9f8e7d6c', before=12, limit=20),
    HistoryResponse(user_id='a', group_id='9f8e7d6c', more=False, messages=[
        HistoryMessage(message_id=13, sent_at=LONG_AGO, from_user_id='a', message='hi')]),
    ListUsersRequest(),
    ListUsersResponse(user_list=[ZHANGSAN, LISI]),
    ListGroupsRequest(),
    ListGroupsResponse(group_list=[Group(group_id='9f8e7d6c', group_name='朋友', member_count=2)]),
    GroupNotice(group_id='9f8e7d6c', event='joined', user=ZHANGSAN, message_id=14, sent_at=LONG_AGO),
)}


def example_of(cls):
    assert cls in EXAMPLES, f'please write an example of {cls.__name__} into EXAMPLES'
    return EXAMPLES[cls]


def in_version(value, version, required_only=False):
    """A copy of a packet with nothing but what `version` has; or with nothing but what it needs."""
    if isinstance(value, list):
        return [in_version(item, version, required_only) for item in value]
    if not isinstance(value, Body):
        return value
    return type(value)(**{f.attribute: in_version(getattr(value, f.attribute), version, required_only)
                          for f in value.FIELDS if f.since <= version and (f.required or not required_only)})


def name_of(thing):
    return thing.__name__ if isinstance(thing, type) else None  # None: pytest finds a name itself


ALL_PACKETS = list(PACKETS.values())
PACKETS_OF_VERSION_1 = [cls for cls in ALL_PACKETS if cls.COMMAND <= 18]
PACKET_AND_VERSION = [(cls, 1) for cls in PACKETS_OF_VERSION_1] + [(cls, 2) for cls in ALL_PACKETS]
each_packet = pytest.mark.parametrize('cls', ALL_PACKETS, ids=name_of)
each_packet_and_version = pytest.mark.parametrize('cls, version', PACKET_AND_VERSION, ids=name_of)
each_version = pytest.mark.parametrize('version', (1, 2))


def thousand_frames():
    packets = [example_of(cls) for cls in ALL_PACKETS]
    return [encode(packets[number % len(packets)], 2) for number in range(1_000)]


# Helpers: where in a body a value stands .............................................................

JSON_KINDS = {'string': 'text', 'integer': 7, 'float': 1.5, 'boolean': True, 'object': {}, 'array': []}
KIND_NAMES = {str: 'string', int: 'integer', bool: 'boolean'}


def declared(cls, above=()):
    """Every place in the body of a `cls`: (path, name of the JSON kind that belongs there, Field)."""
    for f in cls.FIELDS:
        path = (*above, f.name)
        if f.many:
            yield path, 'array', f
            path = (*path, 0)
        yield path, KIND_NAMES.get(f.kind, 'object'), f
        if f.kind not in KIND_NAMES:
            yield from declared(f.kind, path)


def value_at(values, path):
    for step in path:
        values = values[step]
    return values


def is_there(values, path):
    try:
        return value_at(values, path) is not None
    except (KeyError, IndexError):
        return False


def changed(values, path, value):
    """A copy of the JSON object `values` with another value at `path`."""
    copy = deepcopy(values)
    value_at(copy, path[:-1])[path[-1]] = value
    return copy


def removed(values, path):
    copy = deepcopy(values)
    del value_at(copy, path[:-1])[path[-1]]
    return copy


def cases(rows):
    """Rows (class, path, ...) as parameters with readable names: MessageRequest-toUserId-integer."""
    return [pytest.param(cls, path, *others, id='-'.join([cls.__name__, '.'.join(map(str, path)),
                                                          *map(str, others)]))
            for cls, path, *others in rows]


# 1. Version 1, byte for byte .........................................................................

GOLDEN = [  # command and length as in the header from offset 6 on; body; packet.  A row each, variants too
    ('01 00000026', '{"password":"pwd","userName":"张三"}', LoginRequest(user_name='张三', password='pwd')),
    ('02 0000003a', '{"success":true,"userId":"1a2b3c4d","userName":"zhangsan"}',
     LoginResponse(success=True, user_id='1a2b3c4d', user_name='zhangsan')),
    ('02 0000004b', '{"reason":"账号密码校验失败","success":false,"userName":"zhangsan"}',
     LoginResponse(success=False, user_name='zhangsan', reason='账号密码校验失败')),
    ('03 00000026', '{"message":"hi","toUserId":"1a2b3c4d"}',
     MessageRequest(message='hi', to_user_id='1a2b3c4d')),
    ('04 0000003e', '{"fromUserId":"1a2b3c4d","fromUserName":"lisi","message":"hi"}',
     MessageResponse(from_user_id='1a2b3c4d', from_user_name='lisi', message='hi')),
    ('05 00000002', '{}', LogoutRequest()),
    ('06 00000010', '{"success":true}', LogoutResponse(success=True)),
    ('06 0000001e', '{"reason":"r","success":false}', LogoutResponse(success=False, reason='r')),
    ('07 00000018', '{"userIdList":["a","b"]}', CreateGroupRequest(user_id_list=['a', 'b'])),
    ('08 00000048', '{"groupId":"9f8e7d6c","success":true,"userNameList":["zhangsan","lisi"]}',
     CreateGroupResponse(success=True, group_id='9f8e7d6c', user_name_list=['zhangsan', 'lisi'])),
    ('08 00000011', '{"success":false}', CreateGroupResponse(success=False)),
    ('09 0000000f', '{"groupId":"g"}', ListGroupMembersRequest(group_id='g')),
    ('0a 00000073', '{"groupId":"g","sessionList":[{"userId":"1a2b3c4d","userName":"zhangsan"},'
                    '{"userId":"5e6f7a8b","userName":"lisi"}]}',
     ListGroupMembersResponse(group_id='g', session_list=[User(user_id='1a2b3c4d', user_name='zhangsan'),
                                                          User(user_id='5e6f7a8b', user_name='lisi')])),
    ('0b 0000000f', '{"groupId":"g"}', JoinGroupRequest(group_id='g')),
    ('0c 0000001e', '{"groupId":"g","success":true}', JoinGroupResponse(group_id='g', success=True)),
    ('0c 0000002c', '{"groupId":"g","reason":"r","success":false}',
     JoinGroupResponse(group_id='g', success=False, reason='r')),
    ('0d 0000000f', '{"groupId":"g"}', QuitGroupRequest(group_id='g')),
    ('0e 0000001e', '{"groupId":"g","success":true}', QuitGroupResponse(group_id='g', success=True)),
    ('0e 0000002c', '{"groupId":"g","reason":"r","success":false}',
     QuitGroupResponse(group_id='g', success=False, reason='r')),
    ('0f 00000020', '{"message":"hi","toGroupId":"g"}', GroupMessageRequest(message='hi', to_group_id='g')),
    ('10 00000059', '{"fromGroupId":"g","fromUser":{"userId":"1a2b3c4d","userName":"zhangsan"},'
                    '"message":"hi"}',
     GroupMessageResponse(from_group_id='g', message='hi',
                          from_user=User(user_id='1a2b3c4d', user_name='zhangsan'))),
    ('10 00000030', '{"fromGroupId":"g","fromUser":{},"message":"hi"}',
     GroupMessageResponse(from_group_id='g', from_user=User(), message='hi')),
    ('11 00000002', '{}', HeartbeatRequest()),
    ('12 00000002', '{}', HeartbeatResponse()),
]
GOLDEN_WITH_NULL = ('07 0000001d', '{"userIdList":["a","b",null]}',
                    CreateGroupRequest(user_id_list=['a', 'b', None]))


def golden_frame(tail, body):
    return bytes.fromhex('12345678 01 01 ' + tail) + body.encode('utf-8')


@pytest.mark.parametrize('tail, body, packet', [*GOLDEN, GOLDEN_WITH_NULL])
def test_version_1_is_written_byte_for_byte(tail, body, packet):
    assert encode(packet, 1) == golden_frame(tail, body)


@pytest.mark.parametrize('tail, body, packet', GOLDEN)
def test_version_1_is_read(tail, body, packet):
    frame = golden_frame(tail, body)
    assert frames_of(FrameDecoder(), frame) == [frame]
    assert decode(frame) == packet


def test_golden_frames_cover_version_1():
    assert {int(tail[:2], 16) for tail, _, _ in GOLDEN} == set(range(1, 19))


def test_null_user_to_invite_is_refused():
    tail, body, _ = GOLDEN_WITH_NULL
    with pytest.raises(BadPacket) as caught:
        decode(golden_frame(tail, body))
    assert caught.value.code == 'bad_request'


def test_null_members_of_the_java_server_are_left_out():
    body = '{"groupId":"g","sessionList":[null,{"userId":"i","userName":"n"},null]}'
    packet = decode(frame_of(body, 10, version=1))
    assert packet.session_list == [User(user_id='i', user_name='n')]


@pytest.mark.parametrize('command, packet', [
    (2, LoginResponse(success=False)), (6, LogoutResponse(success=False)),
    (8, CreateGroupResponse(success=False))])
def test_barest_answers_of_the_java_server_are_read(command, packet):
    assert decode(frame_of('{"success":false}', command, version=1)) == packet


# 2. Every packet: one decoder, three checks ..........................................................

@each_packet
def test_example_has_every_field(cls):
    values = json.loads(body_of(example_of(cls)))
    assert [path for path, _, _ in declared(cls) if not is_there(values, path)] == []


@each_packet_and_version
@pytest.mark.parametrize('required_only', (False, True), ids=('full', 'bare'))
def test_packet_there_and_back(cls, version, required_only):
    packet = in_version(example_of(cls), 2, required_only)
    assert decode(encode(packet, version)) == in_version(packet, version)


@each_packet_and_version
def test_frame_is_found_fed_whole(cls, version):
    frame = encode(example_of(cls), version)
    decoder = FrameDecoder()
    assert frames_of(decoder, frame) == [frame]
    assert frames_of(decoder, b'') == []


@each_packet_and_version
def test_frame_is_found_byte_by_byte_and_not_sooner(cls, version):
    frame = encode(example_of(cls), version)
    decoder = FrameDecoder()
    for piece in bytewise(frame)[:-1]:
        assert frames_of(decoder, piece) == []
    assert frames_of(decoder, frame[-1:]) == [frame]


@each_packet_and_version
def test_bytes_behind_a_frame_wait_for_the_next(cls, version):
    frame = encode(example_of(cls), version)
    for cut in range(len(frame)):
        decoder = FrameDecoder()
        assert frames_of(decoder, frame + frame[:cut]) == [frame]
        assert frames_of(decoder, frame[cut:]) == [frame]


@pytest.mark.parametrize('cls', PACKETS_OF_VERSION_1, ids=name_of)
def test_version_1_sees_no_field_of_version_2(cls):
    written = json.loads(body_of(example_of(cls), version=1))
    for path, _, f in declared(cls):
        assert is_there(written, path) == (f.since == 1)


def test_frames_are_bytes():
    frame, = frames_of(FrameDecoder(), bytearray(encode(HeartbeatRequest(), 2)))
    assert type(frame) is bytes


# 3. Wherever TCP cuts ................................................................................

def test_thousand_frames_in_one_piece():
    frames = thousand_frames()
    assert frames_of(FrameDecoder(), b''.join(frames)) == frames


def test_thousand_frames_fed_first_and_asked_for_later():
    frames = thousand_frames()
    decoder = FrameDecoder()
    for frame in frames:
        decoder.feed(frame)
    assert list(decoder) == frames


def test_two_frames_cut_anywhere():
    frames = [encode(EXAMPLES[LoginRequest], 2), encode(EXAMPLES[GroupNotice], 2)]
    both = b''.join(frames)
    for cut in range(len(both) + 1):
        assert frames_of(FrameDecoder(), both[:cut], both[cut:]) == frames


def test_thousand_frames_cut_at_a_thousand_random_places():
    frames = thousand_frames()
    stream = b''.join(frames)
    rng = random.Random(11)
    cuts = [0, *sorted(rng.randrange(len(stream)) for _ in range(1_000)), len(stream)]
    pieces = [stream[start:end] for start, end in zip(cuts, cuts[1:])]
    assert frames_of(FrameDecoder(), *pieces) == frames


def test_decoder_that_is_left_in_the_middle_goes_on_where_it_was():
    frames = [encode(DeliveryAck(message_id=number), 2) for number in range(3)]
    decoder = FrameDecoder()
    decoder.feed(b''.join(frames))
    for frame in decoder:
        break
    assert frame == frames[0]
    assert list(decoder) == frames[1:]


def test_decoder_keeps_no_room_for_what_it_gave_out(monkeypatch):
    buffer = ByteBuf()
    monkeypatch.setattr(protocol, 'ByteBuf', lambda: buffer)
    decoder = FrameDecoder()
    frame = header(10_000) + bytes(10_000)
    for _ in range(100):
        assert frames_of(decoder, frame + frame[:20], frame[20:]) == [frame, frame]
        assert buffer.capacity <= 64
    decoder.feed(frame[:20])
    for _ in range(100):  # also when there is always the beginning of the next one behind it
        assert frames_of(decoder, frame[20:] + frame[:20]) == [frame]
        assert buffer.capacity < 2 * len(frame)


@pytest.fixture
def moved(monkeypatch):
    """A list of how many bytes a decoder's buffer copied from here to there, one number for each copy."""
    counts = []

    class CountingBuf(ByteBuf):
        def write_bytes(self, data):
            before = self.capacity
            super().write_bytes(data)
            counts.append(len(data) + (before if self.capacity != before else 0))  # growing may copy all

        def get_bytes(self, index, count):
            counts.append(count)
            return super().get_bytes(index, count)

        def discard_read_bytes(self):
            counts.append(self.readable_bytes if self.reader_index else 0)
            super().discard_read_bytes()

    monkeypatch.setattr(protocol, 'ByteBuf', CountingBuf)
    return counts


@pytest.mark.parametrize('length, count, piece', [
    (30_000, 1, 1), (60_000, 1, 7), (2, 2_000, 1), (2, 5_000, 65_000), (2, 5_000, 100),
    (50, 5_000, 400_000)])
def test_work_grows_with_the_bytes_and_not_with_the_pieces(moved, length, count, piece):
    # Each byte seven times is the worst here; moving the rest for each frame or piece would need hundreds.
    stream = (header(length) + bytes(length)) * count
    pieces = [stream[at:at + piece] for at in range(0, len(stream), piece)]
    assert len(frames_of(FrameDecoder(), *pieces)) == count
    assert sum(moved) < 10 * len(stream)


# 4. Headers that cannot be ...........................................................................

@pytest.mark.parametrize('at', range(4))
def test_wrong_magic_is_refused_with_its_first_wrong_byte(at):
    decoder = FrameDecoder()
    assert frames_of(decoder, *bytewise(MAGIC[:at])) == []
    frames, error = stream_refusal(decoder, bytes((MAGIC[at] ^ 1,)))
    assert frames == []
    assert not isinstance(error, TooLongFrame)


@pytest.mark.parametrize('at', range(4))
def test_wrong_magic_of_a_whole_frame_is_refused(at):
    wrong = bytearray(encode(HeartbeatRequest(), 2))
    wrong[at] ^= 0x80
    assert stream_refusal(FrameDecoder(), wrong)[0] == []


@pytest.mark.parametrize('at', range(4))
def test_wrong_magic_behind_a_frame_is_refused(at):
    good = encode(HeartbeatRequest(), 2)
    frames, _ = stream_refusal(FrameDecoder(), good + MAGIC[:at] + b'\x00')
    assert frames == [good]


@pytest.mark.parametrize('version', (0, 3, 255))
def test_wrong_version_is_refused_with_its_byte(version):
    decoder = FrameDecoder()
    assert frames_of(decoder, MAGIC) == []
    stream_refusal(decoder, bytes((version,)))


@pytest.mark.parametrize('serializer', (0, 2, 255))
def test_wrong_serializer_is_refused_with_its_byte(serializer):
    decoder = FrameDecoder()
    assert frames_of(decoder, MAGIC + b'\x02') == []
    stream_refusal(decoder, bytes((serializer,)))


@pytest.mark.parametrize('wrong', ({'version': 0}, {'version': 3}, {'serializer': 0}, {'serializer': 2}))
def test_wrong_whole_header_is_refused(wrong):
    stream_refusal(FrameDecoder(), header(2, **wrong) + b'{}')


@pytest.mark.parametrize('data', (b'GET / HTTP/1.1\r\n', b'\x16\x03\x01\x02\x00\x01', b'\n', MAGIC[::-1]))
def test_other_protocols_are_refused(data):
    stream_refusal(FrameDecoder(), data)


def test_longest_body_is_taken():
    frame = header(100) + bytes(100)
    assert frames_of(FrameDecoder(max_body=100), *bytewise(frame)) == [frame]


@pytest.mark.parametrize('length', (101, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
@each_version
def test_too_long_body_is_refused_from_the_header_alone(length, version):
    decoder = FrameDecoder(max_body=100)
    whole = header(length, command=99, version=version)
    assert frames_of(decoder, whole[:-1]) == []
    frames, error = stream_refusal(decoder, whole[-1:])
    assert frames == []
    assert isinstance(error, TooLongFrame)
    assert (error.version, error.command) == (version, 99)
    assert str(length) in str(error) and '100' in str(error)


@pytest.mark.parametrize('wrong', ({'version': 3}, {'serializer': 2}))
def test_length_of_an_impossible_header_is_not_believed(wrong):
    _, error = stream_refusal(FrameDecoder(), header(0xFFFFFFFF, **wrong))
    assert type(error) is ProtocolError


def test_limit_by_default():
    assert FrameDecoder().max_body == MAX_BODY == 65_536
    assert (MAX_BODY_BEFORE_LOGIN, MAX_BODY_CLIENT) == (4_096, 1_048_576)
    assert frames_of(FrameDecoder(), header(65_536)) == []
    stream_refusal(FrameDecoder(), header(65_537))


def test_limit_may_rise_between_two_frames():
    login, long = frame_of('{}', 1), frame_of(b' ' * 5_000)
    decoder = FrameDecoder(MAX_BODY_BEFORE_LOGIN)
    decoder.feed(login + long)
    found = []
    for frame in decoder:
        found.append(frame)
        decoder.max_body = MAX_BODY
    assert found == [login, long]


def test_limit_may_fall_between_two_frames():
    frame = header(100) + bytes(100)
    decoder = FrameDecoder(max_body=100)
    assert frames_of(decoder, frame) == [frame]
    decoder.max_body = 99
    stream_refusal(decoder, frame)


def test_empty_body_is_a_frame_but_no_packet():
    assert frames_of(FrameDecoder(), header(0)) == [header(0)]
    assert refusal(b'').code == 'bad_request'


def test_frames_before_a_wrong_one_are_handed_out():
    good = [encode(DeliveryAck(message_id=number), 2) for number in range(3)]
    assert stream_refusal(FrameDecoder(), b''.join(good) + header(MAX_BODY + 1))[0] == good
    assert stream_refusal(FrameDecoder(), b''.join(good) + b'X' + good[0])[0] == good


def test_refused_stream_stays_refused():
    decoder = FrameDecoder()
    stream_refusal(decoder, b'X')
    stream_refusal(decoder, encode(HeartbeatRequest(), 2))


# 5a. Bodies: text ....................................................................................

@pytest.mark.parametrize('text', (
    b'\x80', b'\xff', b'\xfe', b'\xe9', '张三'.encode('gbk'), b'\xe5\xbc', b'\xe5', b'\xf0\x9f\x98',
    b'\xc0\xaf', b'\xc0\x80', b'\xe0\x80\xaf', b'\xf0\x80\x80\xaf', b'\xed\xa0\x80', b'\xed\xbf\xbf',
    b'\xed\xa0\xbd\xed\xb8\x80', b'\xf4\x90\x80\x80', b'\xf8\x88\x80\x80\x80',
), ids=(
    'continuation', 'ff', 'fe', 'latin-1', 'gbk', 'two-of-three', 'one-of-three', 'three-of-four',
    'overlong-2', 'overlong-null', 'overlong-3', 'overlong-4', 'high-surrogate', 'low-surrogate',
    'cesu-pair', 'beyond-10ffff', 'five-bytes'))
@pytest.mark.parametrize('body', (b'{"reason":"%s"}', b'{"reason":"r","%s":1}', b'{"reason":"r"}%s'))
def test_invalid_utf_8_is_refused(text, body):
    assert refusal(body % text, KICKED_NOTICE).code == 'bad_request'


def test_body_that_ends_within_a_character_is_refused():
    assert refusal('{"reason":"张'.encode('utf-8')[:-1], KICKED_NOTICE).code == 'bad_request'


@pytest.mark.parametrize('encoding', ('utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'utf-32-le', 'utf-32-be',
                                      'utf-8-sig', 'gb18030', 'latin-1'))
def test_other_encodings_and_byte_order_marks_are_refused(encoding):
    body = '{"reason":"\xe9"}'.encode(encoding)
    assert refusal(body, KICKED_NOTICE).code == 'bad_request'
    if encoding not in ('gb18030', 'latin-1'):  # those write ASCII as UTF-8 does
        assert refusal('{"reason":"r"}'.encode(encoding), KICKED_NOTICE).code == 'bad_request'


@pytest.mark.parametrize('text', (
    r'\ud800', r'\udbff', r'\udc00', r'\uDFFF', r'\ude00\ud83d', r'\ud83d\ud83d', r'\ud83d \ude00',
    r'x\ud83d'),
    ids=('high', 'last-high', 'low', 'last-low', 'reversed', 'two-high', 'apart', 'behind-text'))
@pytest.mark.parametrize('body', (
    '{"reason":"%s"}', '{"reason":"r","x":"%s"}', '{"reason":"r","%s":1}', '{"reason":"r","x":{"%s":[]}}',
    '{"reason":"r","x":[["%s"]]}'), ids=('declared', 'unknown', 'key', 'inner-key', 'list'))
def test_lone_surrogate_is_refused(text, body):
    assert refusal(body % text, KICKED_NOTICE).code == 'bad_request'


@pytest.mark.parametrize('written, text', (
    (r'\ud83d\ude00', '😀'), (r'\u5f20', '张'), (r'\\ud83d', r'\ud83d'), (r'\u0000', '\x00'), (r'\/', '/'),
    ('\ufeff', '\ufeff'), ('\u2028\x7f', '\u2028\x7f'), (r'\b\t\n\f\r\"', '\b\t\n\f\r"')))
def test_proper_escapes_and_rare_characters_are_read(written, text):
    assert decode(frame_of('{"reason":"%s"}' % written, KICKED_NOTICE)).reason == text


@pytest.mark.parametrize('code', range(0x20))
def test_raw_control_character_is_refused(code):
    assert refusal('{"reason":"a%sb"}' % chr(code), KICKED_NOTICE).code == 'bad_request'
    assert refusal('{"reason":"r","x%s":1}' % chr(code), KICKED_NOTICE).code == 'bad_request'


# 5b. Bodies: JSON ....................................................................................

@pytest.mark.parametrize('body', (
    '', ' ', '[]', '[{"messageId":1}]', '"messageId"', '7', '1.5', 'true', 'null',
    '{"messageId":1}x', '{"messageId":1}{}', '{"messageId":1},', '{"messageId":1}}', '{"messageId":1}\0',
    '{"messageId":1,}', '{"messageId" 1}', '{messageId:1}', "{'messageId':1}", '{1:"messageId"}',
    '{"messageId":01}', '{"messageId":+1}', '{"messageId":0x1}', '{"messageId":1_0}', '{"messageId":1.}',
    '{"messageId":\u0661}', '{"messageId":1/**/}', '{"messageId":1,"x":True}', '{"messageId":1,"x":"\\x41"}',
    '{"messageId":1,"x":"\\u12"}', '\u00a0{"messageId":1}', '\f{"messageId":1}'))
def test_what_is_no_json_object_is_refused(body):
    error = refusal(body)
    assert error.code == 'bad_request'
    assert error.client_seq is None


def test_body_cut_short_is_refused():
    body = body_of(example_of(GroupNotice))
    for length in range(len(body)):
        assert refusal(body[:length], 29).code == 'bad_request'


def test_white_space_between_is_allowed():
    assert decode(frame_of(' \t\r\n{ "messageId" : 1\r\n}\n ')) == DeliveryAck(message_id=1)


@pytest.mark.parametrize('number', ('NaN', 'Infinity', '-Infinity', '1e999', '-1e999', '1.5E+999',
                                    '9' * 400 + 'e9'))
@pytest.mark.parametrize('body', (
    '{"messageId":%s}', '{"messageId":1,"x":%s}', '{"messageId":1,"x":[{"y":%s}]}'),
    ids=('declared', 'unknown', 'inner'))
def test_number_that_is_not_finite_is_refused(number, body):
    assert refusal(body % number).code == 'bad_request'


@pytest.mark.parametrize('number', ('1e999', 'NaN', 'Infinity'))
def test_names_of_numbers_in_a_text_are_text(number):
    assert decode(frame_of('{"reason":"%s"}' % number, KICKED_NOTICE)).reason == number


def nested(levels, kinds):
    """A body of `levels` levels: the outer object, and in its unknown field x all the others."""
    opening = {'array': '[', 'object': '{"x":'}
    closing = {'array': ']', 'object': '}'}
    chain = [kinds[number % len(kinds)] for number in range(levels - 1)]
    before = ''.join(opening[kind] for kind in chain)
    behind = ''.join(closing[kind] for kind in reversed(chain))
    return '{"messageId":1,"x":' + before + '1' + behind + '}'


each_nesting = pytest.mark.parametrize('kinds', (
    ['array'], ['object'], ['array', 'object'], ['object', 'array']), ids='-'.join)


@each_nesting
def test_sixteen_levels_are_allowed(kinds):
    assert decode(frame_of(nested(16, kinds))) == DeliveryAck(message_id=1)


@each_nesting
def test_seventeen_levels_are_refused(kinds):
    assert refusal(nested(17, kinds)).code == 'bad_request'


@each_nesting
def test_a_hundred_thousand_levels_are_refused(kinds):
    assert refusal(nested(100_000, kinds)).code == 'bad_request'  # and no RecursionError


@pytest.mark.parametrize('body', ('[' * 100_000, '{"x":' * 100_000, ']' * 50 + '[' * 100_000,
                                  '{"messageId":1}' + ']' * 50 + '[' * 100_000, '{"x":"' + '[' * 100_000))
def test_a_hundred_thousand_open_brackets_are_refused(body):
    assert refusal(body).code == 'bad_request'


def test_whatever_is_escaped_before_it_a_lone_surrogate_is_found_and_a_pair_is_none():
    """The look at the text, against what a parser makes of it."""
    pieces = ['\\\\', '\\ud83d', '\\uDE00', '\\"', '\\u0041', 'ud83d', 'x', '\\n', '\\uDBFF', '\\udc00']
    chance, refused = random.Random(5), 0
    for _ in range(20_000):
        text = '"' + ''.join(chance.choices(pieces, k=chance.randrange(1, 7))) + '"'
        body = f'{{"messageId":1,"x":{text}}}'
        try:
            json.loads(text).encode()
        except UnicodeEncodeError:
            refused += 1
            assert refusal(body).code == 'bad_request', text
        else:
            assert decode(frame_of(body)) == DeliveryAck(message_id=1), text
    assert 5_000 < refused < 15_000


@pytest.mark.parametrize('rubbish', [
    b'[' * 17 + b'"' + b'\\' * 2**20, b'[' * 17 + b'"' + b'\\"' * 2**19, b'"\\u0041",' + b'[],' * 350_000 + b'1',
    b'"\\u0041",' + b'{},' * 350_000 + b'1', b'"\\u0041",' + b'"",' * 350_000 + b'1', b'\\ud83d' * 170_000],
    ids=['backslashes', 'quotes', 'lists', 'objects', 'texts', 'surrogates'])
def test_a_body_of_1_mib_of_rubbish_takes_little_memory(rubbish, figure):
    data = frame_of(b'{"messageId":1,"x":[' + rubbish[:MAX_BODY_CLIENT - 100] + b']}')
    tracemalloc.start()
    try:
        decode(data)
    except BadPacket:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    figure(f'{peak:.0f} MiB for {len(data) / 2**20:.1f}')
    assert peak < 44


def test_deep_nesting_is_refused_unparsed(monkeypatch):
    # Python's parser may raise RecursionError, sooner or later, depending on how deep its caller already is.
    parsed = []
    monkeypatch.setattr(protocol, '_parse', parsed.append)
    assert refusal(nested(17, ['array'])).code == 'bad_request'
    assert parsed == []


@pytest.mark.parametrize('text', (
    '[' * 40, '{' * 40, r'\"[[' * 20, r'\\\"[[' * 20, r'\\' + '[' * 20, '][' * 40))
def test_brackets_in_a_text_do_not_nest(text):
    packet = decode(frame_of('{"reason":"%s"}' % text, KICKED_NOTICE))
    assert packet.reason == json.loads('"%s"' % text)


@pytest.mark.parametrize('text', (r'\\', r'\"', r'\\\"', '[', ']]]]', '\\n'))
def test_brackets_behind_a_text_do_nest(text):
    deep, flat = '[' * 16 + ']' * 16, '[' * 15 + ']' * 15
    assert refusal('{"messageId":1,"x":"%s","y":%s}' % (text, deep)).code == 'bad_request'
    assert decode(frame_of('{"messageId":1,"x":"%s","y":%s}' % (text, flat))) == DeliveryAck(message_id=1)


def test_many_brackets_side_by_side_do_not_nest():
    assert decode(frame_of({'messageId': 1, 'x': [[[]], {}] * 1_000})) == DeliveryAck(message_id=1)


@pytest.mark.parametrize('body', ('{"messageId":%s}', '{"messageId":-%s}', '{"messageId":[%s]}'))
def test_sixty_thousand_digits_are_refused(body):
    assert refusal(body % ('9' * 60_000)).code == 'bad_request'


def test_sixty_thousand_digits_in_an_unknown_field_do_no_harm():
    try:
        assert decode(frame_of('{"messageId":1,"x":%s}' % ('9' * 60_000))) == DeliveryAck(message_id=1)
    except BadPacket as error:  # Python's own limit of digits, if it has one and it is not switched off
        assert error.code == 'bad_request'


# 5c. Bodies: fields ..................................................................................

WRONG_KINDS = cases([(cls, path, kind) for cls in ALL_PACKETS for path, right, _ in declared(cls)
                     for kind in JSON_KINDS if kind != right])


@pytest.mark.parametrize('cls, path, kind', WRONG_KINDS)
def test_wrong_kind_is_refused(cls, path, kind):
    values = json.loads(body_of(example_of(cls)))
    error = refusal(changed(values, path, JSON_KINDS[kind]), cls.COMMAND)
    assert error.code == 'bad_request'
    assert [step for step in path if isinstance(step, str)][-1] in error.reason
    assert error.client_seq == (None if path == ('clientSeq',) else values.get('clientSeq'))


@pytest.mark.parametrize('wrong', ('1.0', '1e2', '-0.0', 'true', 'false', '"1"', '[1]'))
def test_what_looks_like_an_int_is_none(wrong):
    assert refusal('{"messageId":%s}' % wrong).code == 'bad_request'


@pytest.mark.parametrize('wrong', ('1', '0', '"true"', '1.0'))
def test_what_looks_like_a_bool_is_none(wrong):
    assert refusal('{"success":%s}' % wrong, 6).code == 'bad_request'


@pytest.mark.parametrize('number', (0, -1, INT_MAX, INT_MIN, INT_MAX - 1))
def test_64_bits_are_read(number):
    assert decode(frame_of({'messageId': number})) == DeliveryAck(message_id=number)


@pytest.mark.parametrize('number', (2**63, -2**63 - 1, 2**64, 10**30))
def test_over_64_bits_are_refused_in_declared_fields_only(number):
    assert refusal({'messageId': number}).code == 'bad_request'
    assert decode(frame_of({'messageId': 1, 'x': number})) == DeliveryAck(message_id=1)


REQUIRED = cases([(cls, path, version) for cls, version in PACKET_AND_VERSION
                  for path, _, f in declared(cls)
                  if path[-1] == f.name and f.required and f.since <= version])
OPTIONAL = cases([(cls, path, f.attribute) for cls in ALL_PACKETS
                  for path, _, f in declared(cls) if path == (f.name,) and not f.required])


@pytest.mark.parametrize('cls, path, version', REQUIRED)
def test_required_field_is_required_and_null_counts_as_missing(cls, path, version):
    values = json.loads(body_of(example_of(cls), version))
    for body in (removed(values, path), changed(values, path, None)):
        error = refusal(body, cls.COMMAND, version)
        assert error.code == 'bad_request'
        assert error.reason == f'{path[-1]} is missing'


@pytest.mark.parametrize('cls, path, attribute', OPTIONAL)
def test_optional_field_may_be_missing_or_null(cls, path, attribute):
    values = json.loads(body_of(example_of(cls)))
    for body in (removed(values, path), changed(values, path, None)):
        packet = decode(frame_of(body, cls.COMMAND))
        assert getattr(packet, attribute) is None


@pytest.mark.parametrize('cls, name', (
    (CreateGroupRequest, 'userIdList'), (CreateGroupResponse, 'userNameList'),
    (CreateGroupResponse, 'unknownUserIdList'), (HistoryResponse, 'messages'),
    (ListGroupsResponse, 'groupList')), ids=name_of)
def test_null_in_a_list_is_refused(cls, name):
    values = json.loads(body_of(example_of(cls)))
    values[name].append(None)
    assert refusal(values, cls.COMMAND).code == 'bad_request'


def test_empty_lists_are_lists():
    assert decode(frame_of('{"messages":[],"more":true}', 24)) == HistoryResponse(messages=[], more=True)
    assert body_of(CreateGroupRequest(user_id_list=[]), 1) == b'{"userIdList":[]}'


@each_packet
def test_unknown_fields_are_ignored(cls):
    values = json.loads(body_of(example_of(cls)))
    values.update({'x': 1.5, '': None, '张': [[{}]], 'zzz': 'z', 'aaa': True, 'COMMAND': 1, 'self': 2})
    assert decode(frame_of(values, cls.COMMAND)) == example_of(cls)


@pytest.mark.parametrize('key', ('user_name', 'user-name', 'USERNAME', 'username', 'UserName', 'isUserName',
                                 '@type', '$ref', ' userName', 'userName '))
@pytest.mark.parametrize('body', ('{"userName":"good","%s":"evil"}', '{"%s":"evil","userName":"good"}'))
def test_only_the_exact_name_counts(key, body):
    assert decode(frame_of(body % key, 1)) == LoginRequest(user_name='good')
    assert refusal({key: 'evil'}, 1).reason == 'userName is missing'


def test_reference_of_the_java_side_is_only_an_object():
    body = '{"groupId":"g","sessionList":[{"userId":"i"},{"$ref":"$.sessionList[0]"}]}'
    assert decode(frame_of(body, 10)).session_list == [User(user_id='i'), User()]


def test_escaped_name_is_the_same_name():
    assert decode(frame_of(r'{"\u006dessageId":1}')) == DeliveryAck(message_id=1)


def test_last_of_duplicate_keys_counts():
    assert decode(frame_of('{"messageId":1,"messageId":2}')) == DeliveryAck(message_id=2)
    assert decode(frame_of('{"messageId":"x","messageId":2}')) == DeliveryAck(message_id=2)
    assert refusal('{"messageId":1,"messageId":"x"}').code == 'bad_request'
    assert refusal('{"messageId":1,"messageId":null}').reason == 'messageId is missing'


@pytest.mark.parametrize('written, read', (
    ('1', 1), (str(INT_MAX), INT_MAX), ('0', None), ('-1', None), (str(INT_MAX + 1), None), ('true', None),
    ('1.0', None), ('"1"', None), ('null', None), ('[1]', None)))
def test_refusal_carries_a_client_seq_that_can_be_one(written, read):
    error = refusal('{"toUserId":"a","message":5,"clientSeq":%s}' % written, 3)
    assert (error.code, error.command, error.client_seq) == ('bad_request', 3, read)


# 5d. Nothing else ever comes out .....................................................................

NASTY = (
    b'null', b'true', b'-1', b'0.5', b'1e999', b'NaN', b'-Infinity', b'9' * 25, b'{}', b'[]', b'{', b'}',
    b'[', b']', b'"', b'\\', b',', b':', b'\\ud800', b'\\u0000', b'\x00', b'\xff', b'\xed\xa0\x80',
    b'\xef\xbb\xbf', b'[' * 17, b'{"x":' * 17, b'"clientSeq":', b'"messageId":1,', b'"message":{},', MAGIC,
    b'\x12\x34')


def mutated(rng, data):
    """A copy of `data` with a few bytes flipped, gone, doubled or put in."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 1, 1, 2, 8)))
        way = rng.randrange(4)
        if way == 0:
            data[start:end] = bytes(rng.randrange(256) for _ in range(end - start))
        elif way == 1:
            del data[start:end]
        elif way == 2:
            data[start:end] = data[start:end] * 2
        else:
            data[start:end] = rng.choice(NASTY)
    return bytes(data)


def random_frame(rng):
    cls, version = rng.choice(PACKET_AND_VERSION)
    return encode(EXAMPLES[cls], version)


def check_outcome(frame):
    """A packet that can be written and read again, or a BadPacket; and people are told about either."""
    try:
        packet = decode(frame)
    except BadPacket as error:
        assert error.command == frame[6]
        assert error.code == ('bad_request' if frame[6] in range(1, 30 if frame[4] == 2 else 19)
                              else 'unknown_command')
        assert error.client_seq is None or 0 < error.client_seq <= INT_MAX
    else:
        assert type(packet) is PACKETS[frame[6]]
        assert decode(encode(packet, frame[4])) == packet
    assert describe(frame).count('\n') == 5


def test_mutated_bodies_give_packets_or_bad_packets():
    rng = random.Random(12)
    for _ in range(12_000):
        frame = random_frame(rng)
        check_outcome(frame_of(mutated(rng, frame[HEADER_SIZE:]), frame[6], frame[4]))


def test_mutated_streams_give_frames_or_protocol_errors():
    rng = random.Random(13)
    for _ in range(8_000):
        stream = mutated(rng, random_frame(rng) + random_frame(rng))
        cut = rng.randrange(len(stream) + 1)
        decoder, found = FrameDecoder(), []
        try:
            for piece in (stream[:cut], stream[cut:]):
                decoder.feed(piece)
                for frame in decoder:
                    found.append(frame)
        except ProtocolError:
            pass
        assert stream.startswith(b''.join(found))
        for frame in found:
            check_outcome(frame)


# 6. Commands and versions ............................................................................

@pytest.mark.parametrize('command', (0, 30, 255))
@each_version
@pytest.mark.parametrize('body', ('{}', '', '{"clientSeq":1}'))
def test_unknown_command(command, version, body):
    assert refusal(body, command, version).code == 'unknown_command'


@pytest.mark.parametrize('command', range(19, 30))
def test_version_1_has_no_command_over_18(command):
    body = body_of(example_of(PACKETS[command]))
    assert refusal(body, command, version=1).code == 'unknown_command'
    assert refusal(body, command, version=2, commands=range(1, 19)).code == 'unknown_command'


@each_packet
def test_only_the_commands_of_one_direction(cls):
    frame = encode(example_of(cls), 2)
    ours, others = (REQUESTS, RESPONSES) if cls.COMMAND in REQUESTS else (RESPONSES, REQUESTS)
    assert decode(frame, commands=ours) == example_of(cls)
    with pytest.raises(BadPacket) as caught:
        decode(frame, commands=others)
    assert (caught.value.code, caught.value.command) == ('unknown_command', cls.COMMAND)


FIELDS_OF_VERSION_2 = cases([(cls, path) for cls in PACKETS_OF_VERSION_1 for path, _, f in declared(cls)
                             if f.since == 2 and path[-1] == f.name])


@pytest.mark.parametrize('cls, path', FIELDS_OF_VERSION_2)
def test_version_1_ignores_fields_of_version_2_whatever_they_are(cls, path):
    values = json.loads(body_of(example_of(cls), version=1))
    for value in JSON_KINDS.values():
        packet = decode(frame_of(changed(values, path, value), cls.COMMAND, version=1))
        assert packet == in_version(example_of(cls), 1)


@pytest.mark.parametrize('command, body', (
    (3, '{"message":"m","toUserId":"a"}'), (4, '{"fromUserId":"a","message":"m"}'), (7, '{"userIdList":[]}'),
    (8, '{"success":true}'), (11, '{"groupId":"g"}'), (13, '{"groupId":"g"}'),
    (15, '{"message":"m","toGroupId":"g"}'), (16, '{"fromGroupId":"g","message":"m"}')))
def test_what_only_version_2_requires(command, body):
    assert type(decode(frame_of(body, command, version=1))) is PACKETS[command]
    assert refusal(body, command, version=2).reason in ('clientSeq is missing', 'messageId is missing')


def test_version_of_the_session_overrides_that_of_the_frame():
    body = '{"clientSeq":"x","message":"m","toUserId":"a"}'
    packet = MessageRequest(message='m', to_user_id='a')
    assert decode(frame_of(body, 3, version=2), 1) == packet
    with pytest.raises(BadPacket) as caught:
        decode(frame_of(body, 3, version=1), 2)
    assert caught.value.reason == 'clientSeq is no int'


def test_version_of_the_session_decides_which_commands_there_are():
    assert decode(frame_of('{"messageId":1}', version=1), 2) == DeliveryAck(message_id=1)
    with pytest.raises(BadPacket) as caught:
        decode(frame_of('{"messageId":1}', version=2), 1)
    assert caught.value.code == 'unknown_command'


# 7. What encode writes ...............................................................................

@each_packet_and_version
def test_body_is_what_json_dumps_writes(cls, version):
    body = body_of(example_of(cls), version).decode('utf-8')
    assert body == json.dumps(json.loads(body), sort_keys=True, separators=(',', ':'), ensure_ascii=False)


@each_packet_and_version
def test_header_is_written(cls, version):
    frame = encode(example_of(cls), version)
    assert frame[:HEADER_SIZE] == header(len(frame) - 11, cls.COMMAND, version)


@pytest.mark.parametrize('command', range(19, 30))
def test_version_1_has_no_frame_for_commands_over_18(command):
    with pytest.raises(ValueError):
        encode(example_of(PACKETS[command]), 1)


@pytest.mark.parametrize('text', ('\ud800', 'a\udfffb', '\ude00\ud83d'))
@each_version
def test_lone_surrogate_is_not_written(text, version):
    with pytest.raises(ValueError):
        encode(MessageRequest(message=text, to_user_id='a', client_seq=1), version)
    with pytest.raises(ValueError):
        encode(CreateGroupRequest(user_id_list=['a', text], client_seq=1), version)


def test_none_is_not_written():
    assert body_of(LoginRequest(user_name='a')) == b'{"userName":"a"}'
    assert body_of(ListUsersResponse(user_list=[User()])) == b'{"userList":[{}]}'


def test_false_and_zero_and_empty_are_written():
    packet = LoginResponse(success=False, user_name='', last_client_seq=0)
    assert body_of(packet) == b'{"lastClientSeq":0,"success":false,"userName":""}'


def test_text_is_written_as_utf_8():
    assert body_of(KickedNotice(reason='é张😀\u2028\x7f')) == '{"reason":"é张😀\u2028\x7f"}'.encode('utf-8')


def test_escapes_are_written():
    body = body_of(KickedNotice(reason='"\\/\b\t\n\f\r\x00\x1f'))
    assert body == br'{"reason":"\"\\/\b\t\n\f\r\u0000\u001f"}'


def test_every_character_comes_back():
    text = ''.join(map(chr, [*range(0xD800), *range(0xE000, 0x10000), 0x10000, 0x1F600, 0x10FFFF]))
    frame = encode(KickedNotice(reason=text), 2)
    assert json.loads(frame[HEADER_SIZE:])['reason'] == text
    assert decode(frame).reason == text
    assert min(frame[HEADER_SIZE:]) >= 0x20  # no raw control character


@pytest.mark.parametrize('character', ('😀', '\x01', '"', '张', 'a'))
@each_version
def test_longest_message_fits(character, version):
    packet = MessageRequest(to_user_id='😀' * 32, message=character * 4_096, client_seq=INT_MAX)
    frame = encode(packet, version)
    assert len(frame) - HEADER_SIZE <= 32_768 <= MAX_BODY  # the smallest limit that a server may be given
    assert frames_of(FrameDecoder(32_768), frame) == [frame]
    assert decode(frame).message == character * 4_096


def test_longest_message_of_a_client_that_escapes_everything_fits():
    values = {'toUserId': '😀' * 32, 'message': '😀' * 4_096, 'clientSeq': INT_MAX}
    frame = frame_of(json.dumps(values), 3)  # ensure_ascii: twelve characters for each of them
    assert frames_of(FrameDecoder(), frame) == [frame]
    assert decode(frame).message == '😀' * 4_096


# 8. ByteBuf ..........................................................................................

def test_bytebuf_starts_empty():
    buffer = ByteBuf()
    assert (buffer.reader_index, buffer.writer_index, buffer.readable_bytes, buffer.capacity) == (0, 0, 0, 0)


def test_bytebuf_starts_with_data():
    buffer = ByteBuf(b'abc')
    assert (buffer.reader_index, buffer.writer_index, buffer.readable_bytes) == (0, 3, 3)
    assert buffer.read_bytes(3) == b'abc'


def test_reading_moves_the_one_index_and_writing_the_other():
    buffer = ByteBuf()
    buffer.write_int(0x01020304)
    buffer.write_byte(5)
    assert (buffer.reader_index, buffer.writer_index) == (0, 5)
    assert buffer.read_byte() == 1
    assert (buffer.reader_index, buffer.writer_index) == (1, 5)
    assert buffer.read_int() == 0x02030405
    assert (buffer.reader_index, buffer.writer_index, buffer.readable_bytes) == (5, 5, 0)


def test_capacity_doubles():
    buffer, seen = ByteBuf(), []
    for _ in range(1_000):
        buffer.write_byte(7)
        if buffer.capacity not in seen:
            seen.append(buffer.capacity)
    assert seen == [64, 128, 256, 512, 1_024]
    assert buffer.read_bytes(1_000) == b'\7' * 1_000


def test_capacity_is_at_least_what_is_needed():
    buffer = ByteBuf(b'a' * 10)
    buffer.write_bytes(b'b' * 1_000)
    assert buffer.capacity == 1_010
    assert buffer.read_bytes(1_010) == b'a' * 10 + b'b' * 1_000


def test_ints_are_unsigned_and_big_endian():
    buffer = ByteBuf()
    buffer.write_int(0xFFFFFFFE)
    buffer.write_byte(255)
    assert buffer.get_bytes(0, 5) == b'\xff\xff\xff\xfe\xff'
    assert (buffer.read_int(), buffer.read_byte()) == (0xFFFFFFFE, 255)


@pytest.mark.parametrize('write, value', (('write_int', 2**32), ('write_int', -1), ('write_byte', 256),
                                          ('write_byte', -1)))
def test_too_large_int_is_refused(write, value):
    buffer = ByteBuf(b'ab')
    with pytest.raises(OverflowError):
        getattr(buffer, write)(value)
    assert (buffer.writer_index, buffer.read_bytes(2)) == (2, b'ab')


@pytest.mark.parametrize('read, count', (
    (lambda buffer: buffer.read_bytes(4), 4), (lambda buffer: buffer.read_int(), 4),
    (lambda buffer: buffer.unpack(struct.Struct('>H3s')), 5)), ids=('read_bytes', 'read_int', 'unpack'))
def test_reading_too_much_tells_both_numbers_and_moves_nothing(read, count):
    buffer = ByteBuf(b'abcdef')
    buffer.read_bytes(3)
    with pytest.raises(IndexError, match=f'{count} bytes asked for, 3 are readable'):
        read(buffer)
    assert (buffer.reader_index, buffer.writer_index) == (3, 6)
    assert buffer.read_bytes(3) == b'def'


def test_reading_from_nothing():
    with pytest.raises(IndexError, match='1 bytes asked for, 0 are readable'):
        ByteBuf().read_byte()
    assert ByteBuf().read_bytes(0) == b''


def test_negative_count_is_refused():
    buffer = ByteBuf(b'abc')
    buffer.read_byte()
    with pytest.raises(IndexError, match='-1 bytes asked for, 2 are readable'):
        buffer.read_bytes(-1)
    assert buffer.reader_index == 1


def test_get_bytes_moves_nothing():
    buffer = ByteBuf(b'abcdef')
    buffer.read_bytes(3)
    assert buffer.get_bytes(1, 4) == b'bcde'  # what was read is still there
    assert buffer.get_bytes(6, 0) == b''
    assert type(buffer.get_bytes(0, 6)) is bytes
    assert (buffer.reader_index, buffer.writer_index) == (3, 6)


@pytest.mark.parametrize('index, count', ((-1, 1), (0, -1), (0, 7), (6, 1), (7, 0), (-7, 3)))
def test_get_bytes_outside_is_refused(index, count):
    with pytest.raises(IndexError, match=f'{count} bytes at {index} asked for, 6 are written'):
        ByteBuf(b'abcdef').get_bytes(index, count)


def test_room_that_is_not_written_yet_cannot_be_read():
    buffer = ByteBuf(b'abc')
    assert buffer.capacity == 64
    with pytest.raises(IndexError):
        buffer.get_bytes(3, 1)


def test_unpack_moves_nothing():
    buffer = ByteBuf(b'xx' + header(5, command=9))
    buffer.read_bytes(2)
    assert buffer.unpack(HEADER) == (0x12345678, 2, 1, 9, 5)
    assert buffer.reader_index == 2


def test_mark_and_reset():
    buffer = ByteBuf(b'abcdef')
    buffer.reset_reader_index()
    assert buffer.reader_index == 0
    buffer.read_byte()
    buffer.mark_reader_index()
    assert buffer.read_bytes(3) == b'bcd'
    buffer.reset_reader_index()
    assert buffer.read_bytes(3) == b'bcd'


def test_discard_moves_indices_and_mark_down():
    buffer = ByteBuf(b'abcdefgh')
    buffer.read_bytes(2)
    buffer.mark_reader_index()
    buffer.read_bytes(3)
    buffer.reset_reader_index()
    buffer.discard_read_bytes()
    assert (buffer.reader_index, buffer.writer_index) == (0, 6)
    assert buffer.read_bytes(4) == b'cdef'
    buffer.reset_reader_index()
    assert buffer.read_bytes(6) == b'cdefgh'


def test_mark_in_what_was_discarded_becomes_the_beginning():
    buffer = ByteBuf(b'abcdef')
    buffer.read_bytes(1)
    buffer.mark_reader_index()
    buffer.read_bytes(3)
    buffer.discard_read_bytes()
    buffer.read_bytes(1)
    buffer.reset_reader_index()
    assert buffer.read_bytes(2) == b'ef'


def test_mark_moves_down_by_what_was_discarded():
    buffer = ByteBuf(b'abcdef')
    buffer.read_bytes(4)
    buffer.mark_reader_index()
    buffer.reader_index = 1
    buffer.discard_read_bytes()
    buffer.reset_reader_index()
    assert (buffer.reader_index, buffer.read_byte()) == (3, ord('e'))


def test_discard_keeps_what_is_not_read_and_writing_goes_on():
    buffer = ByteBuf(b'a' * 100 + b'rest')
    buffer.read_bytes(100)
    buffer.discard_read_bytes()
    buffer.write_bytes(b'-more')
    assert buffer.read_bytes(9) == b'rest-more'


def test_large_burst_gives_its_room_back():
    buffer = ByteBuf()
    for _ in range(3):
        buffer.write_bytes(b'a' * 400_000)
    assert buffer.capacity == 1_600_000  # also what was never written in is given back
    buffer.read_bytes(1_200_000)
    buffer.discard_read_bytes()
    assert (buffer.capacity, buffer.reader_index, buffer.writer_index) == (0, 0, 0)
    buffer.write_bytes(b'again')
    assert buffer.read_bytes(5) == b'again'


def test_burst_with_a_rest_gives_the_room_of_what_was_read_back():
    buffer = ByteBuf(b'a' * 1_000_000)
    buffer.read_bytes(999_999)
    buffer.discard_read_bytes()
    assert (buffer.capacity, buffer.readable_bytes) == (1, 1)


def test_wrapped_bytes_are_read_where_they_are():
    data = b'\1\2\3\4rest'
    buffer = ByteBuf(b'what there was')
    buffer.mark_reader_index()
    buffer.wrap(data)
    assert buffer._data is data
    assert (buffer.reader_index, buffer.writer_index, buffer.capacity) == (0, 8, 8)
    assert buffer.get_bytes(2, 4) == b'\3\4re' and buffer.unpack(struct.Struct('>H')) == (0x0102,)
    assert (buffer.read_int(), buffer.read_bytes(4)) == (0x01020304, b'rest')
    with pytest.raises(IndexError):
        buffer.read_byte()
    buffer.reset_reader_index()
    assert buffer.reader_index == 0  # the mark of what there was is gone with it


@pytest.mark.parametrize('more', (b'', b'-', b'-and much more than there is room for' * 9))
def test_writing_behind_wrapped_bytes_leaves_them_as_they_were(more):
    data = b'wrapped'
    buffer = ByteBuf()
    buffer.wrap(data)
    assert buffer.read_bytes(4) == b'wrap'
    buffer.write_bytes(more)
    assert (data, buffer.read_bytes(3 + len(more))) == (b'wrapped', b'ped' + more)


@pytest.mark.parametrize('read', (0, 3, 7, 200))
def test_discard_lets_go_of_wrapped_bytes(read):
    data = bytes(range(200))
    buffer = ByteBuf()
    buffer.wrap(data)
    buffer.read_bytes(read)
    buffer.discard_read_bytes()
    assert buffer._data is not data and buffer.capacity == 200 - read
    buffer.write_bytes(b'more')
    assert buffer.read_bytes(buffer.readable_bytes) == data[read:] + b'more'


def test_a_decoder_copies_what_may_change_under_it():
    frame = encode(DeliveryAck(message_id=7), 2)
    decoder, changing = FrameDecoder(), bytearray(frame)
    decoder.feed(changing)
    changing[:] = bytes(len(changing))
    assert list(decoder) == [frame]


def test_a_decoder_copies_nothing_that_came_whole(moved):
    frames = [encode(DeliveryAck(message_id=number), 2) for number in range(100)]
    assert frames_of(FrameDecoder(), b''.join(frames), frames[0]) == [*frames, frames[0]]
    assert sum(moved) == 0


# 9. A second serializer ..............................................................................

class HexJson(JsonSerializer):
    """The same JSON, in hexadecimal digits: no use but to show that another way of writing can be added."""

    def serialize(self, packet, version):
        return super().serialize(packet, version).hex().encode('ascii')

    def deserialize(self, body):
        return super().deserialize(bytes.fromhex(body.decode('ascii')))


@pytest.fixture
def hex_json(monkeypatch):
    monkeypatch.setitem(SERIALIZERS, 2, HexJson())  # undone behind the test
    return 2


@each_packet_and_version
def test_second_serializer_writes_and_reads(hex_json, cls, version):
    frame = encode(example_of(cls), version, hex_json)
    body = body_of(example_of(cls), version).hex().encode('ascii')
    assert frame == header(len(body), cls.COMMAND, version, serializer=2) + body
    assert frames_of(FrameDecoder(), *bytewise(frame)) == [frame]
    assert decode(frame) == in_version(example_of(cls), version)


def test_body_that_the_second_serializer_cannot_read_is_refused(hex_json):
    for body in (b'{"messageId":1}', b'\xff', '{"messageId":"x"}'.encode('ascii').hex().encode('ascii')):
        with pytest.raises(BadPacket) as caught:
            decode(header(len(body), DELIVERY_ACK, serializer=hex_json) + body)
        assert caught.value.code == 'bad_request'


def test_both_serializers_on_one_stream(hex_json):
    frames = [encode(DeliveryAck(message_id=1), 2, number) for number in (1, hex_json, 1)]
    assert frames_of(FrameDecoder(), b''.join(frames)) == frames


def test_without_the_fixture_there_is_one_serializer():
    assert list(SERIALIZERS) == [1]


def test_serializer_leaves_its_two_methods_to_subclasses():
    with pytest.raises(NotImplementedError):
        Serializer().serialize(HeartbeatRequest(), 2)
    with pytest.raises(NotImplementedError):
        Serializer().deserialize(b'{}')


# 10. describe ........................................................................................

def test_describe_explains_every_field():
    packet = MessageRequest(to_user_id='李四', message='hi', client_seq=7)
    assert describe(encode(packet, 2)).split('\n') == [
        '   0  12 34 56 78  magic',
        '   4  02           version 2',
        '   5  01           serializer 1',
        '   6  03           command 3 MESSAGE_REQUEST',
        '   7  00 00 00 32  length 50',
        '  11  {"clientSeq":7,"message":"hi","toUserId":"李四"}']


@each_packet_and_version
def test_describe_names_every_packet(cls, version):
    lines = describe(encode(example_of(cls), version)).split('\n')
    assert [int(line.split()[0]) for line in lines] == [0, 4, 5, 6, 7, 11]
    assert lines[1].endswith(f'version {version}')
    assert lines[3].endswith(f'command {cls.COMMAND} {Command(cls.COMMAND).name}')


@pytest.mark.parametrize('packet', (LoginRequest(user_name='a', password='s3cret', token='s3cret'),
                                    LoginResponse(success=True, token='s3cret')))
def test_describe_shows_no_secret(packet):
    text = describe(encode(packet, 2))
    assert 's3cret' not in text
    assert '"token":"***"' in text
    assert ('"password":"***"' in text) == isinstance(packet, LoginRequest)


@pytest.mark.parametrize('body', (
    '{"password":["s3cret"]}', '{"token":{"x":"s3cret"}}', r'{"p\u0061ssword":"s3cret"}',
    '{"password":"s3cret"', '{"password":"s3cret"}}', '{"password":"s3cret","x":NaN}',
    '{"password":"s3cret","x":"\\ud800"}', b'{"password":"s3cret\xff"}', '["password","s3cret"]'))
def test_describe_shows_no_secret_of_a_strange_body(body):
    assert 's3cret' not in describe(frame_of(body, 1))


def test_describe_puts_no_stars_where_there_is_no_secret():
    assert '*' not in describe(frame_of('{"userName":"a","password":null}', 1))


@pytest.mark.parametrize('command', (0, 30, 255))
def test_describe_of_an_unknown_command(command):
    text = describe(frame_of('{"x":1}', command))
    assert f'command {command} unknown' in text
    assert text.endswith('  11  {"x":1}')


@pytest.mark.parametrize('body', (b'', b'{', b'[]', b'\xff\xfe', b'{"x":NaN}', b'[' * 1_000))
def test_describe_of_an_unreadable_body(body):
    last = describe(frame_of(body)).split('\n')[5]
    assert last.startswith(f'  11  unreadable, {len(body)} bytes: ')


def test_describe_escapes_what_would_move_the_cursor():
    text = describe(encode(KickedNotice(reason='\x1b[2J\n\r\x07\x7f\x9b\u2028\u202e\u200b\ufeff 你好 😀'), 2))
    last = text.split('\n')[5]
    assert last.isprintable()
    assert '\\u001b[2J' in last and '\\x7f' in last and '\\x9b' in last and '\\u202e' in last
    assert '你好 😀' in last


# 11. The picture .....................................................................................

def offsets_of(layout):
    """Where each field of a Struct without padding begins; and its end."""
    order, *codes = layout.format
    assert order == '>'
    return [struct.calcsize(order + ''.join(codes[:count])) for count in range(len(codes) + 1)]


def test_picture_shows_the_header_as_it_is():
    lines = protocol.__doc__.split('\n')
    border = next(number for number, line in enumerate(lines) if line.strip().startswith('+---'))
    drawn = [int(word) for word in lines[border - 1].split()]
    assert drawn == offsets_of(HEADER) == [0, 4, 5, 6, 7, 11]


def test_picture_has_every_offset_above_its_edge():
    lines = protocol.__doc__.split('\n')
    border = next(number for number, line in enumerate(lines) if line.strip().startswith('+---'))
    edges = [column for column, mark in enumerate(lines[border]) if mark == '+']
    assert len(edges) == 7  # six fields; only the end of the body has no offset
    assert all(lines[border - 1][column].isdigit() for column in edges[:6])
    names = [name.strip() for name in lines[border + 1].strip(' |').split('|')]
    assert names == ['magic', 'version', 'serializer', 'command', 'length', 'body']


def test_header_fields_are_where_the_picture_has_them():
    frame = HEADER.pack(0x12345678, 0xAA, 0xBB, 0xCC, 0x01020304)
    assert frame == bytes.fromhex('12345678 aa bb cc 01020304')
    assert HEADER_SIZE == 11


# 12. The tables of the wire format ...................................................................

COMMANDS = """
     1 -> LOGIN_REQUEST                 2 <- LOGIN_RESPONSE
     3 -> MESSAGE_REQUEST               4 <- MESSAGE_RESPONSE
     5 -> LOGOUT_REQUEST                6 <- LOGOUT_RESPONSE
     7 -> CREATE_GROUP_REQUEST          8 <- CREATE_GROUP_RESPONSE
     9 -> LIST_GROUP_MEMBERS_REQUEST   10 <- LIST_GROUP_MEMBERS_RESPONSE
    11 -> JOIN_GROUP_REQUEST           12 <- JOIN_GROUP_RESPONSE
    13 -> QUIT_GROUP_REQUEST           14 <- QUIT_GROUP_RESPONSE
    15 -> GROUP_MESSAGE_REQUEST        16 <- GROUP_MESSAGE_RESPONSE
    17 -> HEARTBEAT_REQUEST            18 <- HEARTBEAT_RESPONSE
    19 <- MESSAGE_ACK                  20 -> DELIVERY_ACK
    21 <- ERROR_RESPONSE               22 <- KICKED_NOTICE
    23 -> HISTORY_REQUEST              24 <- HISTORY_RESPONSE
    25 -> LIST_USERS_REQUEST           26 <- LIST_USERS_RESPONSE
    27 -> LIST_GROUPS_REQUEST          28 <- LIST_GROUPS_RESPONSE
    29 <- GROUP_NOTICE
""".split()
COMMANDS = list(zip(map(int, COMMANDS[0::3]), COMMANDS[1::3], COMMANDS[2::3]))


@pytest.mark.parametrize('number, way, name', COMMANDS)
def test_command_has_its_number_and_direction(number, way, name):
    assert Command[name] == number
    assert PACKETS[number].COMMAND == number
    assert PACKETS[number].__name__ == name.title().replace('_', '')
    assert (number in REQUESTS, number in RESPONSES) == (way == '->', way == '<-')


def test_there_are_no_other_commands():
    assert [number for number, _, _ in COMMANDS] == list(range(1, 30)) == sorted(PACKETS) == sorted(Command)
    assert all(issubclass(cls, Packet) for cls in ALL_PACKETS)


FIELD_TABLE = """
LOGIN_REQUEST                userName:str password?:str | token?:str resumeAfter?:int
LOGIN_RESPONSE               success:bool userName?:str userId?:str reason?:str
                             | code?:str token?:str lastClientSeq?:int logId?:str
MESSAGE_REQUEST              toUserId:str message:str | clientSeq:int
MESSAGE_RESPONSE             fromUserId:str fromUserName?:str message:str | messageId:int sentAt:int
LOGOUT_REQUEST
LOGOUT_RESPONSE              success:bool reason?:str
CREATE_GROUP_REQUEST         userIdList:[str] | groupName?:str clientSeq:int
CREATE_GROUP_RESPONSE        success:bool groupId?:str userNameList?:[str] reason?:str
                             | groupName?:str unknownUserIdList?:[str] clientSeq?:int
                               messageId:int sentAt:int
LIST_GROUP_MEMBERS_REQUEST   groupId:str
LIST_GROUP_MEMBERS_RESPONSE  groupId:str sessionList:[User]
JOIN_GROUP_REQUEST           groupId:str | clientSeq:int
JOIN_GROUP_RESPONSE          groupId:str success:bool reason?:str | code?:str clientSeq?:int
QUIT_GROUP_REQUEST           groupId:str | clientSeq:int
QUIT_GROUP_RESPONSE          groupId:str success:bool reason?:str | code?:str clientSeq?:int
GROUP_MESSAGE_REQUEST        toGroupId:str message:str | clientSeq:int
GROUP_MESSAGE_RESPONSE       fromGroupId:str fromUser?:User message:str | messageId:int sentAt:int
HEARTBEAT_REQUEST
HEARTBEAT_RESPONSE
MESSAGE_ACK                  clientSeq:int messageId:int sentAt:int
DELIVERY_ACK                 messageId:int
ERROR_RESPONSE               command:int code:str reason:str clientSeq?:int
KICKED_NOTICE                reason:str
HISTORY_REQUEST              userId?:str groupId?:str before?:int limit?:int
HISTORY_RESPONSE             userId?:str groupId?:str messages:[HistoryMessage] more:bool
LIST_USERS_REQUEST
LIST_USERS_RESPONSE          userList:[User]
LIST_GROUPS_REQUEST
LIST_GROUPS_RESPONSE         groupList:[Group]
GROUP_NOTICE                 groupId:str event:str user:User messageId:int sentAt:int
User                         userId?:str userName?:str | online?:bool
Group                        groupId:str groupName?:str memberCount:int
HistoryMessage               messageId:int sentAt:int fromUserId:str message:str
"""  # `|`: what stands behind it is version 2's own; `?`: may be missing; `[ ]`: a list
FIELD_ROWS = [row.split(None, 1) for row in FIELD_TABLE.replace('\n   ', ' ').strip().split('\n')]
PARTS = {'User': User, 'Group': Group, 'HistoryMessage': HistoryMessage}


def spelled(f):
    kind = f'[{f.kind.__name__}]' if f.many else f.kind.__name__
    return f'{f.name}{"" if f.required else "?"}:{kind}'


@pytest.mark.parametrize('name, words', [(row[0], ''.join(row[1:])) for row in FIELD_ROWS])
def test_fields_are_those_of_the_wire_format(name, words):
    cls = PARTS[name] if name in PARTS else PACKETS[Command[name]]
    first, _, second = words.partition('|')
    for since, words_of_version in ((1, first), (2, second)):
        assert sorted(words_of_version.split()) == sorted(spelled(f) for f in cls.FIELDS if f.since == since)


def test_field_table_is_complete():
    assert {row[0] for row in FIELD_ROWS} == {*PARTS, *Command.__members__}


def test_error_codes():
    assert ERROR_CODES == {
        'bad_request', 'unknown_command', 'not_logged_in', 'already_logged_in', 'wrong_password',
        'bad_token', 'invalid_name', 'too_many_attempts', 'registration_closed', 'unknown_user',
        'unknown_group', 'not_a_member', 'already_a_member', 'group_full', 'message_too_long',
        'seq_conflict', 'internal_error'}
    assert len(ERROR_CODES) == 17


@pytest.mark.parametrize('body', ['{"reason":"\\ud800","reason":"x"}', '{"x":"\\ud800","x":1,"reason":"x"}'])
def test_a_lone_surrogate_does_not_hide_behind_a_second_key(body):
    assert refusal(body, KICKED_NOTICE).code == 'bad_request'


def test_a_reason_is_short_however_long_what_it_refuses():
    assert len(refusal('{"reason":"r","x":' + '9' * 60_000 + 'e9}', KICKED_NOTICE).reason) < 200


# 11. Templates .......................................................................................

NASTY_TEXTS = ('', 'hi', 'a "quoted" {brace} %s %d \\', 'two\nlines\0', '张三 🀄', '""}', 'x' * 4_096)


@pytest.mark.parametrize('version', (1, 2))
@pytest.mark.parametrize('name', ('alice', '张三', 'a%s', 'a"}b'))
@pytest.mark.parametrize('text', NASTY_TEXTS, ids=lambda text: ascii(text[:9]))
def test_a_template_fills_in_what_encode_would_write(version, name, text):
    about = {'message': text, 'message_id': 12, 'sent_at': 1_700_000_000_000}
    user = User(user_id=name, user_name=name)
    for kind, group, fields in ((MessageResponse, '', {'from_user_id': name, 'from_user_name': name}),
                                (GroupMessageResponse, '9f8e7d6c', {'from_group_id': '9f8e7d6c', 'from_user': user})):
        fill = message_template(name, group, version)
        for _ in range(2):
            assert fill(*about.values()) == encode(kind(**fields, **about), version)


def test_a_template_refuses_a_lone_surrogate_like_encode():
    fill = message_template('bob', '', 2)
    with pytest.raises(ValueError):
        fill('\ud800', 1, 1)


@pytest.mark.parametrize('packet, text', [
    (ErrorResponse(command=3, code='unknown_user', reason='there is no bob'), 'there is no bob'),
    (KickedNotice(reason='logged in elsewhere'), 'logged in elsewhere')])
def test_version_1_hears_of_errors_from_the_server(packet, text):
    said = MessageResponse(from_user_id='server', from_user_name='server', message=text)
    assert encode_for(packet, 1) == encode(said, 1) and encode_for(packet, 2) == encode(packet, 2)


def test_version_1_hears_of_members_in_the_group():
    bob = User(user_id='bob', user_name='bob')
    notice = GroupNotice(group_id='9f8e7d6c', event='joined', user=bob, message_id=1, sent_at=2)
    said = GroupMessageResponse(from_group_id='9f8e7d6c', from_user=bob, message='joined the group')
    assert encode_for(notice, 1) == encode(said, 1) and encode_for(notice, 2) == encode(notice, 2)

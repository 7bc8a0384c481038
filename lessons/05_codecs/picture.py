"""Chapter 5: one message on its way from object to object, and what `decode` says to bodies that are wrong.

    python3 -m lessons.05_codecs.picture
"""
from __future__ import annotations

from protocol import (HEADER, HEADER_SIZE, JSON, MAGIC, SERIALIZERS, BadPacket, FrameDecoder, MessageRequest, decode,
                      encode)

VERSION = 1
CUTS = (0, 9, 29)  # where the network cuts the frame: in the header, and in the body
BODIES = (  # version, command, body
    (1, 99, '{}'),
    (1, 20, '{"messageId":7}'),
    (1, 3, 'hello'),
    (1, 3, '["bob","hi"]'),
    (1, 3, '{"message":"hi","toUserID":"bob"}'),
    (1, 3, '{"message":null,"toUserId":"bob"}'),
    (1, 3, '{"message":7,"toUserId":"bob"}'),
    (1, 3, '{"message":"hi","mood":"fine","toUserId":"bob"}'),
    (2, 3, '{"message":"hi","toUserId":"bob"}'),
    (2, 3, '{"clientSeq":true,"message":"hi","toUserId":"bob"}'),
    (2, 3, '{"clientSeq":9223372036854775808,"message":"hi","toUserId":"bob"}'),
    (2, 3, '{"clientSeq":1,"message":"hi","toUserId":"bob"}'),
)


def draw(name: str, text: str, size: str = '') -> None:
    print(f'{name:<8} {text:<57} {size}'.rstrip())


def arrow(text: str) -> None:
    print(f'   |     {text}\n   v')


def draw_way(packet: MessageRequest) -> None:
    draw('object', repr(packet))
    arrow('SERIALIZERS[1].serialize')
    body = SERIALIZERS[JSON].serialize(packet, VERSION)
    draw('body', body.decode(), f'{len(body)} bytes')
    arrow(f'encode: {HEADER_SIZE} bytes of header in front')
    frame = encode(packet, VERSION)
    assert frame[HEADER_SIZE:] == body
    draw('frame', f'{frame[:HEADER_SIZE].hex(" ")} | {frame[HEADER_SIZE:][:5].hex(" ")} ..', f'{len(frame)} bytes')
    arrow('write buffer, send, the network, recv')
    decoder = FrameDecoder()
    for begin, end in zip(CUTS, (*CUTS[1:], len(frame))):
        decoder.feed(frame[begin:end])
        frames = list(decoder)
        outcome = 'a frame' if frames else 'no frame yet'
        draw('piece', f'{frame[begin:end][:5].hex(" ")} ..   ->  {outcome}', f'{end - begin} bytes')
    draw('frame', f'as it was sent: {frames == [frame]}', f'{len(frames[0])} bytes')
    arrow('decode: deserialize, check, build')
    draw('object', repr(decode(frames[0])))
    print(f'         equal to the first: {decode(frames[0]) == packet}')


def draw_judgement(version: int, command: int, body: str) -> None:
    print(f'{version:>2} {command:>4}   {body}')
    data = body.encode()
    try:
        print(f'    {decode(HEADER.pack(MAGIC, version, JSON, command, len(data)) + data)}')
    except BadPacket as error:
        print(f'    {error.code}: {error.reason}')


def main() -> None:
    draw_way(MessageRequest(to_user_id='bob', message='hi'))
    print('\n v  cmd   body, and what decode makes of it')
    for case in BODIES:
        draw_judgement(*case)


if __name__ == '__main__':
    main()

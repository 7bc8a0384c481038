"""Chapter 3, the picture: a real frame with its offsets, and what others would read in such bytes.

    python3 -m lessons.03_protocol_design.picture
"""
from protocol import HEADER_SIZE, ByteBuf, MessageRequest, ProtocolError, describe, encode

from .server import VERSION, read_packet

NAMES = ('magic', 'version', 'serializer', 'command', 'length', 'body')
STARTS = (0, 4, 5, 6, 7, HEADER_SIZE)
BROWSER = b'GET / HTTP/1.1\r\n'  # how a browser that calls at our port begins


def box(frame: bytes) -> list[str]:
    """Draw the fields side by side, with their offsets below."""
    parts = [frame[a:b].hex(' ') for a, b in zip(STARTS, (*STARTS[1:], HEADER_SIZE + 3))]
    widths = [max(map(len, pair)) for pair in zip(NAMES, parts)]
    line = ''.join(f'+-{"-" * width}-' for width in widths)
    rows = [''.join(f'| {text:<{width}} ' for text, width in zip(row, widths)) + '..' for row in (NAMES, parts)]
    offsets = ''.join(f'{start:<{width + 3}}' for start, width in zip(STARTS, widths))
    return [line, *rows, line, offsets.rstrip()]


def show_length(number: int) -> None:
    buffer = ByteBuf()
    try:
        buffer.write_int(number)
        print(f'length {number} is written as {buffer.read_bytes(4).hex(" ")}')
    except OverflowError:
        print(f'length {number}: OverflowError, and {buffer.readable_bytes} bytes are written')


def main() -> None:
    frame = encode(MessageRequest(to_user_id='all', message='hello'), VERSION)
    print(f'{len(frame)} bytes, the offset of each field below it:')
    print('\n'.join(box(frame)))
    print('the same, by protocol.describe:')
    print(describe(frame))
    length = frame[7:HEADER_SIZE]
    for order in 'big', 'little':
        print(f'length {length.hex(" ")} read {order}-endian: {int.from_bytes(length, order)}')
    show_length(2**32 - 1)
    show_length(2**32)
    try:
        read_packet(ByteBuf(BROWSER))
    except ProtocolError as error:
        print(f'{BROWSER!r} is refused: {error}')


if __name__ == '__main__':
    main()

"""Chapter 4, the picture: three frames on a time line, what arrives of them, what the decoder gives, and what waits.

    python3 -m lessons.04_sticky_half_packets.picture
"""
from itertools import combinations

from protocol import FrameDecoder, MessageRequest, encode

from .see_it_fail import BOTH, FRAMES, ONE_CUT, pieces
from .server import read_packet

SENT = [encode(MessageRequest(to_user_id='all', message=text), 1) for text in ('hello!', 'bye!', 'hi')]
STREAM = b''.join(SENT)
SCALE = 2  # bytes that one column stands for


def line(label: str, drawn: str) -> None:
    print(f'{label:<7}{drawn}'.rstrip())


def columns(count: int, mark: str) -> str:
    """So many bytes as a row of marks."""
    return mark * (count // SCALE)


def drawn(frame: bytes) -> str:
    """A frame: MM is its magic number (4 bytes), then comes its text and its size."""
    text = read_packet(frame)[1]['message']
    return 'MM' + f'{text} {len(frame)} bytes'.center(len(frame) // SCALE - 2, '-')


def show_reads(*cuts: int) -> None:
    """Feed the stream, cut after so many bytes, to a decoder.  Draw each read, and what comes of it."""
    decoder = FrameDecoder()
    for number, (start, end) in enumerate(zip((0, *cuts), (*cuts, len(STREAM))), 1):
        decoder.feed(STREAM[start:end])
        found = list(decoder)
        waiting = decoder.buffer.readable_bytes
        begin = end - waiting - len(b''.join(found))  # of what comes out now
        print()
        line(f'read {number}', columns(start, ' ') + columns(end - start, '='))
        line('out', columns(begin, ' ') + ''.join(map(drawn, found)) + columns(waiting, '.'))
        where = f': {end - waiting} to {end - 1}' if waiting else ''
        line('', f'bytes {start} to {end - 1} arrive, frames out: {len(found)}, {waiting} bytes wait{where}')


def decode_all(reads: list[bytes]) -> list[bytes]:
    decoder, found = FrameDecoder(), []
    for data in reads:
        decoder.feed(data)
        found += decoder
    return found


def main() -> None:
    line('offset', ''.join(f'{offset:<{20 // SCALE}}' for offset in range(0, len(STREAM), 20)))
    line('sent', ''.join(map(drawn, SENT)))
    show_reads()
    show_reads(2, 70, 96)
    print()
    for name, cuts in (('single cuts', ONE_CUT), ('pairs of cuts', list(combinations(range(1, BOTH), 2)))):
        right = [decode_all(pieces(*cut)) for cut in cuts].count(FRAMES)
        print(f'FrameDecoder: {right:,} of {len(cuts):,} {name} right')


if __name__ == '__main__':
    main()

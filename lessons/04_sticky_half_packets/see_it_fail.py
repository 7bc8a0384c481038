"""Chapter 4, how it goes wrong: readers that take one read for one packet, and splitters that nearly work.

    python3 -m lessons.04_sticky_half_packets.see_it_fail
"""
import socket
import time
from importlib import import_module
from itertools import combinations

from protocol import HEADER_SIZE, MAGIC_BYTES, ByteBuf, MessageRequest, ProtocolError, encode

read_packet = import_module('lessons.03_protocol_design.server').read_packet
FRAMES = [encode(MessageRequest(to_user_id='all', message=text), 1) for text in ('hello', 'bye')]
PACKETS = [read_packet(ByteBuf(frame)) for frame in FRAMES]  # what a reader is to find in them
GLUED = b''.join(FRAMES)
FIRST, BOTH = len(FRAMES[0]), len(GLUED)  # bytes
ONE_CUT = [(cut,) for cut in range(1, BOTH)]
TEXTS = (b'hello', b'one\ntwo', b'wait; what')


def naive_reader(reads: list[bytes]) -> list:
    """Return the packets of a connection as chapter 3 finds them: one read, one packet."""
    packets, buffer = [], ByteBuf()
    for data in reads:
        buffer.write_bytes(data)
        try:
            packets.append(read_packet(buffer))
        except (ProtocolError, IndexError, ValueError) as error:
            return [*packets, f'closed: {error}']
        buffer.discard_read_bytes()
    return packets


def original_splitter(memory: bytearray, reads: list[bytes]) -> list:
    """The tutorial's Java original, re-told.  `memory` comes from a pool: it was used before, and not wiped."""
    packets, start, end = [], 0, 0  # the bytes from start to end have arrived
    for data in reads:
        memory[end:end + len(data)] = data
        end += len(data)
        while start < end:
            if memory[start:start + 4] != MAGIC_BYTES:  # wrong: have four bytes arrived at all?
                return [*packets, 'closed']
            size = HEADER_SIZE + int.from_bytes(memory[start + 7:start + 11], 'big')
            if end - start < size:
                break
            packets.append(read_packet(ByteBuf(bytes(memory[start:start + size]))))
            start += size
    return packets


def original_command(line: str) -> MessageRequest:
    """`sendToUser NAME TEXT` as the tutorial's console client reads it: Java's Scanner gives one word at a time."""
    command, to_user_id, message, *left_over = line.split()
    return MessageRequest(to_user_id=to_user_id, message=message)


def split_fixed(data: bytes, size: int) -> list[bytes]:
    return [data[start:start + size] for start in range(0, len(data), size)]


def split_at(data: bytes, delimiter: bytes) -> list[bytes]:
    return data.split(delimiter)[:-1]


def pieces(*cuts: int) -> list[bytes]:
    """Return the two frames as they arrive when they are cut after so many bytes."""
    return [GLUED[start:end] for start, end in zip((0, *cuts), (*cuts, BOTH))]


def show_connection(size: int) -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener, \
            socket.create_connection(listener.getsockname()) as sender, listener.accept()[0] as receiver:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each send goes out at once
        for frame in FRAMES:
            sender.send(frame)
        time.sleep(0.2)  # the receiver is busy with something else
        print(f'send({FIRST} bytes), send({BOTH - FIRST} bytes), recv({size}): {len(receiver.recv(size))} bytes')


def main() -> None:
    show_connection(65_536)
    show_connection(50)
    print(f'\nnaive_reader\n  not cut: {naive_reader(pieces())}\n  cut after byte 3: {naive_reader(pieces(3))}')
    for name, cuts in (('the first frame', ONE_CUT[:FIRST - 1]), ('between them', ONE_CUT[FIRST - 1:FIRST]),
                       ('the second frame', ONE_CUT[FIRST:]), ('two cuts', list(combinations(range(1, BOTH), 2)))):
        right = [naive_reader(pieces(*cut)) for cut in cuts].count(PACKETS)
        print(f'  {name:<18}{right:>4} of {len(cuts):>5,} right')
    print('\noriginal_splitter, and what its memory held before')
    for name, before in (('nothing', b''), ('one frame', FRAMES[0]), ('two frames', GLUED)):
        memory = before.ljust(2 * BOTH, b'\0')
        wrong = [cut for (cut,) in ONE_CUT if original_splitter(bytearray(memory), pieces(cut)) != PACKETS]
        print(f'  {name:<18}{BOTH - 1 - len(wrong):>4} of {BOTH - 1:>5} right   closed when cut after byte {wrong}')
    print('\nsplit_fixed(..., 8)    ', split_fixed(b''.join(text.ljust(8) for text in TEXTS), 8))
    print("split_at(..., b'\\n')   ", split_at(b'\n'.join([*TEXTS, b'']), b'\n'))
    print("split_at(..., b';')    ", split_at(b';'.join([*TEXTS, b'']), b';'))
    print('original_command       ', original_command('sendToUser bob hello world').message)


if __name__ == '__main__':
    main()

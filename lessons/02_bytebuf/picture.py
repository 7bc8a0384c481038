"""Chapter 2, the picture: a real ByteBuf after each step, while a line and a half arrive, and then the rest.

    python3 -m lessons.02_bytebuf.picture

Each byte that the buffer has room for is a column: `-` where nothing is written, `/` for the line break.  Below: `r`
reader_index, `w` writer_index, `x` where they meet, `m` the mark where it is neither.
"""
from protocol import ByteBuf

from .server import LINE_BREAK, read_line


def shown(byte: int) -> str:
    return '/' if byte == LINE_BREAK else chr(byte)


def draw(step: str, buffer: ByteBuf) -> None:
    reader, writer, mark = buffer.reader_index, buffer.writer_index, buffer._marked
    letters = {mark: 'm'} | ({reader: 'r', writer: 'w'} if reader != writer else {reader: 'x'})
    print(f'{step:<32}mark {mark}, reader {reader}, writer {writer}, capacity {buffer.capacity}')
    row = ''.join(map(shown, buffer.get_bytes(0, writer))).ljust(buffer.capacity, '-')
    if row:
        print(f'    {row}')
    print('    ' + ''.join(letters.get(index, ' ') for index in range(writer + 1)))


def half_a_line() -> None:
    buffer = ByteBuf()
    draw('ByteBuf()', buffer)
    buffer.write_bytes(b'hi bob\nhow a')
    draw(r"write_bytes(b'hi bob\nhow a')", buffer)
    draw(f'read_line() -> {read_line(buffer)!r}', buffer)
    buffer.mark_reader_index()
    draw('mark_reader_index()', buffer)
    draw(f'read_bytes(5) -> {buffer.read_bytes(5)!r}', buffer)
    buffer.reset_reader_index()
    draw('reset_reader_index()', buffer)
    buffer.discard_read_bytes()
    draw('discard_read_bytes()', buffer)
    buffer.write_bytes(b're you?\n')
    draw(r"write_bytes(b're you?\n')", buffer)
    draw(f'read_line() -> {read_line(buffer)!r}', buffer)
    buffer.discard_read_bytes()
    draw('discard_read_bytes()', buffer)


def growth() -> None:
    buffer, capacities = ByteBuf(), [0]
    for _ in range(1000):
        buffer.write_bytes(b'x')
        if buffer.capacity != capacities[-1]:
            capacities.append(buffer.capacity)
    print(f'capacity while 1000 bytes arrive one by one: {capacities}')
    buffer.read_bytes(1000)
    buffer.discard_read_bytes()
    print(f'capacity when all is read and discarded: {buffer.capacity}')


if __name__ == '__main__':
    half_a_line()
    growth()

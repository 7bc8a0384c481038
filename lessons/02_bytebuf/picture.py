"""Chapter 2, the picture: a real ByteBuf after each step, while a line and a half arrive, and then the rest.

    python3 -m lessons.02_bytebuf.picture         the buffer
    python3 -m lessons.02_bytebuf.picture half    a client that sends half a line to a real server

Each byte that the buffer has room for is a column: `-` where nothing is written, `/` for the line break.  Below: `r`
reader_index, `w` writer_index, `x` where they meet, `m` the mark where it is neither.
"""
import socket
import subprocess
import sys

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


def a_line_and_a_half() -> None:
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


def hear(client: socket.socket, patience: float) -> str:
    client.settimeout(patience)
    try:
        return repr(client.recv(100))
    except TimeoutError:
        return f'nothing for {patience} s'


def half_a_line() -> None:
    command = [sys.executable, '-m', 'lessons.02_bytebuf.server', '--port', '0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding='utf-8') as server:
        try:
            port = int(server.stdout.readline().rpartition(':')[2])
            with socket.create_connection(('127.0.0.1', port)) as client:
                for piece, patience in ((b'hel', 0.5), (b'lo\nbye', 5.0)):
                    client.sendall(piece)
                    print(f'sent {piece!r}, heard {hear(client, patience)}')
            print('closed; the server printed:')
            for _ in range(3):
                print(f'    {server.stdout.readline().rstrip()}')
        finally:
            server.kill()


if __name__ == '__main__':
    half_a_line() if sys.argv[1:] == ['half'] else a_line_and_a_half()

"""Chapter 3, wrong: messages as lines of text, "user: text" and a line break, read with chapter 2's read_line.

    python3 -m lessons.03_protocol_design.see_it_fail

First a message with a line break in it, then a sender who has moved on to a newer format.  Both again as packets.
"""
import json
from collections.abc import Iterator
from importlib import import_module

from protocol import ByteBuf, MessageResponse, ProtocolError, encode

from .server import read_packet

read_line = import_module('lessons.02_bytebuf.server').read_line  # no `import`: a name cannot begin with a digit
TEXT = 'lunch at noon?\nbob: I agree'  # alice typed all of this, the last three words too


def naive_write(user: str, text: str) -> bytes:
    return f'{user}: {text}\n'.encode()


def naive_reader(data: bytes) -> Iterator[tuple[str, str]]:
    buffer = ByteBuf(data)
    while (line := read_line(buffer)) is not None:
        user, _, text = line.partition(': ')
        yield user, text


def new_format(user: str, text: str) -> bytes:
    """What a newer program sends, so that a text may hold a line break."""
    return json.dumps({'user': user, 'text': text}).encode() + b'\n'


def packet_reader(data: bytes) -> Iterator[tuple[str, str]]:
    _, body = read_packet(ByteBuf(data))
    yield body['fromUserName'], body['message']


def packet(user: str, text: str, version: int) -> bytes:
    return encode(MessageResponse(from_user_id=user, from_user_name=user, message=text), version)


def show(title: str, messages: Iterator[tuple[str, str]]) -> None:
    print(f'{title}:')
    try:
        for user, text in messages:
            print(f'  user {user!r} says {text!r}')
    except ProtocolError as error:
        print(f'  refused: {error}')


if __name__ == '__main__':
    show('a line break in a line', naive_reader(naive_write('alice', TEXT)))
    show('a line break in a packet', packet_reader(packet('alice', TEXT, version=1)))
    show('a newer format in a line', naive_reader(new_format('alice', 'hello')))
    show('a newer version in a packet', packet_reader(packet('alice', 'hello', version=2)))

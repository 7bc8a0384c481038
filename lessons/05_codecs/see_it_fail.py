"""Chapter 5: bodies as dicts, one `if` for each packet, and a typo that all tests pass.

    python3 -m lessons.05_codecs.see_it_fail
"""
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from protocol import HEADER, HEADER_SIZE, JSON, MAGIC, MessageRequest, decode


def naive_encode(command: int, body: dict[str, Any]) -> bytes:
    """Return a frame of whatever the dict holds."""
    data = json.dumps(body).encode()
    return HEADER.pack(MAGIC, 1, JSON, command, len(data)) + data


def naive_message(to: str, text: str) -> bytes:
    """What the client sends."""
    return naive_encode(3, {'toUserId': to, 'message': text})


class NaiveServer:
    """One `if` for each packet."""

    def __init__(self) -> None:
        self.inboxes: dict[str, list[str]] = {}  # what each user who is logged in has been sent

    def channel_read(self, frame: bytes) -> None:
        command, body = HEADER.unpack_from(frame)[3], json.loads(frame[HEADER_SIZE:])
        if command == 1:
            self.inboxes[body['userName']] = []
        elif command == 3:
            to = body.get('toUserID')  # the typo.  `get`, so that no peer can crash us by leaving it out
            if to in self.inboxes:
                self.inboxes[to].append(body['message'])


class NaiveTableServer(NaiveServer):
    """A table instead, but one `try` around the look-up and the call."""

    def channel_read(self, frame: bytes) -> None:
        command, body = HEADER.unpack_from(frame)[3], json.loads(frame[HEADER_SIZE:])
        try:
            {1: self.on_login, 3: self.on_message}[command](body)
        except KeyError:
            print(f'  the server says: unknown command {command}')

    def on_login(self, body: dict[str, Any]) -> None:
        self.inboxes[body['userName']] = []

    def on_message(self, body: dict[str, Any]) -> None:
        self.inboxes[body['toUserID']].append(body['message'])  # the same typo


def test_client() -> bool:
    body = json.loads(naive_message('bob', 'hi')[HEADER_SIZE:])
    return body == {'toUserId': 'bob', 'message': 'hi'}


def test_server() -> bool:
    body = {'toUserID': 'bob', 'message': 'hi'}  # copied from the server's code, with the typo
    return bobs_inbox(NaiveServer(), naive_encode(3, body)) == ['hi']


def bobs_inbox(server: NaiveServer, frame: bytes) -> list[str]:
    """Log bob in, let one frame arrive, and return what he has been sent."""
    server.channel_read(naive_encode(1, {'userName': 'bob'}))
    server.channel_read(frame)
    return server.inboxes['bob']


def attempt(what: str, function: Callable[[], Any]) -> None:
    try:
        function()
    except Exception as error:
        print(f'  {what}\n    {type(error).__name__}: {error}'.partition('. ')[0])  # Python 3.13 adds a guess


def main() -> None:
    print('One `if` for each packet:')
    print(f"  the client's test passes: {test_client()}\n  the server's test passes: {test_server()}")
    print(f"  alice writes to bob, no error; bob's inbox: {bobs_inbox(NaiveServer(), naive_message('bob', 'hi'))}")
    print('A table, and one `try` around look-up and call:')
    bobs_inbox(NaiveTableServer(), naive_message('bob', 'hi'))
    print('Packet classes, the same typo:')
    attempt("MessageRequest(to_user_ID='bob', message='hi')", lambda: MessageRequest(to_user_ID='bob', message='hi'))
    packet = MessageRequest(to_user_id='bob', message='hi')
    attempt('packet.to_user_ID', lambda: packet.to_user_ID)
    frame = naive_encode(3, {'toUserID': 'bob', 'message': 'hi'})
    attempt('decode(a frame with {"toUserID":"bob","message":"hi"})', lambda: decode(frame))


if __name__ == '__main__':
    main()

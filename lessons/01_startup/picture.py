"""Chapter 1, the picture: both ends of a connection, call by call, and what each call really returned.

    python3 -m lessons.01_startup.picture
"""
from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector


def show(client: str = '', server: str = '') -> None:
    print(f'{client:<35}| {server}'.rstrip())


def outcome(function: Callable[..., object], *arguments: object) -> str:
    """Call it; return what it returns, or the name of what it raises."""
    try:
        return repr(function(*arguments))
    except OSError as error:
        return type(error).__name__


def look(sock: socket.socket, event: int, wait: float = 5) -> str:
    """Ask select about this one socket, for `wait` seconds at most."""
    with DefaultSelector() as selector:
        selector.register(sock, event)
        is_ready = selector.select(wait)
    return ('' if is_ready else 'not ') + ('readable' if event == EVENT_READ else 'writable')


def connect(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    error = sock.connect_ex(address)
    show(f'connect_ex -> {errno.errorcode.get(error, error)}')
    show(f'select     -> {look(sock, EVENT_WRITE)}')
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    show(f'SO_ERROR   -> {errno.errorcode.get(error, error)}')
    return sock


def show_a_full_buffer(client: socket.socket, server: socket.socket) -> None:
    while look(client, EVENT_WRITE, 0.1) == 'writable':  # the other side's kernel may still take some
        while (result := outcome(client.send, bytes(100_000))).isdigit():
            pass
    show(f'send, send, send -> {result}')
    show(f'select     -> {look(client, EVENT_WRITE, 0)}')
    while look(server, EVENT_READ, 0.1) == 'readable':
        server.recv(100_000)
    show(server='recv, recv, recv')
    show(f'select     -> {look(client, EVENT_WRITE)}')


def main() -> None:
    show('CLIENT', 'SERVER')
    with socket.socket() as listener:
        listener.setblocking(False)
        listener.bind(('127.0.0.1', 0))
        show(server='bind')
        connect(listener.getsockname()).close()
        show('close, and a new socket', 'listen')
        listener.listen()
        client = connect(listener.getsockname())
        show(server=f'select -> {look(listener, EVENT_READ)}')
        server, _ = listener.accept()
    server.setblocking(False)
    show(server=f'accept, recv -> {outcome(server.recv, 100)}')
    show(f"send       -> {client.send(b'hello')}", f'select -> {look(server, EVENT_READ)}')
    show(server=f'recv   -> {outcome(server.recv, 100)}')
    show_a_full_buffer(client, server)
    client.close()
    show('close', f'select -> {look(server, EVENT_READ)}, recv -> {outcome(server.recv, 100)}')
    server.close()


if __name__ == '__main__':
    main()

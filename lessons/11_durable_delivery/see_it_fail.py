"""Chapter 11, the wrong version first: a server that keeps messages in memory loses them to `kill -9`.

    python3 -m lessons.11_durable_delivery.see_it_fail

The servers are the chapters' and real processes, and they are really killed.  The clients are the chapters' too, but
run in this process.  Nothing waits for a time to pass: a server is killed when it has answered.
"""
from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from reactor import EventLoop

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = '10_group_chat', '11_durable_delivery'
KILLS = 20


class Process:
    """A Python program that prints "listening on HOST:PORT", as a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen([sys.executable, '-X', 'utf8', *arguments], cwd=ROOT, encoding='utf-8',
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline().rpartition(':')[2])

    def kill(self) -> None:
        """kill -9: no handler of the program runs, no buffer of it is written."""
        self.process.kill()
        self.wait()

    def wait(self) -> None:
        self.process.wait()
        self.process.stdout.close()


def run(client: ModuleType, port: int, user: Any) -> list[str]:
    """Run a client without a process of its own, to its end; return the lines that it prints."""
    loop = EventLoop()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        client.Connector(loop, port, user).connect()
        loop.run()
    loop.close()
    return output.getvalue().splitlines()


def talk(chapter: str, port: int, name: str, *instructions: str) -> list[str]:
    """Run the client of that chapter."""
    client = import_module(f'lessons.{chapter}.client')
    return run(client, port, client.User(name, [*map(client.instruction, instructions)]))


def survive(chapter: str, texts: list[str], *options: str, show: Callable[[str], None]) -> list[str]:
    """Let alice write to bob, who is not here, and kill the server between two messages; return what bob reads."""
    server = None
    for text in texts:
        if server:
            show('kill -9')
            server.kill()
        server = Process('-m', f'lessons.{chapter}.server', '--port', '0', *options)
        show(f'alice writes: {text}')
        talk(chapter, server.port, 'alice', f'msg bob {text}', 'logout')  # its answer comes behind all before it
    lines = talk(chapter, server.port, 'bob', 'logout')
    server.kill()
    return [line.removeprefix('alice: ') for line in lines if line.startswith('alice: ')]


def main() -> None:
    texts, many = ['tea at five?', 'or at six?'], [f'message {number}' for number in range(1, KILLS + 2)]
    with tempfile.TemporaryDirectory() as folder:
        for chapter, *options in (OLD,), (NEW, '--db', str(Path(folder, 'two.db'))):
            print(f'the server of chapter {chapter[:2]}')
            read = survive(chapter, texts, *options, show=lambda line: print(f'  {line}'))
            print('  bob comes, and reads:', ' | '.join(read))
        read = survive(NEW, many, '--db', str(Path(folder, 'many.db')), show=lambda line: None)
    print(f'{KILLS} kills, one between any two of {len(many)} messages: bob reads {len(read)},',
          'all of them in their order' if read == many else 'WRONG')


if __name__ == '__main__':
    main()

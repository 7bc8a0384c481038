"""Chapter 12: the same server on asyncio, to compare with.  The loop and the channels are asyncio's, the rest is yours.

    python3 -m lessons.12_under_load.asyncio_server --report 1
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from reactor import HIGH_WATER_MARK, LOW_WATER_MARK, Pipeline
from store import Store

from .server import Server


class AsyncServer(Server):
    """asyncio has no part 4 and 5 of a tick: the first who has something for them calls for both."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store) -> None:
        super().__init__(loop, store)
        self.written: list[AsyncChannel] = []
        self.end_is_due = False

    def end_turn_soon(self) -> None:
        if not self.end_is_due:
            self.end_is_due = True
            self.loop.call_soon(self.end_turn)

    def end_turn(self) -> None:
        self.end_is_due = False
        self.before_flush()
        written, self.written = self.written, []
        for channel in written:
            channel.flush()


class AsyncChannel(asyncio.Protocol):
    """In the place of reactor's Channel: what its pipeline sees of one, with a transport of asyncio behind it."""

    def __init__(self, server: AsyncServer) -> None:
        self.server, self.loop, self.pipeline = server, server.loop, Pipeline(self)
        self.is_open = self.is_reading = self.is_writable = True
        self.alive_at = self.loop.time()
        self._queue: list[bytes] = []  # the pipeline's head appends to it

    # What asyncio calls

    def connection_made(self, transport: Any) -> None:
        self.transport, self.address = transport, str(transport.get_extra_info('peername'))
        transport.set_write_buffer_limits(HIGH_WATER_MARK, LOW_WATER_MARK)
        self.server.initialize(self)
        self.pipeline.head.channel_active()

    def data_received(self, data: bytes) -> None:
        self.server.end_turn_soon()
        self.alive_at = self.loop.time()
        self.run(self.pipeline.head.channel_read, data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_open:
            self.is_open = False
            self.run(self.pipeline.head.channel_inactive)

    def pause_writing(self) -> None:
        self.is_writable = False
        self.run(self.pipeline.head.writability_changed)

    def resume_writing(self) -> None:
        self.is_writable = True
        self.run(self.pipeline.head.writability_changed)

    # What the handlers call

    def write(self, message: Any) -> None:
        self.run(self.pipeline.tail.write, message)

    def add_buffered(self, count: int) -> None:
        if len(self._queue) == 1:
            self.server.written.append(self)
            self.server.end_turn_soon()

    def flush(self) -> None:
        self.transport.write(b''.join(self._queue))
        self._queue.clear()

    def close(self) -> None:
        self.flush()
        self.connection_lost(None)  # to the handlers this is the end; asyncio says so when all was sent
        self.transport.close()

    def run(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            self.pipeline.head.exception_caught(error)

    abort = close


def main() -> None:
    parser = argparse.ArgumentParser(description='a chat server on asyncio')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--report', type=float, default=0, help='seconds between lines that say how busy it is')
    options = parser.parse_args()
    loop = asyncio.new_event_loop()
    server = AsyncServer(loop, Store(':memory:', 'normal'))
    listener = loop.run_until_complete(loop.create_server(lambda: AsyncChannel(server), '127.0.0.1', options.port))
    if options.report:
        server.look(loop.time())
        loop.call_later(options.report, server.report, options.report)
    print(f'listening on 127.0.0.1:{listener.sockets[0].getsockname()[1]}', flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_forever()
    print('stopped')


if __name__ == '__main__':
    main()

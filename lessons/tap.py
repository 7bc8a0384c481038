"""A tap on the wire: every frame between clients and server, field by field.

What it does: stands between the clients of a scene and their server, passes on every byte, half-close, close and reset,
and tells what the bytes are.  What it leaves to others: starting the programs (play.py), explaining a frame
(protocol.describe).  The programs need nothing for it: each client is given a port of ours for the server's.

A thread for each direction of each connection, with sockets that block: here nobody waits for anybody else, and what
one side cannot take yet holds up the other side, as without a tap.
"""
from __future__ import annotations

import contextlib
import socket
import struct
import threading

import protocol

from .play import Show, Wire, free_port

HOST = '127.0.0.1'
A_LINE = 16  # bytes of what is no frame
RESET = struct.pack('ii', 1, 0)  # SO_LINGER: close at once


class Tap(Wire):
    """A gate for each client's terminal; all are open while the server listens."""

    def __init__(self, port: int, tell: Show) -> None:
        super().__init__(port, tell)
        self._gates: dict[str, _Gate] = {}
        self._server_is_up = False

    def port_for(self, terminal: str) -> int:
        if terminal not in self._gates:
            self._gates[terminal] = _Gate(terminal, self.port, self.tell)
            if self._server_is_up:
                self._gates[terminal].open()
        return self._gates[terminal].port

    def server_is_up(self) -> None:
        self._server_is_up = True
        for gate in self._gates.values():
            gate.open()

    def server_is_down(self) -> None:
        self._server_is_up = False
        for gate in self._gates.values():
            gate.close()


class _Gate:
    """A port that leads to the server's.  While it is closed, who connects is refused, as if no server were there."""

    def __init__(self, terminal: str, server_port: int, tell: Show) -> None:
        self.port = free_port()
        self._terminal, self._server_port, self._tell = terminal, server_port, tell
        self._listener: socket.socket | None = None

    def open(self) -> None:
        if not self._listener:
            self._listener = socket.create_server((HOST, self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        if self._listener:
            with contextlib.suppress(OSError):  # not every system can; those wake the accept when it is closed
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        """Serve one client until both directions have ended."""
        with client, contextlib.suppress(OSError), socket.create_connection((HOST, self._server_port)) as server:
            there = threading.Thread(target=self._forward, args=(f'{self._terminal} -> server', client, server))
            there.start()
            self._forward(f'server -> {self._terminal}', server, client)
            there.join()

    def _forward(self, direction: str, source: socket.socket, target: socket.socket) -> None:
        reader = Reader()
        try:
            while data := source.recv(65_536):
                self._say(direction, reader.read(data))
                target.sendall(data)
            self._say(direction, reader.end())
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, target):
                with contextlib.suppress(OSError):  # gone already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sock.shutdown(socket.SHUT_RD)  # ends the other direction's recv

    def _say(self, direction: str, lines: list[str]) -> None:
        for line in lines:
            self._tell(direction, line)


class Reader:
    """What the bytes of one direction are, as lines of text."""

    def __init__(self) -> None:
        self._decoder = protocol.FrameDecoder(protocol.MAX_BODY_CLIENT)
        self._rest = b''  # of what arrived, what is no whole frame
        self._speaks_frames = True

    def read(self, data: bytes) -> list[str]:
        self._rest += data
        lines: list[str] = []
        if self._speaks_frames:
            self._decoder.feed(data)
            try:
                for frame in self._decoder:
                    self._rest = self._rest[len(frame):]
                    lines += [f'a frame of {len(frame)} bytes', *protocol.describe(frame).splitlines()]
                return lines
            except protocol.ProtocolError:
                self._speaks_frames = False
        return lines + self.end()

    def end(self) -> list[str]:
        """Return what is left as hex and text."""
        rest, self._rest = self._rest, b''
        return [f'{len(rest)} bytes, no frame', *dump(rest)] if rest else []


def dump(data: bytes) -> list[str]:
    """Return lines of offset, bytes in hex, text; what is no printable ASCII is a dot."""
    rows = [(start, data[start:start + A_LINE]) for start in range(0, len(data), A_LINE)]
    return [f'{start:>4}  {row.hex(" "):<{3 * A_LINE}} {"".join(chr(b) if 32 <= b < 127 else "." for b in row)}'
            for start, row in rows]

"""Chapter 4, solved: a splitter, which cuts the bytes of one connection into frames.

    python3 -m lessons check 4 --file lessons/04_sticky_half_packets/solution.py
"""
from protocol import HEADER, HEADER_SIZE, MAGIC_BYTES, ProtocolError


class Splitter:
    """Cuts the bytes of one connection into frames, wherever TCP glued or split them."""

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body  # bytes
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are whole now.  Raises ProtocolError: no frame begins here, or one over the limit."""
        self._waiting += data
        frames, start = [], 0
        while size := self._frame_size(start):
            frames.append(bytes(self._waiting[start:start + size]))
            start += size
        del self._waiting[:start]  # once, for all frames
        return frames

    def _frame_size(self, start: int) -> int:
        """Return the bytes of the frame that begins at `start`, 0 while it is not whole."""
        header = self._waiting[start:start + HEADER_SIZE]
        if header[:4] != MAGIC_BYTES[:len(header)]:
            raise ProtocolError(f'no frame begins with {header[:4].hex(" ")}')
        if len(header) < HEADER_SIZE:
            return 0
        length = HEADER.unpack(header)[-1]
        if length > self.max_body:
            raise ProtocolError(f'a body of {length} bytes is over the limit of {self.max_body}')
        size = HEADER_SIZE + length
        return size if len(self._waiting) >= start + size else 0

"""Chapter 2, your part: a buffer with two indices that never shows what is not there, and gives back its room.

    python3 -m lessons check 2

`write_bytes` and the mark stand already.  Write, and try the check after each step:

1. `get_bytes(index, count)` returns `count` bytes from `index` on, as `bytes`, and moves nothing.  What was read before
   may be asked for again.  IndexError when `index` or `count` is negative, or one of the bytes was never written.
2. `read_bytes(count)` returns the next `count` bytes, as `bytes`, and moves `reader_index` behind them.  When `count`
   is negative or more than is readable it raises IndexError, and nothing has moved.
3. `discard_read_bytes()` gives back the room of what was read: the bytes that are left go to the front of `data`, the
   two indices and the mark move down as far as the bytes do, and none of them below 0.
"""


class Buffer:
    """A growing row of bytes: `data` is all the room there is, the indices say what of it counts."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.reader_index = self.writer_index = self.marked = 0

    def write_bytes(self, data: bytes) -> None:
        end = self.writer_index + len(data)
        if end > len(self.data):
            capacity = max(end, 2 * len(self.data), 16)
            self.data += bytes(capacity - len(self.data))
        self.data[self.writer_index:end] = data
        self.writer_index = end

    def mark_reader_index(self) -> None:
        self.marked = self.reader_index

    def reset_reader_index(self) -> None:
        self.reader_index = self.marked

    def get_bytes(self, index: int, count: int) -> bytes:
        return b''  # TODO 1

    def read_bytes(self, count: int) -> bytes:
        return b''  # TODO 2

    def discard_read_bytes(self) -> None:
        return None  # TODO 3

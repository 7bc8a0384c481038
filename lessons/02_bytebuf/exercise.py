"""Chapter 2, your part: a buffer that shows nothing but what is readable, keeps its room, and searches no byte twice.

    python3 -m lessons check 2

`write_bytes` stands already.  The rest is not that of protocol.py.  Write, and try the check after each step:

1. `get_bytes(index, count)` returns `count` bytes from `index` on, as `bytes`, and moves nothing.  It is stricter than
   protocol.py's: IndexError when `count` is negative, or one of the bytes was read already or never written.
2. `read_bytes(count)` returns the next `count` bytes and moves `reader_index` after them.  When `count` is negative or
   more than is readable it raises IndexError, and nothing has moved.
3. `discard_read_bytes()` works as Netty's: what is readable goes to the front of `data`, which stays the same object
   and as long as it was.  Each number that names a place moves down as far as the bytes do, and none below 0.
4. `read_line()` returns the next line, as `bytes`.  Its line break is read too, and not returned.  None while the break
   has not arrived: then nothing is read, and the bytes that were searched, up to `searched`, are not searched again.
"""


class Buffer:
    """A growing row of bytes: `data` is all the room there is, the indices say what of it counts."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.reader_index = self.writer_index = self.searched = 0

    def write_bytes(self, data: bytes) -> None:
        end = self.writer_index + len(data)
        if end > len(self.data):
            capacity = max(end, 2 * len(self.data), 16)
            self.data += bytes(capacity - len(self.data))
        self.data[self.writer_index:end] = data
        self.writer_index = end

    def get_bytes(self, index: int, count: int) -> bytes:
        return b''  # TODO 1

    def read_bytes(self, count: int) -> bytes:
        return b''  # TODO 2

    def discard_read_bytes(self) -> None:
        return None  # TODO 3

    def read_line(self) -> bytes | None:
        return b''  # TODO 4

"""Chapter 2, solved: a buffer that shows nothing but what is readable, keeps its room, and searches no byte twice.

    python3 -m lessons check 2 --file lessons/02_bytebuf/solution.py
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
        if not self.reader_index <= index <= index + count <= self.writer_index:
            raise IndexError(f'{count} bytes at {index}: readable is {self.reader_index} to {self.writer_index}')
        return bytes(self.data[index:index + count])

    def read_bytes(self, count: int) -> bytes:
        data = self.get_bytes(self.reader_index, count)  # when it raises, nothing has moved yet
        self.reader_index += count
        return data

    def discard_read_bytes(self) -> None:
        read = self.reader_index
        self.data[:self.writer_index - read] = self.data[read:self.writer_index]
        self.reader_index = 0
        self.writer_index -= read
        self.searched = max(0, self.searched - read)

    def read_line(self) -> bytes | None:
        start = max(self.searched, self.reader_index)  # read_bytes may have gone past `searched`
        end = self.data.find(b'\n', start, self.writer_index)
        if end < 0:
            self.searched = self.writer_index
            return None
        line = self.read_bytes(end - self.reader_index)
        self.reader_index += 1
        return line

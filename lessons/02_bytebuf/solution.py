"""Chapter 2, solved: a buffer with two indices that never shows what is not there, and gives back its room.

    python3 -m lessons check 2 --file lessons/02_bytebuf/solution.py
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
        if index < 0 or count < 0 or index + count > self.writer_index:
            raise IndexError(f'{count} bytes at {index} asked for, {self.writer_index} are written')
        return bytes(self.data[index:index + count])

    def read_bytes(self, count: int) -> bytes:
        data = self.get_bytes(self.reader_index, count)  # when it raises, nothing has moved yet
        self.reader_index += count
        return data

    def discard_read_bytes(self) -> None:
        read = self.reader_index
        del self.data[:read]
        self.reader_index = 0
        self.writer_index -= read
        self.marked = max(0, self.marked - read)

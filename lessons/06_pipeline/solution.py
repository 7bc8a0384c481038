"""Chapter 6, solution: a link that counts, and one that removes itself."""
from __future__ import annotations

from protocol import MessageRequest, MessageResponse, Packet

from .handlers import Handler


class Counter(Handler):
    """Counts what passes, both ways."""

    def __init__(self) -> None:
        self.frames_in = self.bytes_in = 0
        self.frames_out = self.bytes_out = 0

    def channel_read(self, frame: bytes) -> None:
        self.frames_in += 1
        self.bytes_in += len(frame)
        super().channel_read(frame)

    def write(self, frame: bytes) -> None:
        self.frames_out += 1
        self.bytes_out += len(frame)
        super().write(frame)


class Greeting(Handler):
    """Greets once, and is gone."""

    def __init__(self, text: str) -> None:
        self.text = text

    def channel_read(self, packet: Packet) -> None:
        if isinstance(packet, MessageRequest):
            self.write(MessageResponse(from_user_id='server', from_user_name='server', message=self.text))
            self.replace()
        super().channel_read(packet)  # out of the chain by now, but its own links are still there

"""Chapter 6, exercise: two links of your own.

    python3 -m lessons check 6

Counter stands behind a FrameHandler.  There each message is one frame of bytes, in both directions.

1. It counts the frames that come in and their bytes, and hands each frame on as it is.
2. The same for the frames that go out.

Greeting stands behind a PacketHandler.  There each message is a packet.

3. It hands on every packet.
4. When the first MessageRequest comes by, it does two things more, before it hands that packet on: it writes a
   MessageResponse with its text, from the user `server` (from_user_id and from_user_name), and it takes itself out of
   the chain.
"""
from __future__ import annotations

from protocol import MessageRequest, MessageResponse, Packet

from .handlers import Handler


class Counter(Handler):
    """Counts what passes, both ways."""

    def __init__(self) -> None:
        self.frames_in = self.bytes_in = 0
        self.frames_out = self.bytes_out = 0

    def channel_read(self, frame: bytes) -> None:
        pass  # TODO 1

    def write(self, frame: bytes) -> None:
        pass  # TODO 2


class Greeting(Handler):
    """Greets once, and is gone."""

    def __init__(self, text: str) -> None:
        self.text = text

    def channel_read(self, packet: Packet) -> None:
        pass  # TODO 3 and 4

"""Chapter 12's exercise, solved: who does not read the answers is not read from.

    python3 -m lessons check 12 --file lessons/12_under_load/solution.py
"""
from __future__ import annotations

import protocol
from protocol import ProtocolError
from reactor import Handler


class PatientFrameHandler(Handler):
    """Bytes to frames, at the pace at which the peer takes the answers."""

    def __init__(self) -> None:
        self.decoder = protocol.FrameDecoder(protocol.MAX_BODY_CLIENT)  # a server allows less

    def channel_read(self, data: bytes) -> None:
        self.decoder.feed(data)
        self.hand_on()

    def writability_changed(self) -> None:
        """The write buffer rose over its high mark, or sank to its low one."""
        if self.channel.is_writable:
            self.hand_on()
            if self.channel.is_writable:  # still
                self.channel.resume_reading(self)
        else:
            self.channel.pause_reading(self)
        super().writability_changed()

    def hand_on(self) -> None:
        """Hand on the frames that are there, as long as that is allowed."""
        frames = iter(self.decoder)
        try:
            while self.channel.is_open and self.channel.is_writable and (frame := next(frames, None)):
                super().channel_read(frame)
        except ProtocolError as error:
            super().user_event(error)

"""Chapter 12's exercise: who does not read the answers is not read from.

    python3 -m lessons check 12

`PatientFrameHandler` stands where the chapter's FrameHandler stands.  What it must do:

1. `channel_read(data)`: frames are handed on, one after the other, as long as the channel is open and writable.  It may
   cease to be in the middle: handling a frame writes an answer.  What is left stays in the decoder.
2. `writability_changed()`, not writable: pause reading, with `self` as the reason.
3. `writability_changed()`, writable: hand on what has stayed, by the same rule; then resume reading, unless the channel
   is full again.
4. Either way the handlers behind it are told as well.  What is no frame remains a user event, the ProtocolError.
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
        # TODO: self.channel.is_writable, .pause_reading(self), .resume_reading(self)

    def hand_on(self) -> None:
        """Hand on the frames that are there, as long as that is allowed."""
        try:
            for frame in self.decoder:  # TODO: all at once, whatever waits to be sent
                super().channel_read(frame)
        except ProtocolError as error:
            super().user_event(error)

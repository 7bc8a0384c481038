"""Chapter 4, what you write: a splitter, which cuts the bytes of one connection into frames.

    python3 -m lessons check 4

1. `feed(data)` takes what one read gave.  It returns a list of the frames that are whole by now, in their order, each
   as bytes, header and body.  What is left over waits in the splitter for the next `feed`.
2. `feed` raises ProtocolError as soon as a byte shows that no frame begins here: where a frame is to begin, the bytes
   of the magic number stand, as many of them as have arrived.
3. `feed` raises ProtocolError as soon as a header is complete whose length is over `max_body`.  It does not wait for
   the body.  A body of exactly `max_body` bytes is taken, and so is one of 0 bytes.
4. It takes time in proportion to the bytes: it copies neither all that waits for each piece that arrives, nor all that
   is behind a frame for each frame.  And it keeps nothing that it has handed out.

Version, serializer and command are not judged.  When `feed` raises, whole frames in front of the wrong byte may be
lost, and the splitter is not used again.  Do it without FrameDecoder: with a bytearray of your own, or with a ByteBuf.
"""
from protocol import HEADER, HEADER_SIZE, MAGIC_BYTES, ProtocolError


class Splitter:
    """Cuts the bytes of one connection into frames, wherever TCP glued or split them."""

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body  # bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are whole now.  Raises ProtocolError: no frame begins here, or one over the limit."""
        return []  # TODO

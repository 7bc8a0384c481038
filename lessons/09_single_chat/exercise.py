"""Chapter 9's exercise: the newer login wins.

    python3 -m lessons check 9

`TakeoverServer` is the chapter's server with another answer to a name that is logged in already.

1. `log_in(session)`: the newer session is in `sessions` afterwards, whoever was there before.
2. The older one's channel gets a KickedNotice with the reason KICKED behind what was written to it before, and then is
   closed.  Whoever else is there notices nothing.
3. A name that is none is refused as before, and nobody is kicked: `super().log_in(session)` raises Refused.
4. `log_out(session)` is also called for the older one: at once, by its `close`, or at any later time, once or twice.
   It must not take the newer one out of `sessions`.
"""
from __future__ import annotations

from protocol import KickedNotice

from .handlers import Session
from .server import Server

KICKED = 'logged in elsewhere'


class TakeoverServer(Server):
    """A server in which nobody is locked out by a connection of their own."""

    def log_in(self, session: Session) -> None:
        super().log_in(session)  # TODO: this one refuses, and nobody is sent a KickedNotice

    def log_out(self, session: Session) -> None:
        super().log_out(session)  # TODO: this one takes out whoever has the name

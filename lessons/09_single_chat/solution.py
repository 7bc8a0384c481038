"""Chapter 9's exercise, solved: the newer login wins.

    python3 -m lessons check 9 --file lessons/09_single_chat/solution.py
"""
from __future__ import annotations

from protocol import KickedNotice

from .handlers import Session
from .server import Server

KICKED = 'logged in elsewhere'


class TakeoverServer(Server):
    """A server in which nobody is locked out by a connection of their own."""

    def log_in(self, session: Session) -> None:
        older = self.sessions.pop(session.user_id, None)
        super().log_in(session)
        if older:
            older.channel.write(KickedNotice(reason=KICKED))
            older.channel.close()

    def log_out(self, session: Session) -> None:
        if self.sessions.get(session.user_id) is session:
            super().log_out(session)

"""Chapter 11's exercise, solved: a request that is sent again happens once.

    python3 -m lessons check 11 --file lessons/11_durable_delivery/solution.py
"""
from __future__ import annotations

from functools import partial
from typing import Any

from protocol import MAX_BODY, LoginResponse
from store import Entry

from .handlers import Session, need


class NumberedSession(Session):
    """A user is logged in, and what they ask for twice happens once."""

    def begin(self) -> None:
        self.frames.decoder.max_body = MAX_BODY
        name, last = self.user_id, self.server.store.last_client_seq(self.user_id)
        self.channel.write(LoginResponse(success=True, user_id=name, user_name=name, last_client_seq=last))
        for entry in self.server.unread(name):
            self.channel.write(self.server.packet_of(entry))

    def record(self, request: Any, entry: Entry) -> None:
        store, number = self.server.store, request.client_seq
        if number > store.last_client_seq(self.user_id):
            entry.client_seq = number
            super().record(request, entry)
            return
        first = store.find_entry(self.user_id, number)
        need(first and first.is_repeated_by(entry), 'seq_conflict', f'{number} was something else')
        store.after_commit(partial(self.answer, request, first))

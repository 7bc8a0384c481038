"""Chapter 11's exercise: a request that is sent again happens once.

    python3 -m lessons check 11

`NumberedSession` is the chapter's session, and looks at the number of each request.  `begin` is done: the client is
told the highest number of its user that made an entry, and goes on from there.  `record` is yours:

1. A number above that one is new.  The entry gets it as its `client_seq`, and is recorded as ever.
2. A number that is not above it has been used.  If it made an entry that this one repeats (`is_repeated_by`), there is
   no second entry: the request is answered with the ids of the first.  Not before the commit of this tick: the first
   may be of this tick too, and on no disk yet.
3. Any other use of such a number is refused: `seq_conflict`.
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
        super().record(request, entry)  # TODO: this one does not look at request.client_seq

"""Chapter 10's exercise: who is in a group, and who of them is here.

    python3 -m lessons check 10

1. `MemberSession` answers LIST_GROUP_MEMBERS_REQUEST with a ListGroupMembersResponse.  Its `session_list` has a
   `protocol.User` (not the client's `User`) for each member, sorted by their ids; `online` is True for those who are
   here, and False for others.
2. Only to a member: else Refused, with the codes that a message to that group would be refused with.
3. Nobody but the one who asked hears of it, and nothing changes by it.
4. `members` makes the packet of the instruction "members GROUP".
5. `MemberUser` prints the response in a line: `group 00000001: alice, bob (away)`.  In version 1 there is no `online`:
   nobody is said to be away.
"""
from __future__ import annotations

import protocol
from protocol import ListGroupMembersRequest, ListGroupMembersResponse, Packet

from .client import User
from .handlers import Session


class MemberSession(Session):
    """A Session that takes one instruction more."""

    def on_list_group_members_request(self, request: ListGroupMembersRequest) -> None:
        super().on_other(request)  # TODO


class MemberUser(User):
    """A User that understands the answer."""

    def on_list_group_members_response(self, response: ListGroupMembersResponse) -> None:
        super().on_other(response)  # TODO


def members(group: str) -> Packet | None:
    return None  # TODO

"""Chapter 10's exercise, solved: who is in a group, and who of them is here.

    python3 -m lessons check 10 --file lessons/10_group_chat/solution.py
"""
from __future__ import annotations

import protocol
from protocol import ListGroupMembersRequest, ListGroupMembersResponse, Packet

from .client import User
from .handlers import Session


class MemberSession(Session):
    """A Session that takes one instruction more."""

    def on_list_group_members_request(self, request: ListGroupMembersRequest) -> None:
        self.need_member(request.group_id)
        users = [protocol.User(user_id=name, user_name=name, online=name in self.server.sessions)
                 for name in sorted(self.server.members(request.group_id))]
        self.channel.write(ListGroupMembersResponse(group_id=request.group_id, session_list=users))


class MemberUser(User):
    """A User that understands the answer."""

    def on_list_group_members_response(self, response: ListGroupMembersResponse) -> None:
        names = [user.user_name + (' (away)' if user.online is False else '') for user in response.session_list]
        print(f'group {response.group_id}: {", ".join(names)}', flush=True)


def members(group: str) -> Packet | None:
    return ListGroupMembersRequest(group_id=group)

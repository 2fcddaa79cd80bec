"""Server groups' thinking: which hosts a member may go to, given where the others are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Policy = Literal["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]


class Group(NamedTuple):
    """A group as it is placed by: its policy, and how many members each host has, by the host's name."""

    id: str
    policy: Policy
    most: int
    """Members that one host may have under anti-affinity."""
    members: Mapping[str, int]

    def objection(self, host: str) -> str | None:
        """Why a member must not go to a host; None when it may."""
        if self.policy == "affinity" and self.members and host not in self.members:
            return f"the members of the server group {self.id} are on {', '.join(sorted(self.members))}"
        if self.policy == "anti-affinity" and self.members.get(host, 0) >= self.most:
            return f"the host has {self.members[host]} of the members of the server group {self.id}, which is its most"
        return None

    def preference(self, host: str) -> float:
        """What a soft policy adds to the weight of a host; above any weight by room, which is at most 1."""
        here = float(self.members.get(host, 0))
        return {"soft-affinity": here, "soft-anti-affinity": -here}.get(self.policy, 0.0)

    def joined(self, host: str) -> Group:
        """The group with one more member on a host."""
        return self._replace(members={**self.members, host: self.members.get(host, 0) + 1})

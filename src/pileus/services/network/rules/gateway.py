"""Which host routes: the one that holds most of what is behind the router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """A host that could route."""

    id: str
    name: str


def choose(candidates: Sequence[Candidate], ports: Mapping[str, int], routers: Mapping[str, int]) -> Candidate | None:
    """The host with most bound ports in the router's networks, then with most routers, then first by name.

    None when there is no host.
    """
    return min(candidates, key=lambda one: (-ports.get(one.id, 0), -routers.get(one.id, 0), one.name), default=None)

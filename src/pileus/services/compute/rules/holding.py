"""What a server holds, of its project's quota and of a host: its flavor, and what it may go back to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def quota(flavor: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Amounts of a server's quota.

    A server that was resized holds the larger one of both flavors until it is confirmed, so that it can always go back.
    """
    other = flavor if previous is None else previous["flavor"]
    return {
        "instances": 1,
        "cores": max(flavor["vcpus"], other["vcpus"]),
        "ram": max(flavor["ram"], other["ram"]),
    }


def counted(mode: str, task: str | None) -> bool:
    """Whether a server counts against the quota: not while it waits, softly deleted, for its end."""
    return task != "soft-deleting" and (mode != "soft_deleted" or task == "restoring")


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What is to be counted more (or, negative, less)."""
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}

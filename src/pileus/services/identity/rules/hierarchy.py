"""Trees of projects and of regions, as mappings from an id to its parent's.

Source: Identity API v3, "Show project details", `parents_as_ids` and `subtree_as_ids`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEPTH = 5
"""How many projects may lie on the way from a domain down to a project, that one included."""


def parents_as_ids(start: str, parents: Mapping[str, str | None]) -> dict[str, Any] | None:
    """The way up from `start` as nested objects: `{parent: {grandparent: None}}`."""
    parent = parents.get(start)
    return None if parent is None else {parent: parents_as_ids(parent, parents)}


def subtree_as_ids(start: str, parents: Mapping[str, str | None]) -> dict[str, Any] | None:
    """What lies below `start` as nested objects, None for a leaf."""
    children: dict[str, list[str]] = {}
    for child, parent in sorted(parents.items()):
        if parent is not None:
            children.setdefault(parent, []).append(child)

    def nested(key: str) -> dict[str, Any] | None:
        return {child: nested(child) for child in children.get(key, ())} or None

    return nested(start)


def chain(start: str, parents: Mapping[str, str | None]) -> list[str]:
    """The way up from `start`, itself included, nearest first. It ends where it would come to the same id again."""
    found: dict[str, None] = {}
    here: str | None = start
    while here is not None and here not in found:
        found[here] = None
        here = parents.get(here)
    return list(found)

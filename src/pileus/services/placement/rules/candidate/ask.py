"""What is asked for, and what is found."""

from __future__ import annotations

import msgspec

from pileus.services.placement.rules.query import Aggregates, Traits


class Group(msgspec.Struct, kw_only=True):
    """What must be served together."""

    suffix: str
    """Empty for the group that may be spread."""
    resources: dict[str, int] = {}
    traits: Traits = Traits()
    aggregates: Aggregates = Aggregates()
    in_tree: str | None = None
    """Root of the tree that serves the group; None when any tree may."""


class Ask(msgspec.Struct, kw_only=True):
    """A request for candidates."""

    groups: list[Group]
    isolate: bool = False
    """Whether no provider serves two groups with suffixes."""
    root_traits: Traits = Traits()
    same_subtree: list[set[str]] = []
    """Suffixes of groups of whose providers one is an ancestor of the rest, or the same."""


class Candidate(msgspec.Struct, gc=False):
    """Providers that serve a request. Candidates may have parts in common: they are to be read, not changed."""

    allocations: dict[str, dict[str, int]]
    """Amounts by provider and resource class."""
    mappings: dict[str, list[str]]
    """The providers that serve each group, by suffix."""

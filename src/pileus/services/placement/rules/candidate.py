"""The search for allocation candidates: which providers could together serve a request.

Source: Placement API reference, "List allocation candidates"; Placement user guide, "Provider tree" and "Modeling with
sharing providers".

A request is made of groups.  A group with a suffix is served by one provider.  The group without one may be spread, a
resource class at a time, over the providers of one tree and over sharing providers: those that have the trait
MISC_SHARES_VIA_AGGREGATE and an aggregate in common with a provider of the tree.  All groups are served by one tree
and the providers that share with it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from pileus.services.placement.rules.capacity import Capacity
from pileus.services.placement.rules.query import Aggregates, Traits

SHARING = "MISC_SHARES_VIA_AGGREGATE"


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


class Candidate(msgspec.Struct, kw_only=True):
    """Providers that serve a request."""

    allocations: dict[str, dict[str, int]]
    """Amounts by provider and resource class."""
    mappings: dict[str, list[str]]
    """The providers that serve each group, by suffix."""
    root: str
    """Root of the tree that was looked at."""


_Choice = list[tuple[str, dict[str, int]]]
"""The providers that serve a group, each with its amounts."""


class _Land:
    """All providers, by tree and by what they share."""

    def __init__(self, providers: Sequence[Capacity]) -> None:
        self.by_uuid = {one.uuid: one for one in providers}
        self.trees: defaultdict[str, list[Capacity]] = defaultdict(list)
        sharing: defaultdict[str, list[Capacity]] = defaultdict(list)
        for one in providers:
            self.trees[one.root].append(one)
            if SHARING in one.traits:
                for aggregate in one.aggregates:
                    sharing[aggregate].append(one)
        self._sharing = sharing

    def near(self, root: str) -> list[Capacity]:
        """The providers of a tree, and those that share with it."""
        tree = self.trees[root]
        found = {one.uuid: one for one in tree}
        for aggregate in {aggregate for one in tree for aggregate in one.aggregates}:
            found.update((one.uuid, one) for one in self._sharing.get(aggregate, ()))
        return list(found.values())

    def root_aggregates(self, one: Capacity) -> Iterable[str]:
        root = self.by_uuid.get(one.root)
        return root.aggregates if root is not None else ()

    def ancestors(self, uuid: str) -> set[str]:
        """A provider and all above it."""
        found: set[str] = set()
        here: str | None = uuid
        while here is not None and here not in found:
            found.add(here)
            one = self.by_uuid.get(here)
            here = one.parent if one is not None else None
        return found


def search(providers: Sequence[Capacity], ask: Ask) -> Iterator[Candidate]:
    """Each way to serve a request once, in the order of the trees' roots among the providers."""
    land = _Land(providers)
    seen: set[tuple[object, ...]] = set()
    for root in land.trees:
        if not ask.root_traits.hold(land.by_uuid[root].traits if root in land.by_uuid else ()):
            continue
        near = land.near(root)
        choices = [list(_choices(land, near, group)) for group in ask.groups]
        if not all(choices):
            continue
        for choice in itertools.product(*choices):
            found = _candidate(land, ask, root, choice)
            if found is None:
                continue
            key = _key(found)
            if key not in seen:
                seen.add(key)
                yield found


def _choices(land: _Land, near: Sequence[Capacity], group: Group) -> Iterator[_Choice]:
    """The ways to serve one group from a tree and what is shared with it."""
    if group.suffix:
        for one in near:
            fits = one.fits(group.resources) and group.traits.hold(one.traits)
            if fits and group.aggregates.hold(one.aggregates) and group.in_tree in (None, one.root):
                yield [(one.uuid, dict(group.resources))]
        return
    usable = [
        one
        for one in near
        if group.in_tree in (None, one.root)
        and not one.traits & group.traits.forbidden
        and group.aggregates.hold(one.aggregates, land.root_aggregates(one))
    ]
    names = list(group.resources)
    options = [[one for one in usable if one.fits({name: group.resources[name]})] for name in names]
    for combination in itertools.product(*options):
        if group.traits.hold({trait for one in combination for trait in one.traits}):
            amounts: dict[str, dict[str, int]] = {}
            for name, one in zip(names, combination, strict=True):
                amounts.setdefault(one.uuid, {})[name] = group.resources[name]
            yield list(amounts.items())


def _candidate(land: _Land, ask: Ask, root: str, choice: Sequence[_Choice]) -> Candidate | None:
    """The choices for all groups taken together, unless they get in each other's way."""
    mappings = {group.suffix: [uuid for uuid, _ in parts] for group, parts in zip(ask.groups, choice, strict=True)}
    numbered = [uuids[0] for suffix, uuids in mappings.items() if suffix]
    if ask.isolate and len(set(numbered)) != len(numbered):
        return None
    allocations: dict[str, dict[str, int]] = {}
    for parts in choice:
        for uuid, amounts in parts:
            held = allocations.setdefault(uuid, {})
            for name, amount in amounts.items():
                held[name] = held.get(name, 0) + amount
    if not all(land.by_uuid[uuid].fits(amounts) for uuid, amounts in allocations.items()):
        return None
    if any(not _one_subtree(land, mappings, suffixes) for suffixes in ask.same_subtree):
        return None
    return Candidate(
        allocations={uuid: amounts for uuid, amounts in allocations.items() if amounts}, mappings=mappings, root=root
    )


def _one_subtree(land: _Land, mappings: Mapping[str, list[str]], suffixes: Iterable[str]) -> bool:
    uuids = {uuid for suffix in suffixes for uuid in mappings[suffix]}
    common = set.intersection(*(land.ancestors(uuid) for uuid in uuids))
    return bool(common & uuids)


def _key(one: Candidate) -> tuple[object, ...]:
    return (
        frozenset((uuid, name, amount) for uuid, held in one.allocations.items() for name, amount in held.items()),
        frozenset((suffix, tuple(uuids)) for suffix, uuids in one.mappings.items()),
    )

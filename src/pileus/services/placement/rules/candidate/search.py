"""The search itself: tree by tree, so that who wants a few candidates pays for a few."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pileus.services.placement.rules.candidate.ask import Ask, Candidate, Group
from pileus.services.placement.rules.candidate.land import Land, Place

_Choice = list[tuple[str, dict[str, int]]]
"""The providers that serve a group, each with its amounts."""

_NONE: frozenset[str] = frozenset()


class _Whole:
    """A request as one provider sees it that must serve all of it alone."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.possible = not (ask.isolate and sum(1 for group in ask.groups if group.suffix) > 1)
        self.totals: dict[str, int] = {}
        for group in ask.groups:
            for name, amount in group.resources.items():
                self.totals[name] = self.totals.get(name, 0) + amount
        several = len(ask.groups) > 1
        self.parts = [group.resources for group in ask.groups if group.resources] if several else []
        self.traits = [group.traits for group in ask.groups if group.traits.required or group.traits.forbidden]
        self.aggregates = [
            group.aggregates for group in ask.groups if group.aggregates.required or group.aggregates.forbidden
        ]
        self.trees = {group.in_tree for group in ask.groups if group.in_tree is not None}
        self.suffixes = [group.suffix for group in ask.groups]

    def served(self, one: Place) -> Candidate | None:
        """The one way in which a root without children, with whom nobody shares, serves the request."""
        if not one.fits(self.totals) or any(not one.fits(part) for part in self.parts):
            return None
        if any(not traits.hold(one.traits) for traits in self.traits):
            return None
        if any(not aggregates.hold(one.aggregates) for aggregates in self.aggregates):
            return None
        if self.trees and self.trees != {one.uuid}:
            return None
        return Candidate({one.uuid: self.totals}, {suffix: [one.uuid] for suffix in self.suffixes})


def search(land: Land, ask: Ask) -> Iterator[Candidate]:
    """Each way to serve a request once, tree by tree."""
    whole = _Whole(ask)
    seen: set[object] = set()
    for root, tree in land.trees.items():
        place = land.places.get(root)
        if not ask.root_traits.hold(place.traits if place is not None else ()):
            continue
        guests = land.guests(tree.values()) if land.sharing else {}
        if not guests and len(tree) == 1 and place is not None:
            found = whole.served(place) if whole.possible else None
            # Nobody shares with it, so with nobody else can it serve the same: it need not be compared.
            if found is not None and not land.sharing:
                yield found
                continue
            ways = iter([found] if found is not None else ())
        else:
            ways = _Tree(land, ask, root, list(tree.values()), list(guests.values())).ways()
        for one in ways:
            key = msgspec.json.encode(one, order="sorted") if land.sharing else None
            if key is None or key not in seen:
                seen.add(key)
                yield one


class _Tree:
    """The ways in which one tree, and those that share with it, serve a request."""

    def __init__(self, land: Land, ask: Ask, root: str, own: Sequence[Place], guests: Sequence[Place]) -> None:
        self.land, self.ask, self.root = land, ask, root
        self.own, self.guests = own, guests
        place = land.places.get(root)
        self.root_aggregates = place.aggregates if place is not None else _NONE

    def ways(self) -> Iterator[Candidate]:
        """Each way once."""
        choices: list[list[_Choice]] = []
        for group in self.ask.groups:
            found = list(self._alone(group) if group.suffix else self._spread(group))
            if not found:
                return
            choices.append(found)
        if self._suffices(choices):
            yield from self._joined(choices, 0, {}, {})

    def _alone(self, group: Group) -> Iterator[_Choice]:
        """The providers that may serve a group with a suffix."""
        for one in itertools.chain(self.own, self.guests):
            if (
                group.in_tree in (None, one.root)
                and one.fits(group.resources)
                and group.traits.hold(one.traits)
                and group.aggregates.hold(one.aggregates)
            ):
                yield [(one.uuid, group.resources)]

    def _spread(self, group: Group) -> Iterator[_Choice]:
        """The ways to serve the group without suffix; a tree that is named shares with nobody."""
        if group.in_tree not in (None, self.root):
            return
        usable = [one for one in self.own if group.aggregates.hold(one.aggregates, self.root_aggregates)]
        if group.in_tree is None:
            usable += [
                one
                for one in self.guests
                if group.aggregates.admit(one.aggregates)
                and group.aggregates.hold(one.aggregates, self.root_aggregates)
            ]
        usable = [one for one in usable if one.traits.isdisjoint(group.traits.forbidden)]
        names = list(group.resources)
        options = [[one for one in usable if one.fits({name: group.resources[name]})] for name in names]
        if not all(options):
            return
        for combination in itertools.product(*options):
            if group.traits.required and not group.traits.hold({trait for one in combination for trait in one.traits}):
                continue
            amounts: dict[str, dict[str, int]] = {}
            for name, one in zip(names, combination, strict=True):
                amounts.setdefault(one.uuid, {})[name] = group.resources[name]
            yield list(amounts.items())

    def _suffices(self, choices: Sequence[Sequence[_Choice]]) -> bool:
        """Whether all that is asked of a class could be there at all: spares most vain attempts."""
        wanted: dict[str, int] = {}
        for group in self.ask.groups:
            for name, amount in group.resources.items():
                wanted[name] = wanted.get(name, 0) + amount
        offered = {
            (uuid, name) for options in choices for parts in options for uuid, amounts in parts for name in amounts
        }
        for name, amount in wanted.items():
            if amount > sum(self.land.places[uuid].slots[name][0] for uuid, other in offered if other == name):
                return False
        return not self.ask.isolate or self._matched(choices)

    def _matched(self, choices: Sequence[Sequence[_Choice]]) -> bool:
        """Whether the groups with suffixes could have a provider each (augmenting paths in a bipartite graph)."""
        taken: dict[str, int] = {}
        numbered = [
            [parts[0][0] for parts in options]
            for group, options in zip(self.ask.groups, choices, strict=True)
            if group.suffix
        ]

        def settle(place: int, tried: set[str]) -> bool:
            for uuid in numbered[place]:
                if uuid not in tried:
                    tried.add(uuid)
                    if uuid not in taken or settle(taken[uuid], tried):
                        taken[uuid] = place
                        return True
            return False

        return all(settle(place, set()) for place in range(len(numbered)))

    def _joined(
        self,
        choices: Sequence[Sequence[_Choice]],
        depth: int,
        held: Mapping[str, Mapping[str, int]],
        mappings: dict[str, list[str]],
    ) -> Iterator[Candidate]:
        """The choices for all groups taken together, as far as they do not get in each other's way."""
        if depth == len(choices):
            yield Candidate({uuid: dict(amounts) for uuid, amounts in held.items() if amounts}, mappings)
            return
        suffix = self.ask.groups[depth].suffix
        numbered = {uuids[0] for other, uuids in mappings.items() if other} if self.ask.isolate and suffix else _NONE
        for parts in choices[depth]:
            if parts[0][0] in numbered:
                continue
            sums = self._added(held, parts)
            if sums is None:
                continue
            known = {**mappings, suffix: [uuid for uuid, _ in parts]}
            if all(self._one_subtree(known, suffixes) for suffixes in self.ask.same_subtree if suffix in suffixes):
                yield from self._joined(choices, depth + 1, sums, known)

    def _added(self, held: Mapping[str, Mapping[str, int]], parts: _Choice) -> Mapping[str, Mapping[str, int]] | None:
        """The sums with a further choice; None when a provider has not got that much."""
        if not held:
            return dict(parts)
        found = dict(held)
        for uuid, amounts in parts:
            mine = dict(found.get(uuid, {}))
            slots = self.land.places[uuid].slots
            for name, amount in amounts.items():
                mine[name] = mine.get(name, 0) + amount
                if mine[name] > min(slots[name][0], slots[name][2]):
                    return None
            found[uuid] = mine
        return found

    def _one_subtree(self, mappings: Mapping[str, list[str]], suffixes: set[str]) -> bool:
        """Whether one of the providers is above all; not asked before all of them are there."""
        if not suffixes <= mappings.keys():
            return True
        uuids = {uuid for suffix in suffixes for uuid in mappings[suffix]}
        if len(uuids) == 1:
            return True
        return any(all(top in self.land.ancestors(uuid) for uuid in uuids) for top in uuids)

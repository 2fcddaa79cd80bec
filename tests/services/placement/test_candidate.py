"""The search for candidates against a model that tries everything, written from the API reference alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.services.placement.rules.candidate.ask import Ask, Candidate, Group
from pileus.services.placement.rules.candidate.land import Land
from pileus.services.placement.rules.candidate.search import search
from pileus.services.placement.rules.capacity import Capacity, Room
from pileus.services.placement.rules.query import Aggregates, Traits

CLASSES = ("VCPU", "DISK_GB", "CUSTOM_GOLD")
SHARES = "MISC_SHARES_VIA_AGGREGATE"
TRAITS = ("T1", "T2", "T3")
AGGREGATES = ("A1", "A2", "A3")

Found = tuple[frozenset[tuple[str, str, int]], frozenset[tuple[str, frozenset[str]]]]
Cloud = dict[str, Capacity]


class Dice:
    """Draws clouds and requests such that many requests can be served, and in several ways.

    One strategy for each part would be shrunk better, but is ten times slower than a seeded generator.
    """

    def __init__(self, random: Random) -> None:
        self.random = random

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def some(self, names: tuple[str, ...], share: float) -> frozenset[str]:
        return frozenset(name for name in names if self.chance(share))

    def room(self) -> Room:
        odd = self.chance(0.15)
        return Room(
            total=self.random.randint(2, 8),
            reserved=self.random.randint(0, 1),
            min_unit=2 if odd and self.chance(0.5) else 1,
            max_unit=self.random.choice([2, 3, 100]) if odd else 100,
            step_size=2 if odd and self.chance(0.5) else 1,
            allocation_ratio=self.random.choice([1.0, 1.0, 1.5]),
            used=self.random.randint(0, 2),
        )

    def cloud(self) -> list[Capacity]:
        """Up to six providers in up to six trees."""
        found: list[Capacity] = []
        for number in range(self.random.randint(1, 6)):
            above = self.random.choice(found) if found and self.chance(0.6) else None
            found.append(
                Capacity(
                    uuid=f"p{number}",
                    name=f"p{number}",
                    generation=0,
                    root=f"p{number}" if above is None else above.root,
                    parent=None if above is None else above.uuid,
                    rooms={name: self.room() for name in sorted(self.some(CLASSES, 0.6))},
                    traits=self.some(TRAITS, 0.5) | ({SHARES} if self.chance(0.3) else frozenset()),
                    aggregates=self.some(AGGREGATES, 0.45),
                )
            )
        return found

    def sets(self, names: tuple[str, ...]) -> tuple[frozenset[str], ...]:
        several = range(self.random.choice([1, 1, 2]))
        return tuple(frozenset(self.random.sample(names, self.random.randint(1, 2))) for _ in several)

    def traits(self, share: float) -> Traits:
        names = (*TRAITS, SHARES)
        required = self.sets(TRAITS) if self.chance(share) else ()
        return Traits(required, frozenset({self.random.choice(names)}) if self.chance(share / 2) else frozenset())

    def aggregates(self, share: float) -> Aggregates:
        required = self.sets(AGGREGATES) if self.chance(share) else ()
        forbidden = frozenset({self.random.choice(AGGREGATES)}) if self.chance(share / 2) else frozenset[str]()
        return Aggregates(required, forbidden)

    def ask(self) -> Ask:
        """Up to three groups; those without resources are of a subtree."""
        suffixes = self.random.choice([("",), ("1",), ("", "1"), ("1", "_A"), ("", "1", "_A"), ("1", "2", "_A")])
        numbered = [suffix for suffix in suffixes if suffix]
        subtrees = []
        while numbered and self.chance(0.3):
            subtrees.append(set(self.random.sample(numbered, self.random.randint(1, len(numbered)))))
        groups = []
        for suffix in suffixes:
            bare = any(suffix in names for names in subtrees) and suffix != suffixes[0] and self.chance(0.5)
            names = self.random.sample(CLASSES, self.random.choice([1, 1, 2]))
            groups.append(
                Group(
                    suffix=suffix,
                    resources={} if bare else {name: self.random.randint(1, 2) for name in names},
                    traits=self.traits(0.25),
                    aggregates=self.aggregates(0.2),
                    in_tree=self.random.choice(["p0", "p1"]) if self.chance(0.15) else None,
                )
            )
        return Ask(
            groups=groups,
            isolate=self.chance(0.4),
            root_traits=self.traits(0.15),
            same_subtree=subtrees,
        )


def has_traits(present: frozenset[str], wanted: Traits) -> bool:
    for name in wanted.forbidden:
        if name in present:
            return False
    return all(any(name in present for name in one) for one in wanted.required)


def is_member(one: Capacity, wanted: Aggregates) -> bool:
    return all(any(name in one.aggregates for name in several) for several in wanted.required)


def is_outside(one: Capacity, wanted: Aggregates) -> bool:
    return all(name not in one.aggregates for name in wanted.forbidden)


def offers(one: Capacity, name: str, amount: int) -> bool:
    """Whether an amount may be held of a provider, by the definition of each field of an inventory."""
    room = one.rooms.get(name)
    if room is None or amount < room.min_unit or amount > room.max_unit or amount % room.step_size != 0:
        return False
    return room.used + amount <= int((room.total - room.reserved) * room.allocation_ratio)


def shares_with(cloud: Cloud, one: Capacity, root: str) -> bool:
    tree = [other for other in cloud.values() if other.root == root]
    return SHARES in one.traits and any(one.aggregates & other.aggregates for other in tree)


def alone(cloud: Cloud, group: Group, root: str) -> Iterator[dict[str, str]]:
    """The providers that serve a whole group, as the provider of each of its classes; `` is the group itself."""
    for one in cloud.values():
        near = one.root == root or shares_with(cloud, one, root)
        placed = group.in_tree is None or one.root == group.in_tree
        fit = all(offers(one, name, amount) for name, amount in group.resources.items())
        member = is_member(one, group.aggregates) and is_outside(one, group.aggregates)
        if near and placed and fit and member and has_traits(one.traits, group.traits):
            yield {"": one.uuid} | dict.fromkeys(group.resources, one.uuid)


def may_give(cloud: Cloud, group: Group, one: Capacity, root: str) -> bool:
    """Whether a provider may serve a part of the group without suffix for a tree."""
    if not is_outside(one, group.aggregates) or not is_outside(cloud[root], group.aggregates):
        return False
    if one.root == root:
        return group.in_tree in (None, root) and any(is_member(p, group.aggregates) for p in (one, cloud[root]))
    return group.in_tree is None and shares_with(cloud, one, root) and is_member(one, group.aggregates)


def spread(cloud: Cloud, group: Group, root: str) -> Iterator[dict[str, str]]:
    names = list(group.resources)
    for chosen in itertools.product(cloud.values(), repeat=len(names)):
        if not all(may_give(cloud, group, one, root) for one in chosen):
            continue
        if not all(offers(one, name, group.resources[name]) for one, name in zip(chosen, names, strict=True)):
            continue
        if any(one.traits & group.traits.forbidden for one in chosen):
            continue
        if has_traits(frozenset().union(*(one.traits for one in chosen)), Traits(group.traits.required)):
            yield {name: one.uuid for name, one in zip(names, chosen, strict=True)}


def above(cloud: Cloud, top: str, uuid: str | None) -> bool:
    while uuid is not None and uuid != top:
        uuid = cloud[uuid].parent
    return uuid == top


def lawful(cloud: Cloud, ask: Ask, ways: dict[str, dict[str, str]], sums: Counter[tuple[str, str]]) -> bool:
    for (uuid, name), amount in sums.items():
        room = cloud[uuid].rooms[name]
        if amount > room.max_unit or room.used + amount > int((room.total - room.reserved) * room.allocation_ratio):
            return False
    single = {suffix: way[""] for suffix, way in ways.items() if suffix}
    if ask.isolate and len(set(single.values())) < len(single):
        return False
    return all(
        any(all(above(cloud, single[top], single[suffix]) for suffix in suffixes) for top in suffixes)
        for suffixes in ask.same_subtree
    )


def model(providers: list[Capacity], ask: Ask) -> set[Found]:
    cloud = {one.uuid: one for one in providers}
    found: set[Found] = set()
    for root in (one for one in providers if one.parent is None):
        if not has_traits(root.traits, ask.root_traits):
            continue
        options = [list((alone if group.suffix else spread)(cloud, group, root.uuid)) for group in ask.groups]
        for chosen in itertools.product(*options):
            ways = {group.suffix: way for group, way in zip(ask.groups, chosen, strict=True)}
            sums: Counter[tuple[str, str]] = Counter()
            for group in ask.groups:
                for name, amount in group.resources.items():
                    sums[ways[group.suffix][name], name] += amount
            if lawful(cloud, ask, ways, sums):
                found.add(
                    (
                        frozenset((uuid, name, amount) for (uuid, name), amount in sums.items()),
                        frozenset((suffix, frozenset(way.values())) for suffix, way in ways.items()),
                    )
                )
    return found


def plain(one: Candidate) -> Found:
    return (
        frozenset((uuid, name, amount) for uuid, held in one.allocations.items() for name, amount in held.items()),
        frozenset((suffix, frozenset(uuids)) for suffix, uuids in one.mappings.items()),
    )


@settings(max_examples=2500, deadline=None)
@given(st.randoms(use_true_random=True))
def test_the_search_finds_what_the_model_finds(random: Random) -> None:
    dice = Dice(random)
    cloud, ask = dice.cloud(), dice.ask()
    given_back = [plain(one) for one in search(Land(cloud), ask)]
    assert set(given_back) == model(cloud, ask), msgspec.json.encode([cloud, ask], enc_hook=sorted)
    assert len(set(given_back)) == len(given_back)
    assert all(amounts for one in search(Land(cloud), ask) for amounts in one.allocations.values())


@settings(max_examples=500, deadline=None)
@given(st.randoms(use_true_random=True))
def test_a_land_that_changed_is_as_one_that_is_new(random: Random) -> None:
    dice = Dice(random)
    before, after, ask = dice.cloud(), dice.cloud(), dice.ask()
    land = Land(before)
    left = {one.uuid: one for one in after}
    for number in random.sample(range(6), 6):
        uuid = f"p{number}"
        if uuid in left:
            land.put(left[uuid])
        else:
            land.drop(uuid)
    fresh = Land(after)
    assert land.places.keys() == fresh.places.keys()
    assert {root: set(tree) for root, tree in land.trees.items()} == {r: set(tree) for r, tree in fresh.trees.items()}
    assert {name: set(ones) for name, ones in land.sharing.items()} == {n: set(o) for n, o in fresh.sharing.items()}
    assert {plain(one) for one in search(land, ask)} == {plain(one) for one in search(fresh, ask)}


def test_many_groups_that_cannot_all_be_served_are_given_up_at_once() -> None:
    room = {"SRIOV_NET_VF": Room(total=1)}
    host = Capacity(uuid="host", name="host", generation=0, root="host", parent=None, rooms={})
    cards = [
        Capacity(uuid=f"c{n}", name=f"c{n}", generation=0, root="host", parent="host", rooms=room) for n in range(12)
    ]
    groups = [Group(suffix=str(number), resources={"SRIOV_NET_VF": 1}) for number in range(13)]
    assert not list(search(Land([host, *cards]), Ask(groups=groups)))
    wide = [msgspec.structs.replace(card, rooms={"SRIOV_NET_VF": Room(total=9)}) for card in cards]
    assert not list(search(Land([host, *wide]), Ask(groups=groups, isolate=True)))
    full = next(search(Land([host, *cards]), Ask(groups=groups[:12], isolate=True)))
    assert full.allocations == {card.uuid: {"SRIOV_NET_VF": 1} for card in cards}

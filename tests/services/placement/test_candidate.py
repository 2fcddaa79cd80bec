"""The search for candidates against a model that tries everything."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.services.placement.rules.candidate.ask import Ask, Group
from pileus.services.placement.rules.candidate.land import SHARING, Land
from pileus.services.placement.rules.candidate.search import search
from pileus.services.placement.rules.capacity import Capacity, Room
from pileus.services.placement.rules.query import Aggregates, Traits

CLASSES = ("VCPU", "DISK_GB")
TRAITS = ("T1", "T2", SHARING)
AGGREGATES = ("A1", "A2")

Found = tuple[frozenset[tuple[str, str, int]], frozenset[tuple[str, frozenset[str]]]]


@st.composite
def clouds(draw: st.DrawFn) -> list[Capacity]:
    """Up to five providers in up to five trees."""
    found: list[Capacity] = []
    for number in range(draw(st.integers(1, 5))):
        above = draw(st.sampled_from([None, *found]))
        rooms = {
            name: Room(total=draw(st.integers(1, 4)), used=draw(st.integers(0, 2)))
            for name in draw(st.sets(st.sampled_from(CLASSES)))
        }
        found.append(
            Capacity(
                uuid=f"p{number}",
                name=f"p{number}",
                generation=0,
                root=f"p{number}" if above is None else above.root,
                parent=None if above is None else above.uuid,
                rooms=rooms,
                traits=frozenset(draw(st.sets(st.sampled_from(TRAITS)))),
                aggregates=frozenset(draw(st.sets(st.sampled_from(AGGREGATES)))),
            )
        )
    return found


def _traits() -> st.SearchStrategy[Traits]:
    required = st.lists(st.frozensets(st.sampled_from(TRAITS[:2]), min_size=1), max_size=1).map(tuple)
    return st.builds(Traits, required, st.frozensets(st.sampled_from(TRAITS[:2]), max_size=1))


def _aggregates() -> st.SearchStrategy[Aggregates]:
    required = st.lists(st.frozensets(st.sampled_from(AGGREGATES), min_size=1), max_size=1).map(tuple)
    return st.builds(Aggregates, required, st.frozensets(st.sampled_from(AGGREGATES), max_size=1))


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    """Up to three groups."""
    suffixes = draw(st.sampled_from([("",), ("1",), ("", "1"), ("1", "2"), ("", "1", "2")]))
    groups = [
        Group(
            suffix=suffix,
            resources=draw(st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 2), min_size=1)),
            traits=draw(_traits()),
            aggregates=draw(_aggregates()),
            in_tree=draw(st.sampled_from([None, None, None, "p0"])),
        )
        for suffix in suffixes
    ]
    numbered = {suffix for suffix in suffixes if suffix}
    return Ask(
        groups=groups,
        isolate=draw(st.booleans()),
        root_traits=draw(st.one_of(st.just(Traits()), _traits())),
        same_subtree=[numbered] if len(numbered) > 1 and draw(st.booleans()) else [],
    )


def reaches(cloud: list[Capacity], root: str, uuid: str) -> bool:
    """Whether a provider is in a tree, or shares with it."""
    (one,) = (other for other in cloud if other.uuid == uuid)
    tree = [other for other in cloud if other.root == root]
    return one.root == root or (SHARING in one.traits and any(one.aggregates & other.aggregates for other in tree))


def below(cloud: list[Capacity], top: str, uuid: str | None) -> bool:
    by_uuid = {one.uuid: one for one in cloud}
    while uuid is not None and uuid != top:
        uuid = by_uuid[uuid].parent
    return uuid == top


def serves(cloud: list[Capacity], ask: Ask, root: str, places: dict[tuple[str, str], str]) -> bool:
    """Whether giving each class of each group this provider is what the request wants of this tree."""
    by_uuid = {one.uuid: one for one in cloud}
    if not ask.root_traits.hold(by_uuid[root].traits):
        return False
    if not all(reaches(cloud, root, uuid) for uuid in places.values()):
        return False
    sums: dict[tuple[str, str], int] = {}
    alone: dict[str, str] = {}
    for group in ask.groups:
        mine = [by_uuid[places[group.suffix, name]] for name in group.resources]
        if group.suffix and len({one.uuid for one in mine}) > 1:
            return False
        if group.suffix:
            alone[group.suffix] = mine[0].uuid
        for one in mine:
            wider = by_uuid[one.root].aggregates if not group.suffix else frozenset[str]()
            if not group.aggregates.hold(one.aggregates, wider) or one.traits & group.traits.forbidden:
                return False
            if group.in_tree not in (None, one.root):
                return False
        if not all({trait for one in mine for trait in one.traits} & wanted for wanted in group.traits.required):
            return False
        for name, amount in group.resources.items():
            key = places[group.suffix, name], name
            sums[key] = sums.get(key, 0) + amount
    if any(name not in by_uuid[uuid].rooms for uuid, name in sums):
        return False
    if any(by_uuid[uuid].rooms[name].free < amount for (uuid, name), amount in sums.items()):
        return False
    if ask.isolate and len(set(alone.values())) < len(alone):
        return False
    return all(
        any(all(below(cloud, alone[top], alone[suffix]) for suffix in suffixes) for top in suffixes)
        for suffixes in ask.same_subtree
    )


def model(cloud: list[Capacity], ask: Ask) -> set[Found]:
    slots = [(group.suffix, name) for group in ask.groups for name in group.resources]
    amounts = {(group.suffix, name): amount for group in ask.groups for name, amount in group.resources.items()}
    found: set[Found] = set()
    for choice in itertools.product([one.uuid for one in cloud], repeat=len(slots)):
        places = dict(zip(slots, choice, strict=True))
        if not any(serves(cloud, ask, one.uuid, places) for one in cloud if one.parent is None):
            continue
        sums: dict[tuple[str, str], int] = {}
        mappings: dict[str, set[str]] = {}
        for (suffix, name), uuid in places.items():
            sums[uuid, name] = sums.get((uuid, name), 0) + amounts[suffix, name]
            mappings.setdefault(suffix, set()).add(uuid)
        found.add(
            (
                frozenset((uuid, name, amount) for (uuid, name), amount in sums.items()),
                frozenset((suffix, frozenset(uuids)) for suffix, uuids in mappings.items()),
            )
        )
    return found


@settings(max_examples=300, deadline=None)
@given(clouds(), asks())
def test_the_search_finds_what_the_model_finds(cloud: list[Capacity], ask: Ask) -> None:
    given_back = list(search(Land(cloud), ask))
    found: set[Found] = {
        (
            frozenset((uuid, name, amount) for uuid, held in one.allocations.items() for name, amount in held.items()),
            frozenset((suffix, frozenset(uuids)) for suffix, uuids in one.mappings.items()),
        )
        for one in given_back
    }
    assert found == model(cloud, ask)
    assert len(found) == len(given_back)

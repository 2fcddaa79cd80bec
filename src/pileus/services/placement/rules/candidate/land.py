"""All providers, by tree and by what they share, ready to be searched again and again as they change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pileus.services.placement.rules.capacity import Capacity

SHARING = "MISC_SHARES_VIA_AGGREGATE"

Slot = tuple[int, int, int, int]
"""Of one resource class: how much more may be held, and least, most and step of an amount."""


class Place:
    """A provider as the search wants it."""

    __slots__ = ("aggregates", "parent", "root", "slots", "traits", "uuid")

    def __init__(self, one: Capacity) -> None:
        self.uuid, self.root, self.parent = one.uuid, one.root, one.parent
        self.traits, self.aggregates = one.traits, one.aggregates
        self.slots: dict[str, Slot] = {
            name: (room.free, room.min_unit, room.max_unit, room.step_size) for name, room in one.rooms.items()
        }

    def fits(self, resources: Mapping[str, int]) -> bool:
        """Whether all of these amounts fit, each for itself."""
        for name, amount in resources.items():
            slot = self.slots.get(name)
            if slot is None or amount > slot[0] or not slot[1] <= amount <= slot[2] or amount % slot[3]:
                return False
        return True


class Land:
    """Providers, to be put in and taken out."""

    def __init__(self, providers: Iterable[Capacity] = ()) -> None:
        self.places: dict[str, Place] = {}
        self.trees: dict[str, dict[str, Place]] = {}
        self.sharing: dict[str, dict[str, Place]] = {}
        """Sharing providers by aggregate."""
        for one in providers:
            self.put(one)

    def put(self, one: Capacity) -> None:
        """Take a provider in, in place of what was known of it."""
        known, place = self.places.get(one.uuid), Place(one)
        if known is not None and known.root != place.root:
            self.drop(one.uuid)
        elif known is not None:
            self._share_no_more(known)
        self.places[one.uuid] = place
        self.trees.setdefault(place.root, {})[one.uuid] = place
        if SHARING in place.traits:
            for aggregate in place.aggregates:
                self.sharing.setdefault(aggregate, {})[one.uuid] = place

    def drop(self, uuid: str) -> None:
        """Forget a provider; absent is fine."""
        place = self.places.pop(uuid, None)
        if place is None:
            return
        tree = self.trees[place.root]
        del tree[uuid]
        if not tree:
            del self.trees[place.root]
        self._share_no_more(place)

    def _share_no_more(self, place: Place) -> None:
        if SHARING in place.traits:
            for aggregate in place.aggregates:
                del self.sharing[aggregate][place.uuid]
                if not self.sharing[aggregate]:
                    del self.sharing[aggregate]

    def guests(self, tree: Collection[Place]) -> dict[str, Place]:
        """The providers of other trees that share with a provider of this one."""
        found: dict[str, Place] = {}
        if self.sharing:
            for one in tree:
                for aggregate in one.aggregates:
                    found.update(self.sharing.get(aggregate, ()))
            for one in tree:
                found.pop(one.uuid, None)
        return found

    def root_of(self, uuid: str) -> str | None:
        """The root of a provider's tree; None when there is no such provider."""
        place = self.places.get(uuid)
        return None if place is None else place.root

    def ancestors(self, uuid: str) -> set[str]:
        """A provider and all above it."""
        found: set[str] = set()
        here: str | None = uuid
        while here is not None and here not in found:
            found.add(here)
            place = self.places.get(here)
            here = place.parent if place is not None else None
        return found

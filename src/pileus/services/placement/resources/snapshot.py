"""A copy in memory of all providers, for the search for candidates.

Source: https://docs.openstack.org/api-ref/placement/#allocation-candidates, of what is told of a provider

A search touches every provider, so it reads none: each process keeps them, and before each search takes in what changed
since, which the change log tells.  A copy is of what was committed when it was last asked for, in whatever process it
was written; an allocation is checked against the store itself.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from pileus.core.follower import Follower
from pileus.core.store import Store, Tx
from pileus.services.placement.resources.provider import table
from pileus.services.placement.rules.candidate.land import Land
from pileus.services.placement.rules.capacity import Capacity

TOPIC = "placement.provider"


def summary(one: Capacity) -> dict[str, Any]:
    """What candidates say of a provider, from 1.29 on."""
    resources = {name: {"capacity": room.capacity, "used": room.used} for name, room in one.rooms.items()}
    return {
        "resources": resources,
        "traits": sorted(one.traits),
        "parent_provider_uuid": one.parent,
        "root_provider_uuid": one.root,
    }


class Snapshot:
    """The providers as one process knows them."""

    def __init__(self) -> None:
        self.land = Land()
        self.providers: dict[str, Capacity] = {}
        self.edition = 0
        """Counts the times that something was taken in."""
        self._editions: dict[str, int] = {}
        """By provider, also one that is gone: when it changed last; those that changed last come last."""
        self._summaries: dict[str, msgspec.Raw] = {}
        self._lock = threading.Lock()
        self._follower = Follower(TOPIC)

    @contextmanager
    def fresh(self, tx: Tx) -> Iterator[None]:
        """Hold the copy, with all in it that this transaction sees."""
        with self._lock:
            self._refresh(tx)
            yield

    def summary(self, uuid: str) -> msgspec.Raw:
        """What candidates say of a provider, as JSON."""
        found = self._summaries.get(uuid)
        if found is None:
            found = self._summaries[uuid] = msgspec.Raw(msgspec.json.encode(summary(self.providers[uuid])))
        return found

    def since(self, edition: int) -> dict[str, Capacity | None]:
        """Providers that changed after an edition, by uuid; None for one that is gone."""
        late = itertools.takewhile(lambda uuid: self._editions[uuid] > edition, reversed(self._editions))
        return {uuid: self.providers.get(uuid) for uuid in late}

    def _refresh(self, tx: Tx) -> None:
        with self._follower.news(tx) as uuids:
            if uuids is None:
                self._load(tx)
            elif uuids:
                self._take(tx, uuids)

    def _load(self, tx: Tx) -> None:
        found = table.capacities(tx, None)
        self._mark(self.providers.keys() | {one.uuid for one in found})
        self.providers = {one.uuid: one for one in found}
        self.land = Land(found)
        self._summaries = {}

    def _take(self, tx: Tx, uuids: set[str]) -> None:
        found = {one.uuid: one for one in table.capacities(tx, sorted(uuids))}
        self._mark(uuids)
        for uuid in uuids:
            self._summaries.pop(uuid, None)
            if uuid in found:
                self.providers[uuid] = found[uuid]
                self.land.put(found[uuid])
            else:
                self.providers.pop(uuid, None)
                self.land.drop(uuid)

    def _mark(self, uuids: Iterable[str]) -> None:
        self.edition += 1
        for uuid in uuids:
            self._editions.pop(uuid, None)
            self._editions[uuid] = self.edition


_SNAPSHOTS: WeakKeyDictionary[Store, Snapshot] = WeakKeyDictionary()


def snapshot_of(store: Store) -> Snapshot:
    """The one copy of this process for a store."""
    return _SNAPSHOTS.setdefault(store, Snapshot())

"""The hosts as the scheduler of this process knows them, and how they rank.

What comes closest upstream is the list of hypervisors
(https://docs.openstack.org/api-ref/compute/#hypervisors-os-hypervisors).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from pileus.core.follower import Follower
from pileus.core.store import Store, Tx
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.hypervisor import candidate
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.ranking import Ranks
from pileus.services.fleet import interface as fleet
from pileus.services.placement import interface as placement


@dataclass(slots=True)
class _Source:
    """What a host on the board is made of."""

    host: fleet.Host | None = None
    capacity: placement.Capacity | None = None


class Board:
    """A copy of what hosts have, kept new by what changed: a look at it costs little however many hosts there are."""

    def __init__(self, hosts: fleet.Fleet) -> None:
        self._fleet = hosts
        self._begin()

    def _begin(self) -> None:
        self.ranks = Ranks()
        self._roster = fleet.Roster(self._fleet)
        self._edition = 0
        self._aggregates = Follower("compute.aggregate")
        self._zones: Mapping[str, str] = {}
        self._sources: defaultdict[str, _Source] = defaultdict(_Source)

    def look(self, store: Store, tx: Tx) -> Ranks:
        """The hosts as this transaction sees them."""
        try:
            for key in self._news(store, tx) | self.ranks.promised:
                self._put(key)
        except BaseException:  # what was told is not told again
            self._begin()
            raise
        self.ranks.promised.clear()
        return self.ranks

    def _news(self, store: Store, tx: Tx) -> set[str]:
        """Take in what changed; the ids of the hosts concerned."""
        found = set()
        for key, host in self._roster.news(tx).items():
            self._sources[key].host = host
            found.add(key)
        self._edition, capacities = placement.news(store, tx, self._edition)
        for key, capacity in capacities.items():
            self._sources[key].capacity = capacity
            found.add(key)
        with self._aggregates.news(tx) as changed:
            if changed is None or changed:
                before, self._zones = self._zones, aggregate.zones(tx)
                moved = {name for name, _ in before.items() ^ self._zones.items()}
                found |= {key for key, one in self._sources.items() if one.host and one.host.name in moved}
        return found

    def _put(self, key: str) -> None:
        source = self._sources[key]
        if source.host is not None:
            self.ranks.put(candidate(source.host, source.capacity, self._zones.get(source.host.name, ZONE)))
            return
        if key in self.ranks.hosts:
            self.ranks.drop(key)
        if source.capacity is None:
            del self._sources[key]

"""The hosts as the scheduler of this process knows them, and how they rank.

What comes closest upstream is the list of hypervisors
(https://docs.openstack.org/api-ref/compute/#hypervisors-os-hypervisors).
"""

from __future__ import annotations

from typing import NamedTuple

from pileus.core.store import Store, Tx
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.hypervisor import candidate
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.ranking import Ranks
from pileus.services.fleet import interface as fleet
from pileus.services.placement import interface as placement


class _Source(NamedTuple):
    """What a host on the board is made of."""

    host: fleet.Host
    capacity: placement.Capacity | None
    zone: str


class Board:
    """A copy of what hosts have, kept new by what changed: a look at it costs little however many hosts there are."""

    def __init__(self, hosts: fleet.Fleet) -> None:
        self.ranks = Ranks()
        self._roster = fleet.Roster(hosts)
        self._sources: dict[str, _Source] = {}

    def look(self, store: Store, tx: Tx) -> Ranks:
        """The hosts as this transaction sees them."""
        hosts, zones = self._roster.fresh(tx), aggregate.zones(tx)
        capacities = placement.kept(store, tx)
        for gone in self._sources.keys() - hosts.keys():
            del self._sources[gone]
            self.ranks.drop(gone)
        for key, host in hosts.items():
            before, capacity = self._sources.get(key), capacities.get(key)
            zone = zones.get(host.name, ZONE)
            if before is not None and before.host is host and before.capacity is capacity and before.zone == zone:
                continue
            self._sources[key] = _Source(host, capacity, zone)
            self.ranks.put(candidate(host, capacity, zone))
            self.ranks.promised.discard(key)
        for key in self.ranks.promised & self._sources.keys():
            self.ranks.put(candidate(*self._sources[key]))
        self.ranks.promised.clear()
        return self.ranks

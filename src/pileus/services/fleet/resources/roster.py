"""The hosts as upper services see them: read from the store, or kept in memory by who looks at all of them often.

What comes closest upstream is the list of hypervisors
(https://docs.openstack.org/api-ref/compute/#hypervisors-os-hypervisors).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
import sqlalchemy as sa

from pileus.contracts.hypervisor import HypervisorFacts
from pileus.core.follower import Follower
from pileus.core.statement import many
from pileus.core.store import Tx
from pileus.services.fleet.resources.host import Fleet, Host, host

_HOSTS = sa.select(host).order_by(host.c.name)
_SOME_HOSTS = _HOSTS.where(host.c.id.in_(many("ids")))

FEW = 100
"""Hosts that are looked at each time whether they are up."""

LOOKS = 10_000
"""Hosts in a second that are looked at where there are more."""


def read(tx: Tx, fleet: Fleet, ids: Collection[str] | None = None) -> list[Host]:
    """All hosts, or those with the ids, by name."""
    rows = tx.all(_HOSTS) if ids is None else tx.all(_SOME_HOSTS, {"ids": ids})
    return [
        Host(
            id=row.id,
            name=row.name,
            facts=msgspec.convert(row.facts, HypervisorFacts),
            network_filter=row.network_filter,
            up=fleet.up(row),
            disabled=row.disabled,
            disabled_reason=row.disabled_reason,
            forced_down=row.forced_down,
            created_at=row.created_at,
            seen_at=row.seen_at,
        )
        for row in rows
    ]


class Roster:
    """A copy of all hosts, which tells who keeps it what changed since it asked last.

    Whether a host is up changes by itself: all are looked at anew each time where they are few, and else as often as
    LOOKS allows.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._hosts: dict[str, Host] = {}
        self._follower = Follower("fleet.host")
        self._looked = 0.0

    def news(self, tx: Tx) -> Mapping[str, Host | None]:
        """The hosts that are not what they were, by id; None for one that is gone."""
        with self._follower.news(tx) as ids:
            told = self._take_in(tx, ids)
        now = tx.seams.clock.monotonic()
        if abs(now - self._looked) >= max(0, len(self._hosts) - FEW) / LOOKS:
            self._looked = now
            for key, one in self._hosts.items():
                if self._fleet.up(one) != one.up:
                    told[key] = self._hosts[key] = msgspec.structs.replace(one, up=not one.up)
        return told

    def _take_in(self, tx: Tx, ids: Collection[str] | None) -> dict[str, Host | None]:
        if ids is not None and not ids:
            return {}
        found = {one.id: one for one in read(tx, self._fleet, ids)}
        asked = found.keys() | (self._hosts.keys() if ids is None else ids)
        told = {key: found.get(key) for key in asked if found.get(key) != self._hosts.get(key)}
        for key, one in told.items():
            if one is None:
                del self._hosts[key]
            else:
                self._hosts[key] = one
        return told

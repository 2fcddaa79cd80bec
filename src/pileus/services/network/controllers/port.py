"""Ports: the host to which one is bound gets it, and with it its network and its security groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from pileus.core.reconcile import Outcome
from pileus.core.statement import many
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.network.controllers.batch import BatchController, lock
from pileus.services.network.controllers.hold import give
from pileus.services.network.controllers.state import remotes_of
from pileus.services.network.resources.draft import OURS, load
from pileus.services.network.resources.hold import Hold
from pileus.services.network.resources.port.table import TOPIC, port
from pileus.services.network.resources.standard_attribute import every
from pileus.services.network.rules import spec

_BOUND = (port.c.host_id.is_not(None), port.c.device_owner.not_in(OURS))
_THOSE_BOUND = sa.select(port).where(port.c.id.in_(many("ids")), *_BOUND)


class PortController(BatchController):
    """Looks at ports. What it costs grows with the ports that changed, not with those beside them."""

    name = "network.port"
    topics = frozenset({TOPIC})

    def keys(self, tx: Tx) -> Iterable[str]:
        """All ports that are bound, or held by a host."""
        bound = {row.id for row in tx.all(sa.select(port.c.id).where(*_BOUND))}
        return bound | {object_id for object_id, _ in fleet.assigned(tx, "port")}

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Give ports to the hosts to which they are bound, and take them from others."""
        lock(tx, port, keys)
        ports = load(tx, every(tx, _THOSE_BOUND, {"ids": keys}))
        named = remotes_of(tx, {group_id for one in ports for group_id in one.groups})
        holds: set[Hold] = set()
        specs = []
        for one in ports:
            host_id = one.row["host_id"]
            groups = set(one.groups).union(*(named.get(group_id, ()) for group_id in one.groups))
            holds.add(Hold("network", one.row["network_id"], host_id))
            holds |= {Hold("security_group", group_id, host_id) for group_id in groups}
            given = [spec.Held(*each) for each in one.addresses]
            specs.append(fleet.Spec(host_id, "port", one.row["id"], spec.port_spec(one.row, given, one.groups)))
        give(tx, holds)
        fleet.assign(tx, specs)
        self._take(tx, keys, {one.row["id"]: one.row["host_id"] for one in ports})
        return {}

    def _take(self, tx: Tx, keys: Sequence[str], bound: Mapping[str, str]) -> None:
        stale: dict[str, list[str]] = {}
        for key, entries in fleet.observed(tx, "port", keys).items():
            for one in entries:
                if not one.tombstone and bound.get(key) != one.host_id:
                    stale.setdefault(one.host_id, []).append(key)
        for host_id, ids in sorted(stale.items()):
            fleet.tombstone(tx, "port", ids, host_id)

"""Routers: each is on one host, which it keeps, together with the networks of all its legs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from pileus.core.reconcile import Again, Outcome
from pileus.core.statement import by
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.network.controllers.batch import BatchController, lock
from pileus.services.network.controllers.hold import give
from pileus.services.network.resources.draft import GATEWAY, LEG, Port, load
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.hold import Hold
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.router.table import TOPIC, router
from pileus.services.network.resources.standard_attribute import Row, every
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules import spec
from pileus.services.network.rules.gateway import Candidate, choose


class RouterController(BatchController):
    """Looks at routers: finds them a host, and tells it."""

    name = "network.router"
    topics = frozenset({TOPIC})

    def __init__(self, found: fleet.Fleet) -> None:
        self._fleet = found

    def keys(self, tx: Tx) -> Iterable[str]:
        """All routers that have a leg, or that a host holds."""
        query = sa.select(port.c.device_id).where(port.c.device_owner.in_((LEG, GATEWAY))).distinct()
        return {row.device_id for row in tx.all(query)} | {one for one, _ in fleet.assigned(tx, "router")}

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Place routers that have no host, write their specs, and let go of those that have no legs."""
        lock(tx, router, keys)
        rows = every(tx, by(router, "id", "created_at", "id"), {"values": keys})
        query = sa.select(port).where(port.c.device_id.in_(keys), port.c.device_owner.in_((LEG, GATEWAY)))
        legs: dict[str, list[Port]] = {}
        for one in load(tx, every(tx, query.order_by(port.c.created_at, port.c.id))):
            legs.setdefault(one.row["device_id"], []).append(one)
        outcomes: dict[str, Outcome] = {}
        routed = [row for row in rows if row["id"] in legs]
        for row in routed:
            if row["host_id"] is None and not self._place(tx, row, legs[row["id"]]):
                outcomes[row["id"]] = Again(2.0)
        placed = [row for row in routed if row["host_id"] is not None]
        self._follow(tx, placed, legs)
        give(
            tx,
            {Hold("network", leg.row["network_id"], row["host_id"]) for row in placed for leg in legs[row["id"]]},
        )
        fleet.assign(tx, _specs(tx, placed, legs))
        gone = set(keys) - {row["id"] for row in routed}
        if gone:
            fleet.tombstone(tx, "router", gone)
        return outcomes

    def _place(self, tx: Tx, row: Row, legs: Sequence[Port]) -> bool:
        """Find a host for a router; whether there is one."""
        hosts = [one for one in fleet.hosts(tx, self._fleet) if one.up and not one.disabled]
        counted = (
            sa.select(port.c.host_id, sa.func.count().label("amount"))
            .where(port.c.network_id.in_({leg.row["network_id"] for leg in legs}), port.c.host_id.is_not(None))
            .group_by(port.c.host_id)
        )
        routers = Counter(
            one.host_id for one in tx.all(sa.select(router.c.host_id).where(router.c.host_id.is_not(None)))
        )
        found = choose(
            [Candidate(one.id, one.name) for one in hosts],
            {one.host_id: one.amount for one in tx.all(counted)},
            routers,
        )
        if found is None:
            return False
        tx.compare_and_set(router, {"id": row["id"], "host_id": None}, {"host_id": found.id})
        row["host_id"] = found.id
        return True

    def _follow(self, tx: Tx, rows: Sequence[Row], legs: Mapping[str, Sequence[Port]]) -> None:
        """Bind legs to the hosts of their routers."""
        away = [
            (leg.row["id"], row["host_id"])
            for row in rows
            for leg in legs[row["id"]]
            if leg.row["host_id"] != row["host_id"] or not leg.row["binding_host"]
        ]
        if not away:
            return
        names = {one.id: one.name for one in fleet.hosts(tx, self._fleet, {host_id for _, host_id in away})}
        for host_id in sorted({host_id for _, host_id in away}):
            ids = [port_id for port_id, wanted in away if wanted == host_id]
            values = {"host_id": host_id, "binding_host": names.get(host_id, host_id)}
            tx.execute(sa.update(port).where(port.c.id.in_(ids)).values(values))


def _specs(tx: Tx, rows: Sequence[Row], legs: Mapping[str, Sequence[Port]]) -> list[fleet.Spec]:
    if not rows:
        return []
    own = [leg for row in rows for leg in legs[row["id"]]]
    network_ids = {leg.row["network_id"] for leg in own}
    mtus = {
        row.id: row.mtu for row in tx.all(sa.select(network.c.id, network.c.mtu).where(network.c.id.in_(network_ids)))
    }
    subnet_ids = {each.subnet_id for leg in own for each in leg.addresses}
    subnets = {row["id"]: row for row in every(tx, by(subnet, "id"), {"values": subnet_ids})}
    floating: dict[str, list[Row]] = {}
    query = sa.select(floatingip).where(floatingip.c.router_id.in_([row["id"] for row in rows]))
    for one in every(tx, query.order_by(floatingip.c.created_at, floatingip.c.id)):
        floating.setdefault(one["router_id"], []).append(one)
    found = []
    for row in rows:
        inner, outer, beyond = [], None, []
        for leg in legs[row["id"]]:
            given = [spec.Held(*each) for each in leg.addresses]
            one_spec = spec.leg_spec(leg.row, given, subnets, mtus[leg.row["network_id"]])
            if leg.row["device_owner"] == GATEWAY:
                outer, beyond = one_spec, [subnets[each.subnet_id] for each in leg.addresses]
            else:
                inner.append(one_spec)
        wanted = spec.router_spec(row, inner, outer, beyond, floating.get(row["id"], ()))
        found.append(fleet.Spec(row["host_id"], "router", row["id"], wanted))
    return found

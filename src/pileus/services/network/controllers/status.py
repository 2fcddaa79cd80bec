"""Statuses: what hosts say of ports, networks and routers is folded into what the API shows."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from pileus.core.reconcile import Outcome
from pileus.core.statement import by, many
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.network.controllers.batch import BatchController, lock
from pileus.services.network.resources.draft import DHCP, GATEWAY, LEG, OURS
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.router.table import router
from pileus.services.network.resources.standard_attribute import Row, every
from pileus.services.network.rules.status import Seen, floatingip_status, port_status, router_status


def _seen(entries: Iterable[fleet.Observed], host_id: str | None) -> Seen | None:
    """What a host said; of a host of None: what the first host that has it ready said."""
    known = [one for one in entries if one.state and not one.tombstone and host_id in (None, one.host_id)]
    known.sort(key=lambda one: one.state != "ready")
    return Seen(known[0].state, known[0].current, known[0].permanent) if known else None


_GUESTS = sa.select(port).where(port.c.id.in_(many("ids")), port.c.device_owner.not_in(OURS))


@functools.cache
def _setting(table: sa.Table) -> sa.Update:
    return sa.update(table).where(table.c.id.in_(many("ids"))).values(status=sa.bindparam("status"))


def _write(tx: Tx, table: sa.Table, rows: Iterable[tuple[Row, str]]) -> None:
    """Write the statuses that are not what they were, and tell."""
    by_status: dict[str, list[str]] = {}
    for row, status in rows:
        if row["status"] != status:
            by_status.setdefault(status, []).append(row["id"])
    for status, ids in sorted(by_status.items()):
        tx.execute(_setting(table), {"ids": ids, "status": status})
        for one in ids:
            tx.changed(f"{table.name.replace('_', '.', 1)}.status", one)


class PortStatus(BatchController):
    """The statuses of guests' ports."""

    name = "network.port.status"
    topics = frozenset({"fleet.port"})

    def keys(self, tx: Tx) -> Iterable[str]:
        """All ports that are bound."""
        query = sa.select(port.c.id).where(port.c.host_id.is_not(None), port.c.device_owner.not_in(OURS))
        return [row.id for row in tx.all(query)]

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Fold what hosts say of ports."""
        lock(tx, port, keys)
        seen = fleet.observed(tx, "port", keys)
        rows = every(tx, _GUESTS, {"ids": keys})
        statuses = []
        for row in rows:
            bound = row["host_id"] is not None
            said = _seen(seen.get(row["id"], ()), row["host_id"]) if bound else None
            statuses.append((row, port_status(admin_state_up=row["admin_state_up"], bound=bound, seen=said)))
        _write(tx, port, statuses)
        return {}


class RouterStatus(BatchController):
    """The statuses of routers, of their legs, and of the floating IPs that lead through them."""

    name = "network.router.status"
    topics = frozenset({"fleet.router"})

    def keys(self, tx: Tx) -> Iterable[str]:
        """All routers that have a host."""
        return [row.id for row in tx.all(sa.select(router.c.id).where(router.c.host_id.is_not(None)))]

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Fold what hosts say of routers."""
        lock(tx, router, keys)
        seen = fleet.observed(tx, "router", keys)
        rows = every(tx, by(router, "id"), {"values": keys})
        legs = every(tx, sa.select(port).where(port.c.device_id.in_(keys), port.c.device_owner.in_((LEG, GATEWAY))))
        through = sa.select(floatingip).where(floatingip.c.router_id.in_(keys)).order_by(floatingip.c.id)
        floating = every(tx, through.with_for_update(key_share=True))
        said = {row["id"]: _seen(seen.get(row["id"], ()), row["host_id"] or "") for row in rows}
        up = {row["id"]: row["admin_state_up"] for row in rows}
        routed = {leg["device_id"] for leg in legs}
        for row in rows:
            key = row["id"]
            _write(tx, router, [(row, router_status(admin_state_up=up[key], legs=key in routed, seen=said[key]))])
        for leg in legs:
            key = leg["device_id"]
            # A leg of a router that is switched off is in place all the same: only the router is DOWN.
            bound = leg["host_id"] is not None
            status = port_status(admin_state_up=leg["admin_state_up"], bound=bound, seen=said.get(key))
            _write(tx, port, [(leg, status)])
        for row in floating:
            known = said.get(row["router_id"])
            _write(tx, floatingip, [(row, floatingip_status(before=row["status"], associated=True, seen=known))])
        return {}


class DhcpStatus(BatchController):
    """The statuses of DHCP ports: ACTIVE when a host has the network ready."""

    name = "network.dhcp.status"
    topics = frozenset({"fleet.network"})

    def keys(self, tx: Tx) -> Iterable[str]:
        """All networks that hosts hold."""
        return {object_id for object_id, _ in fleet.assigned(tx, "network")}

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Fold what hosts say of networks."""
        query = sa.select(port).where(port.c.network_id.in_(keys), port.c.device_owner == DHCP).order_by(port.c.id)
        rows = every(tx, query.with_for_update(key_share=True))
        seen = fleet.observed(tx, "network", keys)
        statuses = []
        for row in rows:
            said = _seen(seen.get(row["network_id"], ()), None)
            statuses.append((row, port_status(admin_state_up=row["admin_state_up"], bound=said is not None, seen=said)))
        _write(tx, port, statuses)
        return {}

"""Holds: a host gets a network or a security group when a port there needs it, and lets it go when none does.

A network is needed where one of its ports is bound: a guest's, or a router's leg.  A security group is needed where a
bound port is in it, or in a group whose rules name it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa

from pileus.core.reconcile import Outcome
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.network.controllers.batch import BatchController, lock
from pileus.services.network.controllers.state import group_specs, network_specs
from pileus.services.network.resources import hold
from pileus.services.network.resources.hold import Hold
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import port, port_group
from pileus.services.network.resources.security_group.table import group, rule


def _needed(tx: Tx, holds: Sequence[Hold]) -> set[Hold]:
    """Those of the holds that a port on their host needs: one query, a look into an index for each hold."""
    if not holds:
        return set()
    conditions: list[sa.ColumnElement[bool]] = []
    for one in holds:
        if one.kind == "network":
            conditions.append(sa.exists().where(port.c.network_id == one.id, port.c.host_id == one.host_id))
        else:
            here = sa.select(port_group.c.group_id).join(port, port.c.id == port_group.c.port_id)
            direct = here.where(port_group.c.group_id == one.id, port.c.host_id == one.host_id)
            named = here.join(rule, rule.c.group_id == port_group.c.group_id).where(
                rule.c.remote_group_id == one.id, port.c.host_id == one.host_id
            )
            conditions.append(sa.or_(direct.exists(), named.exists()))
    row = tx.first(sa.select(*(one.label(f"n{place}") for place, one in enumerate(conditions))))
    return set() if row is None else {one for one, yes in zip(holds, row, strict=True) if yes}


def _held(tx: Tx, holds: Iterable[Hold]) -> set[Hold]:
    """Those of the holds that are told to their hosts already."""
    wanted = set(holds)
    found: set[Hold] = set()
    for kind in ("network", "security_group"):
        of_kind = [one for one in wanted if one.kind == kind]
        ids, hosts = {one.id for one in of_kind}, {one.host_id for one in of_kind}
        for object_id, entries in fleet.observed(tx, kind, ids, hosts).items():
            found |= {Hold(kind, object_id, one.host_id) for one in entries if not one.tombstone}
    return found & wanted


def _lock(tx: Tx, holds: Collection[Hold]) -> None:
    lock(tx, network, {one.id for one in holds if one.kind == "network"})
    lock(tx, group, {one.id for one in holds if one.kind == "security_group"})


def give(tx: Tx, holds: Collection[Hold]) -> None:
    """Let hosts hold what they need and have not got. What they have is kept new by its own loop.

    That loop locks what it tells of, as this does: a change at the same time is either read here, or the loop comes
    after this and finds the host that is to be told.  So the other hosts are not looked at because one more has it.
    Whether it is still needed is looked at once more afterwards.
    """
    missing = set(holds) - _held(tx, holds)
    if not missing:
        return
    _lock(tx, missing)
    missing -= _held(tx, missing)
    nets = network_specs(tx, {one.id for one in missing if one.kind == "network"})
    groups = group_specs(tx, {one.id for one in missing if one.kind == "security_group"})
    specs = []
    for one in sorted(missing):
        found = nets.get(one.id) if one.kind == "network" else groups.get(one.id)
        if found is not None:
            specs.append(fleet.Spec(one.host_id, one.kind, one.id, found))
            tx.changed(hold.TOPIC, str(one))
    fleet.assign(tx, specs)


def take(tx: Tx, holds: Collection[Hold]) -> None:
    """Let hosts let go of what they hold and do not need; its rows are locked.

    Each is looked at once more afterwards: a port that was bound at the same time saw its host hold it still.
    """
    by_host: dict[tuple[str, str], list[Hold]] = {}
    for one in _held(tx, holds):
        by_host.setdefault((one.host_id, one.kind), []).append(one)
    for (host_id, _), leaving in sorted(by_host.items()):
        fleet.tombstone(tx, leaving[0].kind, sorted(one.id for one in leaving), host_id)
        for one in leaving:
            tx.changed(hold.TOPIC, str(one))


class HoldController(BatchController):
    """Looks at single holds."""

    name = "network.hold"
    topics = frozenset({hold.TOPIC})

    def keys(self, tx: Tx) -> Iterable[str]:
        """What hosts hold."""
        for kind in ("network", "security_group"):
            for object_id, host_id in fleet.assigned(tx, kind):
                yield str(Hold(kind, object_id, host_id))

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Give what is needed, take what is not."""
        holds = [hold.parse(key) for key in keys]
        _lock(tx, holds)
        needed = _needed(tx, holds)
        give(tx, needed)
        take(tx, set(holds) - needed)
        return {}

"""Security groups: each host that holds one is told when its rules change, or its members where a rule names it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.reconcile import Again, Outcome
from pileus.core.statement import many
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.network.controllers.batch import BatchController, lock
from pileus.services.network.controllers.hold import give, take
from pileus.services.network.controllers.state import group_specs, remotes_among, remotes_of
from pileus.services.network.resources.hold import Hold
from pileus.services.network.resources.port.table import port, port_group
from pileus.services.network.resources.security_group.table import MEMBER, TOPIC, group, rule

_DIRECT = (
    sa.select(port_group.c.group_id, port.c.host_id)
    .join(port, port.c.id == port_group.c.port_id)
    .where(port.c.host_id.is_not(None), port_group.c.group_id.in_(many("ids")))
    .distinct()
)
_THROUGH = (
    sa.select(rule.c.remote_group_id, port.c.host_id)
    .join(port_group, port_group.c.group_id == rule.c.group_id)
    .join(port, port.c.id == port_group.c.port_id)
    .where(rule.c.remote_group_id.in_(many("ids")), port.c.host_id.is_not(None))
    .distinct()
)

FEW = 50
"""Hosts that are told of each change of a group's members at once."""
SHARE = 0.01
"""Seconds for which each further host lets the group rest: several times what it takes to tell the host."""


def _hosts(tx: Tx, ids: Collection[str]) -> tuple[set[Hold], set[Hold]]:
    """Where groups are needed: because bound ports are in them, and because these ports' groups name them."""
    given = {"ids": ids}
    return _holds(tx.all(_DIRECT, given)), _holds(tx.all(_THROUGH, given))


def _holds(rows: Iterable[Sequence[Any]]) -> set[Hold]:
    return {Hold("security_group", row[0], row[1]) for row in rows}


def _tell(tx: Tx, ids: Collection[str]) -> dict[str, int]:
    """Write the specs of groups to the hosts that hold them; how many those are, by group."""
    held = fleet.observed(tx, "security_group", ids)
    specs = group_specs(tx, held.keys())
    fleet.assign(
        tx,
        [
            fleet.Spec(one.host_id, "security_group", key, specs[key])
            for key, entries in held.items()
            if key in specs
            for one in entries
            if not one.tombstone
        ],
    )
    gone = held.keys() - specs.keys()
    if gone:
        fleet.tombstone(tx, "security_group", gone)
    return {key: len(entries) for key, entries in held.items()}


class GroupController(BatchController):
    """Looks at groups whose rules changed: who must hold them, and the groups that they name."""

    name = "network.security_group"
    topics = frozenset({TOPIC})

    def keys(self, tx: Tx) -> Iterable[str]:
        """All groups that hosts hold."""
        return {object_id for object_id, _ in fleet.assigned(tx, "security_group")}

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Write the specs of groups, give them to hosts that need them now, take them from those that do not."""
        concerned = set(keys).union(*remotes_of(tx, keys).values())
        lock(tx, group, concerned)
        direct, through = _hosts(tx, keys)
        named = remotes_of(tx, {one.id for one in direct})
        beside = {Hold("security_group", other, one.host_id) for one in direct for other in named.get(one.id, ())}
        give(tx, direct | through | beside)
        _tell(tx, concerned)  # a group that a rule begins to name has more to say
        entries = fleet.observed(tx, "security_group", keys)
        held = {Hold("security_group", key, one.host_id) for key, each in entries.items() for one in each}
        take(tx, held - direct - through)
        return {}


class MemberController(BatchController):
    """Looks at groups whose members changed: only those that a rule names have more to say than their rules.

    Each change of members is told to all hosts of the group.  Where they are many, and so are the changes, a group that
    was told rests for a time that grows with its hosts: what changes meanwhile is told at once after it.
    """

    name = "network.security_group_member"
    topics = frozenset({MEMBER})

    def __init__(self) -> None:
        self._resting: dict[str, float] = {}
        """Groups that were told, and until when they rest."""

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Write the specs of groups."""
        now = tx.seams.clock.monotonic()
        resting = {key: Again(end - now) for key in keys if (end := self._resting.get(key, now)) > now}
        due = [key for key in keys if key not in resting]
        lock(tx, group, due)
        told = _tell(tx, remotes_among(tx, due))
        self._resting = {key: end for key, end in self._resting.items() if end > now}
        self._resting |= {key: now + rest(hosts) for key, hosts in told.items() if hosts > FEW}
        return resting


def rest(hosts: int) -> float:
    """How many seconds a group rests that so many hosts were told of."""
    return max(0, hosts - FEW) * SHARE

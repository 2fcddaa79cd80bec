"""Giving servers hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.reconcile import Again, Outcome
from pileus.core.statement import many
from pileus.core.store import Store, Tx
from pileus.services.compute.controllers.batch import together
from pileus.services.compute.controllers.writer import write
from pileus.services.compute.resources import server_group
from pileus.services.compute.resources.board import Board
from pileus.services.compute.resources.server.operations.companion import NOBODY, Companions, companions
from pileus.services.compute.resources.server.operations.explain import wish
from pileus.services.compute.resources.server.operations.transition import fault
from pileus.services.compute.resources.server.table import decision, finish_actions, place_actions, server, set_each
from pileus.services.compute.rules import placing
from pileus.services.compute.rules.group import Group
from pileus.services.compute.rules.ranking import Ranks
from pileus.services.fleet import interface as fleet
from pileus.services.network import interface as network
from pileus.services.placement import interface as placement

PATIENCE = timedelta(seconds=30)
"""How long a server waits for hosts that are not heard of, after it was created or the control plane was started."""

_WAITING = (
    server.c.host_id.is_(None),
    server.c.deleting_at.is_(None),
    server.c.error.is_(False),
    sa.or_(server.c.mode == "", server.c.task == "unshelving"),
)
_THOSE_WAITING = (
    sa.select(server).where(server.c.id.in_(many("ids")), *_WAITING).order_by(server.c.created_at, server.c.id)
)
_STILL_WAITING = (
    sa.select(server.c.id).where(server.c.id.in_(many("ids")), *_WAITING).order_by(server.c.id).with_for_update()
)
_FORGET = sa.delete(decision).where(decision.c.server_id.in_(many("ids")))
_NO_HOST = "No valid host was found. There are not enough hosts available."


class _View(NamedTuple):
    """What a decision is made of."""

    waiting: Sequence[sa.Row[Any]]
    ranks: Ranks
    groups: Mapping[str, Group]
    """By server, for those that are in one."""
    company: Mapping[str, Companions]
    """By server, for those whose users gave hints."""


class Scheduler:
    """Takes waiting servers in batches, ranks hosts on a snapshot, and claims in one short transaction."""

    name = "compute.scheduler"
    topics = frozenset({"compute.waiting"})
    interval = 10.0
    batch = 64
    parallel = 1

    def __init__(self, hosts: fleet.Fleet) -> None:
        self._board = Board(hosts)
        self._started: datetime | None = None

    def keys(self, tx: Tx) -> Iterable[str]:
        """Servers that wait for a host."""
        return [row.id for row in tx.all(sa.select(server.c.id).where(*_WAITING))]

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Decide on all of them, and claim what was decided. A key whose claim lost a race comes again at once."""
        return await together(self.name, keys, lambda some: self._decide(store, some))

    async def _decide(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        now = store.seams.clock.now()
        started = self._started = self._started or now
        seen = await store.read(lambda tx: self._look(store, tx, keys))
        if not seen.waiting:
            return {}
        wishes = [wish(row, seen.groups.get(row.id), seen.company.get(row.id, NOBODY)) for row in seen.waiting]
        decisions = seen.ranks.decide_all(wishes)
        rows = {row.id: row for row in seen.waiting}
        placed = [one for one in decisions if one.host is not None]
        lost = [one for one in decisions if one.host is None]
        outcomes: dict[str, Outcome] = {}
        hopeless = []
        for one in lost:
            young = now - max(rows[one.server_id].created_at, started) < PATIENCE
            if young and (not seen.ranks.hosts or one.counts.get("up") or _unknown(seen.ranks.hosts.values())):
                outcomes[one.server_id] = Again(0.5)
            else:
                hopeless.append(one)
        if placed or hopeless:
            raced = await store.write(lambda tx: _settle(tx, rows, placed, hopeless))
            outcomes |= dict.fromkeys(raced, Again(0.01))
        return outcomes

    def _look(self, store: Store, tx: Tx, keys: Sequence[str]) -> _View:
        rows = tx.all(_THOSE_WAITING, {"ids": keys})
        if not rows:
            return _View(rows, self._board.ranks, {}, {})
        groups = server_group.placed(tx, [row.id for row in rows])
        return _View(rows, self._board.look(store, tx), groups, companions(tx, rows))


def _unknown(hosts: Iterable[placing.Host]) -> bool:
    """Whether a host's inventory has not come in yet."""
    return any(not host.stock for host in hosts)


def _settle(
    tx: Tx,
    rows: Mapping[str, sa.Row[Any]],
    placed: Sequence[placing.Decision],
    hopeless: Sequence[placing.Decision],
) -> list[str]:
    """Write hosts and allocations together; those servers that lost a race."""
    ids = [one.server_id for one in (*placed, *hopeless)]
    still = {row.id for row in tx.all(_STILL_WAITING, {"ids": ids})}
    placed = [one for one in placed if one.server_id in still]
    apart = _against_groups(tx, placed)
    placed = [one for one in placed if one.server_id not in apart]
    claims = [_claim(rows[one.server_id], one) for one in placed]
    raced = placement.claim_many(tx, claims) if claims else {}
    taken = [one for one in placed if one.server_id not in raced]
    if taken:
        _place(tx, rows, taken)
    for one in hopeless:
        if one.server_id in still:
            _give_up(tx, rows[one.server_id], one)
    _remember(tx, [*taken, *(one for one in hopeless if one.server_id in still)])
    return [*raced, *apart]


def _against_groups(tx: Tx, placed: Sequence[placing.Decision]) -> set[str]:
    """Servers whose group does not allow their host any more, since another process placed members meanwhile."""
    groups = server_group.placed(tx, [one.server_id for one in placed], lock=True)
    refused = set()
    for one in placed:
        group = groups.get(one.server_id)
        if group is None or one.host is None:
            continue
        if group.objection(one.host.name) is None:
            joined = group.joined(one.host.name)
            groups = {key: joined if other.id == group.id else other for key, other in groups.items()}
        else:
            refused.add(one.server_id)
    return refused


def _claim(row: sa.Row[Any], one: placing.Decision) -> placement.Claim:
    host = one.host
    assert host is not None  # noqa: S101 - only decisions for a host are claimed
    amounts = placing.resources(row.flavor, row.image.get("virtual_size"))
    return placement.Claim(
        consumer_uuid=row.id,
        provider_uuid=host.id,
        resources={name: amount for name, amount in amounts.items() if amount},
        project_id=row.project_id,
        user_id=row.user_id,
        generation=host.generation,
    )


def _place(tx: Tx, rows: Mapping[str, sa.Row[Any]], taken: Sequence[placing.Decision]) -> None:
    by_host: dict[str, list[str]] = {}
    changes = {}
    for one in taken:
        if one.host is not None:
            by_host.setdefault(one.host.id, []).append(one.server_id)
            task = "spawning" if rows[one.server_id].task == "unshelving" else None
            place = {"host_id": one.host.id, "host": one.host.name}
            changes[one.server_id] = {**place, "task": task, "updated_at": tx.now}
    set_each(tx, changes)
    place_actions(tx, list(changes))
    for host_id, ids in sorted(by_host.items()):
        network.bind_ports(tx, ids, host_id)
    # The timer of the writer would do the same; here it spares the servers a turn of the loops.
    write(tx, [one.server_id for one in taken])
    for one in taken:
        tx.changed("compute.server", one.server_id)


def _give_up(tx: Tx, row: sa.Row[Any], one: placing.Decision) -> None:
    lines = [f"{host}: {reason}" for host, reason in sorted(one.refused.items())]
    values: dict[str, Any] = {"fault": fault(tx, "\n".join(lines) or "There are no hosts.", _NO_HOST)}
    # A shelved server stays shelved: there is nothing wrong with it but that nobody has room.
    values |= {"task": None, "power": "stopped"} if row.task == "unshelving" else {"error": True}
    tx.execute(sa.update(server).where(server.c.id == row.id).values(updated_at=tx.now, **values))
    finish_actions(tx, [row.id], "Error", _NO_HOST)
    tx.changed("compute.server", row.id)


def _remember(tx: Tx, decisions: Sequence[placing.Decision]) -> None:
    """Keep what explains the decisions: counts and the best few, and all reasons where no host was found."""
    if not decisions:
        return
    tx.execute(_FORGET, {"ids": [one.server_id for one in decisions]})
    tx.insert(
        decision,
        [
            {
                "server_id": one.server_id,
                "at": tx.now,
                "chosen": None if one.host is None else one.host.name,
                "counts": one.counts,
                "best": list(one.best),
                "hosts": dict(one.refused) if one.host is None else None,
            }
            for one in decisions
        ],
    )

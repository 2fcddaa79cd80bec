"""Folding what hosts report into servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.config import Config
from pileus.core.reconcile import Outcome
from pileus.core.statement import many
from pileus.core.store import Store, Tx
from pileus.services.compute.controllers.batch import together
from pileus.services.compute.resources.server.operations.ending import finish_deletions
from pileus.services.compute.resources.server.operations.transition import ended, failed, fault, write
from pileus.services.compute.resources.server.table import facts, finish_actions, server
from pileus.services.compute.rules.folding import Fold, Seen, Wanted, fold
from pileus.services.compute.rules.status import Facts, settled
from pileus.services.compute.rules.task import ENDS
from pileus.services.fleet import interface as fleet


class Folder:
    """Observes guests: power states, first launches, failures, guests that turned themselves off, ends."""

    name = "compute.folder"
    topics = frozenset({"fleet.guest", "compute.told"})
    interval = 15.0
    batch = 64
    parallel = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self._swept = False

    def keys(self, tx: Tx) -> Iterable[str]:
        """Servers on hosts that are not as wanted or have a task, and those that are being deleted.

        At the first time all servers on hosts: what hosts said while nobody listened is not in the rows.
        """
        open_ones = sa.or_(
            server.c.state != server.c.power,
            server.c.reboot_done < server.c.reboot_nonce,
            server.c.task.is_not(None),
        )
        settling = server.c.host_id.is_not(None) if not self._swept else open_ones & server.c.host_id.is_not(None)
        query = sa.select(server.c.id).where(
            server.c.deleted_at.is_(None), sa.or_(server.c.deleting_at.is_not(None), settling)
        )
        self._swept = True
        return [row.id for row in tx.all(query)]

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Fold all of them in one transaction."""

        async def work(some: Sequence[str]) -> Mapping[str, Outcome]:
            await store.write(lambda tx: fold_all(tx, some, self._config))
            return {}

        return await together(self.name, keys, work)


def _seen(row: sa.Row[Any], entries: Sequence[fleet.Observed]) -> Seen | None:
    for one in entries:
        if one.host_id == row.host_id and not one.tombstone:
            return Seen(one.state, one.current, one.detail, one.permanent, one.reboot_nonce, one.acts, one.faults)
    return None


def _wanted(row: sa.Row[Any]) -> Wanted:
    return Wanted(
        power=row.power,
        launched=row.launched_at is not None,
        state=row.state,
        reboot_done=row.reboot_done,
        error=row.error,
        reboot_nonce=row.reboot_nonce,
        told=row.written == row.revision,
        task=row.task,
        acts=row.acts,
        acts_done=row.acts_done,
    )


_THOSE = (
    sa.select(server)
    .where(server.c.id.in_(many("ids")), server.c.deleted_at.is_(None))
    .order_by(server.c.id)
    .with_for_update()
)


def fold_all(tx: Tx, ids: Sequence[str], config: Config) -> None:
    """Fold what is known of these guests into their servers, and end those that no host holds any more."""
    rows = tx.all(_THOSE, {"ids": ids})
    leaving = [row.id for row in rows if row.deleting_at is not None]
    if leaving:
        finish_deletions(tx, leaving)
    staying = [row for row in rows if row.deleting_at is None and row.host_id is not None]
    observed = fleet.observed(tx, "guest", [row.id for row in staying])
    done: list[str] = []
    for row in staying:
        entries = observed.get(row.id, ())
        if row.task == "shelving_offloading":
            if not entries:
                write(tx, row, ended(tx, row, config))
                done.append(row.id)
            continue
        seen = _seen(row, entries)
        if seen is None:
            continue
        found = fold(_wanted(row), seen)
        known = _apply(tx, row, found, config)
        acts = found.changes.get("acts_done", row.acts_done)
        if settled(known) and not known.error and all(acts.get(name, 0) >= nonce for name, nonce in row.acts.items()):
            done.append(row.id)
    if done:
        finish_actions(tx, done, "Success")


def _apply(tx: Tx, row: sa.Row[Any], found: Fold, config: Config) -> Facts:
    """Write what was folded; the facts from now on."""
    values: dict[str, Any] = dict(found.changes)
    if found.launched:
        values["launched_at"] = tx.now
    if found.stopped_itself:
        values["power"] = "stopped"
    reason = found.failed or "; ".join(found.faults.values())
    if reason and row.task is not None and (found.failed is not None or ENDS[row.task].waits == "acts"):
        finish_actions(tx, [row.id], "Error", reason)
        values |= failed(tx, row, config, reason)
    elif found.failed is not None:
        finish_actions(tx, [row.id], "Error", found.failed)
        values |= {"error": True, "fault": fault(tx, found.failed)}
    elif found.arrived:
        values |= ended(tx, row, config)
    elif reason:
        finish_actions(tx, [row.id], "Error", reason)
    write(tx, row, values)
    return after(facts(row), row, values)


def after(known: Facts, row: sa.Row[Any], values: Mapping[str, Any]) -> Facts:
    """The facts of a row once these of its columns are written."""
    nonce, done = values.get("reboot_nonce", row.reboot_nonce), values.get("reboot_done", row.reboot_done)
    return known._replace(
        error=values.get("error", known.error),
        placed=values.get("host_id", row.host_id) is not None,
        launched=known.launched or values.get("launched_at") is not None,
        power=values.get("power", known.power),
        state=values.get("state", known.state),
        reboot=values.get("reboot_kind", row.reboot_kind) if nonce > done else "",
        mode=values.get("mode", known.mode),
        task=values.get("task", known.task),
    )

"""Folding what hosts report into servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.reconcile import Outcome
from pileus.core.store import Store, Tx
from pileus.services.compute.controllers.batch import together
from pileus.services.compute.resources.server.operations.ending import finish_deletions
from pileus.services.compute.resources.server.table import facts, finish_actions, server
from pileus.services.compute.rules.folding import Fold, Seen, Wanted, fold
from pileus.services.compute.rules.shape import instant
from pileus.services.compute.rules.status import Facts, settled
from pileus.services.fleet import interface as fleet


class Folder:
    """Observes guests: power states, first launches, failures, guests that turned themselves off, ends."""

    name = "compute.folder"
    topics = frozenset({"fleet.guest"})
    interval = 15.0
    batch = 64
    parallel = 1

    def __init__(self) -> None:
        self._swept = False

    def keys(self, tx: Tx) -> Iterable[str]:
        """Servers on hosts that are not as wanted, and those that are being deleted.

        At the first time all servers on hosts: what hosts said while nobody listened is not in the rows.
        """
        open_ones = sa.or_(server.c.state != server.c.power, server.c.reboot_done < server.c.reboot_nonce)
        settling = server.c.host_id.is_not(None) if not self._swept else open_ones & server.c.host_id.is_not(None)
        query = sa.select(server.c.id).where(
            server.c.deleted_at.is_(None), sa.or_(server.c.deleting_at.is_not(None), settling)
        )
        self._swept = True
        return [row.id for row in tx.all(query)]

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Fold all of them in one transaction."""

        async def work(some: Sequence[str]) -> Mapping[str, Outcome]:
            await store.write(lambda tx: fold_all(tx, some))
            return {}

        return await together(self.name, keys, work)


def _seen(row: sa.Row[Any], entries: Sequence[fleet.Observed]) -> Seen | None:
    for one in entries:
        if one.host_id == row.host_id and not one.tombstone:
            return Seen(one.state, one.current, one.detail, one.permanent, one.reboot_nonce)
    return None


def fold_all(tx: Tx, ids: Sequence[str]) -> None:
    """Fold what is known of these guests into their servers, and end those that no host holds any more."""
    query = sa.select(server).where(server.c.id.in_(ids), server.c.deleted_at.is_(None)).order_by(server.c.id)
    rows = tx.all(query.with_for_update())
    leaving = [row.id for row in rows if row.deleting_at is not None]
    if leaving:
        finish_deletions(tx, leaving)
    staying = [row for row in rows if row.deleting_at is None and row.host_id is not None]
    observed = fleet.observed(tx, "guest", [row.id for row in staying])
    done: list[str] = []
    for row in staying:
        seen = _seen(row, observed.get(row.id, ()))
        if seen is None:
            continue
        wanted = Wanted(row.power, row.launched_at is not None, row.state, row.reboot_done, row.error)
        after = _apply(tx, row, fold(wanted, seen))
        if settled(after) and not after.error:
            done.append(row.id)
    if done:
        finish_actions(tx, done, "Success")


def _apply(tx: Tx, row: sa.Row[Any], found: Fold) -> Facts:
    """Write what was folded; the facts from now on."""
    values: dict[str, Any] = dict(found.changes)
    if found.launched:
        values["launched_at"] = tx.now
    if found.stopped_itself:
        values |= {"power": "stopped", "revision": row.revision + 1}
        tx.changed("compute.intent", row.id)
    if found.failed is not None:
        values["error"] = True
        values["fault"] = {
            "code": 500,
            "message": "The host could not make the guest as it is wanted.",
            "details": found.failed,
            "created": instant(tx.now),
        }
        finish_actions(tx, [row.id], "Error", found.failed)
    known = facts(row)
    if not values:
        return known
    tx.execute(sa.update(server).where(server.c.id == row.id).values(updated_at=tx.now, **values))
    tx.changed("compute.server", row.id)
    done = values.get("reboot_done", row.reboot_done)
    return known._replace(
        error=values.get("error", known.error),
        launched=known.launched or found.launched,
        power=values.get("power", known.power),
        state=values.get("state", known.state),
        reboot=row.reboot_kind if row.reboot_nonce > done else "",
    )

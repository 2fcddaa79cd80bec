"""The end of servers: giving back what they had once no host holds them any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.operations import snapshot
from pileus.services.compute.resources.server.operations.transition import forget
from pileus.services.compute.resources.server.table import finish_actions, server, want
from pileus.services.compute.rules import holding
from pileus.services.fleet import interface as fleet
from pileus.services.network import interface as network
from pileus.services.placement import interface as placement


def begin_deletion(tx: Tx, row: sa.Row[Any]) -> None:
    """Let a server go, whatever is under way: at once when no host holds it, else when its host has let go of it."""
    want(tx, row, deleting_at=tx.now)
    # After the row is ours: the writer that would assign the guest has lost its race by now, or has done it.
    snapshot.give_up(tx, [row.id])
    fleet.tombstone(tx, "guest", [row.id])


def finish_deletions(tx: Tx, ids: Collection[str]) -> list[str]:
    """End those of the servers that are being deleted and that no host holds: ports, allocations and quota are free.

    The ids of those that ended.  A host that does not answer keeps its server in deletion: the guest may still run.
    """
    held = fleet.observed(tx, "guest", ids)
    query = sa.select(server).where(
        server.c.id.in_(ids), server.c.deleting_at.is_not(None), server.c.deleted_at.is_(None)
    )
    rows = [row for row in tx.all(query.order_by(server.c.id).with_for_update()) if row.id not in held]
    if not rows:
        return []
    ended = [row.id for row in rows]
    amounts: dict[str, Counter[str]] = {}
    for row in rows:
        forget(tx, row)
        if holding.counted(row.mode, row.task):
            amounts.setdefault(row.project_id, Counter()).update(holding.quota(row.flavor, row.previous))
    for project_id, total in sorted(amounts.items()):
        QUOTA.give_back(tx, project_id, total)
    network.release_ports(tx, ended)
    placement.release_many(tx, ended)
    gone = {
        "deleted_at": tx.now,
        "updated_at": tx.now,
        "admin_pass": None,
        "user_data": None,
        "files": None,
        "sealed_pass": None,
        "previous": None,
        "shelf": None,
        "rescue": None,
    }
    tx.execute(sa.update(server).where(server.c.id.in_(ended)).values(gone))
    finish_actions(tx, ended, "Success")
    for one_id in ended:
        tx.changed("compute.server", one_id)
    return ended

"""The end of servers: giving back what they had once no host holds them any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.table import finish_actions, server
from pileus.services.fleet import interface as fleet
from pileus.services.network import interface as network
from pileus.services.placement import interface as placement


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
        one = {"instances": 1, "cores": row.flavor["vcpus"], "ram": row.flavor["ram"]}
        amounts.setdefault(row.project_id, Counter()).update(one)
    for project_id, total in sorted(amounts.items()):
        QUOTA.give_back(tx, project_id, total)
    network.release_ports(tx, ended)
    placement.release_many(tx, ended)
    gone = {"deleted_at": tx.now, "updated_at": tx.now, "admin_pass": None, "user_data": None}
    tx.execute(sa.update(server).where(server.c.id.in_(ended)).values(gone))
    finish_actions(tx, ended, "Success")
    for one_id in ended:
        tx.changed("compute.server", one_id)
    return ended

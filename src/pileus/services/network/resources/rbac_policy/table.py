"""The table of RBAC policies, and what it says of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.store import Tx, metadata
from pileus.services.network.resources import quota
from pileus.services.network.resources.standard_attribute import Row, columns, fresh

rbac_policy = sa.Table(
    "network_rbac_policy",
    metadata,
    *columns(),
    sa.Column("object_type", sa.String(64), nullable=False),
    sa.Column("object_id", sa.String(64), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("target", sa.String(255), nullable=False),
    sa.UniqueConstraint("object_id", "object_type", "action", "target"),
    sa.Index("ix_network_rbac_policy_target_object_id", "target", "object_id"),
)
"""`target` is a project, or `*` for all: then the network's own column says so too, and both change together."""

NETWORK, SHARED, EVERYBODY = "network", "access_as_shared", "*"


def granted(ctx: Context) -> sa.Select[tuple[str]]:
    """A query for the ids of networks that are shared with the caller's project by name."""
    c = rbac_policy.c
    return sa.select(c.object_id).where(
        c.target == (ctx.auth.project_id or ""), c.object_type == NETWORK, c.action == SHARED
    )


def shared_with(ctx: Context, rows: Sequence[Row]) -> list[Row]:
    """Networks as the caller's project has them: shared, too, where they are shared with it by name."""
    mine = ctx.auth.project_id
    unsure = [row["id"] for row in rows if not row["shared"] and row["project_id"] != mine]
    if not unsure or mine is None:
        return list(rows)
    found = {row.object_id for row in ctx.tx.all(granted(ctx).where(rbac_policy.c.object_id.in_(unsure)))}
    return [{**row, "shared": True} if row["id"] in found else row for row in rows]


def note_shared(tx: Tx, row: Row, *, shared: bool) -> None:
    """Let the policy that shares a network with everybody be there, or not, as the network says."""
    key: dict[str, Any] = {"object_type": NETWORK, "object_id": row["id"], "action": SHARED, "target": EVERYBODY}
    if shared:
        if tx.insert_missing(rbac_policy, {**fresh(tx, row["project_id"]), **key}, key=tuple(key)):
            quota.count(tx, row["project_id"], {"rbac_policy": 1})
    else:
        _drop(tx, *(rbac_policy.c[name] == value for name, value in key.items()))


def forget(tx: Tx, network_id: str) -> None:
    """Forget the policies of a network that goes."""
    _drop(tx, rbac_policy.c.object_id == network_id, rbac_policy.c.object_type == NETWORK)


def _drop(tx: Tx, *where: sa.ColumnElement[bool]) -> None:
    owners = [row.project_id for row in tx.all(sa.select(rbac_policy.c.project_id).where(*where))]
    tx.execute(sa.delete(rbac_policy).where(*where))
    for project_id in sorted(set(owners)):
        quota.give_back(tx, project_id, {"rbac_policy": owners.count(project_id)})

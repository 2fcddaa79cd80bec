"""Rows of trusts, and the chains that redelegation makes of them.

A trust that was deleted is kept, so that one can see later who had delegated what; its tokens are void.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pileus.core.errors import Forbidden
from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import missing
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules.redelegation import DEEPEST, Terms

table = sa.Table(
    "identity_trust",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("trustor_user_id", sa.String(64), sa.ForeignKey(users.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("trustee_user_id", sa.String(64), sa.ForeignKey(users.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("project_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE")),
    sa.Column("impersonation", sa.Boolean, nullable=False),
    sa.Column("role_ids", sa.JSON, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("remaining_uses", sa.Integer),
    sa.Column("redelegation_count", sa.Integer, nullable=False),
    sa.Column("redelegated_trust_id", sa.String(64), sa.ForeignKey("identity_trust.id", ondelete="CASCADE")),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
    sa.CheckConstraint("remaining_uses >= 0", name="uses"),
    sa.Index("ix_identity_trust_trustor_user_id", "trustor_user_id"),
    sa.Index("ix_identity_trust_trustee_user_id", "trustee_user_id"),
    sa.Index("ix_identity_trust_project_id", "project_id"),
    sa.Index("ix_identity_trust_redelegated_trust_id", "redelegated_trust_id"),
)

_BY_ID = sa.select(table).where(table.c.id == sa.bindparam("key"), table.c.deleted_at.is_(None))


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A trust that was not deleted, whether or not it can still be used."""
    return tx.execute(_BY_ID, {"key": key}).first()


def usable(row: sa.Row[Any], now: datetime) -> bool:
    """Whether a trust has neither ended nor been used up."""
    return bool((row.expires_at is None or row.expires_at > now) and row.remaining_uses != 0)


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A trust that can still be used. Raises NotFound."""
    row = find(tx, key)
    if row is None or not usable(row, tx.now):
        raise missing("trust", key)
    return row


def terms(row: sa.Row[Any]) -> Terms:
    """What a row delegates."""
    return Terms(
        project_id=row.project_id,
        role_ids=frozenset(row.role_ids),
        impersonation=row.impersonation,
        expires_at=row.expires_at,
        remaining_uses=row.remaining_uses,
        redelegation_count=row.redelegation_count,
    )


def chain(tx: Tx, row: sa.Row[Any]) -> list[sa.Row[Any]] | None:
    """A trust and those that it was made from, nearest first; None when one of them was deleted or has ended."""
    found = [row]
    while found[-1].redelegated_trust_id is not None:
        above = find(tx, found[-1].redelegated_trust_id)
        if above is None or not usable(above, tx.now) or len(found) > DEEPEST:
            return None
        found.append(above)
    return found


def use(tx: Tx, row: sa.Row[Any]) -> None:
    """Count one use of a trust. Raises Forbidden when none is left, e.g. because another request was quicker."""
    if row.remaining_uses is None:
        return
    left = sa.update(table).where(table.c.id == row.id, table.c.deleted_at.is_(None), table.c.remaining_uses > 0)
    if tx.execute(left.values(remaining_uses=table.c.remaining_uses - 1)).rowcount != 1:
        raise Forbidden(f"No remaining uses for trust: {row.id}.")
    tx.changed("identity.trust", row.id)


def delete(tx: Tx, key: str) -> None:
    """Mark a trust, and all that were made from it, as deleted; their tokens are void."""
    waiting: Sequence[str] = [key]
    while waiting:
        tx.execute(sa.update(table).where(table.c.id.in_(waiting)).values(deleted_at=tx.now))
        for one in waiting:
            tx.changed("identity.trust", one)
        below = sa.select(table.c.id).where(table.c.redelegated_trust_id.in_(waiting), table.c.deleted_at.is_(None))
        waiting = [row.id for row in tx.all(below)]
    revision.grow(tx)

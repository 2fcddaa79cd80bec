"""Rows of revoked tokens, by audit id; they are kept until the tokens would have expired anyway."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata

table = sa.Table(
    "identity_revocation",
    metadata,
    sa.Column("audit_id", sa.String(32), primary_key=True),
    sa.Column("chain", sa.Boolean, nullable=False),
    sa.Column("expires_at", Instant, nullable=False, index=True),
)
"""With `chain`, tokens that were made from the revoked one are revoked with it."""

_REVOKED: sa.Select[Any] = (
    sa.select(table.c.audit_id)
    .where(
        sa.or_(
            table.c.audit_id == sa.bindparam("own"),
            sa.and_(table.c.audit_id == sa.bindparam("root"), table.c.chain),
        )
    )
    .limit(1)
)


def revoked(tx: Tx, audit_id: str, root_id: str | None) -> bool:
    """Whether a token, or the one at the root of its chain together with the chain, was revoked."""
    return tx.execute(_REVOKED, {"own": audit_id, "root": root_id or audit_id}).first() is not None


def revoke(tx: Tx, audit_id: str, expires_at: datetime, *, chain: bool) -> None:
    """Note a token as revoked, and forget those that have expired."""
    tx.execute(sa.delete(table).where(table.c.expires_at < tx.now))
    tx.upsert(table, {"audit_id": audit_id, "chain": chain, "expires_at": expires_at}, key=("audit_id",))

"""Leases: rows that say which process may do a job now, with an epoch that fences those who held it before.

A holder checks its lease in the same transaction as each write that the lease guards, so that a process that was
asleep for longer than its lease cannot write over its successor.
"""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from pileus.core.errors import Raced
from pileus.core.store import Instant, Tx, metadata

lease = sa.Table(
    "core_lease",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)


def acquire(tx: Tx, name: str, holder: str, ttl: timedelta) -> int | None:
    """Take or renew a lease; its epoch, or None when another process holds it."""
    fresh = {"name": name, "holder": holder, "epoch": 1, "expires_at": tx.now + ttl}
    if tx.insert_missing(lease, fresh, key=("name",)):
        return 1
    row = tx.first(sa.select(lease).where(lease.c.name == name))
    if row is None or (row.holder != holder and row.expires_at > tx.now):
        return None
    epoch = int(row.epoch) + (row.holder != holder)
    update = sa.update(lease).where(lease.c.name == name, lease.c.epoch == row.epoch, lease.c.holder == row.holder)
    taken = tx.execute(update.values(holder=holder, epoch=epoch, expires_at=tx.now + ttl)).rowcount == 1
    return epoch if taken else None


def check(tx: Tx, name: str, holder: str, epoch: int) -> None:
    """Raise Raced unless the holder still has the lease; keeps it so until the transaction ends."""
    query = sa.select(lease.c.epoch).where(lease.c.name == name, lease.c.holder == holder, lease.c.epoch == epoch)
    if tx.first(query.with_for_update(read=True)) is None:
        raise Raced(f"The lease {name} is held by another process.")


def release(tx: Tx, name: str, holder: str) -> None:
    """Give a lease up, so that a successor need not wait for it to expire."""
    tx.execute(sa.update(lease).where(lease.c.name == name, lease.c.holder == holder).values(expires_at=tx.now))

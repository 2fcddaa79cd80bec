"""Reading the change log.

A sequence number is taken when a row is written and seen when its transaction commits, so on PostgreSQL they become
visible out of order.  A reader therefore stops below the oldest transaction that still runs: what it has read stays
complete.  Entries are hints: they name what changed, and the reader looks at the thing itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa

from pileus.core.store import Change, Tx, change

RETENTION = timedelta(hours=1)
"""How long entries are kept. A reader that was away for longer is told so, and reads everything anew."""


class Slice(NamedTuple):
    """What happened after a cursor: the changes, the new cursor, and whether some were already gone (`lost`)."""

    changes: list[Change]
    cursor: int
    lost: bool


def _horizon(tx: Tx) -> sa.ColumnElement[bool]:
    if tx.dialect == "sqlite":
        return sa.true()
    return change.c.xid < sa.text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


def head(tx: Tx) -> int:
    """The newest sequence number that is safe to start from."""
    return int(tx.scalar(sa.select(sa.func.max(change.c.seq)).where(_horizon(tx))) or 0)


def since(tx: Tx, cursor: int, *, topic: str | None = None, limit: int = 1000) -> Slice:
    """The changes after a cursor, oldest first, at most `limit`; of one topic, or of all."""
    oldest = tx.scalar(sa.select(sa.func.min(change.c.seq)))
    lost = oldest is not None and cursor < oldest - 1
    query = sa.select(change.c.seq, change.c.topic, change.c.key).where(change.c.seq > cursor, _horizon(tx))
    if topic is not None:
        query = query.where(change.c.topic == topic)
    safe = head(tx)
    rows = tx.all(query.where(change.c.seq <= safe).order_by(change.c.seq).limit(limit))
    reached = rows[-1].seq if len(rows) == limit else max(cursor, safe)
    return Slice([Change(row.topic, row.key) for row in rows], reached, lost)


def trim(tx: Tx) -> int:
    """Forget entries older than RETENTION, but never the newest; how many."""
    newest = sa.select(sa.func.max(change.c.seq)).scalar_subquery()
    return tx.execute(sa.delete(change).where(change.c.at < tx.now - RETENTION, change.c.seq < newest)).rowcount

"""Reading the change log.

A sequence number is taken when a row is written and seen when its transaction commits, so on PostgreSQL they become
visible out of order.  There a cursor is therefore a transaction's number: a reader stops below the oldest transaction
that still runs (all before it have ended, and none of them can write any more), and goes on from there.  On SQLite,
where one transaction writes at a time, a cursor is the sequence number.  Entries are hints: they name what changed, and
the reader looks at the thing itself.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.store import Change, Tx, change

RETENTION = timedelta(hours=1)
"""How long entries are kept. A reader that was away for longer is told so, and reads everything anew."""

_OLDEST_RUNNING = sa.text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


class Slice(NamedTuple):
    """What happened from a cursor on: the changes, the new cursor, and whether some were already gone (`lost`)."""

    changes: list[Change]
    cursor: int
    lost: bool


_NUMBERS = {"sqlite": change.c.seq, "postgresql": change.c.xid}
_NEWEST = sa.select(sa.func.max(change.c.seq))
_OLDEST = {engine: sa.select(sa.func.min(number)) for engine, number in _NUMBERS.items()}


def head(tx: Tx) -> int:
    """The cursor from which nothing is missed that is committed after this snapshot."""
    return position(tx) if tx.dialect == "sqlite" else int(tx.scalar(_OLDEST_RUNNING))


def position(tx: Tx) -> int:
    """The newest sequence number that this snapshot sees: how far this store has come, whatever engine it is on."""
    return int(tx.scalar(_NEWEST) or 0)


def since(tx: Tx, cursor: int, *, topic: str | None = None, limit: int = 1000) -> Slice:
    """The changes from a cursor on, oldest first, about `limit` at most; of one topic, or of all.

    A change may be given twice, where the limit fell between those of one transaction.
    """
    first = head(tx)
    oldest = tx.scalar(_OLDEST[tx.dialect])
    lost = oldest is not None and cursor < oldest - (tx.dialect == "sqlite")
    bounds = {"cursor": cursor, "first": first, "most": limit} | ({} if topic is None else {"topic": topic})
    rows = tx.all(_between(tx.dialect, topic is None), bounds)
    reached = max(cursor, first)
    if len(rows) == limit:
        reached = rows[-1].number
        if tx.dialect != "sqlite" and reached == cursor:
            # One transaction alone has more: give all of it, and go on after it.
            at = change.c.xid == cursor
            rows = tx.all(_some("postgresql").where(at, *_of(topic)).order_by(change.c.seq))
            reached = cursor + 1
    if topic is None:
        for row in rows:  # what other processes know of the cause
            if row.request_id is not None:
                tx.because(row.key.rpartition("/")[2], row.request_id)
    return Slice([Change(row.topic, row.key) for row in rows], reached, lost)


def _some(engine: str) -> sa.Select[Any]:
    return sa.select(_NUMBERS[engine].label("number"), change.c.topic, change.c.key, change.c.request_id)


def _of(topic: Any) -> list[sa.ColumnElement[bool]]:
    return [] if topic is None else [change.c.topic == topic]


@functools.cache
def _between(engine: str, every: bool) -> sa.Select[Any]:
    """The entries between two cursors, of a topic or of all."""
    number = _NUMBERS[engine]
    cursor: sa.BindParameter[int] = sa.bindparam("cursor")
    first: sa.BindParameter[int] = sa.bindparam("first")
    bounds = (number > cursor, number <= first) if engine == "sqlite" else (number >= cursor, number < first)
    query = _some(engine).where(*bounds, *_of(None if every else sa.bindparam("topic")))
    return query.order_by(number, change.c.seq).limit(sa.bindparam("most"))


@functools.cache
def _after(engine: str) -> sa.Select[Any]:
    number = _NUMBERS[engine]
    cursor: sa.BindParameter[int] = sa.bindparam("cursor")
    lower = number > cursor if engine == "sqlite" else number >= cursor
    return sa.select(change.c.seq, change.c.key).where(change.c.topic == sa.bindparam("topic"), lower)


class News(NamedTuple):
    """What a snapshot sees of a topic: the keys by sequence number, the new cursor, and whether some were gone."""

    keys: dict[int, str]
    cursor: int
    lost: bool


def news(tx: Tx, cursor: int, topic: str) -> News:
    """All changes of a topic from a cursor on that this snapshot sees, for who keeps a copy and must miss none.

    Unlike `since` it goes beyond the oldest transaction that still runs, so that what is committed is seen at once; on
    PostgreSQL entries are therefore given again until that transaction has ended (their numbers tell).  A first cursor
    is `head`, taken before the copy is made.
    """
    first = head(tx)
    oldest = tx.scalar(_OLDEST[tx.dialect])
    lost = oldest is not None and cursor < oldest - (tx.dialect == "sqlite")
    rows = tx.all(_after(tx.dialect), {"topic": topic, "cursor": cursor})
    return News({row.seq: row.key for row in rows}, max(cursor, first), lost)


def trim(tx: Tx) -> int:
    """Forget entries older than RETENTION, all before the youngest of them, which stays; how many.

    Entries are not always in the order of their times, for clocks are set back.  What is left has no gap, so that who
    comes late knows by the oldest entry whether he missed any: by the one that stays, which who is up to date has read.
    """
    number = _NUMBERS[tx.dialect]
    old = sa.select(sa.func.max(number)).where(change.c.at < tx.now - RETENTION).scalar_subquery()
    last = sa.select(number).order_by(change.c.seq.desc()).limit(1).scalar_subquery()
    return tx.execute(sa.delete(change).where(number < old, number < last)).rowcount

"""Reading the change log.

A sequence number is taken when a row is written and seen when its transaction commits, so on PostgreSQL they become
visible out of order.  There an entry's number is therefore its transaction's, and a cursor is what a snapshot is: all
below the next transaction's number has been seen, but what those write that were still running.  So nothing is missed,
nothing waits for the slowest transaction of the whole server, which may be another database's, and given twice is only
what is committed in the moment of reading.  On SQLite, where one transaction writes at a time, an entry's number is its
sequence number.  Entries are hints: they name what changed, and the reader looks at the thing itself.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from pileus.core.statement import many
from pileus.core.store import Change, Tx, change

RETENTION = timedelta(hours=1)
"""How long entries are kept. A reader that was away for longer is told so, and reads everything anew."""

_SNAPSHOT = sa.text("SELECT pg_current_snapshot()::text AS seen, pg_current_xact_id_if_assigned()::text AS own")
"""See https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT."""


ALL = (1 << 63) - 1
"""No limit of entries: the most that both engines take for one."""


class Cursor(NamedTuple):
    """How far a reader has come: entries of all numbers below `next` are read, but for those in `running`."""

    next: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What `str` made; None for anything else."""
        first, _, others = text.partition(":")
        numbers = [first, *(others.split(",") if others else [])]
        if not all(one.isdecimal() and one.isascii() and len(one) < 20 for one in numbers):
            return None
        return cls(int(first), tuple(map(int, numbers[1:])))

    def __str__(self) -> str:
        return f"{self.next}:{','.join(map(str, self.running))}" if self.running else str(self.next)

    def behind(self, other: Cursor) -> bool:
        """Whether the other is of a later snapshot: more was begun there, or more has ended."""
        return (self.next, -len(self.running)) < (other.next, -len(other.running))


class Slice(NamedTuple):
    """What happened from a cursor on: the changes, the new cursor, and whether some were already gone (`lost`)."""

    changes: list[Change]
    cursor: Cursor
    lost: bool


_NUMBERS = {"sqlite": change.c.seq, "postgresql": change.c.xid}
_NEWEST = sa.select(sa.func.max(change.c.seq))
_OLDEST = {engine: sa.select(sa.func.min(number)) for engine, number in _NUMBERS.items()}


def head(tx: Tx) -> Cursor:
    """The cursor from which nothing is missed that is committed after this snapshot."""
    if tx.dialect == "sqlite":
        return Cursor(position(tx) + 1)
    [found] = tx.all(_SNAPSHOT)
    _, following, others = found.seen.split(":")
    running = {int(one) for one in others.split(",") if one}
    if found.own is not None and int(found.own) < int(following):
        running.add(int(found.own))  # a snapshot leaves out the transaction whose it is, which may write more
    return Cursor(int(following), tuple(sorted(running)))


def position(tx: Tx) -> int:
    """The newest sequence number that this snapshot sees: how far this store has come, whatever engine it is on."""
    return int(tx.scalar(_NEWEST) or 0)


def since(tx: Tx, cursor: Cursor, *, topic: str | None = None, limit: int = 1000) -> Slice:
    """The changes from a cursor on, oldest first, about `limit` at most; of one topic, or of all.

    Those of one transaction are given together.  On PostgreSQL `lost` is also said, once, when a transaction has ended
    that is older than all entries: it may have written some that are gone.
    """
    now = head(tx)
    oldest = tx.scalar(_OLDEST[tx.dialect])
    ended = set(cursor.running).difference(now.running)
    lost = oldest is not None and min([cursor.next, *ended]) < oldest
    among = {} if topic is None else {"topic": topic}
    rows = tx.all(_of(tx.dialect, topic is None), {"numbers": sorted(ended), **among}) if ended else []
    bounds = {"first": cursor.next, "next": now.next, "most": limit, **among}
    later = tx.all(_between(tx.dialect, topic is None), bounds)
    if len(later) == limit:
        last = later[-1].number
        if tx.dialect != "sqlite":
            whole = tx.all(_of(tx.dialect, topic is None), {"numbers": [last], **among})
            later = [row for row in later if row.number < last] + list(whole)
        now = Cursor(last + 1, tuple(one for one in now.running if one <= last))
    rows = [*rows, *later]
    if topic is None:
        for row in rows:  # what other processes know of the cause
            if row.request_id is not None:
                tx.because(row.key.rpartition("/")[2], row.request_id)
    return Slice([Change(row.topic, row.key) for row in rows], cursor if now.behind(cursor) else now, lost)


def _some(engine: str, every: bool, *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Entries in their order, of a topic or of all."""
    number = _NUMBERS[engine]
    of = () if every else (change.c.topic == sa.bindparam("topic"),)
    query = sa.select(number.label("number"), change.c.topic, change.c.key, change.c.request_id)
    return query.where(*where, *of).order_by(number, change.c.seq)


@functools.cache
def _of(engine: str, every: bool) -> sa.Select[Any]:
    """The entries of some numbers."""
    return _some(engine, every, _NUMBERS[engine].in_(many("numbers")))


@functools.cache
def _between(engine: str, every: bool) -> sa.Select[Any]:
    """The first entries between two numbers."""
    number = _NUMBERS[engine]
    bounds = (number >= sa.bindparam("first"), number < sa.bindparam("next"))
    return _some(engine, every, *bounds).limit(sa.bindparam("most"))


def trim(tx: Tx) -> int:
    """Forget entries older than RETENTION, all before the youngest of them, which stays; how many.

    Entries are not always in the order of their times, for clocks are set back.  What is left has no gap, so that who
    comes late knows by the oldest entry whether he missed any: by the one that stays, which who is up to date has read.
    """
    number = _NUMBERS[tx.dialect]
    old = sa.select(sa.func.max(number)).where(change.c.at < tx.now - RETENTION).scalar_subquery()
    last = sa.select(number).order_by(change.c.seq.desc()).limit(1).scalar_subquery()
    return tx.execute(sa.delete(change).where(number < old, number < last)).rowcount

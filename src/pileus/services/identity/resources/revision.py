"""The revision of all that decides whether a token is good, and for what.

One row with a number that grows in each transaction that changes users, projects, roles, assignments, revocations or
the catalog.  Whoever keeps an answer keeps the revision with it, and asks for the number (one primary-key read) before
giving the answer again: so what one control process revokes, all others refuse at once.

Source: what must make a token void is in
https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management; upstream keeps revocation events
and invalidates a cache in each process (Keystone administration guide, "Caching Layer").
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import Tx, metadata

table = sa.Table(
    "identity_revision",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, nullable=False),
)

_READ = sa.select(table.c.number).where(table.c.id == 1)
_GROW = sa.update(table).where(table.c.id == 1).values(number=table.c.number + 1)


def current(tx: Tx) -> int:
    """The revision. Read it before what is kept under it, so that a change in between is noticed."""
    return int(tx.scalar(_READ) or 0)


def grow(tx: Tx) -> None:
    """Make answers that were kept void once this transaction commits.

    The row stays locked until then: call it after the other writes.
    """
    if tx.execute(_GROW).rowcount == 0:
        tx.insert_missing(table, {"id": 1, "number": 0}, key=("id",))
        tx.execute(_GROW)

"""Statements that are made once for a process and run with parameters from then on.

To build a statement and to find its text anew takes SQLAlchemy several times as long as to run it
(https://docs.sqlalchemy.org/en/21/core/connections.html#sql-compilation-caching).  What requests and loops run often is
therefore kept: a constant beside its table, with `bindparam` and `many` for what differs, or one of these, by the names
of its columns.
"""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

WHERE = "where_"
"""What the parameters of a condition begin with: those of columns that are set have the columns' names."""


def many(name: str) -> sa.BindParameter[Any]:
    """A parameter that is a collection, for `column.in_(many("ids"))`."""
    return sa.bindparam(name, expanding=True)


@functools.cache
def insertion(table: sa.Table) -> sa.Insert:
    """Inserts rows; their columns are those of its parameters."""
    return sa.insert(table)


@functools.cache
def update(table: sa.Table, key: tuple[str, ...], null: frozenset[str], columns: tuple[str, ...]) -> sa.Update:
    """Sets columns where those of the key are as the parameters with WHERE say, and those of `null` are NULL."""
    there = [table.c[name] == sa.bindparam(WHERE + name) for name in key if name not in null]
    absent = [table.c[name].is_(None) for name in key if name in null]
    return sa.update(table).where(*there, *absent).values({name: sa.bindparam(name) for name in columns})


@functools.cache
def upsertion(dialect: str, table: sa.Table, key: tuple[str, ...], columns: tuple[str, ...]) -> sa.Insert:
    """Inserts a row, or gives those of `columns` that are not `key` to the one that is there."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    statement = insert(table)
    rest = {name: statement.excluded[name] for name in columns if name not in key}
    if rest:
        return statement.on_conflict_do_update(index_elements=list(key), set_=rest)
    # SQLAlchemy forgets the count of an INSERT unless it is told not to.
    found = statement.on_conflict_do_nothing(index_elements=list(key))
    return found.execution_options(preserve_rowcount=True)


@functools.cache
def by(table: sa.Table, column: str, *order: str) -> sa.Select[Any]:
    """The rows of a table whose `column` is one of the parameter `values`, in an order."""
    return sa.select(table).where(table.c[column].in_(many("values"))).order_by(*(table.c[name] for name in order))


@functools.cache
def at(table: sa.Table, column: str) -> sa.Select[Any]:
    """The rows of a table whose `column` is the parameter `value`, which is not None."""
    return sa.select(table).where(table.c[column] == sa.bindparam("value"))


@functools.cache
def lock(table: sa.Table) -> sa.Select[Any]:
    """The ids of the rows of a table whose id is in the parameter `values`: none changes until the transaction ends.

    Readers and new references to them need not wait.
    """
    found = sa.select(table.c.id).where(table.c.id.in_(many("values"))).order_by(table.c.id)
    return found.with_for_update(key_share=True)

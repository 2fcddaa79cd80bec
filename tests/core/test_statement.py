"""Statements that are made once: they say what those say that are made each time, on both engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from pileus.core import statement
from pileus.core.errors import Raced
from pileus.core.store import Store, Tx, metadata

thing = sa.Table(
    "core_test_statement",
    metadata,
    sa.Column("id", sa.String(8), primary_key=True),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("owner", sa.String(8)),
    sa.Column("tags", sa.JSON),
)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    found = Store(database_url)
    found.create()
    rows = [
        {"id": name, "rank": rank, "owner": owner, "tags": [name]}
        for name, rank, owner in (("a", 3, "x"), ("b", 2, None), ("c", 1, None))
    ]
    found.write_here(lambda tx: tx.insert(thing, rows))
    yield found
    found.close()


def owners(store: Store) -> dict[str, str | None]:
    return {row.id: row.owner for row in store.read_here(lambda tx: tx.all(sa.select(thing)))}


def test_a_statement_is_made_once(store: Store) -> None:
    assert statement.by(thing, "id", "rank") is statement.by(thing, "id", "rank")
    assert statement.insertion(thing) is statement.insertion(thing)


@pytest.mark.parametrize(
    ("wanted", "found"), [(["a", "b", "none"], ["b", "a"]), ({"c": 1}, ["c"]), ({"a"}, ["a"]), ([], [])]
)
def test_rows_by_one_of_some_values_come_in_order(store: Store, wanted: object, found: list[str]) -> None:
    rows = store.read_here(lambda tx: tx.all(statement.by(thing, "id", "rank"), {"values": wanted}))
    assert [row.id for row in rows] == found
    assert [row.tags for row in rows] == [[name] for name in found]


def test_rows_by_one_value(store: Store) -> None:
    rows = store.read_here(lambda tx: tx.all(statement.at(thing, "owner"), {"value": "x"}))
    assert [row.id for row in rows] == ["a"]


def test_a_value_may_be_an_expression(store: Store) -> None:
    def raise_rank(tx: Tx) -> int:
        return tx.update(thing, {"id": "c"}, {"owner": "y", "rank": thing.c.rank + 4})

    assert store.write_here(raise_rank) == 1
    (row,) = store.read_here(lambda tx: tx.all(statement.at(thing, "id"), {"value": "c"}))
    assert (row.owner, row.rank) == ("y", 5)


def test_a_condition_with_none_is_for_what_is_null(store: Store) -> None:
    assert store.write_here(lambda tx: tx.update(thing, {"owner": None}, {"owner": "y"})) == 2
    assert store.write_here(lambda tx: tx.update(thing, {"owner": "y", "rank": 1}, {"owner": None})) == 1
    assert owners(store) == {"a": "x", "b": "y", "c": None}


def test_a_column_may_be_condition_and_change(store: Store) -> None:
    store.write_here(lambda tx: tx.compare_and_set(thing, {"id": "a", "rank": 3}, {"rank": 4}))
    with pytest.raises(Raced):
        store.write_here(lambda tx: tx.compare_and_set(thing, {"id": "a", "rank": 3}, {"rank": 5}))


def test_nothing_to_insert_is_fine(store: Store) -> None:
    store.write_here(lambda tx: tx.insert(thing, []))
    assert len(owners(store)) == 3


def test_locked_rows_are_those_that_are_there(store: Store) -> None:
    rows = store.write_here(lambda tx: tx.all(statement.lock(thing), {"values": ["b", "none", "a"]}))
    assert [row.id for row in rows] == ["a", "b"]

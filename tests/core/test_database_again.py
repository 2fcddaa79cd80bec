"""A database that serves another test is as new, on whichever engine the run is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import Databases

metadata = sa.MetaData()
parent = sa.Table("parent", metadata, sa.Column("id", sa.Integer, primary_key=True))
child = sa.Table("child", metadata, sa.Column("id", sa.ForeignKey(parent.c.id), primary_key=True))


def schema(url: str) -> None:
    """Two tables, one of which refers to the other."""
    run(url)


def run(url: str, *statements: sa.Executable) -> list[list[int]]:
    """Run statements; the ids that are in both tables then."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        metadata.create_all(connection)
        for statement in statements:
            connection.execute(statement)
        return [list(connection.scalars(sa.select(table.c.id))) for table in (parent, child)]


def test_rows_and_numbers_of_one_test_are_not_the_next_ones(databases: Databases, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        url = databases.make(tmp_path / name, schema)
        assert run(url) == [[], []]
        found.append(run(url, sa.insert(parent).values(), sa.insert(child).values(id=1)))
        databases.drop(url)
    assert found == [[[1], [1]], [[1], [1]]]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE child ADD COLUMN name VARCHAR(9)",
        "CREATE TABLE more (id INTEGER)",
        "CREATE INDEX one ON child (id)",
        "DROP TABLE child",
    ],
)
def test_a_schema_that_a_test_changed_is_not_the_next_ones(
    databases: Databases, tmp_path: Path, statement: str
) -> None:
    shapes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        url = databases.make(tmp_path / name, schema)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            seen = sa.inspect(connection)
            tables = {table: [column["name"] for column in seen.get_columns(table)] for table in seen.get_table_names()}
            shapes.append((tables, seen.get_indexes("child")))
            connection.execute(sa.text(statement))
        engine.dispose()
        databases.drop(url)
    assert shapes[0] == shapes[1]

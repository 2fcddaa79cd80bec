"""The databases that tests are given, on the engine that the run is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import Databases

made: list[str] = []


def schema(url: str) -> None:
    """One table with one row."""
    made.append(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE flavor (name VARCHAR(9) NOT NULL)"))
        connection.execute(sa.text("INSERT INTO flavor VALUES ('tiny')"))
    engine.dispose()


def names(url: str) -> list[str]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = list(connection.execute(sa.text("SELECT name FROM flavor")).scalars())
    engine.dispose()
    return found


def test_a_database_is_empty_by_itself(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_schema_is_made_once_and_copied(databases: Databases, tmp_path: Path) -> None:
    made.clear()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = databases.make(tmp_path / "one", schema), databases.make(tmp_path / "two", schema)
    assert len(made) == 1
    assert len({one, two, *made}) == 3
    engine = sa.create_engine(one)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM flavor"))
    engine.dispose()
    assert (names(one), names(two)) == ([], ["tiny"])
    databases.drop(one)
    databases.drop(two)


def test_a_database_goes_whoever_holds_it(databases: Databases, tmp_path: Path) -> None:
    url = databases.make(tmp_path, schema)
    if not url.startswith("postgresql"):
        pytest.skip("files go with their directory")
    engine = sa.create_engine(url)
    connection = engine.connect()
    connection.execute(sa.text("SELECT 1"))
    databases.drop(url)
    with pytest.raises(sa.exc.OperationalError):
        names(url)
    connection.invalidate()
    engine.dispose()

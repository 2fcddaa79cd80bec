"""What all tests share: a database of one's own for each test, on whichever engine the run is for.

With PILEUS_TEST_DATABASE, the URL of a PostgreSQL server's maintenance database, each test that asks gets a database
there; without it, an SQLite file.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import psycopg
import pytest
from argon2 import PasswordHasher
from hypothesis import settings
from psycopg import sql
from sqlalchemy import make_url

from pileus.app.service import declare_tables
from pileus.core.store import Store
from pileus.services.identity.rules import password
from tests.api import exercise

settings.register_profile("pileus", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("pileus")

Schema = Callable[[str], None]
"""Makes all tables in the empty database that a URL names, and leaves no connection to it open."""

ROOMS = {Path(__file__).parent / "real": "real", Path(__file__).parent / "sim": "simulation"}
"""Folders whose tests are all of a kind, and its mark."""


class Databases(Protocol):
    """Makes databases for tests; each schema is made once for a session, and copied from then on."""

    def make(self, directory: Path, schema: Schema | None) -> str:
        """A new database with this schema, empty without one; its SQLAlchemy URL.

        `directory` is the test's own; the database may be kept there.
        """

    def drop(self, url: str) -> None:
        """Delete a database that was made here, whoever still holds a connection to it."""


class SqliteDatabases:
    """Files; a schema is made in a file of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._template: dict[Schema, Path] = {}

    def make(self, directory: Path, schema: Schema | None) -> str:
        path = directory / "pileus.sqlite"
        if schema is not None:
            # The backup interface and not a copy of the file: what is still in the write-ahead log belongs to it.
            source, target = sqlite3.connect(self._find(schema)), sqlite3.connect(path)
            source.backup(target)
            source.close()
            target.close()
        return f"sqlite:///{path}"

    def drop(self, url: str) -> None:
        """Nothing to do: pytest clears the directories of its tests."""

    def _find(self, schema: Schema) -> Path:
        if schema not in self._template:
            path = self._directory / f"template-{len(self._template)}.sqlite"
            schema(f"sqlite:///{path}")
            self._template[schema] = path
        return self._template[schema]


class PostgresqlDatabases:
    """Databases of one server; a schema is made in a template database."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._number = itertools.count(1)
        self._template: dict[Schema, str] = {}
        self._connection = psycopg.connect(self._render(self._url.database, "postgresql"), autocommit=True)

    def make(self, directory: Path, schema: Schema | None) -> str:
        return self._render(self._create("test", "template0" if schema is None else self._find(schema)))

    def drop(self, url: str) -> None:
        name = make_url(url).database or ""
        self._connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        """Drop what is left, and disconnect."""
        for name in self._template.values():
            self.drop(self._render(name))
        self._connection.close()

    def _find(self, schema: Schema) -> str:
        if schema not in self._template:
            name = self._create("template", "template0")
            schema(self._render(name))
            self._template[schema] = name
        return self._template[schema]

    def _create(self, kind: str, template: str) -> str:
        name = f"pileus_{kind}_{os.getpid()}_{next(self._number)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def _render(self, database: str | None, driver: str | None = None) -> str:
        url = self._url.set(database=database)
        return (url.set(drivername=driver) if driver else url).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """The engine that this run is for."""
    url = os.environ.get("PILEUS_TEST_DATABASE")
    if url is None:
        yield SqliteDatabases(tmp_path_factory.mktemp("databases"))
        return
    postgresql = PostgresqlDatabases(url)
    yield postgresql
    postgresql.close()


def whole_schema(url: str) -> None:
    """The tables of all services, and of whatever else was imported."""
    declare_tables()
    store = Store(url)
    store.create()
    store.close()


@pytest.fixture
def database_schema() -> Schema | None:
    """The schema that `database_url` has; a folder's conftest.py may put its own in place of this whole one."""
    return whole_schema


@pytest.fixture
def database_url(databases: Databases, database_schema: Schema | None, tmp_path: Path) -> Iterator[str]:
    """SQLAlchemy URL of a database that is this test's alone."""
    url = databases.make(tmp_path, database_schema)
    yield url
    databases.drop(url)


@pytest.fixture(scope="session", autouse=True)
def _exercised() -> Iterator[None]:
    """Which operations succeeded, for the page on what of the documented ones is there."""
    with exercise.noted():
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_hashes() -> Iterator[None]:
    """Passwords that cost a hundredth of what they cost as shipped; in processes of their own they cost all of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(password, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        patch.setattr(password, "_NOBODY", password._nobody())
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever is in tests/real is real; a run for PostgreSQL is for the tests that ask for a database."""
    for item in items:
        for room, mark in ROOMS.items():
            if item.path.is_relative_to(room):
                item.add_marker(mark)
    if "PILEUS_TEST_DATABASE" in os.environ:
        others = [item for item in items if "databases" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if "databases" in getattr(item, "fixturenames", ())]

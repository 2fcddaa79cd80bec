"""What all tests share: a database of one's own for each test, on whichever engine the run is for.

With PILEUS_TEST_DATABASE, the URL of a PostgreSQL server's maintenance database, each test that asks gets a database
there; without it, an SQLite file.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from hypothesis import settings
from psycopg import sql
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.util import LRUCache

from pileus.app.service import declare_tables
from pileus.core.store import Store
from pileus.services.identity.rules import password
from tests.api import exercise
from tests.effort import SERVED, examples
from tests.session import Sessions

atexit.register(gc.freeze)  # as the command line does, and for its reason
gc.disable()  # what modules make stays

# How long an example takes is the machine's business.
settings.register_profile("pileus", deadline=None, max_examples=examples(100))
settings.load_profile("pileus")

LEAVING = 25
"""How often it is looked whether a session that was closed has ended, before it is told to."""

SESSIONS = Sessions()

Schema = Callable[[str], None]
"""Makes all tables in the empty database that a URL names, and leaves no connection to it open."""

ROOMS = {Path(__file__).parent / "real": "real", Path(__file__).parent / "sim": "simulation"}
"""Folders whose tests are all of a kind, and its mark."""

LONGEST = Path(__file__).parent / "cli"
"""The folder whose tests start clouds in processes."""


def pytest_collection_finish() -> None:
    """Keep the collector of cycles from all that was imported: that took a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


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
            shutil.copyfile(self._find(schema), path)
        return f"sqlite:///{path}"

    def drop(self, url: str) -> None:
        """Nothing to do: pytest clears the directories of its tests."""

    def _find(self, schema: Schema) -> Path:
        if schema not in self._template:
            path = self._directory / f"template-{len(self._template)}.sqlite"
            schema(f"sqlite:///{path}")
            with closing(sqlite3.connect(path)) as whole:  # what is still in the write-ahead log belongs to it
                whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._template[schema] = path
        return self._template[schema]


class _Template:
    """A database on PostgreSQL from which others are made."""

    def __init__(self, name: str, connection: psycopg.Connection) -> None:
        self.name = name
        self.shape = _shape(connection)
        self.tables = _relations(connection, "r")
        self._sequences = _relations(connection, "S")
        self._full = sql.SQL("SELECT {}").format(
            sql.SQL(", ").join(sql.SQL("EXISTS (SELECT FROM {})").format(sql.Identifier(name)) for name in self.tables)
        )
        self.empty = not self.full(connection)

    def full(self, connection: psycopg.Connection) -> list[str]:
        """Those of its tables that have rows in a database."""
        [found] = connection.execute(self._full)
        return list(itertools.compress(self.tables, found))

    def clear(self, connection: psycopg.Connection) -> None:
        """Make a database that has the same tables as empty as a new one."""
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")  # else foreign keys ask for an order
            for name in self.full(connection):
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            for name in self._sequences:
                connection.execute("SELECT setval(%s::regclass, 1, false)", [sql.Identifier(name).as_string()])


def _relations(connection: psycopg.Connection, kind: str) -> list[str]:
    """The names of the tables (r) or sequences (S) that are the user's."""
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = %s AND relnamespace = 'public'::regnamespace ORDER BY 1", [kind]
    )
    return [name for (name,) in found]


def _shape(connection: psycopg.Connection) -> list[tuple[int, ...]]:
    """What differs when anything of the schema was changed: how many entries catalogs have, and who wrote them."""
    catalogs = ("pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_namespace", "pg_proc")
    one = sql.SQL("SELECT count(*), sum(xmin::text::bigint) FROM {}")
    query = sql.SQL(" UNION ALL ").join(one.format(sql.Identifier(name)) for name in (*catalogs, "pg_trigger"))
    return connection.execute(query).fetchall()


class _Copy(NamedTuple):
    """A database that was made from a template, and how many tests it has served; the connection is for emptying it."""

    template: _Template
    connection: psycopg.Connection
    served: int

    def emptied(self) -> bool:
        """End sessions that are in use and delete all rows; whether it is as the template then."""
        try:
            self._alone()
            if not self.template.empty or _shape(self.connection) != self.template.shape:
                return False
            self.template.clear(self.connection)
        except psycopg.Error:
            return False
        return True

    def _alone(self) -> None:
        """Wait for sessions that were closed, and end those that were not; the server looks ten times a second."""
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL (%s || pg_backend_pid())"
        waiting = SESSIONS.idle(self.connection.info.dbname)
        for _ in range(LEAVING):
            if self.connection.execute(f"SELECT {others}", [waiting]).fetchone() is None:
                return
            time.sleep(0.002)
        self.connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}", [waiting])


class PostgresqlDatabases:
    """Databases of one server; a schema is made in a template database.

    To make a database takes ten times as long as to empty one, so one that a test has let go of serves the next that
    wants its schema, as long as its tables are those of the template.
    """

    SERVED = 40
    """Tests that a database is for: rows that are gone take room until then."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._number = itertools.count(1)
        self._template: dict[Schema, _Template] = {}
        self._copy: dict[str, _Copy] = {}
        self._free: dict[str, list[str]] = {}
        self._connection = self._connect(self._url.database)

    def make(self, directory: Path, schema: Schema | None) -> str:
        if schema is None:
            return self._render(self._create("test", "template0"))
        template = self._find(schema)
        free = self._free.setdefault(template.name, [])
        if free:
            return self._render(free.pop())
        name = self._create("test", template.name)
        self._copy[name] = _Copy(template, self._connect(name), 1)
        return self._render(name)

    def drop(self, url: str) -> None:
        name = make_url(url).database or ""
        copy = self._copy.get(name)
        if copy is not None and copy.served < self.SERVED and copy.emptied():
            self._copy[name] = copy._replace(served=copy.served + 1)
            self._free[copy.template.name].append(name)
        else:
            self._remove(name)

    def close(self) -> None:
        """Drop what is left, and disconnect."""
        for name in [*self._copy, *(template.name for template in self._template.values())]:
            self._remove(name)
        self._connection.close()

    def _remove(self, name: str) -> None:
        if copy := self._copy.pop(name, None):
            copy.connection.close()
        SESSIONS.end(name)
        self._connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _find(self, schema: Schema) -> _Template:
        if schema not in self._template:
            name = self._create("template", "template0")
            schema(self._render(name))
            SESSIONS.end(name)
            with self._connect(name) as connection:
                self._template[schema] = _Template(name, connection)
        return self._template[schema]

    def _create(self, kind: str, template: str) -> str:
        name = f"pileus_{kind}_{os.getpid()}_{next(self._number)}"
        # The other strategy, which writes each page into the log, takes half as long again.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def _connect(self, database: str | None) -> psycopg.Connection:
        return psycopg.connect(self._render(database, "postgresql"), autocommit=True)

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
    with SESSIONS.kept(), closing(PostgresqlDatabases(url)) as postgresql:
        yield postgresql


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
def _one_compiler() -> Iterator[None]:
    """Statements are compiled once in a process and not once for each store, which took a third of all tests' time."""
    make = sa.create_engine
    known: dict[tuple[str, Any], tuple[sa.Dialect, LRUCache[Any, Any]]] = {}

    def create_engine(url: str | sa.URL, **options: Any) -> sa.Engine:
        engine = make(url, **options)
        kind = engine.dialect.name, options.get("json_serializer")
        if kind not in known:
            first = make(url, **options)
            try:
                first.connect().close()  # by this the dialect learns what the server is
            except OperationalError:
                return engine
            finally:
                first.dispose()
            known[kind] = first.dialect, LRUCache(4096)
        engine.dialect, engine._compiled_cache = known[kind]
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sa, "create_engine", create_engine)
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_hashes() -> Iterator[None]:
    """Passwords that cost a hundredth of what they cost as shipped; in processes of their own they cost all of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(password, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        patch.setattr(password, "_NOBODY", password._nobody())
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever is in tests/real is real; a run for PostgreSQL is for the tests that ask for a database.

    The files whose tests take longest come first: begun last, one of them would leave other processes idle.
    """
    items.sort(key=lambda item: not item.path.is_relative_to(LONGEST))
    for item in items:
        for room, mark in ROOMS.items():
            if item.path.is_relative_to(room):
                item.add_marker(mark)
    if SERVED:
        others = [item for item in items if "databases" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if "databases" in getattr(item, "fixturenames", ())]

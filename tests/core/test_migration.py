"""The schema: the sum of all steps is what the tables declare, on either engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import pileus.app
from pileus import migration
from pileus.core.store import Instant, Store, metadata


def test_the_steps_make_what_the_tables_declare(database_url: str) -> None:
    pileus.app.declare_tables()
    store = Store(database_url)
    migration.upgrade(store.engine, migration.load())

    def same_type(context: object, seen: object, declared: object, there: object, wanted: object) -> bool | None:
        return False if isinstance(wanted, Instant) else None

    with store.engine.connect() as connection:
        options = {"compare_type": same_type, "include_object": _ours}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert migration.current(connection) == migration.HEAD
    store.close()


def _ours(item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
    """Tables of tests are in the same metadata."""
    return not (name or "").startswith("core_test_") and "core_test_" not in str(getattr(item, "table", ""))


def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: migration.upgrade(store.engine, migration.load()), stores))
    with stores[0].engine.connect() as connection:
        assert migration.current(connection) == migration.HEAD
    for store in stores:
        store.close()


def test_a_newer_store_is_refused(database_url: str) -> None:
    store = Store(database_url)
    migration.upgrade(store.engine, migration.load())
    with store.engine.connect().execution_options(pileus_write=True) as connection, connection.begin():
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migration.MigrationError, match="newer"):
        migration.upgrade(store.engine, migration.load())
    store.close()


def test_head_is_the_last_step() -> None:
    steps = migration.load()
    assert [step.revision for step in steps] == [f"{number:04d}" for number in range(1, len(steps) + 1)]
    assert steps[-1].revision == migration.HEAD
    assert [step.down_revision for step in steps] == [None, *(step.revision for step in steps[:-1])]

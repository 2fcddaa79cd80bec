"""The store is brought to this version's schema: copied before, as it was after a failure, refused when newer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa

from pileus import migration
from pileus.app import schema
from pileus.app.backup import BackupFailure
from pileus.cli.main import CommandFailure
from pileus.core.config import Config
from pileus.core.store import Store


def quiet(text: str) -> None:
    """Hear nothing."""


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Config:
    state = tmp_path / "state"
    (state / "control").mkdir(parents=True)
    # Children keep the user of the test: what they own is below a directory that is the test's alone.
    return Config(state=state, database=database_url, unprivileged_uid=os.getuid() or 2**32 - 3)


@pytest.fixture(autouse=True)
def same_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pileus.core.privilege.drop", lambda uid: None)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """A store of the version before this one."""
    steps, head = migration.load(), migration.HEAD
    with monkeypatch.context() as past:
        past.setattr(migration, "HEAD", steps[-2].revision)
        past.setattr(migration, "load", lambda: steps[:-1])
        schema.bring_up(config, True, quiet)
    assert revision(config) == steps[-2].revision < head


def revision(config: Config) -> str | None:
    store = Store(config.database_url)
    with store.engine.connect() as connection:
        found = migration.current(connection)
    store.close()
    return found


def tables(config: Config) -> set[str]:
    store = Store(config.database_url)
    found = set(sa.inspect(store.engine).get_table_names())
    store.close()
    return found


def kept(config: Config) -> list[str]:
    place = schema.copies(config)
    return sorted(one.name for one in place.iterdir()) if place.exists() else []


def failing(step: ModuleType, how: Callable[[], None]) -> ModuleType:
    """The last step, which does its work and then fails."""
    found = ModuleType(step.__name__, step.__doc__)
    found.__dict__.update(revision=step.revision, down_revision=step.down_revision)

    def upgrade() -> None:
        step.upgrade()
        how()

    found.__dict__["upgrade"] = upgrade
    return found


def test_an_empty_store_gets_a_schema_without_a_word(config: Config) -> None:
    said: list[str] = []
    schema.bring_up(config, True, said.append)
    assert revision(config) == migration.HEAD
    assert (said, kept(config)) == ([], [])


@pytest.mark.usefixtures("older")
def test_a_store_is_copied_before_it_is_upgraded(config: Config) -> None:
    before, said = revision(config), list[str]()
    schema.bring_up(config, True, said.append)
    assert revision(config) == migration.HEAD
    (copy,) = kept(config)
    assert copy.startswith(f"{before}-before-{migration.HEAD}-")
    assert (schema.copies(config) / copy).stat().st_mode & 0o777 == 0o600
    assert said[0] == f"copying the store to {schema.copies(config) / copy}"
    assert said[-1].startswith(f"step {migration.HEAD}: ")
    if copy.endswith(".db"):
        held = Config(state=config.state, database=f"sqlite:///{schema.copies(config) / copy}")
        assert revision(held) == before
    schema.bring_up(config, True, said.append)
    assert kept(config) == [copy]


@pytest.mark.usefixtures("older")
def test_a_store_may_go_without_a_copy(config: Config) -> None:
    schema.bring_up(config, False, quiet)
    assert revision(config) == migration.HEAD
    assert kept(config) == []


@pytest.mark.usefixtures("older")
def test_only_so_many_copies_are_kept(config: Config) -> None:
    schema.copies(config).mkdir()
    for number in range(5):
        file = schema.copies(config) / f"000{number}-before-0009-x.db"
        file.touch()
        os.utime(file, (number, number))
    schema.bring_up(config, True, quiet)
    assert len(kept(config)) == config.schema_backups == 3
    assert {"0003-before-0009-x.db", "0004-before-0009-x.db"} < set(kept(config))


@pytest.mark.usefixtures("older")
def test_a_step_that_fails_leaves_the_store_as_it_was(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    before, there = revision(config), tables(config)
    steps = migration.load()

    def fail() -> None:
        raise sa.exc.InvalidRequestError("this cannot be done")

    monkeypatch.setattr(migration, "load", lambda: [*steps[:-1], failing(steps[-1], fail)])
    with pytest.raises(CommandFailure) as failed:
        schema.bring_up(config, True, quiet)
    assert f"is as it was, at revision {before}; a copy of it is {schema.copies(config)}" in str(failed.value)
    assert "this cannot be done" in str(failed.value)
    assert (revision(config), tables(config)) == (before, there)
    assert len(kept(config)) == 1


@pytest.mark.usefixtures("older")
def test_a_process_that_is_killed_in_a_step_leaves_the_store_as_it_was(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, there = revision(config), tables(config)
    steps = migration.load()
    monkeypatch.setattr(migration, "load", lambda: [*steps[:-1], failing(steps[-1], lambda: os.kill(os.getpid(), 9))])
    with pytest.raises(CommandFailure, match="ended with status"):
        schema.bring_up(config, True, quiet)
    monkeypatch.undo()
    assert (revision(config), tables(config)) == (before, there)


@pytest.mark.usefixtures("older")
def test_nothing_is_upgraded_that_cannot_be_copied(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    before = revision(config)

    def refuse(*arguments: object) -> None:
        raise BackupFailure("pg_dump is not installed")

    monkeypatch.setattr(schema, "copy_database", refuse)
    with pytest.raises(CommandFailure, match="could not be copied before: pg_dump is not installed") as failed:
        schema.bring_up(config, True, quiet)
    assert "`pileus up --no-backup`" in str(failed.value)
    assert revision(config) == before


def test_a_newer_store_is_refused_and_not_touched(config: Config) -> None:
    schema.bring_up(config, True, quiet)
    store = Store(config.database_url)
    with store.engine.connect().execution_options(pileus_write=True) as connection, connection.begin():
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    file = Path(sa.make_url(config.database_url).database or "")
    before = file.read_bytes() if file.exists() else b""
    with pytest.raises(CommandFailure, match="at revision 9999 of its schema, and this Pileus knows") as failed:
        schema.bring_up(config, True, quiet)
    assert failed.value.status == 65
    assert (file.read_bytes() if file.exists() else b"") == before
    assert kept(config) == []


def test_a_store_that_does_not_answer_is_named(tmp_path: Path) -> None:
    config = Config(state=tmp_path, database=f"sqlite:///{tmp_path}")
    with pytest.raises(CommandFailure, match="the store does not answer: unable to open database file"):
        schema.bring_up(config, True, quiet)

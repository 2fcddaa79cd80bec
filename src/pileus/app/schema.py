"""Bringing the store's schema to this version's, with a copy of the store made before."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pileus.app.backup import BackupFailure, copy_database
from pileus.app.child import Say, as_owner
from pileus.cli.main import CommandFailure
from pileus.core.config import Config
from pileus.core.store import Store, load_driver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

EX_DATAERR = 65
"""Exit status of a program that is older than its store (sysexits.h)."""

COPIES = "schema-backups"
"""The folder of those below the control plane's."""

EMPTY = "-"
"""The revision of a store that has no schema yet, as a child says it."""


def copies(config: Config) -> Path:
    """Where copies of the store are kept that were made before an upgrade."""
    return config.control / COPIES


def bring_up(config: Config, backup: bool, say: Say) -> None:
    """Bring the store to this version's schema; quick and silent when it is there. Only while there is one thread.

    A store that has a schema is copied before, unless `backup` is false; as many copies are kept as the settings say.
    Raises CommandFailure: with status 65 and nothing touched when the store is newer than this program; when the
    upgrade cannot be done, with the store as it was.
    """
    from pileus import migration

    load_driver(config.database_url)
    told: list[str] = []
    as_owner(config.unprivileged_uid, functools.partial(_tell_revision, config.database_url), told.append)
    found = told[-1]
    if found == migration.HEAD:
        return
    if found != EMPTY and found > migration.HEAD:
        raise newer(config, found)
    work = functools.partial(_upgrade, config, migration.load(), found, backup)
    as_owner(config.unprivileged_uid, work, say)


def newer(config: Config, found: str) -> CommandFailure:
    """What is said of a store that a newer version wrote."""
    from pileus import migration

    return CommandFailure(
        f"the store is at revision {found} of its schema, and this Pileus knows {migration.HEAD}: nothing was "
        f"touched. Run the newer version that wrote it, or bring back a copy from before: see {copies(config)}",
        status=EX_DATAERR,
    )


def _tell_revision(url: str, say: Say) -> None:
    """Say at which revision a store is, and change nothing."""
    from pileus import migration

    made = sa.make_url(url)
    if made.get_backend_name() == "sqlite" and not Path(made.database or "").exists():
        say(EMPTY)
        return
    engine = sa.create_engine(made, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            say(migration.current(connection) or EMPTY)
    except sa.exc.DBAPIError as error:
        raise CommandFailure(f"the store does not answer: {error.orig}") from None
    finally:
        engine.dispose()


def _upgrade(config: Config, steps: Sequence[ModuleType], found: str, backup: bool, say: Say) -> None:
    from pileus import migration

    copy = None
    if found != EMPTY and backup:
        copy = _copy(config, found, migration.HEAD, say)
    store = Store(config.database_url)
    try:
        migration.upgrade(store.engine, steps, say if found != EMPTY else lambda text: None)
    except (sa.exc.SQLAlchemyError, migration.MigrationError) as error:
        kept = f"; a copy of it is {copy}" if copy else ""
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise CommandFailure(
            f"the store cannot be upgraded, and is as it was, at revision {found}{kept}. The cause: {cause}"
        ) from None
    finally:
        store.close()


def _copy(config: Config, found: str, head: str, say: Say) -> Path:
    """Copy the store, and let go of the oldest copies. Raises CommandFailure."""
    place = copies(config)
    place.mkdir(mode=0o700, exist_ok=True)
    kind = "dump" if sa.make_url(config.database_url).get_backend_name() == "postgresql" else "db"
    target = place / f"{found}-before-{head}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.{kind}"
    say(f"copying the store to {target}")
    try:
        copy_database(config.database_url, target, lambda share: say(f"copying the store: {share:.0%}"))
    except BackupFailure as failure:
        raise CommandFailure(
            f"the store was not upgraded, for it could not be copied before: {failure}. "
            "`pileus up --no-backup` goes without a copy"
        ) from None
    whole = [file for file in place.iterdir() if ".partial" not in file.suffixes]  # a killed upgrade leaves such
    by_age = sorted(whole, key=lambda file: file.stat().st_mtime_ns)
    for old in by_age[: -config.schema_backups]:
        old.unlink()
    return target

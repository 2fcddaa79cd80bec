"""Copies of the store that are whole at one moment, taken while others write to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa

from pileus.cli.main import CommandFailure

Progress = Callable[[float], None]
"""Is told now and then which share is done, from 0 to 1."""

PAGES = 4096
"""Pages of SQLite that are copied between two words about the progress."""


class BackupFailure(CommandFailure):
    """No copy was made, and nothing was left behind; the message says why and what to do."""


def copy_database(url: str, target: Path, progress: Progress = lambda share: None) -> None:
    """Copy a store, as it is at one moment, to a new file of mode 0600, while others read and write it.

    Of SQLite (Online Backup API) the file is a database of one file, checked by `quick_check`; of PostgreSQL it is an
    archive of pg_dump's custom format.  Post-condition: the file is whole and durable, or `target` is as it was and
    BackupFailure is raised.  `target`'s directory must have room for the file beside one that it replaces.
    """
    made = sa.make_url(url)
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(0o600, exist_ok=False)
    try:
        if made.get_backend_name() == "sqlite":
            _copy_sqlite(Path(made.database or ""), partial, progress)
        else:
            _dump_postgresql(made, partial)
        make_durable(partial)
        partial.replace(target)
        make_durable(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailure(f"the store cannot be copied to {target}: {error}") from error
    finally:
        for left in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                partial.with_name(partial.name + left).unlink(missing_ok=True)


def make_durable(path: Path) -> None:
    """Wait until a file or directory is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_sqlite(source: Path, target: Path, progress: Progress) -> None:
    def step(status: int, remaining: int, total: int) -> None:
        progress(1 - remaining / total if total else 1.0)

    with closing(_open_sqlite(source)) as old, closing(_open_sqlite(target)) as new:
        # One snapshot from the first page to the last: else each write of others would begin the copy anew.
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM sqlite_master").fetchone()
        new.execute("PRAGMA synchronous=OFF")  # the whole file is made durable at its end
        old.backup(new, pages=PAGES, progress=step, sleep=0)
        old.execute("ROLLBACK")
        new.execute("PRAGMA journal_mode=DELETE")
        damage = [row[0] for row in new.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
    if damage:
        raise BackupFailure(f"the store is damaged, and no copy was made: {'; '.join(damage)}")


def _open_sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30)


def _dump_postgresql(url: sa.URL, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise BackupFailure("pg_dump is not installed; Debian's package is called postgresql-client")
    with target.open("wb") as stream:
        done = subprocess.run(
            [program, "--format=custom", "--no-owner", "--no-privileges", f"--dbname={_plain(url)}"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.PIPE,
            env=_with_password(url),
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise BackupFailure(f"pg_dump failed, and no copy was made: {said}")


def _plain(url: sa.URL) -> str:
    """A URL as libpq's programs take it, without the password: everybody can read the arguments of a process."""
    return sa.URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    ).render_as_string()


def _with_password(url: sa.URL) -> dict[str, str]:
    return {**os.environ, **({"PGPASSWORD": url.password} if url.password else {})}

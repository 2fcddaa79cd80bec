"""Whether a control plane may begin on what it finds: a store that is whole, on a disk that takes what is written.

It changes nothing: a damaged store is not opened for writing, so that it never gets worse by a start.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from pileus.app.child import as_owner
from pileus.cli.main import CommandFailure
from pileus.core.config import Config

DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""Primary result codes that speak of the file itself (https://www.sqlite.org/rescode.html): all others may pass."""

EX_DATAERR = 65
"""Exit status of a control plane whose store is damaged (sysexits.h): to start it again would change nothing."""

ROOM = 1 << 20
"""Bytes that must fit: less than that and the first requests would fail."""


def check(config: Config) -> None:
    """Raise CommandFailure, which says what to do, unless the control plane may begin. Only while there is one thread.

    SQLite's `quick_check` reads the whole store: about a second for each GiB.  PostgreSQL looks after itself.
    """
    backups = _backups(config.state)
    as_owner(config.unprivileged_uid, lambda say: _check(config, backups), lambda text: None)


def _check(config: Config, backups: str) -> None:
    check_disk(config.control)
    made = sa.make_url(config.database_url)
    if made.get_backend_name() == "sqlite" and made.database:
        store = Path(made.database)
        if damage := examine_store(store):
            raise CommandFailure(
                f"the store {store} is damaged, and nothing was changed: {damage}. Copy it and what lies beside it to "
                f"a safe place, look whether the disk is sound, then bring back a backup: {backups}",
                status=EX_DATAERR,
            )


def check_disk(place: Path) -> None:
    """Raise CommandFailure, which says what to do, unless there is room on the disk that holds a directory."""
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"\0" * ROOM)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = os.statvfs(place)
            raise CommandFailure(
                f"the disk that holds {place} is full ({free.f_bavail * free.f_frsize >> 20} MiB free): make room, "
                "for instance of old backups and logs. Nothing is lost; servers go on"
            ) from None
        if error.errno == errno.EROFS:
            raise CommandFailure(
                f"{place} is on a disk that is read-only, as the kernel makes one that fails: see `dmesg`, mend it, "
                "then mount it for writing. Nothing was changed; servers go on"
            ) from None
        raise CommandFailure(f"{place} cannot be written to: {error.strerror or error}") from None


def examine_store(store: Path) -> str:
    """What is wrong with an SQLite database, empty when it is whole or not there yet.

    Raises CommandFailure when it cannot be read now, as on a disk that is full: that says nothing of it.
    """
    if not store.exists() or not store.stat().st_size:
        return ""
    try:
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in DAMAGE:
            return str(error)
        check_disk(store.parent)
        raise CommandFailure(f"the store {store} cannot be read now: {error}") from None
    return "" if found == ["ok"] else "; ".join(line.removeprefix("*** in database main ***\n") for line in found)


def _backups(state: Path) -> str:
    """How to go back, with the newest backup that is known."""
    found = sorted((state / "backups").glob("*.tar"), key=lambda file: file.stat().st_mtime)
    if not found:
        return "`pileus restore FILE`; there is none in its usual place"
    return f"`pileus restore {found[-1]}` (the newest of {len(found)})"

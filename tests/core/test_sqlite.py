from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pileus.core import sqlite


class Busy(sqlite3.Connection):
    """A connection to a file that others are just opening or closing: SQLite refuses the switch without a wait."""

    left = 3

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        if "journal_mode" in sql and self.left:
            self.left -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(sql, *rest)


def test_the_switch_to_the_write_ahead_log_is_tried_again(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store", factory=Busy)) as connection:
        sqlite.prepare(connection, None)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_it_is_given_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.02)
    monkeypatch.setattr(Busy, "left", 1000)
    store = sqlite3.connect(tmp_path / "store", factory=Busy)
    with closing(store) as connection, pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite.prepare(connection, None)


def test_what_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"no database" * 100)
    store = sqlite3.connect(tmp_path / "store")
    with closing(store) as connection, pytest.raises(sqlite3.DatabaseError, match="not a database"):
        sqlite.prepare(connection, None)

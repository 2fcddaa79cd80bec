"""How connections to an SQLite file are prepared, and their transactions begun.

Source: https://www.sqlite.org/wal.html; "Database Locking in SQLite" of SQLAlchemy's documentation of its dialect.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa

PATIENCE = 30.0
"""Seconds that a connection waits for another's lock."""

PRAGMAS = ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-4000")


def prepare(connection: sqlite3.Connection, record: Any) -> None:
    """Set up a new connection. Raises sqlite3.DatabaseError for a file that is none, or that others keep locked."""
    connection.isolation_level = None  # transactions are begun by hand, below
    _write_ahead(connection)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, which SQLite does not wait for when another connection does the same just now."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def begin(connection: sa.Connection) -> None:
    """Begin a transaction: one that will write has the lock from its first statement on."""
    immediate = connection.get_execution_options().get("pileus_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

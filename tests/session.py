"""Sessions of PostgreSQL that outlive the store that opened them, for the next test on the same database.

A test opens six, and the server takes 9 ms to begin one: to fork, and to read its catalogs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

KEPT = 4
"""Of one database; others end when their store lets go of them."""


class Sessions:
    """What SQLAlchemy opens and closes in this process; a session that it closes waits here for the next."""

    def __init__(self) -> None:
        self._idle: dict[str, list[psycopg.Connection]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep sessions from here on, and end all of them."""
        connect = PGDialect_psycopg.connect

        def take(dialect: PGDialect_psycopg, *arguments: Any, **parameters: Any) -> Any:
            return self._take(str(parameters.get("dbname"))) or connect(dialect, *arguments, **parameters)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PGDialect_psycopg, "connect", take)
            patch.setattr(PGDialect_psycopg, "do_close", lambda _, connection: self._keep(connection))
            yield
        for database in list(self._idle):
            self.end(database)

    def idle(self, database: str) -> list[int]:
        """The server's processes that wait in a database."""
        with self._lock:
            return [one.info.backend_pid for one in self._idle.get(database, [])]

    def end(self, database: str) -> None:
        """End those that wait in a database, which shall go."""
        with self._lock:
            ended = self._idle.pop(database, [])
        for connection in ended:
            connection.close()

    def _take(self, database: str) -> psycopg.Connection | None:
        with self._lock:
            waiting = self._idle.get(database)
            return waiting.pop() if waiting else None

    def _keep(self, connection: Any) -> None:
        """Take back what SQLAlchemy lets go of; what is in the middle of something, or one too many, ends."""
        if not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE:
            with self._lock:
                waiting = self._idle.setdefault(connection.info.dbname, [])
                if len(waiting) < KEPT:
                    waiting.append(connection)
                    return
        connection.close()

"""The one store: what is wanted and what was observed, in SQLite or PostgreSQL, through SQLAlchemy Core.

Everything that changes the store is a function of a transaction (`Tx`), re-runnable from its start: it is run again
when it lost a race.  Where it runs is decided here:

- SQLite (WAL, synchronous=FULL): reads run where they are called, each thread with a connection of its own; writes run
  on one writer thread that commits in groups, so one fsync serves many requests.
- PostgreSQL (READ COMMITTED): reads and writes run on a bounded pool of threads.

No invariant relies on SQLite's single writer: it is a constraint, a generation compared and set, or an
`UPDATE … WHERE used + n <= limit`.
"""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from pileus.core import sqlite
from pileus.core import statement as statements
from pileus.core.cause import Causes
from pileus.core.errors import Raced, TooManyRequests
from pileus.core.metrics import SIZES, Family, Histogram
from pileus.core.outage import unavailable
from pileus.core.seams import Seams

T = TypeVar("T")
Work = Callable[["Tx"], T]
log = logging.getLogger(__name__)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of all services."""

SLOW_WAITING = 32
"""How much slow work may wait at once."""

ATTEMPTS = 3
"""How often an operation that loses a race is run."""

_XID = sa.text("SELECT pg_current_xact_id()::text::bigint")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Instant(sa.types.TypeDecorator[datetime]):
    """A moment, kept as microseconds since 1970 (UTC): sorts, compares and converts alike on both engines."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """An aware datetime to its number."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        """A number to an aware datetime in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Change(NamedTuple):
    """One entry of the change log: the thing `key` of `topic` is not what it was."""

    topic: str
    key: str


change = sa.Table(
    "core_change",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("topic", sa.String(64), nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("xid", sa.BigInteger, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("request_id", sa.String(64)),
    sa.Index("ix_core_change_topic_seq", "topic", "seq"),
    sa.Index("ix_core_change_xid_topic", "xid", "topic"),
    sqlite_autoincrement=True,
)


class Tx:
    """A transaction, and what it will tell once it is committed.

    `now` is the same instant throughout, so that what one request writes carries one time.  `request_id` is that of
    the request that the transaction is of, None for those of loops.
    """

    __slots__ = ("_causes", "_changes", "connection", "dialect", "now", "request_id", "seams", "writable")

    def __init__(
        self, connection: sa.Connection, seams: Seams, *, writable: bool, causes: Causes | None = None
    ) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        self.seams = seams
        self.now = seams.clock.now()
        self.writable = writable
        self.request_id: str | None = None
        self._causes = causes or Causes()
        self._changes: dict[Change, None] = {}

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        """Run a statement, for one set of parameters or for a list of them."""
        return self.connection.execute(statement, parameters)

    def all(self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[sa.Row[Any]]:
        """All rows of a query."""
        return self.connection.execute(statement, parameters).all()

    def first(self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None) -> sa.Row[Any] | None:
        """The first row of a query, or None."""
        return self.connection.execute(statement, parameters).first()

    def scalar(self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        return self.connection.execute(statement, parameters).scalar()

    def insert(self, table: sa.Table, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Insert a row, or some that have the same columns; none is fine."""
        if rows:
            self.execute(statements.insertion(table), rows)

    def update(self, table: sa.Table, where: Mapping[str, Any], values: Mapping[str, Any]) -> int:
        """Give the rows for which all of `where` holds these values, or expressions; how many there are."""
        null = frozenset(name for name, value in where.items() if value is None)
        found = {statements.WHERE + name: value for name, value in where.items() if value is not None}
        made = {name: value for name, value in values.items() if isinstance(value, sa.ColumnElement)}
        plain = {name: value for name, value in values.items() if name not in made}
        statement = statements.update(table, tuple(where), null, tuple(plain))
        if made:
            statement = statement.values(made)
        return self.execute(statement, {**plain, **found}).rowcount

    def update_each(self, table: sa.Table, key: str, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Give rows values of their own: by the column `key`, all for the same columns; none is fine."""
        if changes:
            names = tuple(next(iter(changes.values())))
            rows = [{f"{statements.WHERE}{key}": found, **values} for found, values in changes.items()]
            self.execute(statements.update(table, (key,), frozenset(), names), rows)

    def upsert(self, table: sa.Table, values: Mapping[str, Any], *, key: Sequence[str]) -> None:
        """Insert a row, or give the one with the same `key` columns these values."""
        self.upsert_all(table, [values], key=key)

    def upsert_all(self, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, key: Sequence[str]) -> None:
        """`upsert` for some rows that have the same columns."""
        if rows:
            self.execute(statements.upsertion(self.dialect, table, tuple(key), tuple(rows[0])), rows)

    def insert_missing(self, table: sa.Table, values: Mapping[str, Any], *, key: Sequence[str]) -> bool:
        """Insert a row unless one with the same `key` columns is there; whether it was inserted."""
        return self.execute(statements.upsertion(self.dialect, table, tuple(key), ()), values).rowcount == 1

    def compare_and_set(self, table: sa.Table, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Update the one row for which all of `where` holds. Raises Raced when there is none any more."""
        if self.update(table, where, values) != 1:
            raise Raced(f"The {table.name} was changed by another request at the same time.")

    def changed(self, topic: str, key: str) -> None:
        """Write into the change log, at commit, that the thing `key` of `topic` is not what it was."""
        self._changes[Change(topic, key)] = None

    def cause(self, object_id: str) -> str | None:
        """The id of the request on account of which a thing is changed here."""
        return self.request_id or self._causes.get(object_id)

    def because(self, object_id: str, request_id: str) -> None:
        """Note what somebody else knows of the cause."""
        self._causes.note(object_id, request_id)

    def flush(self) -> list[Change]:
        """Write the change log entries; what they were. The store calls this before a commit."""
        changes = list(self._changes)
        if changes:
            xid = 0 if self.dialect == "sqlite" else self.scalar(_XID)
            causes = self._causes.attribute([one.key.rpartition("/")[2] for one in changes], self.request_id)
            entry = {"xid": xid, "at": self.now}
            rows = [
                {"topic": one.topic, "key": one.key, "request_id": cause, **entry}
                for one, cause in zip(changes, causes, strict=True)
            ]
            self.insert(change, rows)
        return changes


def load_driver(url: str) -> None:
    """Import all that a store at this URL needs: later its code may not be readable any more."""
    made = sa.make_url(url)
    driver = made.get_dialect().import_dbapi()
    if made.get_backend_name() != "sqlite":
        for found in pkgutil.walk_packages(driver.__path__, f"{driver.__name__}."):
            with suppress(ImportError):  # what it offers beside, for packages that are not here
                import_module(found.name)


class _Job(NamedTuple):
    work: Work[Any]
    future: Future[Any]


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class Store:
    """A store at a SQLAlchemy URL. `observers` are called after each commit, from any thread, with its changes."""

    def __init__(self, url: str, seams: Seams | None = None, *, pool: int = 8, slow: int = 2) -> None:
        self.url = sa.make_url(url)
        self.seams = seams or Seams()
        self.embedded = self.url.get_backend_name() == "sqlite"
        self.observers: list[Callable[[Sequence[Change]], None]] = []
        self._local = threading.local()
        self._connections: list[sa.Connection] = []
        self._waiting = 0
        self._causes = Causes()
        self._groups = Histogram(
            "pileus_store_group_size", "Writes that one transaction of the writer thread holds.", bounds=SIZES
        )
        self._commits = Histogram(
            "pileus_store_commit_seconds", "Time from a write transaction's last statement until it is durable."
        )
        self._slow = ThreadPoolExecutor(slow, thread_name_prefix="slow")
        options: dict[str, Any] = {
            "json_serializer": _encode,
            "json_deserializer": msgspec.json.decode,
            # What is written holds secrets (user data, hashes of passwords): it shall not get into errors and logs.
            "hide_parameters": True,
            # All services together have more statements than SQLAlchemy keeps compiled by itself.
            "query_cache_size": 1500,
        }
        if self.embedded:
            self.engine = sa.create_engine(
                self.url,
                poolclass=sa.NullPool,
                connect_args={"check_same_thread": False, "timeout": sqlite.PATIENCE},
                **options,
            )
            sa.event.listen(self.engine, "connect", sqlite.prepare)
            sa.event.listen(self.engine, "begin", sqlite.begin)
            self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
            self._writer = threading.Thread(target=self._write_in_groups, name="writer", daemon=True)
            self._writer.start()
        else:
            self.engine = sa.create_engine(self.url, pool_size=pool, max_overflow=2, pool_pre_ping=True, **options)
            self._pool = ThreadPoolExecutor(pool, thread_name_prefix="store")

    async def read(self, work: Work[T]) -> T:
        """Run a function that only reads, on a snapshot."""
        if self.embedded:
            return self.read_here(work)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.read_here, work)

    async def write(self, work: Work[T]) -> T:
        """Run a function in a transaction of its own; return when it is durable.

        It is run again when it lost a race, at most three times. Raises what it raises, and Unavailable when the
        engine does not answer or is full.
        """
        if self.embedded:
            return await asyncio.wrap_future(self._submit(work))
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._write_alone, work)

    async def slow(self, work: Callable[[], T]) -> T:
        """Run work that costs much CPU (password hashes), a few at a time, outside transactions.

        Raises TooManyRequests when SLOW_WAITING of it wait already: a flood of logins must not keep everybody waiting.
        """
        if self._waiting >= SLOW_WAITING:
            raise TooManyRequests("Too many requests of this kind wait already: try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._slow, work)
        finally:
            self._waiting -= 1

    def read_here(self, work: Work[T]) -> T:
        """`read`, in the calling thread."""
        with self._reader() as connection, connection.begin() as transaction:
            try:
                return work(Tx(connection, self.seams, writable=False))
            except OperationalError as error:
                raise unavailable(error) from error
            finally:
                transaction.rollback()

    def write_here(self, work: Work[T]) -> T:
        """`write`, waiting in the calling thread."""
        if self.embedded:
            return self._submit(work).result()
        return self._write_alone(work)

    def size(self) -> int:
        """Bytes that the store takes on the disk, the write-ahead log of SQLite included."""
        if not self.embedded:
            return int(self.read_here(lambda tx: tx.scalar(sa.text("SELECT pg_database_size(current_database())"))))
        found = 0
        for ending in ("", "-wal"):
            with suppress(OSError):
                found += Path(f"{self.url.database}{ending}").stat().st_size
        return found

    @property
    def alive(self) -> bool:
        """Whether writes are taken."""
        return not self.embedded or self._writer.is_alive()

    def families(self) -> list[Family]:
        """Figures of the writes; groups are SQLite's alone."""
        return [self._commits, *([self._groups] if self.embedded else [])]

    def close(self) -> None:
        """Finish what was accepted, and let go of the engine."""
        if self.embedded:
            self._jobs.put(None)
            self._writer.join()
        else:
            self._pool.shutdown()
        self._slow.shutdown(cancel_futures=True)
        for connection in self._connections:
            connection.close()
        self.engine.dispose()

    def create(self) -> None:
        """Make the tables that are missing, for tests; a real store is made by its migrations."""
        with self.engine.begin() as connection:
            there = set(sa.inspect(connection).get_table_names())
            if missing := [table for table in metadata.tables.values() if table.name not in there]:
                metadata.create_all(connection, missing, checkfirst=False)

    @contextmanager
    def _reader(self) -> Iterator[sa.Connection]:
        if not self.embedded:
            with self.engine.connect() as connection:
                yield connection
            return
        held: sa.Connection | None = getattr(self._local, "connection", None)
        if held is None:
            held = self._local.connection = self.engine.connect()
            self._connections.append(held)
        yield held

    def _submit(self, work: Work[T]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put(_Job(work, future))
        return future

    def _write_in_groups(self) -> None:
        connection: sa.Connection | None = None
        ended = False
        while not ended:
            group = [self._jobs.get()]
            while not self._jobs.empty() and len(group) < 64:
                group.append(self._jobs.get())
            ended = None in group
            jobs = [one for one in group if one is not None]
            try:
                if connection is None:
                    connection = self.engine.connect().execution_options(pileus_write=True)
                self._commit_group(connection, jobs)
            except BaseException as error:  # whatever it is: without this thread all writes would wait for ever
                _refuse(jobs, error)
                _let_go(connection)
                connection = None
        _let_go(connection)

    def _commit_group(self, connection: sa.Connection, jobs: list[_Job]) -> None:
        changes: list[Change] = []
        settled: list[tuple[_Job, Any, BaseException | None]] = []
        with connection.begin():
            for job in jobs:
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    result, told = self._attempt(connection, job.work)
                    changes += told
                    settled.append((job, result, None))
                except OperationalError as error:
                    # Of the statement, not of the engine: too many terms, too deep. Its neighbours do not suffer,
                    # unless the engine has ended the transaction, and the error is but that of the savepoint's end.
                    own = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
                    if not own or not _within(connection):
                        raise
                    settled.append((job, None, unavailable(error)))
                except Exception as error:  # the operation's own answer, carried to its caller
                    settled.append((job, None, error))
            ended = time.perf_counter()
        self._commits.observe(time.perf_counter() - ended)
        self._groups.observe(len(settled))
        self._tell(changes)
        for job, result, failure in settled:
            if failure is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(failure)

    def _attempt(self, connection: sa.Connection, work: Work[T]) -> tuple[T, list[Change]]:
        """Run work in a savepoint, so that its failure leaves its neighbours' writes alone."""
        for attempt in range(ATTEMPTS):
            try:
                with connection.begin_nested():
                    tx = Tx(connection, self.seams, writable=True, causes=self._causes)
                    return work(tx), tx.flush()
            except (Raced, IntegrityError):
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _write_alone(self, work: Work[T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                with self.engine.begin() as connection:
                    tx = Tx(connection, self.seams, writable=True, causes=self._causes)
                    result = work(tx)
                    changes = tx.flush()
                    ended = time.perf_counter()
                self._commits.observe(time.perf_counter() - ended)
                self._tell(changes)
                return result
            except (Raced, IntegrityError):
                if attempt == ATTEMPTS - 1:
                    raise
            except OperationalError as error:
                if getattr(error.orig, "sqlstate", None) not in ("40001", "40P01") or attempt == ATTEMPTS - 1:
                    raise unavailable(error) from error
        raise AssertionError("unreachable")

    def _tell(self, changes: Sequence[Change]) -> None:
        if changes:
            for observer in tuple(self.observers):
                try:
                    observer(changes)
                except Exception:  # what is committed is committed; changes are hints, with polling behind them
                    log.exception("an observer of commits failed")


def _refuse(jobs: Sequence[_Job], error: BaseException) -> None:
    """Answer writes of which none was committed."""
    answer: BaseException = error
    if isinstance(error, DBAPIError):
        # The whole error would hold what was to be written, which may be secret.
        log.error("a group of %d writes failed", len(jobs))
        answer = unavailable(error)
    else:
        log.error("a group of %d writes failed", len(jobs), exc_info=error)
    for job in jobs:
        if not job.future.done():
            with suppress(InvalidStateError):  # its caller gave it up just now
                job.future.set_exception(answer)


def _within(connection: sa.Connection) -> bool:
    """Whether SQLite still holds the transaction that was begun: it ends one by itself on some errors."""
    raw = connection.connection.dbapi_connection
    return raw is not None and bool(raw.in_transaction)


def _let_go(connection: sa.Connection | None) -> None:
    """Close a connection, in whatever state a failure has left it."""
    if connection is not None:
        with suppress(Exception):
            connection.close()

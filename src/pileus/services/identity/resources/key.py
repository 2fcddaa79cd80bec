"""The keys that seal tokens, kept in the store, so that all control processes share them.

A set of keys has a purpose.  The highest number is the primary key, which seals; 0 is staged, to become the primary
with the next rotation; the others were primaries and still open.  A rotation lets the revision grow, so every process
has the new keys before its next answer.

What the store holds is itself sealed with a master key, a file that nobody else may read: a database that leaks gives
away no token.  A control process on another machine needs a copy of that one file, once.

Source: Keystone administration guide, "Fernet - Frequently Asked Questions", for the tokens of
https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken

from pileus.core.errors import Raced
from pileus.core.store import Instant, Store, Tx, metadata
from pileus.services.identity.resources import revision

STAGED = 0

MASTER = "master"
"""Name of the master key's file."""

table = sa.Table(
    "identity_key",
    metadata,
    sa.Column("purpose", sa.String(32), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sealed", sa.Text, nullable=False),
    sa.Column("retired_at", Instant),
)
"""`retired_at`: when the key ceased to be the primary; null for the primary and the staged key."""


class KeyFailure(Exception):
    """The keys cannot be had. The message says what to do, and holds nothing of them."""


class _Held(NamedTuple):
    """What was read of the keys at a revision."""

    revision: int
    numbers: tuple[int, ...]
    keys: tuple[bytes, ...]


class Keys:
    """The keys of one purpose, with the master key in a directory. Safe from several threads.

    A rotation leaves at most `active` keys, but for those that may have sealed something within `lifetime`.
    """

    def __init__(
        self, directory: Path, purpose: str = "token", *, active: int = 3, lifetime: timedelta = timedelta(hours=72)
    ) -> None:
        self.directory = directory
        self.purpose = purpose
        self.active = active
        self.lifetime = lifetime
        self._mine = table.c.purpose == purpose
        self._held = _Held(-1, (), ())
        self._master: Fernet | None = None

    def prepare(self, store: Store) -> None:
        """Make the master key and the first keys where they are missing. Raises KeyFailure."""
        path = self.directory / MASTER
        if not path.exists() and store.read_here(lambda tx: tx.first(sa.select(table.c.number))) is not None:
            raise KeyFailure(
                f"the store's keys are sealed with the master key of another machine: copy its file to {path}"
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        _write_once(path, Fernet.generate_key())
        store.write_here(self._fill)
        store.read_here(self.current)

    def current(self, tx: Tx, number: int | None = None) -> tuple[bytes, ...]:
        """The keys, primary first, as they are at the revision; the same object until they change. Raises KeyFailure.

        `number` is the revision, when the caller has read it in this transaction.
        """
        number = revision.current(tx) if number is None else number
        held = self._held
        if held.revision != number or not held.keys:
            held = self._read(tx, number)
            if not tx.writable:  # else the revision may be one that is never committed
                self._held = held
        return held.keys

    def rotate(self, tx: Tx, *, forget: bool = False) -> None:
        """Make the staged key the primary, and stage a new one.

        Nothing that was sealed is void by it.  With `forget`, for keys that somebody may have seen, all older keys go
        at once, and with them all that they sealed.  Raises Raced when another process does the same.
        """
        numbers = [row.number for row in tx.all(sa.select(table.c.number).where(self._mine))]
        newest = max(numbers)
        staged = sa.update(table).where(self._mine, table.c.number == STAGED)
        if forget:
            tx.execute(sa.delete(table).where(self._mine))
            self._insert(tx, newest + 1)
        else:
            tx.execute(sa.update(table).where(self._mine, table.c.number == newest).values(retired_at=tx.now))
            if tx.execute(staged.values(number=newest + 1)).rowcount != 1:
                raise Raced("The keys were rotated by another process at the same time.")
            old = sorted(number for number in numbers if number != STAGED)[: -max(self.active - 2, 1)]
            tx.execute(
                sa.delete(table).where(self._mine, table.c.number.in_(old), table.c.retired_at < tx.now - self.lifetime)
            )
        self._insert(tx, STAGED)
        tx.changed("identity.key", self.purpose)
        revision.grow(tx)

    def _fill(self, tx: Tx) -> None:
        for number in (1, STAGED):
            if tx.first(sa.select(table.c.number).where(self._mine, (table.c.number > 0) == (number > 0))) is None:
                self._insert(tx, number)

    def _insert(self, tx: Tx, number: int) -> None:
        sealed = self._fernet().encrypt(Fernet.generate_key()).decode()
        row = {"purpose": self.purpose, "number": number, "sealed": sealed, "retired_at": None}
        tx.insert_missing(table, row, key=("purpose", "number"))

    def _read(self, tx: Tx, number: int) -> _Held:
        rows = tx.all(sa.select(table.c.number, table.c.sealed).where(self._mine).order_by(table.c.number.desc()))
        numbers = tuple(row.number for row in rows)
        if not numbers:
            raise KeyFailure(f"the store holds no keys for {self.purpose}")
        if numbers == self._held.numbers:
            return self._held._replace(revision=number)  # a number never names another key
        try:
            return _Held(number, numbers, tuple(self._fernet().decrypt(row.sealed) for row in rows))
        except InvalidToken:
            path = self.directory / MASTER
            raise KeyFailure(f"{path} is not the master key of this store: copy that of the other machine") from None

    def _fernet(self) -> Fernet:
        if self._master is None:
            try:
                self._master = Fernet((self.directory / MASTER).read_bytes())
            except (OSError, ValueError):
                raise KeyFailure(f"{self.directory / MASTER} cannot be read, or is no key") from None
        return self._master


def _write_once(path: Path, content: bytes) -> None:
    """Put a file in place whole, unless it is there: another process may be doing the same."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()

"""Secrets that must be read again (what signatures are made with): sealed in the store, and sealed anew at a rotation.

The keys are of the purpose `credential`, beside those of tokens: in the store, themselves sealed with the master key
that only this machine has.  So a database that leaks gives away no secret.

Source: Keystone administration guide, "Credential Encryption", for the credentials of
https://docs.openstack.org/api-ref/identity/v3/#credentials and the secrets of OAuth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Store, Tx
from pileus.services.identity.resources.key import Keys
from pileus.services.identity.rules.secret import Box

PURPOSE = "credential"

_HOLDERS: list[sa.Table] = []


def columns() -> tuple[sa.Column[Any], sa.Column[Any]]:
    """The columns of a table whose rows hold one secret each. Such a table is to be made known by `holds`."""
    return sa.Column("sealed", sa.Text, nullable=False), sa.Column(
        "key_hash", sa.String(64), nullable=False, index=True
    )


def holds(table: sa.Table) -> sa.Table:
    """Make known a table with an `id` and `columns()`, so that a rotation finds its secrets."""
    _HOLDERS.append(table)
    return table


class Secrets:
    """Seals and opens the secrets of one cloud, whose master key is in a directory. Safe from several threads."""

    def __init__(self, directory: Path) -> None:
        self.keys = Keys(directory, PURPOSE)
        self._held: tuple[tuple[bytes, ...], Box] | None = None

    def prepare(self, store: Store) -> None:
        """Make the first keys where they are missing. Raises KeyFailure."""
        self.keys.prepare(store)

    def box(self, tx: Tx) -> Box:
        """The keys in force. Raises KeyFailure."""
        keys = self.keys.current(tx)
        held = self._held
        if held is None or held[0] is not keys:
            held = self._held = (keys, Box(keys))
        return held[1]

    def seal(self, tx: Tx, secret: str) -> dict[str, str]:
        """The values of `columns()` for a secret."""
        text, key_hash = self.box(tx).seal(secret)
        return {"sealed": text, "key_hash": key_hash}

    def open(self, tx: Tx, row: sa.Row[Any]) -> str:
        """The secret of a row. Raises SecretUnreadable."""
        return self.box(tx).open(row.sealed)

    def rotate(self, tx: Tx) -> int:
        """Make the staged key the primary, and seal every secret anew with it; how many there were."""
        old = self.box(tx)
        self.keys.rotate(tx)
        # By keys of its own: what is not yet committed must not be remembered.
        fresh = Box(Keys(self.keys.directory, PURPOSE).current(tx))
        return sum(_migrate(tx, table, old, fresh) for table in _HOLDERS)


def _migrate(tx: Tx, table: sa.Table, old: Box, fresh: Box) -> int:
    stale = tx.all(sa.select(table.c.id, table.c.sealed).where(table.c.key_hash != fresh.primary_hash))
    for row in stale:
        text, key_hash = fresh.seal(old.open(row.sealed))
        # What was changed in between is left as it is: it was sealed with a key that is still there.
        same = sa.update(table).where(table.c.id == row.id, table.c.sealed == row.sealed)
        tx.execute(same.values(sealed=text, key_hash=key_hash))
    return len(stale)

"""Forgetting servers that were deleted long ago."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import sqlalchemy as sa

from pileus.core.reconcile import DONE, KeyController, Outcome
from pileus.core.store import Tx
from pileus.services.compute.resources.migration import migration
from pileus.services.compute.resources.server.table import action, decision, server, snapshot, tag
from pileus.services.compute.resources.server_group import member

RETENTION = timedelta(days=30)
"""How long a deleted server is shown to those who ask for deleted ones, with what was asked of it."""


class Archive(KeyController):
    """Deletes the rows of servers that were deleted longer ago than RETENTION."""

    name = "compute.archive"
    interval = 3600.0

    def keys(self, tx: Tx) -> Iterable[str]:
        """The next of them, the oldest first."""
        old = server.c.deleted_at < tx.now - RETENTION
        query = sa.select(server.c.id).where(old).order_by(server.c.deleted_at).limit(1000)
        return [row.id for row in tx.all(query)]

    def work(self, tx: Tx, key: str) -> Outcome:
        """Forget one."""
        old = (server.c.id == key, server.c.deleted_at < tx.now - RETENTION)
        if tx.first(sa.select(server.c.id).where(*old).with_for_update()) is None:
            return DONE
        for child in (tag, action, decision, snapshot, migration, member):
            tx.execute(sa.delete(child).where(child.c.server_id == key))
        tx.execute(sa.delete(server).where(*old))
        return DONE

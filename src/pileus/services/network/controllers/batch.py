"""A loop that works on many keys in one transaction.

Several processes may run the same loop on the same key.  So whoever tells a host something locks what it is about
(the row of the port, router, network or security group, in this order and by id) before it reads what to tell: what was
read last is told last.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa

from pileus.core import statement
from pileus.core.reconcile import Failed, Outcome
from pileus.core.store import Store, Tx

log = logging.getLogger(__name__)


def lock(tx: Tx, table: sa.Table, ids: Collection[str]) -> None:
    """Lock rows until the transaction ends; readers and new references to them need not wait."""
    if ids:
        tx.all(statement.lock(table), {"values": ids})


class BatchController:
    """A controller that looks at a batch of keys at once; a key that fails does not hold up its neighbours.

    Once in `interval` seconds, and at the start, every key is looked at, so that a lost signal costs time alone.
    """

    name = "unnamed"
    topics: frozenset[str] = frozenset()
    interval = 600.0
    batch = 64
    parallel = 1

    def keys(self, tx: Tx) -> Iterable[str]:
        """All keys."""
        return ()

    def work(self, tx: Tx, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Do what is missing for some keys; runs again from its start when it loses a race."""
        raise NotImplementedError

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """All keys in one transaction; each in one of its own when that fails."""
        try:
            return await store.write(lambda tx: self.work(tx, keys))
        except Exception as error:
            log.warning("%s: a batch of %d failed: %r", self.name, len(keys), error, exc_info=len(keys) == 1)
        if len(keys) == 1:
            return {keys[0]: Failed()}
        found: dict[str, Outcome] = {}
        for key in keys:
            found |= await self.reconcile(store, [key])
        return found

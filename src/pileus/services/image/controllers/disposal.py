"""Removes data from stores."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import sqlalchemy as sa

from pileus.contracts.images import ImageStore, StoreFailure
from pileus.core.reconcile import Broken, Failed, Outcome
from pileus.core.statement import by
from pileus.core.store import Store, Tx
from pileus.services.image.interface import ImageStores
from pileus.services.image.resources.store import disposal

log = logging.getLogger(__name__)


class Disposal:
    """Removes data from stores, row by row. A key is a row's id."""

    name = "image-disposal"
    topics = frozenset({"image.disposal"})
    interval = 60.0
    batch = 8
    parallel = 1

    def __init__(self, stores: ImageStores) -> None:
        self.stores = stores

    def keys(self, tx: Tx) -> Iterable[str]:
        """Everything that is to be removed."""
        return [row.id for row in tx.all(sa.select(disposal.c.id))]

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Remove the data first and the row after it, so that a crash in between forgets nothing."""
        rows = await store.read(lambda tx: tx.all(by(disposal, "id"), {"values": keys}))
        outcomes: dict[str, Outcome] = {}
        removed = []
        for row in rows:
            found = self.stores.find(row.store)
            if found is None:
                outcomes[row.id] = Broken(f"the image store {row.store} is not there")
                continue
            try:
                await self.stores.run(partial(_remove, found, row.key, row.location), on=found)
            except (OSError, StoreFailure) as error:
                log.warning("cannot remove image data from the store %s: %s", row.store, error)
                outcomes[row.id] = Failed()
                continue
            removed.append(row.id)
        if removed:
            await store.write(lambda tx: tx.execute(sa.delete(disposal).where(disposal.c.id.in_(removed))).rowcount)
        return outcomes


def _remove(store: ImageStore, key: str | None, location: str | None) -> None:
    """Remove what was committed at a location, or whatever was written under a key."""
    if key is not None:
        store.abort(key)
        try:
            location = store.commit(key)
        except StoreFailure:
            return  # it was never committed
    if location is not None:
        store.remove(location)

"""Fills the cache: copies the data of images that wait for it, and lets go of what there is no room for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial

import sqlalchemy as sa

from pileus.contracts.images import StoreFailure
from pileus.core.reconcile import DONE, Again, Broken, Outcome
from pileus.core.store import Store, Tx
from pileus.services.image.interface import ImageStores
from pileus.services.image.resources import place
from pileus.services.image.resources.cache import crowded
from pileus.services.image.resources.cached import cached, drop, find, forget
from pileus.services.image.resources.image.table import Record, image, records
from pileus.services.image.resources.store import CACHE, dispose
from pileus.services.image.resources.stream import Blocks, Sink, pump, read

log = logging.getLogger(__name__)

STALLED = timedelta(minutes=10)
"""After which time nobody writes any more, where other processes may."""


class Caching:
    """Fills the cache. A key is an image's id."""

    name = "image-cache"
    topics = frozenset({"image.cache"})
    interval = 60.0
    batch = 1
    parallel = 1

    def __init__(self, stores: ImageStores) -> None:
        self.stores = stores

    def keys(self, tx: Tx) -> Iterable[str]:
        """Images that wait for the cache."""
        return [row.image_id for row in tx.all(sa.select(cached.c.image_id).where(cached.c.location.is_(None)))]

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Copy the data of images that wait."""
        return {key: await self._work(store, key) for key in keys}

    async def _work(self, store: Store, image_id: str) -> Outcome:
        begun = await store.write(lambda tx: self._begin(tx, image_id, alone=store.embedded))
        if begun is None:
            return DONE
        if isinstance(begun, Again):
            return begun
        key, record = begun
        try:
            sink = await self._copy(key, record)
        except (OSError, StoreFailure) as error:
            log.warning("cannot keep the image %s close by: %s", image_id, error)
            await store.write(lambda tx: forget(tx, image_id))
            return Broken(f"its data cannot be copied: {error}")
        await store.write(lambda tx: self._end(tx, image_id, key, sink))
        return DONE

    def _begin(self, tx: Tx, image_id: str, *, alone: bool) -> tuple[str, Record] | Again | None:
        row = find(tx, image_id)
        if row is None or row.location is not None:
            return None
        if row.key is not None:
            if not alone and row.modified_at > tx.now - STALLED:
                return Again(60.0)
            dispose(tx, CACHE, key=row.key)
        found = tx.first(sa.select(image).where(image.c.id == image_id, image.c.status == "active"))
        # Data that nobody has hashed cannot be told from other data of its place; it is never kept.
        if found is None or found.checksum is None or found.size > self.stores.settings.cache_room:
            tx.execute(sa.delete(cached).where(cached.c.image_id == image_id))
            return None
        key = f"{image_id.lower()}.{tx.seams.hex()}"
        tx.compare_and_set(cached, {"image_id": image_id, "key": row.key}, {"key": key, "modified_at": tx.now})
        return key, records(tx, [found])[0]

    async def _copy(self, key: str, record: Record) -> Sink:
        kept = self.stores.get(CACHE)
        one = place.preferred(self.stores, record, [])[0]
        store = self.stores.get(one.store)
        file = await self.stores.run(partial(store.open, one.location), on=store)
        incoming = await self.stores.run(lambda: kept.open_new(key))
        sink = Sink(incoming)
        try:
            await pump(self.stores, sink, Blocks(read(self.stores, store, file, None), record.row.size).next)
        finally:
            file.close()
            await self.stores.run(incoming.close)
        if sink.md5.hexdigest() != record.row.checksum:
            raise StoreFailure("it is not what its hash says")
        await self.stores.run(lambda: kept.commit(key))
        return sink

    def _end(self, tx: Tx, image_id: str, key: str, sink: Sink) -> None:
        values = {
            "location": key,
            "size": sink.inspector.size,
            "checksum": sink.md5.hexdigest(),
            "modified_at": tx.now,
            "accessed_at": tx.now,
        }
        mine = sa.update(cached).where(cached.c.image_id == image_id, cached.c.key == key)
        if tx.execute(mine.values(values)).rowcount != 1:
            dispose(tx, CACHE, key=key)
            return
        for row in crowded(tx, self.stores.settings.cache_room):
            drop(tx, row)

"""The stores that hold image data, and the row that says what of it is to be removed.

Source: https://docs.openstack.org/api-ref/image/v2/#stores for how a store is named.

Data is removed only by such a row, never because nobody seems to own it: a store's rows may come from an older copy.
Every byte that is written has its key in a row before it is written, so that nothing can be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from pileus.contracts.images import ImageStore
from pileus.core.errors import BadRequest
from pileus.core.store import Instant, Tx, metadata

T = TypeVar("T")

disposal = sa.Table(
    "image_disposal",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("store", sa.String(64), nullable=False),
    sa.Column("key", sa.String(128), comment="name under which an upload wrote, which may not be committed"),
    sa.Column("location", sa.String(1024), comment="committed data"),
    sa.Column("created_at", Instant, nullable=False),
)


class ImageStores:
    """The stores of this cloud by name, the one that is used when none is named, and the threads that work for them."""

    def __init__(self, stores: Mapping[str, ImageStore], default: str, *, threads: int = 4) -> None:
        if default not in stores:
            raise ValueError(f"the default image store {default} is not one of {', '.join(stores)}")
        self.by_name = dict(stores)
        self.default = default
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="image")

    def name(self, wanted: str | None) -> str:
        """The name of the store that a request asks for. Raises BadRequest."""
        if wanted is None:
            return self.default
        if wanted not in self.by_name:
            raise BadRequest(f"There is no image store of the name {wanted}.")
        return wanted

    async def run(self, work: Callable[[], T]) -> T:
        """Run work on files or on much data, outside of the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def dispose(tx: Tx, store: str, *, key: str | None = None, location: str | None = None) -> None:
    """Have data removed, soon: what was committed at a location, or whatever was written under a key."""
    number = tx.seams.uuid()
    values = {"id": number, "store": store, "key": key, "location": location, "created_at": tx.now}
    tx.execute(sa.insert(disposal).values(values))
    tx.changed("image.disposal", number)

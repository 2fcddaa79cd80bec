"""The rows that say which images' data is kept close by, or is to be.

Source: https://docs.openstack.org/api-ref/image/v2/#cache-manage
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.statement import at
from pileus.core.store import Instant, Tx, metadata
from pileus.services.image.resources.store import CACHE, dispose

cached = sa.Table(
    "image_cache",
    metadata,
    sa.Column("image_id", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(128), comment="name under which the data is written; empty while it waits"),
    sa.Column("location", sa.String(1024), comment="committed data; empty until it is all there"),
    sa.Column("size", sa.BigInteger, comment="bytes"),
    sa.Column("checksum", sa.String(32), comment="of the data that was copied"),
    sa.Column("hits", sa.Integer, nullable=False, server_default="0"),
    sa.Column("accessed_at", Instant, comment="when it was read last"),
    sa.Column("modified_at", Instant, nullable=False),
)


def find(tx: Tx, image_id: str) -> sa.Row[Any] | None:
    """The row of an image, if it is in the cache or waits for it."""
    return tx.first(at(cached, "image_id"), {"value": image_id})


def queue(tx: Tx, image_id: str) -> None:
    """Let an image wait for the cache, unless it is there."""
    if tx.insert_missing(cached, {"image_id": image_id, "modified_at": tx.now}, key=("image_id",)):
        tx.changed("image.cache", image_id)


def touch(tx: Tx, image_id: str) -> None:
    """Note that an image was read from the cache."""
    mine = sa.update(cached).where(cached.c.image_id == image_id)
    tx.execute(mine.values(hits=cached.c.hits + 1, accessed_at=tx.now))


def forget(tx: Tx, image_id: str) -> bool:
    """Take an image out of the cache and its queue; whether it was there."""
    row = find(tx, image_id)
    if row is None:
        return False
    drop(tx, row)
    return True


def drop(tx: Tx, row: sa.Row[Any]) -> None:
    """Forget what is kept, and have it removed."""
    if row.key is not None:
        dispose(tx, CACHE, key=row.key)
    tx.execute(sa.delete(cached).where(cached.c.image_id == row.image_id, cached.c.key.is_not_distinct_from(row.key)))
    tx.changed("image.cache", row.image_id)

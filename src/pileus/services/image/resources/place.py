"""Where an image's data is: the place that its row names, and further ones (`image_copy`).

Source: https://docs.openstack.org/api-ref/image/v2/#images for `stores` and `locations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.store import Tx
from pileus.services.image.resources.cached import forget
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import Record
from pileus.services.image.resources.store import STAGING, ImageStores, copy, dispose
from pileus.services.image.resources.usage import change


@dataclass(frozen=True, slots=True)
class Place:
    """One place of an image's data. `key` is None where the data is somebody else's, and does not go with the place."""

    store: str
    location: str
    key: str | None
    metadata: dict[str, Any]
    task_id: str | None = None
    """The import that wrote it."""


def places(record: Record) -> Iterator[Place]:
    """The places of an image's data, in their order."""
    row = record.row
    if row.location is None:
        return
    yield Place(row.store, row.location, row.data_key, row.location_metadata or {})
    for one in record.copies:
        yield Place(one.store, one.location, one.key, one.metadata or {}, one.task_id)


def settle(tx: Tx, row: sa.Row[Any], wanted: list[Place], values: dict[str, Any]) -> None:
    """Let these be the places of an image's data, in this order, and give its row further values.

    Data of places that are left out stays where it is.  Raises TooLarge (quota) and Raced.
    """
    tx.execute(sa.delete(copy).where(copy.c.image_id == row.id, copy.c.location.is_not(None)))
    rows = [
        {
            "id": tx.seams.uuid(),
            "image_id": row.id,
            "position": position,
            "store": one.store,
            "key": one.key,
            "location": one.location,
            "metadata": one.metadata,
            "task_id": one.task_id,
            "created_at": tx.now,
        }
        for position, one in enumerate(wanted[1:], 1)
    ]
    tx.insert(copy, rows)
    first = wanted[0]
    news = {
        "store": first.store,
        "location": first.location,
        "data_key": first.key,
        "location_metadata": first.metadata or None,
        "copies": sum(one.key is not None for one in wanted),
    }
    change(tx, row, {**news, **values})


def preferred(stores: ImageStores, record: Record, wanted: list[str]) -> list[Place]:
    """The places in the order in which they should be read: in wanted stores first, then by the stores' weight."""
    weights = stores.settings.weights
    return sorted(places(record), key=lambda one: (one.store not in wanted, -weights.get(one.store, 0)))


def shown(ctx: Context, record: Record) -> dict[str, Any]:
    """What responses tell of an image's places, and of the import that works on them."""
    stores = ctx.of(ImageStores)
    row = record.row
    found: dict[str, Any] = {}
    all_places = list(places(record))
    if all_places:
        found["stores"] = ",".join(dict.fromkeys(stores.weigh(one.store for one in all_places)))
    if stores.settings.show_locations:
        seen = bool(all_places) and ctx.allows("get_image_location", policy.target(ctx, row))
        found["locations"] = [told(stores, one) for one in all_places] if seen else []
    if row.importing is not None:
        found["os_glance_importing_to_stores"] = row.importing
        found["os_glance_failed_import"] = row.failed or ""
    if row.import_task is not None:
        found["os_glance_import_task"] = row.import_task
    return found


def told(stores: ImageStores, one: Place) -> dict[str, Any]:
    """A place as clients see it."""
    store = stores.find(one.store)
    url = one.location if store is None else store.url(one.location)
    return {"url": url, "metadata": {**one.metadata, "store": one.store}}


def release(tx: Tx, row: sa.Row[Any]) -> None:
    """Have everything removed that is kept of an image, before its row goes."""
    if row.upload_key is not None:
        dispose(tx, row.store, key=row.upload_key)
    if row.stage_key is not None:
        dispose(tx, STAGING, key=row.stage_key)
    if row.location is not None and row.data_key is not None:
        dispose(tx, row.store, location=row.location)
    for one in tx.all(sa.select(copy).where(copy.c.image_id == row.id, copy.c.key.is_not(None))):
        drop(tx, one)
    forget(tx, row.id)


def drop(tx: Tx, one: sa.Row[Any]) -> None:
    """Forget a further place of an image's data, and have what is the cloud's own removed."""
    if one.location is not None and one.key is not None:
        dispose(tx, one.store, location=one.location)
    elif one.key is not None:
        dispose(tx, one.store, key=one.key)
    tx.execute(sa.delete(copy).where(copy.c.id == one.id))

"""What neighbours may ask of Image, always within their own transaction or context."""

from __future__ import annotations

from typing import Any, BinaryIO

import msgspec
import sqlalchemy as sa

from pileus.contracts.images import StoreFailure
from pileus.core.context import Context
from pileus.core.statement import at
from pileus.core.store import Tx
from pileus.services.image.resources import snapshot
from pileus.services.image.resources.host_data import resource as host_resource
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import Record, image, records
from pileus.services.image.resources.metadef.operations.content import offer as offer_definitions
from pileus.services.image.resources.proxy import ImagePage, ShownImage, page_of, remove, set_properties, show
from pileus.services.image.resources.snapshot import resource as snapshot_resource
from pileus.services.image.resources.store import ImageSettings, ImageStores, copy, disposal, named
from pileus.services.image.resources.stream import ALGORITHM
from pileus.services.image.rules.address import AddressFilter
from pileus.services.image.rules.snapshot import Snapshot

__all__ = [
    "AddressFilter",
    "ImageInfo",
    "ImagePage",
    "ImageSettings",
    "ImageStores",
    "ShownImage",
    "Snapshot",
    "backups",
    "begin_snapshot",
    "by_id",
    "delete",
    "fail_snapshot",
    "find",
    "host_resource",
    "named",
    "offer_definitions",
    "open_data",
    "page_of",
    "remove",
    "set_properties",
    "show",
    "snapshot_resource",
    "strangers",
]


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An image, as much of it as other services need."""

    id: str
    name: str | None
    owner: str | None
    status: str
    """`active` when its data may be used."""
    visibility: str
    size: int | None
    """Bytes of data; None while there is none."""
    virtual_size: int | None
    """Bytes that a guest sees; None when there is no data, or none that is known to be a disk: do not boot it."""
    min_disk: int
    """GiB."""
    min_ram: int
    """MiB."""
    disk_format: str | None
    container_format: str | None
    properties: dict[str, str | None]
    tags: list[str]
    sha512: str | None
    """Hash of the data, in hexadecimal; None when there is no data, or some on the web that nobody has hashed."""
    store: str | None
    location: str | None


def _info(record: Record) -> ImageInfo:
    row = record.row
    return ImageInfo(
        id=row.id,
        name=row.name,
        owner=row.owner,
        status=row.status,
        visibility=row.visibility,
        size=row.size,
        # What is on the web may be something else tomorrow: without its hash nobody can know what a guest would boot.
        virtual_size=row.virtual_size if row.os_hash_algo == ALGORITHM else None,
        min_disk=row.min_disk,
        min_ram=row.min_ram,
        disk_format=row.disk_format,
        container_format=row.container_format,
        properties=record.properties,
        tags=record.tags,
        sha512=row.os_hash_value if row.os_hash_algo == ALGORITHM else None,
        store=row.store,
        location=row.location,
    )


def find(ctx: Context, image_id: str) -> ImageInfo | None:
    """The image, if the caller of the request can see it."""
    record = policy.find(ctx, image_id)
    return None if record is None else _info(record)


def by_id(tx: Tx, image_id: str) -> ImageInfo | None:
    """The image, whoever asks: for loops and for the link to hosts."""
    row = tx.first(at(image, "id"), {"value": image_id})
    return None if row is None else _info(records(tx, [row])[0])


def begin_snapshot(tx: Tx, wanted: Snapshot) -> str:
    """Register the image of a server's snapshot or backup; its id.

    It is `queued` until the host that is assigned the snapshot of this id (`fleet.interface.assign`, kind `snapshot`)
    sends its data, then `saving`, and `active` when all of it is here; the host's observation is `ready` afterwards.
    Raises TooLarge when the project has no room for one more image, or it would have too many properties.
    """
    return snapshot.begin(tx, wanted)


def fail_snapshot(tx: Tx, image_id: str) -> bool:
    """Delete the image of a snapshot that failed, or is not wanted any more; what has come of its data goes.

    False, and nothing is changed, when its data is here already, or the image is gone.
    """
    return snapshot.fail(tx, image_id)


def delete(tx: Tx, image_id: str) -> bool:
    """Delete an image, with its data, that Compute made for itself: of a shelved server, or a backup too many.

    False, and nothing is changed, when it is gone, or protected.
    """
    return snapshot.delete(tx, image_id)


def backups(tx: Tx, server_id: str, kind: str) -> list[ImageInfo]:
    """The backups of a server whose `backup_type` is `kind`, newest first, whatever their status."""
    return [_info(record) for record in snapshot.backups(tx, server_id, kind)]


def open_data(stores: ImageStores, info: ImageInfo) -> BinaryIO:
    """The image's data, to be read from its start; blocks, so call it outside of transactions.

    Raises StoreFailure when there is none, or none any more.
    """
    if info.location is None or info.store is None:
        raise StoreFailure(f"The image {info.id} has no data.")
    store = stores.by_name.get(info.store)
    if store is None:
        raise StoreFailure(f"The image store {info.store} is not there.")
    return store.open(info.location)


def strangers(tx: Tx, stores: ImageStores) -> list[tuple[str, str]]:
    """Data that no row names, as store and location: for operators to look at, never removed by the service.

    There is none unless the database is older than the stores, or an upload was killed in its last step.
    """
    named: list[sa.Select[Any]] = [
        sa.select(image.c.store, image.c.location).where(image.c.location.is_not(None)),
        sa.select(disposal.c.store, disposal.c.location).where(disposal.c.location.is_not(None)),
        sa.select(copy.c.store, copy.c.location).where(copy.c.location.is_not(None)),
    ]
    known = {(row.store, row.location) for query in named for row in tx.all(query)}
    held = ((name, location) for name, store in stores.by_name.items() for location in store.locations())
    return sorted(found for found in held if found not in known)

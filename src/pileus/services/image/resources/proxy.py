"""What Compute shows of Image to clients who ask it for images.

https://docs.openstack.org/api-ref/compute/#images-deprecated

Whoever asks does so in its own name: what it may see and do is decided by Image's own rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from pileus.core.context import Context, Query
from pileus.core.errors import BadRequest, NotFound
from pileus.services.image.resources.image import fields, operations, policy
from pileus.services.image.resources.image.table import Record, records
from pileus.services.image.rules import patch, schema


class ShownImage(NamedTuple):
    """An image, as much of it as Compute shows. `size` in bytes, `min_ram` in MiB, `min_disk` in GiB."""

    id: str
    name: str | None
    status: str
    size: int | None
    min_ram: int
    min_disk: int
    created_at: datetime
    updated_at: datetime
    properties: dict[str, str | None]


class ImagePage(NamedTuple):
    """A page of images, and the marker of the next one."""

    images: list[ShownImage]
    next_marker: str | None


def _shown(record: Record) -> ShownImage:
    row = record.row
    return ShownImage(
        row.id,
        row.name,
        row.status,
        row.size,
        row.min_ram,
        row.min_disk,
        row.created_at,
        row.updated_at,
        record.properties,
    )


def page_of(ctx: Context, query: Mapping[str, str]) -> ImagePage:
    """The images that the caller sees, newest first, as a query in Image's own terms narrows them.

    Raises BadRequest for a query that cannot be, and Forbidden.
    """
    ctx.enforce("get_images")
    asking = ctx.acting_as(query=Query(list(query.items())))
    found = fields.page(asking, policy.Sight(policy.is_admin(ctx), None, "accepted"))
    return ImagePage([_shown(one) for one in records(ctx.tx, policy.seen(ctx, found.rows))], found.next_marker)


def show(ctx: Context, image_id: str) -> ShownImage:
    """An image that the caller sees. Raises NotFound."""
    record = policy.find(ctx, image_id)
    if record is None:
        raise NotFound("Image not found.")
    return _shown(record)


def remove(ctx: Context, image_id: str) -> None:
    """Delete an image. Raises NotFound and Forbidden."""
    operations.delete(ctx, image_id)


def set_properties(ctx: Context, image_id: str, properties: Mapping[str, str | None]) -> None:
    """Let an image have these custom properties, and no others. Raises what Image's own update does."""
    wrong = sorted(properties.keys() & schema.BASE.keys())
    if wrong:
        raise BadRequest(f"{wrong[0]!r} is an attribute of images and no property.")
    before = show(ctx, image_id).properties
    changes = [{"op": "remove", "path": f"/{_pointer(name)}"} for name in before.keys() - properties.keys()]
    for name, value in properties.items():
        if name not in before:
            changes.append({"op": "add", "path": f"/{_pointer(name)}", "value": value or ""})
        elif before[name] != value:
            changes.append({"op": "replace", "path": f"/{_pointer(name)}", "value": value or ""})
    sending = ctx.acting_as(headers={b"content-type": patch.MEDIA_DRAFT_10.encode()})
    operations.update(sending, image_id, changes)


def _pointer(name: str) -> str:
    """A name as part of a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")

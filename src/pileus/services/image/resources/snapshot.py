"""Snapshots of servers: images whose data a host of the cloud sends, over the link.

Source: https://docs.openstack.org/api-ref/compute/#create-image-createimage-action; the public operation that takes
data is https://docs.openstack.org/api-ref/image/v2/#upload-binary-image-data.  A host is no caller of a project: it may
write the data of an image while it has the assignment to make it, and of no other.

The image is made, `queued`, in the transaction that assigns the snapshot to its host.  The host sends the data as often
as it takes: what came of an earlier attempt is thrown away, and once all of it is here the image is `active` and a
further attempt changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context, Request
from pileus.core.errors import NotFound
from pileus.core.statement import at
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.image.resources import data
from pileus.services.image.resources.image.operations import check_counts, insert, remove
from pileus.services.image.resources.image.table import Record, image, member, prop, records
from pileus.services.image.rules.snapshot import Snapshot, properties

resource = Resource("snapshot", "snapshots")


def begin(tx: Tx, wanted: Snapshot) -> str:
    """Register the image of a snapshot, `queued`; its id. Raises TooLarge (quota, too many properties)."""
    image_id = tx.seams.uuid()
    foreign = wanted.server_project_id != wanted.project_id
    values = {
        "id": image_id,
        "name": wanted.name,
        "owner": wanted.project_id,
        "status": "queued",
        "visibility": "shared" if foreign else "private",
        "protected": False,
        "os_hidden": False,
        "container_format": "bare",
        "disk_format": wanted.disk_format,
        "min_ram": wanted.min_ram,
        "min_disk": wanted.min_disk,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    found = properties(wanted)
    check_counts(found, [])
    insert(tx, values, found, [])
    if foreign:
        row = {"image_id": image_id, "member_id": wanted.server_project_id, "status": "pending"}
        tx.insert(member, {**row, "created_at": tx.now, "updated_at": tx.now})
    return image_id


def fail(tx: Tx, image_id: str) -> bool:
    """Delete the image of a snapshot that cannot be made; False when it is there already, or is gone."""
    row = tx.first(at(image, "id"), {"value": image_id})
    if row is None or row.status not in ("queued", "saving"):
        return False
    tx.execute(sa.update(image).where(image.c.id == image_id).values(protected=False))
    remove(tx, _again(tx, image_id))
    return True


def delete(tx: Tx, image_id: str) -> bool:
    """Delete an image that the cloud made for itself; False when it is gone, or somebody has protected it."""
    row = tx.first(at(image, "id"), {"value": image_id})
    if row is None or row.protected:
        return False
    remove(tx, row)
    return True


def backups(tx: Tx, server_id: str, kind: str) -> list[Record]:
    """The backups of a server whose `backup_type` is `kind`, newest first, whatever their status."""
    demanded = {"instance_uuid": server_id, "image_type": "backup", "backup_type": kind}
    query = sa.select(image).where(
        *(
            sa.exists().where(prop.c.image_id == image.c.id, prop.c.name == name, prop.c.value == value)
            for name, value in demanded.items()
        )
    )
    return records(tx, tx.all(query.order_by(image.c.created_at.desc(), image.c.id.desc())))


def _again(tx: Tx, image_id: str) -> sa.Row[Any]:
    row = tx.first(at(image, "id"), {"value": image_id})
    if row is None:
        raise NotFound(f"There is no image {image_id}.")
    return row


@resource.put("/snapshots/{image_id}/data", status=204, faults=(410, 413, 415))
async def upload(ctx: Request, image_id: str, stream: AsyncIterator[bytes]) -> None:
    """Take the data of a snapshot from the host that has it.

    Nothing is read when all of it is here already.  Raises NotFound (the host was not told to make it), Conflict (it
    has another image's data), Gone (deleted meanwhile), TooLarge (quota, space), UnsupportedMediaType (data that is not
    what the image says or is unsafe) and Unavailable (store).
    """
    begun = await ctx.write(lambda bound: _begin(bound, image_id))
    if begun is not None:
        await data.write(ctx, begun, stream)


def _begin(ctx: Context, image_id: str) -> data.Upload | None:
    """Begin the upload, whatever became of an earlier one; None when there is nothing more to come."""
    assigned = fleet.observed(ctx.tx, "snapshot", [image_id]).get(image_id, [])
    if not any(one.host_id == ctx.auth.user_id and not one.tombstone for one in assigned):
        raise NotFound(f"This host is not to make the snapshot {image_id}.")
    row = _again(ctx.tx, image_id)
    if row.location is not None:
        return None
    if row.status == "saving":
        data.abandon(ctx.tx, image_id, row.upload_key)
        row = _again(ctx.tx, image_id)
    return data.begin(ctx, row, None, None)

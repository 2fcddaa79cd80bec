"""Images and backups of servers.

https://docs.openstack.org/api-ref/compute/#create-image-createimage-action
https://docs.openstack.org/api-ref/compute/#create-server-back-up-createbackup-action

The image is there, `queued`, when the request is answered; the host takes it while the server goes on, and the loop of
snapshots ends the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.api import Reply
from pileus.core.context import Context
from pileus.core.errors import Forbidden, TooLarge
from pileus.core.fields import Body
from pileus.core.quota import UNLIMITED
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.operations import snapshot
from pileus.services.compute.resources.server.operations.row import allow, find, note, resource
from pileus.services.compute.resources.server.table import want
from pileus.services.compute.rules.building import snapshot_size
from pileus.services.compute.rules.extra_spec import truth
from pileus.services.compute.rules.machine import wants_agent
from pileus.services.compute.rules.shape import Metadata, Name, Natural, image_url, links
from pileus.services.compute.versions import IMAGE_ID_IN_BODY, IMAGE_METADATA_LIMITED
from pileus.services.image import interface as images

_ACTION = "/servers/{server_id}/action"


class CreateImage(Body):
    """What the image is called, and what it says of itself."""

    name: Name
    metadata: Metadata = msgspec.field(default_factory=dict)


class CreateBackup(Body):
    """A backup: of those of one type only as many are kept as `rotation` says."""

    name: Name
    backup_type: str
    rotation: Natural
    metadata: Metadata = msgspec.field(default_factory=dict)


@resource.action(_ACTION, "createImage", policy="os_compute_api:servers:create_image")
def create_image(ctx: Context, server_id: str, body: CreateImage) -> Reply:
    """Make an image of a server's root disk. Raises Forbidden over quota."""
    row = find(ctx, server_id)
    image_id = _begin(ctx, row, body, "snapshot", body.metadata)
    snapshot.begin(ctx.tx, row, image_id, "image", quiesce=_quiesced(row))
    want(ctx.tx, row, task="image_snapshot")
    note(ctx, row.id, row.project_id, "createImage", "compute_snapshot_instance", row.host)
    return _answer(ctx, image_id, image_url(ctx.url, image_id))


@resource.action(_ACTION, "createBackup", policy="os_compute_api:os-create-backup")
def create_backup(ctx: Context, server_id: str, body: CreateBackup) -> Reply:
    """Make a backup of a server's root disk; when it is there, the oldest ones too many of its type are deleted."""
    row = find(ctx, server_id)
    image_id = _begin(ctx, row, body, "backup", {**body.metadata, "backup_type": body.backup_type})
    details = {"backup_type": body.backup_type, "rotation": body.rotation}
    snapshot.begin(ctx.tx, row, image_id, "backup", quiesce=_quiesced(row), details=details)
    want(ctx.tx, row, task="image_backup")
    note(ctx, row.id, row.project_id, "createBackup", "compute_backup_instance", row.host)
    found = _answer(ctx, image_id, links(ctx.url, ctx.path, "images", image_id)[0]["href"])
    if body.rotation == 0:
        found.headers.clear()  # the image does not stay
    return found


def _begin(
    ctx: Context,
    row: sa.Row[Any],
    body: CreateImage | CreateBackup,
    kind: Literal["snapshot", "backup"],
    said: Mapping[str, str],
) -> str:
    """Register the image; its id. Raises Conflict in a state that forbids it, and Forbidden over quota."""
    allow(ctx, row, "createImage" if kind == "snapshot" else "createBackup")
    if IMAGE_METADATA_LIMITED.covers(ctx.version):
        limit = QUOTA.limits(ctx.tx, row.project_id)["metadata_items"]
        if limit != UNLIMITED and len(body.metadata) > limit:
            raise Forbidden("Image metadata limit exceeded")
    wanted = images.Snapshot(
        name=body.name,
        image_type=kind,
        server_id=row.id,
        server_project_id=row.project_id,
        project_id=ctx.auth.project_id or row.project_id,
        user_id=ctx.auth.user_id,
        base_image_id=row.image_id,
        min_disk=snapshot_size(row.flavor, row.image),
        min_ram=row.image.get("min_ram") or 0,
        inherited=row.image.get("properties") or {},
        properties=said,
    )
    try:
        return images.begin_snapshot(ctx.tx, wanted)
    except TooLarge as fault:
        raise Forbidden(fault.message) from None


def _quiesced(row: sa.Row[Any]) -> bool:
    """Whether the image of the server says that its guest's file systems are to be frozen, and how they can be."""
    properties = row.image.get("properties") or {}
    return wants_agent(properties) and bool(truth(properties.get("os_require_quiesce") or "no"))


def _answer(ctx: Context, image_id: str, location: str) -> Reply:
    if IMAGE_ID_IN_BODY.covers(ctx.version):
        return Reply({"image_id": image_id})
    return Reply(None, {"location": location})

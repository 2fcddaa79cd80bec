"""Resizing a server, and what follows: confirmation, or the way back.

https://docs.openstack.org/api-ref/compute/#resize-server-resize-action
https://docs.openstack.org/api-ref/compute/#confirm-resized-server-confirmresize-action
https://docs.openstack.org/api-ref/compute/#revert-resized-server-revertresize-action

A server is resized on the host that it is on.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import UNSET, Body, UnsetType
from pileus.services.compute.resources.server.fields import DiskConfig
from pileus.services.compute.resources.server.operations import resizing, source
from pileus.services.compute.resources.server.operations.hosting import check_up
from pileus.services.compute.resources.server.operations.row import allow, find, note, resource
from pileus.services.compute.resources.server.operations.transition import fault
from pileus.services.compute.resources.server.table import finish_actions, server
from pileus.services.compute.rules.building import check_disk_config, check_flavor, check_machine

_ACTION = "/servers/{server_id}/action"
_NO_HOST = "No valid host was found. No valid host found for resize"


class Resize(Body):
    """The flavor that a server shall have: the value of `resize`."""

    flavor_ref: str | int = msgspec.field(name="flavorRef")
    disk_config: DiskConfig | UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=UNSET)


@resource.action(_ACTION, "resize", policy="os_compute_api:servers:resize")
def resize(ctx: Context, server_id: str, body: Resize) -> None:
    """Give a server another flavor, until it is confirmed or reverted.

    Raises BadRequest for a flavor that it cannot have, Forbidden over quota, and Conflict in a state that forbids it.
    When its host has no room the server stays as it is, and its fault says so.
    """
    row = find(ctx, server_id)
    allow(ctx, row, "resize")
    check_up(ctx, row)
    properties = row.image.get("properties") or {}
    disk_config = None if body.disk_config is UNSET else body.disk_config
    check_disk_config(disk_config, row.image_id, properties)
    flavor_id, flavor = source.flavor(ctx, str(body.flavor_ref))
    if not flavor["disk"] and row.flavor["disk"]:
        raise BadRequest("Server disk was unable to be resized because: Resize to zero disk flavor is not allowed.")
    if flavor_id == row.flavor_id:
        raise BadRequest("When resizing, instances must change flavor!")
    _check(row, flavor)
    check_machine(flavor, properties)
    reason = resizing.begin(ctx.tx, row, flavor_id, flavor, ctx.auth.user_id)
    note(ctx, row.id, row.project_id, "resize", "compute_finish_resize", row.host)
    if reason is not None:
        values = {"fault": fault(ctx.tx, f"{row.host}: {reason}", _NO_HOST), "updated_at": ctx.now}
        ctx.tx.execute(sa.update(server).where(server.c.id == row.id).values(values))
        finish_actions(ctx.tx, [row.id], "Error", f"{_NO_HOST} ({reason})")
    elif disk_config is not None:
        ctx.tx.execute(sa.update(server).where(server.c.id == row.id).values(disk_config=disk_config))


def _check(row: sa.Row[Any], flavor: dict[str, Any]) -> None:
    """Raise BadRequest for a flavor that the image or the disks do not fit in: no disk ever shrinks."""
    check_flavor(row.image, flavor)
    if any(flavor[name] < row.flavor[name] for name in ("disk", "ephemeral")):
        raise BadRequest("Server disk was unable to be resized because: Unable to resize disk down.")


@resource.action(_ACTION, "confirmResize", policy="os_compute_api:servers:confirm_resize", status=204)
def confirm_resize(ctx: Context, server_id: str, body: Any) -> None:
    """Let a resized server stay as it is.

    Raises BadRequest for one that was not resized, and Conflict in a state that forbids it or while its host is down.
    """
    row = find(ctx, server_id)
    allow(ctx, row, "confirmResize")
    _check_resized(row)
    check_up(ctx, row)
    resizing.confirm(ctx.tx, row)
    note(ctx, row.id, row.project_id, "confirmResize", "compute_confirm_resize", row.host)


@resource.action(_ACTION, "revertResize", policy="os_compute_api:servers:revert_resize")
def revert_resize(ctx: Context, server_id: str, body: Any) -> None:
    """Let a resized server be what it was. Raises BadRequest for one that was not resized."""
    row = find(ctx, server_id)
    allow(ctx, row, "revertResize")
    _check_resized(row)
    resizing.revert(ctx.tx, row)
    note(ctx, row.id, row.project_id, "revertResize", "compute_revert_resize", row.host)


def _check_resized(row: sa.Row[Any]) -> None:
    if row.previous is None:
        raise BadRequest("Instance has not been resized.")

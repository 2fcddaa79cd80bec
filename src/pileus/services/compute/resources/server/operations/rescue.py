"""Rescuing: a server starts from another disk, with its own beside it.

https://docs.openstack.org/api-ref/compute/#rescue-server-rescue-action
https://docs.openstack.org/api-ref/compute/#unrescue-server-unrescue-action

An image that names `hw_rescue_device` or `hw_rescue_bus` makes a stable device rescue: the rescue disk comes behind the
server's disks, which keep their places (Compute user guide, "Rescue an instance").
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import UNSET, Body, UnsetType
from pileus.services.compute.resources.server.fields import AdminPass
from pileus.services.compute.resources.server.operations import source
from pileus.services.compute.resources.server.operations.row import allow, find, note, recovered, resource
from pileus.services.compute.resources.server.table import next_reboot, want
from pileus.services.compute.rules import disk
from pileus.services.compute.rules.guest import disk_names
from pileus.services.compute.rules.shape import Uuid
from pileus.services.image import interface as images

_ACTION = "/servers/{server_id}/action"
_BUSES = ("scsi", "virtio", "ide", "usb", "sata")
_DEVICES = ("disk", "cdrom")


class Rescue(Body):
    """How a server is rescued: the value of `rescue`."""

    admin_pass: AdminPass | UnsetType = msgspec.field(name="adminPass", default=UNSET)
    rescue_image_ref: Uuid | UnsetType = UNSET


@resource.action(_ACTION, "rescue", policy="os_compute_api:os-rescue", status=200, wraps="adminPass")
def rescue(ctx: Context, server_id: str, body: Rescue | None) -> str:
    """Let a server start from the image that is named, or from its own; the password that it is told.

    Raises BadRequest for an image that nothing can start from, and Conflict in a state that forbids it.
    """
    wanted = Rescue() if body is None else body
    row = find(ctx, server_id)
    allow(ctx, row, "rescue")
    secret = source.password(ctx) if wanted.admin_pass is UNSET else wanted.admin_pass
    image_id = row.image_id if wanted.rescue_image_ref is UNSET else wanted.rescue_image_ref
    values = recovered(ctx, row)
    disks = disk.known(values.get("disks", row.disks), disk_names(row.flavor))
    values |= {
        "task": "rescuing",
        "rescue": _disk(ctx, row, image_id),
        "disks": disk.renewed(disks, [disk.RESCUE]),
        "power": "running",
        "admin_pass": secret,
        "reboot_nonce": next_reboot(row),
        "reboot_kind": "SOFT",
        "error": row.error,  # until it is done
    }
    want(ctx.tx, row, **values)
    note(ctx, row.id, row.project_id, "rescue", "compute_rescue_instance", row.host)
    return secret


def _disk(ctx: Context, row: sa.Row[Any], image_id: str) -> dict[str, Any]:
    """The disk to start from, as `rules.guest` wants it. Raises BadRequest."""
    found = images.find(ctx, image_id)
    if found is None:
        if image_id != row.image_id:
            raise BadRequest(f"Requested rescue image '{image_id}' is not supported")
        raise BadRequest(f"Instance {row.id} cannot be rescued: its image {image_id} is no more; name another one.")
    if found.status != "active":
        raise BadRequest(f"Instance {row.id} cannot be rescued: Image {image_id} is not active.")
    if found.virtual_size is None:
        raise BadRequest(f"Requested rescue image '{image_id}' is not supported")
    if found.min_ram > row.flavor["ram"]:
        raise BadRequest(f"Instance {row.id} cannot be rescued: the image needs {found.min_ram} MiB of memory.")
    device, bus = found.properties.get("hw_rescue_device"), found.properties.get("hw_rescue_bus")
    if device is not None and device not in _DEVICES:
        raise BadRequest(f"Requested rescue device '{device}' is not supported")
    if bus is not None and bus not in _BUSES:
        raise BadRequest(f"Requested rescue bus '{bus}' is not supported")
    return {
        "image_id": found.id,
        "format": found.disk_format or "raw",
        "sha512": found.sha512,
        "device": device or "disk",
        "bus": _bus(bus, device or "disk"),
        "stable": device is not None or bus is not None,
    }


def _bus(asked: str | None, device: str) -> Literal["virtio", "sata", "scsi", "usb"]:
    """The bus of the rescue disk. There is no IDE on the machines here: SATA is what guests take in its place."""
    if asked == "scsi":
        return "scsi"
    if asked == "usb":
        return "usb"
    return "sata" if asked in ("ide", "sata") or (asked is None and device == "cdrom") else "virtio"


@resource.action(_ACTION, "unrescue", policy="os_compute_api:os-unrescue")
def unrescue(ctx: Context, server_id: str, body: Any) -> None:
    """Let a rescued server start from its own disk again."""
    row = find(ctx, server_id)
    allow(ctx, row, "unrescue")
    want(
        ctx.tx,
        row,
        task="unrescuing",
        rescue=None,
        disks=disk.retired(row.disks, [disk.RESCUE]),
        power="running",
        reboot_nonce=next_reboot(row),
        reboot_kind="HARD",
    )
    note(ctx, row.id, row.project_id, "unrescue", "compute_unrescue_instance", row.host)

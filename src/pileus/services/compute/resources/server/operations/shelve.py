"""Shelving: a server that is put by, as an image, and taken out again.

https://docs.openstack.org/api-ref/compute/#shelve-server-shelve-action
https://docs.openstack.org/api-ref/compute/#shelf-offload-remove-server-shelveoffload-action
https://docs.openstack.org/api-ref/compute/#unshelve-restore-shelved-server-unshelve-action
"""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, TooLarge
from pileus.core.fields import UNSET, Body, UnsetType, W
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.server.operations.row import allow, find, note, resource
from pileus.services.compute.resources.server.operations.transition import offload
from pileus.services.compute.resources.server.table import want
from pileus.services.compute.rules import disk
from pileus.services.compute.rules.building import snapshot_size
from pileus.services.compute.rules.guest import disk_names
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.shape import Name
from pileus.services.fleet import interface as fleet
from pileus.services.image import interface as images

_ACTION = "/servers/{server_id}/action"
_POLICY = "os_compute_api:os-shelve"


class Unshelve(Body):
    """Where a server shall be taken out."""

    availability_zone: Annotated[
        str | UnsetType | None, W(Name, since="2.77", until="2.90", need=True), W(str | None, since="2.91")
    ] = UNSET
    host: Annotated[str | UnsetType, W(since="2.91")] = UNSET


@resource.action(_ACTION, "shelve", policy=f"{_POLICY}:shelve")
def shelve(ctx: Context, server_id: str, body: Any) -> None:
    """Stop a server and make an image of it, which it is taken out from. Raises Forbidden over Image's quota."""
    row = find(ctx, server_id)
    allow(ctx, row, "shelve")
    wanted = images.Snapshot(
        name=f"{row.name}-shelved"[:255],
        server_id=row.id,
        server_project_id=row.project_id,
        project_id=row.project_id,
        user_id=ctx.auth.user_id,
        base_image_id=row.image_id,
        min_disk=snapshot_size(row.flavor, row.image),
        min_ram=row.image.get("min_ram") or 0,
        inherited=row.image.get("properties") or {},
    )
    try:
        image_id = images.begin_snapshot(ctx.tx, wanted)
    except TooLarge as fault:
        raise Forbidden(fault.message) from None
    want(ctx.tx, row, task="shelving", shelf={"image_id": image_id, "power": row.power}, power="stopped")
    note(ctx, row.id, row.project_id, "shelve", "compute_shelve_instance", row.host)


@resource.action(_ACTION, "shelveOffload", policy=f"{_POLICY}:shelve_offload")
def shelve_offload(ctx: Context, server_id: str, body: Any) -> None:
    """Take a shelved server from its host."""
    row = find(ctx, server_id)
    allow(ctx, row, "shelveOffload")
    want(ctx.tx, row, **offload(ctx.tx, row))
    note(ctx, row.id, row.project_id, "shelveOffload", "compute_shelve_offload_instance", row.host)


@resource.action(_ACTION, "unshelve", policy=f"{_POLICY}:unshelve", until="2.76")
def unshelve_somewhere(ctx: Context, server_id: str, body: Any) -> None:
    """Take a shelved server out: on its host, or where there is room."""
    _unshelve(ctx, server_id, Unshelve())


@resource.action(_ACTION, "unshelve", policy=f"{_POLICY}:unshelve", since="2.77")
def unshelve(ctx: Context, server_id: str, body: Unshelve | None) -> None:
    """The same, in an availability zone or on a host that is named.

    Raises BadRequest for a zone or a host that is not there, and Conflict for a server that is on a host still.
    """
    _unshelve(ctx, server_id, Unshelve() if body is None else body)


def _unshelve(ctx: Context, server_id: str, wanted: Unshelve) -> None:
    row = find(ctx, server_id)
    allow(ctx, row, "unshelve")
    place = _place(ctx, row, wanted)
    if row.host_id is not None:
        want(ctx.tx, row, task="spawning", power="running")
    else:
        want(ctx.tx, row, task="unshelving", power="running", disks=_disks(ctx, row), **place)
        ctx.tx.changed("compute.waiting", row.id)
    note(ctx, row.id, row.project_id, "unshelve", "compute_unshelve_instance", row.host)


def _disks(ctx: Context, row: sa.Row[Any]) -> dict[str, Any]:
    """The disks of a server that comes to a host anew: the root from its image on the shelf, the others empty.

    Raises Conflict when that image is gone, since nothing else has what was on the disk.
    """
    found = images.by_id(ctx.tx, row.shelf["image_id"]) if row.shelf else None
    if found is None or found.status != "active":
        raise Conflict(f"The image of the shelved instance {row.id} is gone.")
    shelved = {"id": found.id, "format": found.disk_format, "sha512": found.sha512}
    names = disk_names(row.flavor)
    others = [name for name in names if name != disk.ROOT]
    return disk.renewed(disk.renewed(disk.known(row.disks, names), others), [disk.ROOT], shelved)


def _place(ctx: Context, row: sa.Row[Any], wanted: Unshelve) -> dict[str, Any]:
    """Columns of where the server may go."""
    host = None if wanted.host is UNSET else wanted.host or None
    if (host is not None or wanted.availability_zone is not UNSET) and row.mode != "shelved_offloaded":
        raise Conflict(
            f"Specifying an availability zone or a host when unshelving server {row.id} with status "
            f"'{row.mode}' is not supported. The server status must be SHELVED_OFFLOADED."
        )
    hosts = fleet.hosts(ctx.tx, ctx.of(fleet.Fleet))
    zone: str | None = row.availability_zone
    if wanted.availability_zone is not UNSET:
        zone = wanted.availability_zone
        if zone and zone not in aggregate.zones_in_use(ctx.tx, hosts):
            raise BadRequest("The requested availability zone is not available")
    if host is not None:
        ctx.enforce(f"{_POLICY}:unshelve_to_host", {"project_id": row.project_id, "user_id": row.user_id})
        if host not in {one.name for one in hosts}:
            raise BadRequest(f"Compute host {host} could not be found.")
        if zone and aggregate.zones(ctx.tx, [host]).get(host, ZONE) != zone:
            raise Conflict(f"Host {host} is not in the availability zone {zone}.")
    return {"availability_zone": zone or None, "target": {"host": host, "forced": False}}

"""Rebuilding: a server's disks made anew, with what it is told besides.

https://docs.openstack.org/api-ref/compute/#rebuild-server-rebuild-action

Its ports, its flavor and its host stay; a server that was stopped stays stopped.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from pileus.core.api import Reply
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import UNSET, Body, UnsetType, W, given
from pileus.services.compute.resources.server.fields import (
    AdminPass,
    DiskConfig,
    InjectedFile,
    IPv4,
    IPv6,
    ServerHostName,
    ServerUpdated,
)
from pileus.services.compute.resources.server.operations import source
from pileus.services.compute.resources.server.operations.metadata import check_count
from pileus.services.compute.resources.server.operations.row import allow, find, note, recovered, resource
from pileus.services.compute.resources.server.operations.show import described
from pileus.services.compute.resources.server.table import next_reboot, want
from pileus.services.compute.rules import address, disk
from pileus.services.compute.rules.building import check_disk_config, check_image, check_machine, check_user_data
from pileus.services.compute.rules.guest import disk_names
from pileus.services.compute.rules.shape import Description, Flag, Metadata, Name, Uuid, is_true
from pileus.services.image import interface as images

_TRUSTED = "os_compute_api:servers:rebuild:trusted_certs"
Certificates = Annotated[list[str], msgspec.Meta(min_length=1, max_length=50)]
UserData = Annotated[str, msgspec.Meta(max_length=65535)]


class Rebuild(Body):
    """What the server shall be from now on: the value of `rebuild`. What is not said stays."""

    image_ref: Uuid = msgspec.field(name="imageRef")
    name: Name | UnsetType = UNSET
    admin_pass: AdminPass | UnsetType = msgspec.field(name="adminPass", default=UNSET)
    metadata: Metadata | UnsetType = UNSET
    preserve_ephemeral: Flag = False
    disk_config: DiskConfig | UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=UNSET)
    access_ipv4: IPv4 | UnsetType = msgspec.field(name="accessIPv4", default=UNSET)
    access_ipv6: IPv6 | UnsetType = msgspec.field(name="accessIPv6", default=UNSET)
    personality: Annotated[list[InjectedFile], W(until="2.56")] = msgspec.field(default_factory=list)
    description: Annotated[Description | UnsetType | None, W(since="2.19")] = UNSET
    key_name: Annotated[Name | UnsetType | None, W(since="2.54")] = UNSET
    user_data: Annotated[UserData | UnsetType | None, W(since="2.57")] = UNSET
    trusted_image_certificates: Annotated[Certificates | UnsetType | None, W(since="2.63")] = UNSET
    hostname: ServerHostName = UNSET


class Rebuilt(ServerUpdated):
    """What rebuild answers: as update, with the password, and with what a rebuild may change."""

    key_name: Annotated[str | UnsetType | None, W(since="2.54")]
    user_data: Annotated[str | UnsetType | None, W(since="2.57")] = msgspec.field(name="user_data")
    admin_pass: str = msgspec.field(name="adminPass")


@resource.action("/servers/{server_id}/action", "rebuild", policy="os_compute_api:servers:rebuild", wraps="server")
def rebuild(ctx: Context, server_id: str, body: Rebuild) -> Reply:
    """Let a server's disks be made anew from an image.

    Raises BadRequest for an image that it cannot start from, and for what no server can be told; Conflict in a state
    that forbids it.
    """
    row = find(ctx, server_id)
    target = {"project_id": row.project_id, "user_id": row.user_id}
    if body.trusted_image_certificates is not UNSET:
        ctx.enforce(_TRUSTED, target)
    allow(ctx, row, "rebuild")
    secret = source.password(ctx) if body.admin_pass is UNSET else body.admin_pass
    values = recovered(ctx, row) | _changes(ctx, row.flavor, body)
    names = [one for one in disk_names(row.flavor) if one == disk.ROOT or not is_true(body.preserve_ephemeral)]
    values |= {
        "task": "rebuilding",
        "disks": disk.renewed(disk.known(values.get("disks", row.disks), disk_names(row.flavor)), names),
        "admin_pass": secret,
        "reboot_nonce": next_reboot(row),
        "reboot_kind": "HARD",
        "error": row.error,  # until it is done
    }
    want(ctx.tx, row, **values)
    note(ctx, row.id, row.project_id, "rebuild", "compute_rebuild_instance", row.host)
    again = find(ctx, server_id)
    view = Rebuilt(**described(ctx, again), admin_pass=secret)
    return Reply(view, {"location": view.links[0]["href"]})


def _changes(ctx: Context, flavor: dict[str, Any], body: Rebuild) -> dict[str, Any]:
    """Columns that change; raises BadRequest for what cannot be."""
    if body.trusted_image_certificates is not UNSET and body.trusted_image_certificates:
        raise BadRequest("This cloud verifies no image signatures: trusted_image_certificates cannot be used.")
    said = given(body)
    changes: dict[str, Any] = {
        name: said[name] for name in ("name", "description", "hostname", "metadata", "disk_config") if name in said
    }
    if "key_name" in said:
        changes |= {"key_name": said["key_name"], "key": source.key(ctx, said["key_name"])}
    if "user_data" in said:
        check_user_data(said["user_data"])
        changes["user_data"] = said["user_data"]
    if body.personality:
        changes["files"] = source.files(ctx, ctx.auth.project_id or "", body.personality)
    if "metadata" in said:
        check_count(ctx.tx, ctx.auth.project_id or "", said["metadata"])
    if "access_ipv4" in said:
        changes["access_ip_v4"] = address.access_v4(said["access_ipv4"])
    if "access_ipv6" in said:
        changes["access_ip_v6"] = address.access_v6(said["access_ipv6"])
    found = images.find(ctx, body.image_ref)
    if found is None:
        raise BadRequest("Cannot find image for rebuild")
    check_disk_config(said.get("disk_config"), found.id, found.properties)
    check_image(found, flavor)
    check_machine(flavor, found.properties)
    return changes | {"image_id": found.id, "image": source.image(found)}

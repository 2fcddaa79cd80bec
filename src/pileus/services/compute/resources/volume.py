"""Volumes and snapshots by way of Compute, until microversion 2.35; and snapshots that Block Storage asks for.

https://docs.openstack.org/api-ref/compute/#volume-extension-os-volumes-os-snapshots-deprecated
https://docs.openstack.org/api-ref/compute/#assisted-volume-snapshots-os-assisted-volume-snapshots

There is no Block Storage in this cloud yet: what would be asked of it is answered with 503, and no volume is attached.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NoReturn

import msgspec

from pileus.core.api import Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Unavailable
from pileus.core.fields import Body
from pileus.core.policy import Rule
from pileus.services.compute.rules.persona import MEMBER, READER, SERVICE
from pileus.services.compute.rules.shape import Flag

Text = Annotated[str, msgspec.Meta(min_length=1)]


class VolumeCreate(Body):
    """Body of create: the value of `volume`. `size` in GiB."""

    size: Annotated[int, msgspec.Meta(ge=1)]
    volume_type: str | None = None
    metadata: dict[str, Any] | None = None
    snapshot_id: str | None = None
    availability_zone: str | None = None
    display_name: str | None = None
    display_description: str | None = None


class SnapshotCreate(Body):
    """Body of a snapshot's create: the value of `snapshot`."""

    volume_id: str
    force: Flag = False
    display_name: str | None = None
    display_description: str | None = None


class AssistedInfo(Body):
    """How an assisted snapshot is to be made."""

    snapshot_id: Text
    type: Literal["qcow2"]
    new_file: Text
    id: Text | None = None


class AssistedCreate(Body):
    """Body of an assisted snapshot's create: the value of `snapshot`."""

    volume_id: Text
    create_info: AssistedInfo


_RULE = "os_compute_api:os-volumes:"
_ASSISTED = "os_compute_api:os-assisted-volume-snapshots:"

RULES = (
    Rule(_RULE + "list", READER, "List volumes"),
    Rule(_RULE + "detail", READER, "List volumes in full"),
    Rule(_RULE + "show", READER, "Show a volume"),
    Rule(_RULE + "create", MEMBER, "Make a volume"),
    Rule(_RULE + "delete", MEMBER, "Delete a volume"),
    Rule(_RULE + "snapshots:list", READER, "List snapshots of volumes"),
    Rule(_RULE + "snapshots:detail", READER, "List snapshots of volumes in full"),
    Rule(_RULE + "snapshots:show", READER, "Show a snapshot of a volume"),
    Rule(_RULE + "snapshots:create", MEMBER, "Make a snapshot of a volume"),
    Rule(_RULE + "snapshots:delete", MEMBER, "Delete a snapshot of a volume"),
    Rule(_ASSISTED + "create", SERVICE, "Make a snapshot of an attached volume"),
    Rule(_ASSISTED + "delete", SERVICE, "Delete a snapshot of an attached volume"),
)

resource = Resource("volume", "volumes", rules=RULES)

_PAGED = Parameters("limit", "offset")


def _absent() -> NoReturn:
    raise Unavailable("This cloud has no Block Storage service.")


@resource.get("/os-volumes", policy=_RULE + "list", until="2.35", query=_PAGED)
def list_names(ctx: Context) -> None:
    """Volumes in brief. Raises Unavailable."""
    _absent()


@resource.get("/os-volumes/detail", policy=_RULE + "detail", until="2.35", query=_PAGED)
def list_details(ctx: Context) -> None:
    """Volumes in full. Raises Unavailable."""
    _absent()


@resource.post("/os-volumes", policy=_RULE + "create", until="2.35", accepts="volume")
def create(ctx: Context, body: VolumeCreate) -> None:
    """Make a volume. Raises Unavailable."""
    _absent()


@resource.get("/os-volumes/{volume_id}", policy=_RULE + "show", until="2.35")
def show(ctx: Context, volume_id: str) -> None:
    """One volume. Raises Unavailable."""
    _absent()


@resource.delete("/os-volumes/{volume_id}", policy=_RULE + "delete", until="2.35", status=202)
def delete(ctx: Context, volume_id: str) -> None:
    """Delete a volume. Raises Unavailable."""
    _absent()


@resource.get("/os-snapshots", policy=_RULE + "snapshots:list", until="2.35", query=_PAGED)
def list_snapshot_names(ctx: Context) -> None:
    """Snapshots in brief. Raises Unavailable."""
    _absent()


@resource.get("/os-snapshots/detail", policy=_RULE + "snapshots:detail", until="2.35", query=_PAGED)
def list_snapshot_details(ctx: Context) -> None:
    """Snapshots in full. Raises Unavailable."""
    _absent()


@resource.post("/os-snapshots", policy=_RULE + "snapshots:create", until="2.35", accepts="snapshot")
def create_snapshot(ctx: Context, body: SnapshotCreate) -> None:
    """Make a snapshot. Raises Unavailable."""
    _absent()


@resource.get("/os-snapshots/{snapshot_id}", policy=_RULE + "snapshots:show", until="2.35")
def show_snapshot(ctx: Context, snapshot_id: str) -> None:
    """One snapshot. Raises Unavailable."""
    _absent()


@resource.delete("/os-snapshots/{snapshot_id}", policy=_RULE + "snapshots:delete", until="2.35", status=202)
def delete_snapshot(ctx: Context, snapshot_id: str) -> None:
    """Delete a snapshot. Raises Unavailable."""
    _absent()


def _unattached(volume_id: str) -> BadRequest:
    return BadRequest(f"No volume Block Device Mapping with id {volume_id}.")


@resource.post("/os-assisted-volume-snapshots", policy=_ASSISTED + "create", accepts="snapshot")
def create_assisted(ctx: Context, body: AssistedCreate) -> None:
    """Make a snapshot of an attached volume. Raises BadRequest: no volume is attached to a server here."""
    raise _unattached(body.volume_id)


@resource.delete(
    "/os-assisted-volume-snapshots/{snapshot_id}",
    policy=_ASSISTED + "delete",
    query=Parameters("delete_info", closed="2.75"),
)
def delete_assisted(ctx: Context, snapshot_id: str) -> None:
    """Delete a snapshot of an attached volume. Raises BadRequest: no volume is attached to a server here."""
    try:
        info = msgspec.json.decode(ctx.query.get("delete_info") or "", type=dict[str, Any])
        volume_id = str(info["volume_id"])
    except (msgspec.DecodeError, RecursionError, KeyError):
        raise BadRequest("delete_info must be a JSON object that holds volume_id.") from None
    raise _unattached(volume_id)

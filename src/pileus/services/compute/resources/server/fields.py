"""Shapes of servers: from 2.1 to the newest version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from pileus.core.api import Parameters
from pileus.core.context import Context
from pileus.core.fields import UNSET, Body, Guard, UnsetType, View, W
from pileus.services.compute.resources.server.table import facts
from pileus.services.compute.rules import status
from pileus.services.compute.rules.shape import (
    Description,
    Flag,
    HostName,
    Link,
    Metadata,
    Name,
    Positive,
    Tag,
    Uuid,
    bare,
    bookmark,
    instant,
    links,
)

_LABEL = r"^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+\Z"
Label = Annotated[str, msgspec.Meta(min_length=2, max_length=63, pattern=_LABEL)]
"""A host name of one label (RFC 1123)."""

IPv4 = Annotated[str, msgspec.Meta(pattern=r"^\d{1,3}(\.\d{1,3}){3}$")]
IPv6 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$")]
# A union with Literal[""] would not do: of two kinds of text msgspec keeps one.
NoneOrIPv4 = Annotated[str, msgspec.Meta(pattern=r"^(\d{1,3}(\.\d{1,3}){3})?$")]
NoneOrIPv6 = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F:.]*:[0-9a-fA-F:.]*)?$")]
NoneOrUuid = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12})?$")]
DiskConfig = Literal["AUTO", "MANUAL"]
_DEVICE_TAG = (W(Tag, since="2.32", until="2.32"), W(Tag, since="2.42"))

AdminPass = Annotated[str, msgspec.Meta(max_length=255)]
"""As much as a row keeps of a password; upstream, which keeps none, has no bound."""

UserData = Annotated[str, msgspec.Meta(max_length=65535)]
Certificates = Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1, max_length=50)]
ServerHostName = Annotated[str | UnsetType, W(Label, since="2.90", until="2.93"), W(HostName, since="2.94")]


class NetworkRequest(Body):
    """One entry of `networks`: a network to make a port in, or a port that is there."""

    uuid: Annotated[str | UnsetType, W(str, until="2.36"), W(Uuid, since="2.37")] = UNSET
    port: Uuid | None = None
    fixed_ip: str | None = None
    tag: Annotated[str | UnsetType, W(Tag, since="2.32", until="2.36"), W(Tag, since="2.42")] = UNSET


class GroupName(Body):
    """A security group by name or id."""

    name: Name | UnsetType = UNSET


class InjectedFile(Body):
    """A file to be put into the guest."""

    path: str
    contents: str


class LegacyDisk(Body):
    """One entry of `block_device_mapping`."""

    virtual_name: str | None = None
    volume_id: str | None = None
    snapshot_id: str | None = None
    volume_size: Positive | None = None
    device_name: str | None = None
    delete_on_termination: Flag = False
    no_device: Any = None
    connection_info: str | None = None


class Disk(LegacyDisk):
    """One entry of `block_device_mapping_v2`."""

    source_type: Literal["volume", "image", "snapshot", "blank"] | None = None
    uuid: str | None = None
    image_id: Uuid | None = None
    destination_type: Literal["local", "volume"] | None = None
    guest_format: str | None = None
    device_type: str | None = None
    disk_bus: str | None = None
    boot_index: int | None = None
    tag: Annotated[str | UnsetType, *_DEVICE_TAG] = UNSET
    volume_type: Annotated[str | UnsetType | None, W(since="2.67")] = UNSET


class ServerCreate(Body):
    """What is wanted of a new server: the value of `server`."""

    name: Name
    flavor_ref: str | int = msgspec.field(name="flavorRef")
    image_ref: NoneOrUuid | None = msgspec.field(name="imageRef", default=None)
    admin_pass: str | UnsetType = msgspec.field(name="adminPass", default=UNSET)
    metadata: Metadata = msgspec.field(default_factory=dict)
    networks: Annotated[
        list[NetworkRequest] | Literal["none", "auto"] | None,
        W(list[NetworkRequest], until="2.36"),
        W(list[NetworkRequest] | Literal["none", "auto"], since="2.37", need=True),
    ] = None
    disk_config: DiskConfig = msgspec.field(name="OS-DCF:diskConfig", default="MANUAL")
    access_ipv4: IPv4 | None = msgspec.field(name="accessIPv4", default=None)
    access_ipv6: IPv6 | None = msgspec.field(name="accessIPv6", default=None)
    personality: Annotated[list[InjectedFile], W(until="2.56")] = msgspec.field(default_factory=list)
    availability_zone: Name | None = None
    block_device_mapping: list[LegacyDisk] = msgspec.field(default_factory=list)
    block_device_mapping_v2: list[Disk] = msgspec.field(default_factory=list)
    config_drive: Flag = False
    key_name: Name | None = None
    min_count: Positive = 1
    max_count: Positive | None = None
    return_reservation_id: Flag = False
    security_groups: list[GroupName] | None = None
    user_data: Annotated[str | None, W(UserData)] = None
    description: Annotated[Description | UnsetType | None, W(since="2.19")] = UNSET
    tags: Annotated[list[Tag], W(Annotated[list[Tag], msgspec.Meta(max_length=50)], since="2.52")] = msgspec.field(
        default_factory=list
    )
    trusted_image_certificates: Annotated[Certificates | None, W(since="2.63")] = None
    host: Annotated[str | None, W(HostName, since="2.74")] = None
    hypervisor_hostname: Annotated[str | None, W(HostName, since="2.74")] = None
    hostname: ServerHostName = UNSET


class CreateBody(Body):
    """The whole body of create; hints stand beside the server."""

    server: ServerCreate
    hints: dict[str, Any] = msgspec.field(name="os:scheduler_hints", default_factory=dict)
    old_hints: dict[str, Any] = msgspec.field(name="OS-SCH-HNT:scheduler_hints", default_factory=dict)


class ServerUpdate(Body):
    """Body of update: the value of `server`."""

    name: Name | UnsetType = UNSET
    disk_config: DiskConfig | UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=UNSET)
    access_ipv4: NoneOrIPv4 | UnsetType = msgspec.field(name="accessIPv4", default=UNSET)
    access_ipv6: NoneOrIPv6 | UnsetType = msgspec.field(name="accessIPv6", default=UNSET)
    description: Annotated[Description | UnsetType | None, W(since="2.19")] = UNSET
    hostname: ServerHostName = UNSET
    pinned_availability_zone: Annotated[Name | UnsetType | None, W(since="2.104")] = UNSET


class ServerMade(View):
    """What create answers."""

    id: str
    links: list[Link]
    disk_config: str = msgspec.field(name="OS-DCF:diskConfig")
    security_groups: list[dict[str, str]]
    admin_pass: str = msgspec.field(name="adminPass")


class ServerName(View):
    """A server in brief."""

    id: str
    name: str
    links: list[Link]


class ServerImage(View):
    """The image that a server was made from."""

    id: str
    links: list[Link]
    properties: Annotated[dict[str, str] | UnsetType, W(since="2.98")]


class ServerFlavor(View):
    """The flavor that a server was made with: a link, and from 2.47 on what it was."""

    id: Annotated[str | UnsetType, W(until="2.46")]
    links: Annotated[list[Link] | UnsetType, W(until="2.46")]
    vcpus: Annotated[int | UnsetType, W(since="2.47")]
    ram: Annotated[int | UnsetType, W(since="2.47")]
    disk: Annotated[int | UnsetType, W(since="2.47")]
    ephemeral: Annotated[int | UnsetType, W(since="2.47")]
    swap: Annotated[int | UnsetType, W(since="2.47")]
    original_name: Annotated[str | UnsetType, W(since="2.47")]
    extra_specs: Annotated[
        dict[str, str] | UnsetType, W(since="2.47"), Guard("os_compute_api:servers:show:flavor-extra-specs")
    ]


_EXTENDED = Guard("os_compute_api:os-extended-server-attributes")


class _Core(View):
    """What every answer about a server in full has."""

    id: str
    name: str
    status: str
    tenant_id: str
    user_id: str
    metadata: dict[str, str]
    host_hash: str = msgspec.field(name="hostId")
    image: ServerImage | str
    flavor: ServerFlavor
    created: str
    updated: str
    addresses: dict[str, list[dict[str, Any]]]
    access_ipv4: str = msgspec.field(name="accessIPv4")
    access_ipv6: str = msgspec.field(name="accessIPv6")
    links: list[Link]
    disk_config: str = msgspec.field(name="OS-DCF:diskConfig")
    locked: Annotated[bool | UnsetType, W(since="2.9")]
    description: Annotated[str | UnsetType | None, W(since="2.19")]
    tags: Annotated[list[str] | UnsetType, W(since="2.26")]
    trusted_image_certificates: Annotated[UnsetType | None, W(since="2.63")]
    locked_reason: Annotated[str | UnsetType | None, W(since="2.73")]
    scheduler_hints: Annotated[dict[str, Any] | UnsetType, W(since="2.100")]
    server_groups: Annotated[list[str] | UnsetType, W(since="2.71")]
    progress: int | UnsetType
    fault: dict[str, Any] | UnsetType


class Server(_Core):
    """A server in full."""

    zone: str = msgspec.field(name="OS-EXT-AZ:availability_zone")
    config_drive: str
    key_name: str | None
    launched_at: str | None = msgspec.field(name="OS-SRV-USG:launched_at")
    terminated_at: str | None = msgspec.field(name="OS-SRV-USG:terminated_at")
    host: Annotated[str | UnsetType | None, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:host")
    instance_name: Annotated[str | UnsetType, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:instance_name")
    node: Annotated[str | UnsetType | None, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:hypervisor_hostname")
    reservation_id: Annotated[str | UnsetType, W(since="2.3"), _EXTENDED] = msgspec.field(
        name="OS-EXT-SRV-ATTR:reservation_id"
    )
    launch_index: Annotated[int | UnsetType, W(since="2.3"), _EXTENDED] = msgspec.field(
        name="OS-EXT-SRV-ATTR:launch_index"
    )
    hostname: Annotated[
        str | UnsetType, W(since="2.3"), Guard("os_compute_api:os-extended-server-attributes", until="2.89")
    ] = msgspec.field(name="OS-EXT-SRV-ATTR:hostname")
    kernel_id: Annotated[str | UnsetType, W(since="2.3"), _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:kernel_id")
    ramdisk_id: Annotated[str | UnsetType, W(since="2.3"), _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:ramdisk_id")
    root_device_name: Annotated[str | UnsetType, W(since="2.3"), _EXTENDED] = msgspec.field(
        name="OS-EXT-SRV-ATTR:root_device_name"
    )
    user_data: Annotated[str | UnsetType | None, W(since="2.3"), _EXTENDED] = msgspec.field(
        name="OS-EXT-SRV-ATTR:user_data"
    )
    task_state: str | None = msgspec.field(name="OS-EXT-STS:task_state")
    vm_state: str = msgspec.field(name="OS-EXT-STS:vm_state")
    power_state: int = msgspec.field(name="OS-EXT-STS:power_state")
    volumes: list[Any] = msgspec.field(name="os-extended-volumes:volumes_attached")
    security_groups: list[dict[str, str]] | UnsetType
    host_status: Annotated[str | UnsetType, W(since="2.16"), Guard("os_compute_api:servers:show:host_status")]
    pinned_availability_zone: Annotated[str | UnsetType | None, W(since="2.96")]


_ALL = W(since="2.75")


class ServerUpdated(_Core):
    """What update answers: less than show until 2.74."""

    zone: Annotated[str | UnsetType, _ALL] = msgspec.field(name="OS-EXT-AZ:availability_zone")
    config_drive: Annotated[str | UnsetType, _ALL]
    key_name: Annotated[str | UnsetType | None, _ALL]
    launched_at: Annotated[str | UnsetType | None, _ALL] = msgspec.field(name="OS-SRV-USG:launched_at")
    terminated_at: Annotated[str | UnsetType | None, _ALL] = msgspec.field(name="OS-SRV-USG:terminated_at")
    host: Annotated[str | UnsetType | None, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:host")
    instance_name: Annotated[str | UnsetType, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:instance_name")
    node: Annotated[str | UnsetType | None, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:hypervisor_hostname")
    reservation_id: Annotated[str | UnsetType, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:reservation_id")
    launch_index: Annotated[int | UnsetType, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:launch_index")
    hostname: Annotated[str | UnsetType, _ALL, Guard("os_compute_api:os-extended-server-attributes", until="2.89")] = (
        msgspec.field(name="OS-EXT-SRV-ATTR:hostname")
    )
    kernel_id: Annotated[str | UnsetType, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:kernel_id")
    ramdisk_id: Annotated[str | UnsetType, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:ramdisk_id")
    root_device_name: Annotated[str | UnsetType, _ALL, _EXTENDED] = msgspec.field(
        name="OS-EXT-SRV-ATTR:root_device_name"
    )
    user_data: Annotated[str | UnsetType | None, _ALL, _EXTENDED] = msgspec.field(name="OS-EXT-SRV-ATTR:user_data")
    task_state: Annotated[str | UnsetType | None, _ALL] = msgspec.field(name="OS-EXT-STS:task_state")
    vm_state: Annotated[str | UnsetType, _ALL] = msgspec.field(name="OS-EXT-STS:vm_state")
    power_state: Annotated[int | UnsetType, _ALL] = msgspec.field(name="OS-EXT-STS:power_state")
    volumes: Annotated[list[Any] | UnsetType, _ALL] = msgspec.field(name="os-extended-volumes:volumes_attached")
    security_groups: Annotated[list[dict[str, str]] | UnsetType, _ALL]
    host_status: Annotated[str | UnsetType, _ALL, Guard("os_compute_api:servers:show:host_status")]
    pinned_availability_zone: Annotated[str | UnsetType | None, W(since="2.96")]


class Beside(NamedTuple):
    """What a server's view takes from elsewhere."""

    addresses: Mapping[str, list[dict[str, Any]]]
    """Addresses by the network's name."""
    groups: list[str]
    """Names of security groups."""
    tags: list[str]
    zone: str
    """The availability zone of the host; the one asked for while there is none."""
    host_status: str


_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
_FAULT = frozenset({"ERROR", "DELETED"})


def host_hash(host: str | None, project_id: str) -> str:
    """The name that a host has for a project's members: the same for all servers of the project, and no other's."""
    return "" if host is None else hashlib.sha224(f"{project_id}{host}".encode()).hexdigest()


def fault(ctx: Context, row: sa.Row[Any]) -> dict[str, Any] | UnsetType:
    """Why a server failed; how it came about is for admins."""
    if not row.fault:
        return UNSET
    found = dict(row.fault)
    if not found.get("details") or (found["code"] == 500 and not ctx.auth.is_admin):
        found.pop("details", None)
    return found


def _image(ctx: Context, row: sa.Row[Any]) -> ServerImage | str:
    if row.image_id is None:
        return ""
    properties = row.image.get("properties", {})
    return ServerImage(id=row.image_id, links=bookmark(ctx.url, "images", row.image_id), properties=properties)


def _flavor(ctx: Context, row: sa.Row[Any]) -> ServerFlavor:
    copy = row.flavor
    return ServerFlavor(
        id=row.flavor_id,
        links=bookmark(ctx.url, "flavors", row.flavor_id),
        vcpus=copy["vcpus"],
        ram=copy["ram"],
        disk=copy["disk"],
        ephemeral=copy["ephemeral"],
        swap=copy["swap"],
        original_name=copy["name"],
        extra_specs=copy["extra_specs"],
    )


def values(ctx: Context, row: sa.Row[Any], beside: Beside) -> dict[str, Any]:
    """The fields of `Server` and `ServerUpdated` for a row."""
    known = facts(row)
    word = status.status(known)
    vm_state = status.vm_state(known)
    return {
        "id": row.id,
        "name": row.name,
        "status": word,
        "tenant_id": row.project_id,
        "user_id": row.user_id,
        "metadata": row.metadata,
        "host_hash": host_hash(row.host, row.project_id),
        "image": _image(ctx, row),
        "flavor": _flavor(ctx, row),
        "created": instant(row.created_at),
        "updated": instant(row.updated_at or row.created_at),
        "addresses": {} if vm_state == "building" else beside.addresses,
        "access_ipv4": row.access_ip_v4 or "",
        "access_ipv6": row.access_ip_v6 or "",
        "links": links(ctx.url, ctx.path, "servers", row.id),
        "disk_config": row.disk_config,
        "locked": row.locked_by is not None,
        "description": row.description,
        "tags": beside.tags,
        "trusted_image_certificates": None,
        "locked_reason": row.locked_reason,
        "scheduler_hints": row.scheduler_hints,
        "server_groups": [],
        "progress": 0 if word in _PROGRESS else UNSET,
        "fault": fault(ctx, row) if word in _FAULT else UNSET,
        "zone": beside.zone,
        "config_drive": "True" if row.config_drive else "",
        "key_name": row.key_name,
        "launched_at": bare(row.launched_at),
        "terminated_at": bare(row.deleted_at),
        "host": row.host,
        "instance_name": f"instance-{row.id[:8]}",
        "node": row.host,
        "reservation_id": row.reservation_id,
        "launch_index": row.launch_index,
        "hostname": row.hostname,
        "kernel_id": (row.image.get("properties") or {}).get("kernel_id") or "",
        "ramdisk_id": (row.image.get("properties") or {}).get("ramdisk_id") or "",
        "root_device_name": "/dev/vda",
        "user_data": row.user_data,
        "task_state": status.task_state(known),
        "vm_state": vm_state,
        "power_state": status.power_state(known),
        "volumes": [],
        "security_groups": [{"name": name} for name in beside.groups] or UNSET,
        "host_status": beside.host_status,
        "pinned_availability_zone": row.availability_zone,
    }


FILTERS = (
    *("user_id", "project_id", "tenant_id", "launch_index", "image_ref", "image", "kernel_id", "ramdisk_id"),
    *("hostname", "key_name", "power_state", "vm_state", "task_state", "host", "node", "flavor", "reservation_id"),
    *("launched_at", "terminated_at", "availability_zone", "name", "display_name", "description"),
    *("display_description", "locked_by", "uuid", "root_device_name", "config_drive", "access_ip_v4", "access_ip_v6"),
    *("auto_disk_config", "progress", "sort_key", "sort_dir", "all_tenants", "soft_deleted", "deleted", "status"),
    *("changes-since", "ip", "ip6", "created_at", "limit", "marker"),
)

LIST_PARAMETERS = Parameters(
    *FILTERS,
    later={
        **dict.fromkeys(("tags", "tags-any", "not-tags", "not-tags-any"), "2.26"),
        "changes-before": "2.66",
        "locked": "2.73",
    },
    closed="2.75",
)

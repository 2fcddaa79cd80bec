"""Creating servers: everything that a request means, in one transaction."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from pileus.core.api import Reply
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden
from pileus.core.fields import UNSET
from pileus.core.quota import UNLIMITED
from pileus.services.compute.resources import aggregate, server_group
from pileus.services.compute.resources.quota import QUOTA, take
from pileus.services.compute.resources.server.fields import CreateBody, Disk, ServerCreate, ServerMade
from pileus.services.compute.resources.server.operations import source
from pileus.services.compute.resources.server.operations.metadata import check_count
from pileus.services.compute.resources.server.operations.row import note, resource
from pileus.services.compute.resources.server.table import server, set_each, tag
from pileus.services.compute.rules import hint
from pileus.services.compute.rules.address import access_v4, access_v6
from pileus.services.compute.rules.building import (
    Device,
    boot_image,
    check_image,
    check_machine,
    check_user_data,
    host_name,
    numbered,
)
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.shape import is_true, links
from pileus.services.compute.versions import description
from pileus.services.fleet import interface as fleet
from pileus.services.image import interface as image
from pileus.services.network import interface as network

_LOWER = string.ascii_lowercase + string.digits
Values = dict[str, Any]


@resource.post("/servers", policy="os_compute_api:servers:create", status=202)
def create(ctx: Context, body: CreateBody) -> Reply:
    """Make servers: rows, quota, ports, intent; all of it or nothing.

    Raises BadRequest for what cannot be, Forbidden over quota and for what the policy keeps back, Conflict when it is
    not clear which network is meant.
    """
    if ctx.auth.project_id is None:
        raise BadRequest("A server needs a project: use a token that is scoped to one.")
    wanted = body.server
    _refuse(wanted)
    hints = body.hints or body.old_hints
    hint.check(hints)
    values = {**_content(ctx, wanted), **_destination(ctx, wanted), "scheduler_hints": hints}
    least, most = wanted.min_count, wanted.max_count or wanted.min_count
    if least > most:
        raise BadRequest("min_count must be <= max_count")
    if most > 1 and wanted.hostname is not UNSET:
        raise BadRequest("Unable to allocate a single hostname to multiple instances")
    requests = _networks(ctx, wanted, most)
    groups = sorted({group.name for group in wanted.security_groups or () if group.name is not UNSET})
    count = _take(ctx, values["flavor"], least, most)
    values["reservation_id"] = "r-" + _random(ctx, _LOWER, 8)
    rows = [_row(ctx, wanted, values, count, index) for index in range(count)]
    ctx.tx.insert(server, rows)
    if "group" in hints:
        server_group.join(ctx, hints["group"], [row["id"] for row in rows])
    owner = f"compute:{values['availability_zone'] or ZONE}"
    names = {row["id"]: row["hostname"] for row in rows}
    ports = network.create_many_ports(ctx, requests, names, device_owner=owner, security_groups=groups)
    _tag_cards(ctx, wanted, ports)
    for row in rows:
        note(ctx, row["id"], row["project_id"], "create", "compute__do_build_and_run_instance")
        ctx.tx.changed("compute.waiting", row["id"])
        ctx.tx.changed("compute.server", row["id"])
    if wanted.tags:
        pairs = [{"server_id": row["id"], "tag": one} for row in rows for one in sorted(set(wanted.tags))]
        ctx.tx.insert(tag, pairs)
    return _answer(ctx, wanted, rows[0])


def _tag_cards(ctx: Context, wanted: ServerCreate, ports: Mapping[str, Sequence[str]]) -> None:
    """Keep the tags of cards, given the ports of each server in the order of `networks`."""
    tags = [one.tag for one in wanted.networks] if isinstance(wanted.networks, list) else []
    if any(tag is not UNSET for tag in tags):
        set_each(
            ctx.tx,
            {
                server_id: {"nic_tags": {port: tag for port, tag in zip(ids, tags, strict=True) if tag is not UNSET}}
                for server_id, ids in ports.items()
            },
        )


def _answer(ctx: Context, wanted: ServerCreate, row: Values) -> Reply:
    if is_true(wanted.return_reservation_id):
        return Reply({"reservation_id": row["reservation_id"]})
    names = [{"name": group.name} for group in wanted.security_groups or () if group.name is not UNSET]
    made = ServerMade(
        id=row["id"],
        links=links(ctx.url, ctx.path, "servers", row["id"]),
        disk_config=row["disk_config"],
        security_groups=names if wanted.security_groups is not None else [{"name": "default"}],
        admin_pass=row["admin_pass"],
    )
    return Reply({"server": made}, {"location": made.links[0]["href"]})


def _refuse(wanted: ServerCreate) -> None:
    """Raise BadRequest for what this cloud has not got."""
    if wanted.trusted_image_certificates:
        raise BadRequest("This cloud verifies no image signatures: trusted_image_certificates cannot be used.")
    if wanted.block_device_mapping:
        raise BadRequest("Block Device Mapping is Invalid: this cloud has no volumes to boot from or to attach.")


def _device(one: Disk) -> Device:
    source = one.source_type or ("volume" if one.volume_id else "snapshot" if one.snapshot_id else None)
    destination = one.destination_type or ("volume" if source in ("volume", "snapshot") else "local")
    uuid = one.uuid or one.image_id
    return Device(
        source or ("image" if uuid else None), destination, uuid, one.boot_index, one.volume_size, one.guest_format
    )


def _content(ctx: Context, wanted: ServerCreate) -> Values:
    """What the servers are made of: flavor, image, key pair, user data, metadata, and the password of all of them."""
    flavor_id, flavor = source.flavor(ctx, source.flavor_id(wanted.flavor_ref))
    if wanted.block_device_mapping_v2:
        ctx.enforce("os_compute_api:servers:create:attach_volume")
    image_id = boot_image(wanted.image_ref, [_device(one) for one in wanted.block_device_mapping_v2], flavor)
    found = image.find(ctx, image_id)
    if found is None:
        raise BadRequest("Can not find requested image")
    check_image(found, flavor)
    check_machine(flavor, found.properties)
    if not flavor["disk"] and not ctx.allows("os_compute_api:servers:create:zero_disk_flavor"):
        raise Forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
    key = source.key(ctx, wanted.key_name)
    check_user_data(wanted.user_data)
    check_count(ctx.tx, ctx.auth.project_id or "", wanted.metadata)
    return {
        "flavor_id": flavor_id,
        "flavor": flavor,
        "image_id": found.id,
        "image": source.image(found),
        "key_name": wanted.key_name,
        "key": key,
        "user_data": wanted.user_data,
        "admin_pass": source.password(ctx) if wanted.admin_pass is UNSET else wanted.admin_pass,
        "files": source.files(ctx, ctx.auth.project_id or "", wanted.personality),
        "metadata": wanted.metadata,
        "config_drive": is_true(wanted.config_drive) or found.properties.get("img_config_drive") == "mandatory",
    }


def _destination(ctx: Context, wanted: ServerCreate) -> Values:
    """Where the servers shall go: an availability zone, or a host for those who may ask for one."""
    zone, _, place = (wanted.availability_zone or "").partition(":")
    host, _, node = place.partition(":")
    forced = bool(host or node)
    if forced:
        ctx.enforce("os_compute_api:servers:create:forced_host")
    asked = wanted.host or wanted.hypervisor_hostname
    if asked:
        ctx.enforce("compute:servers:create:requested_destination")
        if forced:
            raise BadRequest(
                "One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node are "
                "mutually exclusive."
            )
        if wanted.host and wanted.hypervisor_hostname and wanted.host != wanted.hypervisor_hostname:
            raise BadRequest(f"Compute host {wanted.hypervisor_hostname} could not be found.")
    name = host or node or asked or None
    hosts = fleet.hosts(ctx.tx, ctx.of(fleet.Fleet)) if name is not None or zone else []
    if name is not None and name not in {one.name for one in hosts}:
        raise BadRequest(f"Compute host {name} could not be found.")
    if forced and zone != aggregate.zones(ctx.tx).get(str(name), ZONE):
        zone = ""  # the host counts, as upstream has it, and the server is bound to no zone
    elif zone and not forced and zone not in aggregate.zones_in_use(ctx.tx, hosts):
        raise BadRequest("The requested availability zone is not available")
    return {"availability_zone": zone or None, "target": {"host": name, "forced": forced}}


def _networks(ctx: Context, wanted: ServerCreate, most: int) -> network.Requests:
    if isinstance(wanted.networks, list) and most > 1:
        for one in wanted.networks:
            if one.port is not None or one.fixed_ip is not None:
                what = "port ID" if one.port is not None else "a fixed IP"
                raise BadRequest(
                    f"Failed to launch instances: Unable to launch multiple instances with a single {what}"
                )
    if wanted.networks and wanted.networks != "none":
        ctx.enforce("os_compute_api:servers:create:attach_network")
    return network.requested(ctx, wanted.networks)


def _take(ctx: Context, flavor: Values, least: int, most: int) -> int:
    """Count the servers against the quota; how many there may be. Raises QuotaExceeded for fewer than `least`."""
    project_id = ctx.auth.project_id or ""
    each = {"instances": 1, "cores": flavor["vcpus"], "ram": flavor["ram"]}
    count = most
    if most > least:
        limits, used = QUOTA.limits(ctx.tx, project_id), QUOTA.used(ctx.tx, project_id)
        room = [(limits[name] - used[name]) // amount for name, amount in each.items() if limits[name] != UNLIMITED]
        count = max(least, min([most, *room]))
    amounts = {name: amount * count for name, amount in each.items()}
    take(ctx.tx, project_id, ctx.auth.user_id, amounts)
    return count


def _random(ctx: Context, letters: str, length: int) -> str:
    return "".join(ctx.seams.random.choices(letters, k=length))


def _row(ctx: Context, wanted: ServerCreate, values: Values, count: int, index: int) -> Values:
    server_id = ctx.seams.uuid()
    hostname = numbered(host_name(wanted.name, server_id), count, index)
    return {
        **values,
        "id": server_id,
        "project_id": ctx.auth.project_id,
        "user_id": ctx.auth.user_id,
        "name": numbered(wanted.name, count, index),
        "hostname": hostname if wanted.hostname is UNSET else wanted.hostname,
        "description": description(wanted.description, wanted.name, ctx.version),
        "disk_config": wanted.disk_config,
        "access_ip_v4": access_v4(wanted.access_ipv4),
        "access_ip_v6": access_v6(wanted.access_ipv6),
        "launch_index": index,
        "power": "running",
        "created_at": ctx.now,
    }

"""What upper services may ask of Network, inside their own transactions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import sqlalchemy as sa
from msgspec import UnsetType

from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound
from pileus.core.statement import by
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.network.resources import attachment, auto_allocated_topology, device, draft, hold, quota
from pileus.services.network.resources.address import Wish, addresses_of
from pileus.services.network.resources.association import DEVICE as DEVICE_TOPIC
from pileus.services.network.resources.attachment import add_address, associate, detach, disassociate, remove_address
from pileus.services.network.resources.device import AddressInfo, PortInfo, ports_of
from pileus.services.network.resources.draft import Draft, Port
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import TOPIC, port, port_group
from pileus.services.network.resources.proxy import (
    FloatingInfo,
    Ingress,
    NetworkInfo,
    all_networks,
    create_floating_ip,
    create_security_group,
    create_security_group_rule,
    delete_floating_ip,
    delete_security_group,
    delete_security_group_rule,
    floating_ip,
    floating_ips,
    groups_of,
    one_network,
    security_group,
    security_groups,
    update_security_group,
)
from pileus.services.network.resources.rbac_policy.table import granted
from pileus.services.network.resources.security_group import operations as groups
from pileus.services.network.resources.security_group.table import MEMBER, group
from pileus.services.network.resources.standard_attribute import Row, bump, every
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules.fault import IpAddressInUse

__all__ = [
    "DEVICE_TOPIC",
    "AddressInfo",
    "FloatingInfo",
    "Ingress",
    "NetworkInfo",
    "PortInfo",
    "Requests",
    "Wanted",
    "add_address",
    "add_group",
    "all_networks",
    "associate",
    "attach_port",
    "bind_ports",
    "create_floating_ip",
    "create_many_ports",
    "create_ports",
    "create_security_group",
    "create_security_group_rule",
    "delete_floating_ip",
    "delete_security_group",
    "delete_security_group_rule",
    "detach",
    "devices_at",
    "disassociate",
    "floating_ip",
    "floating_ips",
    "groups_of",
    "one_network",
    "ports_of",
    "release_ports",
    "remove_address",
    "remove_group",
    "requested",
    "security_group",
    "security_groups",
    "unbind_ports",
    "update_security_group",
]


class Wanted(Protocol):
    """One entry of what a server create asks for in `networks`: a network, or a port that is there."""

    @property
    def uuid(self) -> str | UnsetType | None: ...
    @property
    def port(self) -> str | None: ...
    @property
    def fixed_ip(self) -> str | None: ...


class Request(NamedTuple):
    """A port that a device shall have: a new one in a network, or one that is there."""

    network: Row
    port_id: str | None
    fixed_ip: str | None


Requests = tuple[Request, ...]
"""What `requested` found to be possible, for `create_ports`."""


def requested(ctx: Context, wanted: Sequence[Wanted] | Literal["auto", "none"] | None) -> Requests:
    """Check what a server create asks for; nothing is written, but for a topology where `auto` needs it.

    None and `auto` stand for the one network that the project has: its own or a shared one.  Without any, None stands
    for no network at all, and `auto` for that of the project's auto-allocated topology.  Raises BadRequest, Forbidden
    for an external network, and Conflict when it is not clear which network is meant or a port is in use (Compute API,
    "Create server", `networks`).
    """
    if wanted == "none":
        return ()
    if wanted is None or wanted == "auto" or not wanted:
        found = _usual(ctx, auto=wanted == "auto")
        return tuple(Request(one, None, None) for one in found)
    entries: Sequence[Wanted] = wanted
    rows = _known_ports(ctx, [one.port for one in entries if one.port is not None])
    ids = {rows[one.port]["network_id"] if one.port is not None else one.uuid for one in entries}
    if any(not isinstance(one, str) for one in ids):
        raise BadRequest("Each entry of networks needs a uuid or a port.")
    try:
        nets = networks.find_all(ctx, {str(one) for one in ids})
    except NotFound as fault:
        raise BadRequest(fault.message) from None
    requests = tuple(
        Request(
            nets[rows[one.port]["network_id"] if one.port is not None else str(one.uuid)],
            one.port,
            None if one.port is not None else one.fixed_ip,
        )
        for one in entries
    )
    _check(ctx, requests)
    return requests


def _usual(ctx: Context, *, auto: bool) -> list[Row]:
    """The networks that stand for themselves when none is named: one at most."""
    own = sa.and_(network.c.project_id == (ctx.auth.project_id or ""), network.c.external.is_(False))
    query = sa.select(network).where(sa.or_(own, network.c.shared.is_(True), network.c.id.in_(granted(ctx))))
    if auto:
        query = query.where(network.c.admin_state_up.is_(True))
    found = every(ctx.tx, query.limit(2))
    if len(found) > 1:
        raise Conflict("Multiple possible networks found, use a Network ID to be more specific.")
    if auto and not found:
        found = _automatic(ctx)
    if found:
        _check(ctx, [Request(found[0], None, None)])
    return found


def _automatic(ctx: Context) -> list[Row]:
    """The network of the auto-allocated topology of the caller's project. Raises BadRequest when it cannot be made."""
    project_id = ctx.auth.project_id or ""
    try:
        network_id = auto_allocated_topology.ensure(ctx, project_id)
    except auto_allocated_topology.AutoAllocationFailure as fault:
        message = f"Unable to automatically allocate a network for project {project_id}: {fault.message}"
        raise BadRequest(message) from None
    return every(ctx.tx, sa.select(network).where(network.c.id == network_id))


def attach_port(
    ctx: Context,
    *,
    network_id: str | None,
    port_id: str | None,
    ip_address: str | None,
    device_id: str,
    device_owner: str,
    hostname: str,
) -> str:
    """Give a device that is there one more port: one that exists, or a new one; its id.

    Raises NotFound for a port or network that is not there, BadRequest, Forbidden, QuotaExceeded, and Conflict when
    the port or the address is in use (Compute API, "Create Interface").
    """
    if port_id is not None:
        row = _known_ports(ctx, [port_id], missing=NotFound)[port_id]
        request = Request(networks.find_all(ctx, {row["network_id"]})[row["network_id"]], port_id, None)
    elif network_id is not None:
        request = Request(networks.find_all(ctx, {network_id})[network_id], None, ip_address)
        _check(ctx, [request])
    else:
        try:
            found = _usual(ctx, auto=False)
        except Conflict as fault:
            raise BadRequest(fault.message) from None
        if not found:
            raise BadRequest(
                f"No specific network was requested and none are available for project {ctx.auth.project_id}."
            )
        request = Request(found[0], None, None)
    given = {"device_id": device_id, "device_owner": device_owner, "hostname": hostname}
    try:
        return create_ports(ctx, (request,), **given)[0]
    except BadRequest as fault:
        if isinstance(fault.__cause__, IpAddressInUse):
            raise Conflict(fault.message) from None
        raise


def _known_ports(
    ctx: Context, ids: Sequence[str], *, missing: type[BadRequest | NotFound] = BadRequest
) -> dict[str, Row]:
    """Ports that the caller's project may give to a server."""
    if not ids:
        return {}
    if len(set(ids)) != len(ids):
        raise BadRequest("A port is named twice in networks.")
    found = {row["id"]: row for row in every(ctx.tx, by(port, "id"), {"values": ids})}
    given = addresses_of(ctx.tx, list(found))
    for one in ids:
        row = found.get(one)
        if row is None or row["project_id"] != ctx.auth.project_id:
            raise missing(f"Port id {one} could not be found.")
        if row["vnic_type"] != "normal":
            raise BadRequest(f"Binding failed for port {one}: no host here has interfaces of type {row['vnic_type']}.")
        if row["device_id"]:
            raise Conflict(f"Port {one} is still in use.")
        if not given[one]:
            raise BadRequest(f"Port {one} requires a FixedIP in order to be used.")
    return found


def _check(ctx: Context, requests: Sequence[Request]) -> None:
    """Raise for networks in which servers cannot have ports."""
    fresh = {one.network["id"]: one.network for one in requests if one.port_id is None}
    query = sa.select(subnet.c.network_id).where(subnet.c.network_id.in_(fresh)).distinct()
    served = {row.network_id for row in ctx.tx.all(query)} if fresh else set()
    for network_id, net in fresh.items():
        if net["external"] and not net["shared"] and not ctx.allows("network:attach_external_network", {}):
            raise Forbidden(f"It is not allowed to create an interface on external network {network_id}")
        if network_id not in served:
            raise BadRequest(f"Network {network_id} requires a subnet in order to boot instances on.")


def _group_ids(ctx: Context, names: Sequence[str]) -> list[str]:
    """The project's groups of these names or ids; the default one for none.

    Raises BadRequest for one that is not there, and Conflict for a name that several have.
    """
    project_id = ctx.auth.project_id or ""
    default = groups.ensure_default(ctx.tx, project_id)
    wanted = [name for name in dict.fromkeys(names) if name != groups.DEFAULT]
    if not wanted:
        return [default]
    query = sa.select(group.c.id, group.c.name).where(
        group.c.project_id == project_id, sa.or_(group.c.id.in_(wanted), group.c.name.in_(wanted))
    )
    rows = ctx.tx.all(query)
    found = [default] if groups.DEFAULT in names else []
    for name in wanted:
        matches = [row.id for row in rows if row.id == name] or [row.id for row in rows if row.name == name]
        if len(matches) > 1:
            raise Conflict(f"Multiple security groups found matching '{name}'. Use an ID to be more specific.")
        if not matches:
            raise BadRequest(f"Security group {name} not found for project {project_id}.")
        found.append(matches[0])
    return list(dict.fromkeys(found))


def create_ports(
    ctx: Context,
    requests: Requests,
    *,
    device_id: str,
    device_owner: str,
    security_groups: Sequence[str] = (),
    hostname: str = "",
) -> list[str]:
    """Give one device the ports that `requested` found to be possible; their ids. See `create_many_ports`."""
    return create_many_ports(
        ctx, requests, {device_id: hostname}, device_owner=device_owner, security_groups=security_groups
    )[device_id]


def create_many_ports(
    ctx: Context,
    requests: Requests,
    devices: Mapping[str, str],
    *,
    device_owner: str,
    security_groups: Sequence[str] = (),
) -> dict[str, list[str]]:
    """Give devices (id to host name) the ports of `requests` each; the ports' ids by device, in their order.

    About fifteen statements, however many devices.  `security_groups` are names or ids, which must be there; they are
    for new ports only.  Raises BadRequest and Conflict for groups and addresses that cannot be, and QuotaExceeded.
    """
    tx, project_id = ctx.tx, ctx.auth.project_id or ""
    fresh = [one for one in requests if one.port_id is None]
    members: list[str] = []
    if fresh or any(name != groups.DEFAULT for name in security_groups):
        members = _group_ids(ctx, security_groups)
    if fresh:
        _check_groups(fresh, security_groups)
    if fresh and devices:
        quota.quota.take(tx, project_id, {"port": len(fresh) * len(devices)})
    drafts = [
        Draft(
            network=one.network,
            project_id=project_id,
            wishes=None if one.fixed_ip is None else [Wish(None, one.fixed_ip)],
            groups=members if one.network["port_security_enabled"] else (),
            values={
                "device_id": device_id,
                "device_owner": device_owner,
                "hostname": hostname,
                "transient": True,
                "attached_at": tx.now,
                "position": place,
            },
        )
        for device_id, hostname in devices.items()
        for place, one in enumerate(requests)
        if one.port_id is None
    ]
    made = iter(_make(tx, drafts))
    taken: dict[str | None, int] = {one.port_id: place for place, one in enumerate(requests) if one.port_id is not None}
    found: dict[str, list[str]] = {}
    for device_id, hostname in devices.items():
        values = {"device_id": device_id, "device_owner": device_owner, "hostname": hostname}
        _attach(tx, taken, values)
        found[device_id] = [one.port_id or next(made).row["id"] for one in requests]
    return found


def _make(tx: Tx, drafts: Sequence[Draft]) -> list[Port]:
    if not drafts:
        return []
    try:
        return draft.make(tx, drafts)
    except Conflict as fault:
        if isinstance(fault, IpAddressInUse):
            raise BadRequest(fault.message) from fault
        raise


def _check_groups(requests: Sequence[Request], names: Sequence[str]) -> None:
    if all(name == groups.DEFAULT for name in names):
        return
    if any(not one.network["port_security_enabled"] for one in requests):
        raise BadRequest(
            "Network requires port_security_enabled and subnet associated in order to apply security groups."
        )


def _attach(tx: Tx, taken: Mapping[str | None, int], values: Mapping[str, Any]) -> None:
    """Give ports that are there to a device; whoever comes second at the same time finds them in use."""
    for row in every(tx, by(port, "id"), {"values": taken}) if taken else ():
        if row["device_id"]:
            raise Conflict(f"Port {row['id']} is still in use.")
        bump(tx, port, TOPIC, row, {**values, "attached_at": tx.now, "position": taken[row["id"]]})


def release_ports(tx: Tx, device_ids: Collection[str]) -> None:
    """Let devices go: ports that were made for them are deleted, those that users made are theirs again."""
    attachment.release(tx, device.rows_of(tx, device_ids))


def bind_ports(
    tx: Tx, device_ids: Collection[str], host_id: str, *, host: str | None = None, port_ids: Collection[str] = ()
) -> None:
    """Let a host hold the ports of devices, and further ports. `host` is its name, looked up where it is not given.

    The loops tell the host of the ports, their networks and their security groups; ports on other hosts are let go.
    """
    rows = device.rows_of(tx, device_ids, port_ids)
    moving = [row for row in rows if row["host_id"] != host_id]
    if not moving:
        return
    if host is None:
        found = fleet.hosts(tx, fleet.Fleet(tx.seams.clock), [host_id])
        host = found[0].name if found else host_id
    values = {"host_id": host_id, "binding_host": host, "status": "BUILD"}
    tx.execute(sa.update(port).where(port.c.id.in_([row["id"] for row in moving])).values(values))
    for one in draft.load(tx, [row for row in moving if row["host_id"] is not None]):
        hold.review(tx, one.row["host_id"], [one.row["network_id"]], one.groups)
    for row in moving:
        if (cause := tx.cause(row["device_id"])) is not None:
            tx.because(row["id"], cause)
        tx.changed(TOPIC, row["id"])


def unbind_ports(tx: Tx, device_ids: Collection[str], *, port_ids: Collection[str] = ()) -> None:
    """Let no host hold the ports of devices, nor further ports."""
    rows = [row for row in device.rows_of(tx, device_ids, port_ids) if row["host_id"] is not None]
    if not rows:
        return
    tx.execute(sa.update(port).where(port.c.id.in_([row["id"] for row in rows])).values(attachment.UNBOUND))
    for one in draft.load(tx, rows):
        tx.changed(TOPIC, one.row["id"])
        hold.review(tx, one.row["host_id"], [one.row["network_id"]], one.groups)


def devices_at(tx: Tx, pattern: str, ip_version: int) -> sa.Select[tuple[str]]:
    """A query for the ids of devices that have an address like a pattern of SQL, in which `\\` escapes."""
    return device.devices_at(pattern, "\\", ip_version)


def _named_group(ctx: Context, name: str) -> str:
    try:
        return _group_ids(ctx, [name])[0]
    except BadRequest as fault:
        raise NotFound(fault.message) from None


def add_group(ctx: Context, device_id: str, name: str) -> None:
    """Put all ports of a device that can be in security groups into one, by name or id.

    Raises NotFound, Conflict for a name that several groups have, and BadRequest when no port can be in a group.
    """
    tx, group_id = ctx.tx, _named_group(ctx, name)
    ports = [one for one in draft.load(tx, device.rows_of(tx, [device_id])) if _groupable(one)]
    if not ports:
        raise BadRequest(
            "Network requires port_security_enabled and subnet associated in order to apply security groups."
        )
    for one in ports:
        if group_id not in one.groups:
            tx.insert(port_group, {"port_id": one.row["id"], "group_id": group_id})
            _regroup(tx, one, group_id)


def remove_group(ctx: Context, device_id: str, name: str) -> None:
    """Take all ports of a device out of a security group, by name or id. Raises NotFound when none is in it."""
    tx, group_id = ctx.tx, _named_group(ctx, name)
    ports = [one for one in draft.load(tx, device.rows_of(tx, [device_id])) if group_id in one.groups]
    if not ports:
        raise NotFound(f"Security group {name} not associated with the instance {device_id}")
    for one in ports:
        same = (port_group.c.port_id == one.row["id"], port_group.c.group_id == group_id)
        tx.execute(sa.delete(port_group).where(*same))
        _regroup(tx, one, group_id)


def _groupable(one: Port) -> bool:
    return bool(one.row["port_security_enabled"] and one.addresses)


def _regroup(tx: Tx, one: Port, group_id: str) -> None:
    bump(tx, port, TOPIC, one.row, {})
    draft.announce(tx, one)
    tx.changed(MEMBER, group_id)

"""What Compute shows of Network to clients who ask it for networks, floating IPs and security groups.

https://docs.openstack.org/api-ref/compute/#security-groups-os-security-groups-deprecated

Whoever asks does so in its own name: what it may see and do is decided by Network's own rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.statement import by
from pileus.core.store import Tx
from pileus.services.network.resources import device
from pileus.services.network.resources.floatingip import operations as floating
from pileus.services.network.resources.floatingip import policy as floating_policy
from pileus.services.network.resources.floatingip.fields import FloatingIPCreate, FloatingIPsCreate
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import port, port_group
from pileus.services.network.resources.security_group import operations as groups
from pileus.services.network.resources.security_group import policy as group_policy
from pileus.services.network.resources.security_group.fields import (
    GroupCreate,
    GroupsCreate,
    GroupUpdate,
    RuleCreate,
    RulesCreate,
)
from pileus.services.network.resources.security_group.table import group
from pileus.services.network.resources.standard_attribute import Row, every, sees_all


class NetworkInfo(NamedTuple):
    """A network, as much of it as Compute shows."""

    id: str
    name: str
    external: bool


class FloatingInfo(NamedTuple):
    """A floating IP, with the name of its network and the device that it leads to."""

    id: str
    ip_address: str
    network_id: str
    network_name: str
    fixed_ip_address: str | None
    device_id: str | None


def all_networks(ctx: Context) -> list[NetworkInfo]:
    """The networks that the caller sees, oldest first."""
    query = sa.select(network).where(networks.visible(ctx)).order_by(network.c.created_at, network.c.id)
    return [NetworkInfo(row["id"], row["name"], row["external"]) for row in every(ctx.tx, query)]


def one_network(ctx: Context, network_id: str) -> NetworkInfo:
    """A network that the caller sees. Raises NotFound."""
    row = networks.find(ctx, network_id)
    return NetworkInfo(row["id"], row["name"], row["external"])


def _floating(ctx: Context, rows: Sequence[Row]) -> list[FloatingInfo]:
    ports = {row["port_id"] for row in rows} - {None}
    devices = {one["id"]: one["device_id"] for one in every(ctx.tx, by(port, "id"), {"values": ports})}
    nets = {row["floating_network_id"] for row in rows}
    names = {one["id"]: one["name"] for one in every(ctx.tx, by(network, "id"), {"values": nets})}
    return [
        FloatingInfo(
            row["id"],
            row["floating_ip_address"],
            row["floating_network_id"],
            names[row["floating_network_id"]],
            row["fixed_ip_address"],
            devices.get(row["port_id"]) or None,
        )
        for row in rows
    ]


def floating_ips(ctx: Context) -> list[FloatingInfo]:
    """The floating IPs of the caller's project, oldest first."""
    query = sa.select(floatingip).where(floatingip.c.project_id == (ctx.auth.project_id or ""))
    rows = every(ctx.tx, query.order_by(floatingip.c.created_at, floatingip.c.id))
    return _floating(ctx, [row for row in rows if ctx.allows("get_floatingip", floating_policy.target(row))])


def floating_ip(ctx: Context, floatingip_id: str) -> FloatingInfo:
    """A floating IP that the caller sees. Raises NotFound."""
    return _floating(ctx, [floating_policy.find(ctx, floatingip_id)])[0]


def create_floating_ip(ctx: Context, network_id: str) -> FloatingInfo:
    """Make a floating IP on an external network. Raises what Network's own operation does."""
    made = floating.create(ctx, FloatingIPsCreate(floatingip=FloatingIPCreate(floating_network_id=network_id)))
    return floating_ip(ctx, made.floatingip.id)  # type: ignore[union-attr] # one was asked for, so one was made


def delete_floating_ip(ctx: Context, floatingip_id: str) -> None:
    """Delete a floating IP. Raises what Network's own operation does."""
    floating.delete(ctx, floatingip_id)


# -- security groups, in the shape that Compute's API has for them ---------------------------------------------------


def _shown(tx: Tx, rows: Sequence[Row]) -> list[dict[str, Any]]:
    rules = groups.rules_of(tx, [row["id"] for row in rows])
    remote_ids = {one["remote_group_id"] for each in rules.values() for one in each} - {None}
    named = every(tx, by(group, "id"), {"values": remote_ids}) if remote_ids else ()
    remotes = {row["id"]: {"name": row["name"], "tenant_id": row["project_id"]} for row in named}
    return [
        {
            "id": row["id"],
            "name": row["name"],
            "description": row["description"],
            "tenant_id": row["project_id"],
            "rules": [_shown_rule(one, remotes) for one in rules[row["id"]] if one["direction"] == "ingress"],
        }
        for row in rows
    ]


def _shown_rule(row: Row, remotes: Mapping[str, Any]) -> dict[str, Any]:
    anywhere = "::/0" if row["ethertype"] == "IPv6" else "0.0.0.0/0"
    remote = remotes.get(row["remote_group_id"] or "")
    first, last = row["port_range_min"], row["port_range_max"]
    if row["protocol"] is not None and first is None and last is None:
        first, last = (1, 65535) if row["protocol"] in ("tcp", "udp") else (-1, -1)
    return {
        "id": row["id"],
        "parent_group_id": row["group_id"],
        "ip_protocol": row["protocol"],
        "from_port": first,
        "to_port": last,
        "group": remote or {},
        "ip_range": {} if remote else {"cidr": row["remote_ip_prefix"] or anywhere},
    }


def groups_of(tx: Tx, device_id: str) -> list[dict[str, Any]]:
    """The security groups of a device's ports, with their ingress rules."""
    query = (
        sa.select(group)
        .join(port_group, port_group.c.group_id == group.c.id)
        .join(port, port.c.id == port_group.c.port_id)
        .where(port.c.device_id == device_id, device.ATTACHED)
        .distinct()
        .order_by(group.c.name, group.c.id)
    )
    return _shown(tx, every(tx, query))


def security_groups(ctx: Context, *, everybody: bool = False) -> list[dict[str, Any]]:
    """The groups of the caller's project, by name; with `everybody` those of all that the caller may see.

    The project gets its default group now if it has none.
    """
    if ctx.auth.project_id is not None and ctx.allows("get_security_group"):
        groups.ensure_default(ctx.tx, ctx.auth.project_id)
    query = sa.select(group).order_by(group.c.project_id, group.c.name, group.c.id)
    if not everybody or not sees_all(ctx, "get_security_group"):
        query = query.where(group.c.project_id == (ctx.auth.project_id or ""))
    rows = every(ctx.tx, query)
    return _shown(ctx.tx, [row for row in rows if ctx.allows("get_security_group", group_policy.target(row))])


def security_group(ctx: Context, group_id: str) -> dict[str, Any]:
    """A group that the caller sees. Raises NotFound."""
    return _shown(ctx.tx, [group_policy.find(ctx, group_id)])[0]


def create_security_group(ctx: Context, name: str, description: str) -> dict[str, Any]:
    """Make a group. Raises what Network's own operation does."""
    made = groups.create(ctx, GroupsCreate(security_group=GroupCreate(name=name, description=description)))
    return security_group(ctx, made.security_group.id)  # type: ignore[union-attr] # one was asked for


def update_security_group(ctx: Context, group_id: str, name: str, description: str) -> dict[str, Any]:
    """Change a group. Raises what Network's own operation does."""
    groups.update(ctx, group_id, GroupUpdate(name=name, description=description))
    return security_group(ctx, group_id)


def delete_security_group(ctx: Context, group_id: str) -> None:
    """Delete a group. Raises what Network's own operation does."""
    groups.delete(ctx, group_id)


class Ingress(NamedTuple):
    """What a new rule lets in: a protocol, its ports (or ICMP type and code), from a prefix or another group."""

    protocol: str | None
    first: int | None
    last: int | None
    prefix: str | None
    remote_group_id: str | None


def create_security_group_rule(ctx: Context, group_id: str, wanted: Ingress) -> dict[str, Any]:
    """Let something in to a group. Raises what Network's own operation does."""
    body = RuleCreate(
        security_group_id=group_id,
        direction="ingress",
        ethertype="IPv6" if ":" in (wanted.prefix or "") else "IPv4",
        protocol=wanted.protocol,
        port_range_min=wanted.first,
        port_range_max=wanted.last,
        remote_ip_prefix=wanted.prefix,
        remote_group_id=wanted.remote_group_id,
    )
    made = groups.create_rule(ctx, RulesCreate(security_group_rule=body)).security_group_rule
    found = security_group(ctx, group_id)["rules"]
    return next(one for one in found if one["id"] == made.id)  # type: ignore[union-attr] # one was asked for


def delete_security_group_rule(ctx: Context, rule_id: str) -> None:
    """Delete a rule. Raises what Network's own operation does."""
    groups.delete_rule(ctx, rule_id)

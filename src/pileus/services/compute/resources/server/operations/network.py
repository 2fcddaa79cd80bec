"""A server's addresses and security groups: what Network knows of it, in Compute's words."""

from __future__ import annotations

from typing import Any

from pileus.core.context import Context
from pileus.core.errors import NotFound
from pileus.core.fields import Body
from pileus.services.compute.resources.server.operations.row import allow, find, resource
from pileus.services.compute.rules import address
from pileus.services.compute.rules.shape import Name
from pileus.services.network import interface as network


class GroupName(Body):
    """A security group, by name or id."""

    name: Name


def _ports(ctx: Context, server_id: str) -> list[network.PortInfo]:
    return list(network.ports_of(ctx.tx, [server_id]).get(server_id, ()))


@resource.get("/servers/{server_id}/ips", policy="os_compute_api:ips:index", wraps="addresses")
def list_addresses(ctx: Context, server_id: str) -> dict[str, Any]:
    """A server's addresses by network."""
    row = find(ctx, server_id)
    return address.by_network(_ports(ctx, row.id), brief=True)


@resource.get("/servers/{server_id}/ips/{label}", policy="os_compute_api:ips:show")
def show_addresses(ctx: Context, server_id: str, label: str) -> dict[str, Any]:
    """A server's addresses in one network."""
    row = find(ctx, server_id)
    found = address.by_network(_ports(ctx, row.id), brief=True)
    if label not in found:
        raise NotFound("Instance is not a member of specified network")
    return {label: found[label]}


@resource.get(
    "/servers/{server_id}/os-security-groups", policy="os_compute_api:os-security-groups:list", wraps="security_groups"
)
def list_groups(ctx: Context, server_id: str) -> list[dict[str, Any]]:
    """The security groups of a server's ports."""
    row = find(ctx, server_id)
    return network.groups_of(ctx.tx, row.id)


@resource.action("/servers/{server_id}/action", "addSecurityGroup", policy="os_compute_api:os-security-groups:add")
def add_group(ctx: Context, server_id: str, body: GroupName) -> None:
    """Put all ports of a server into a security group."""
    row = find(ctx, server_id)
    allow(ctx, row, "add_security_group")
    network.add_group(ctx, row.id, body.name)


@resource.action(
    "/servers/{server_id}/action", "removeSecurityGroup", policy="os_compute_api:os-security-groups:remove"
)
def remove_group(ctx: Context, server_id: str, body: GroupName) -> None:
    """Take all ports of a server out of a security group."""
    row = find(ctx, server_id)
    allow(ctx, row, "remove_security_group")
    network.remove_group(ctx, row.id, body.name)

"""A server's addresses, ports and security groups: what Network knows of it, in Compute's words."""

from __future__ import annotations

from typing import Annotated, Any

from pileus.core.context import Context
from pileus.core.errors import NotFound
from pileus.core.fields import Body, UnsetType, View, W
from pileus.services.compute.resources.server.operations.row import allow, find, resource
from pileus.services.compute.rules import address
from pileus.services.compute.rules.shape import Name
from pileus.services.network import interface as network


class GroupName(Body):
    """A security group, by name or id."""

    name: Name


class Interface(View):
    """A port of a server."""

    port_id: str
    net_id: str
    mac_addr: str
    port_state: str
    fixed_ips: list[dict[str, str]]
    tag: Annotated[UnsetType | None, W(since="2.70")] = None


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


def _interface(port: network.PortInfo) -> Interface:
    return Interface(
        port_id=port.id,
        net_id=port.network_id,
        mac_addr=port.mac_address,
        port_state=port.status,
        fixed_ips=[{"subnet_id": one.subnet_id, "ip_address": one.ip_address} for one in port.addresses],
    )


@resource.get(
    "/servers/{server_id}/os-interface", policy="os_compute_api:os-attach-interfaces:list", wraps="interfaceAttachments"
)
def list_interfaces(ctx: Context, server_id: str) -> list[Interface]:
    """A server's ports."""
    row = find(ctx, server_id)
    return [_interface(port) for port in _ports(ctx, row.id)]


@resource.get(
    "/servers/{server_id}/os-interface/{port_id}",
    policy="os_compute_api:os-attach-interfaces:show",
    wraps="interfaceAttachment",
)
def show_interface(ctx: Context, server_id: str, port_id: str) -> Interface:
    """One port of a server."""
    row = find(ctx, server_id)
    for port in _ports(ctx, row.id):
        if port.id == port_id:
            return _interface(port)
    raise NotFound(f"Instance {server_id} does not have a port with id {port_id}")


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

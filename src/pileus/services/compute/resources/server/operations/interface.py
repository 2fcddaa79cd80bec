"""A server's network cards: its ports in Network, attached and detached while it is there.

https://docs.openstack.org/api-ref/compute/#port-interfaces-servers-os-interface
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.server.operations.row import allow, find, for_project, note, resource
from pileus.services.compute.resources.server.table import want
from pileus.services.compute.rules import address
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.shape import Tag, Uuid
from pileus.services.network import interface as network

_ALL = "/servers/{server_id}/os-interface"
_ONE = "/servers/{server_id}/os-interface/{port_id}"


class FixedAddress(Body):
    """An address that a new port shall have."""

    ip_address: str


class Wanted(Body):
    """A card: of a port that is there, or of a new one in a network; without both, in the project's one network."""

    net_id: Uuid | UnsetType = UNSET
    port_id: Uuid | UnsetType = UNSET
    fixed_ips: Annotated[list[FixedAddress], msgspec.Meta(min_length=1, max_length=1)] | UnsetType = UNSET
    tag: Annotated[Tag | UnsetType, W(since="2.49")] = UNSET


class Attach(Body):
    """The whole body, which may be empty."""

    wanted: Wanted | UnsetType = msgspec.field(name="interfaceAttachment", default=UNSET)


class Interface(View):
    """A port of a server."""

    port_id: str
    net_id: str
    mac_addr: str
    port_state: str
    fixed_ips: list[dict[str, str]]
    tag: Annotated[str | UnsetType | None, W(since="2.70")]


def _view(row: sa.Row[Any], port: network.PortInfo) -> Interface:
    return Interface(
        port_id=port.id,
        net_id=port.network_id,
        mac_addr=port.mac_address,
        port_state=port.status,
        fixed_ips=[{"subnet_id": one.subnet_id, "ip_address": one.ip_address} for one in port.addresses],
        tag=row.nic_tags.get(port.id),
    )


def _show(ctx: Context, row: sa.Row[Any], port_id: str) -> Interface:
    for port in network.ports_of(ctx.tx, [row.id]).get(row.id, ()):
        if port.id == port_id:
            return _view(row, port)
    raise NotFound(f"Instance {row.id} does not have a port with id {port_id}")


@resource.get(_ALL, policy="os_compute_api:os-attach-interfaces:list", wraps="interfaceAttachments")
def list_interfaces(ctx: Context, server_id: str) -> list[Interface]:
    """A server's ports."""
    row = find(ctx, server_id)
    return [_view(row, port) for port in network.ports_of(ctx.tx, [row.id]).get(row.id, ())]


@resource.get(_ONE, policy="os_compute_api:os-attach-interfaces:show", wraps="interfaceAttachment")
def show_interface(ctx: Context, server_id: str, port_id: str) -> Interface:
    """One port of a server."""
    return _show(ctx, find(ctx, server_id), port_id)


@resource.post(_ALL, policy="os_compute_api:os-attach-interfaces:create", wraps="interfaceAttachment")
def attach(ctx: Context, server_id: str, body: Attach) -> Interface:
    """Give a server one more card; one that runs has it plugged in.

    Raises BadRequest for what contradicts itself, NotFound for a port or network that is not there, Forbidden over
    quota, and Conflict for a port or an address that is in use.
    """
    row = find(ctx, server_id)
    wanted = body.wanted or Wanted()
    net_id, port_id, ips = wanted.net_id or None, wanted.port_id or None, wanted.fixed_ips or []
    if net_id and port_id:
        raise BadRequest("Must not input both network_id and port_id")
    if ips and not net_id:
        raise BadRequest("Must input network_id when request IP address")
    text = address.canonical(ips[0].ip_address) if ips else None
    allow(ctx, row, "attach_interface")
    zone = aggregate.zones(ctx.tx, [row.host]).get(row.host, ZONE)
    made = network.attach_port(
        for_project(ctx, row),
        network_id=net_id,
        port_id=port_id,
        ip_address=text,
        device_id=row.id,
        device_owner=f"compute:{zone}",
        hostname=row.hostname,
    )
    network.bind_ports(ctx.tx, [], row.host_id, host=row.host, port_ids=[made])
    tags = {**row.nic_tags, **({made: wanted.tag} if wanted.tag else {})}
    want(ctx.tx, row, nic_tags=tags)
    note(ctx, row.id, row.project_id, "attach_interface", "compute_attach_interface", row.host)
    found = _show(ctx, row, made)
    found.tag = tags.get(made)
    return found


@resource.delete(_ONE, policy="os_compute_api:os-attach-interfaces:delete", status=202)
def detach(ctx: Context, server_id: str, port_id: str) -> None:
    """Take a card from a server: a port that was made for it is deleted, another one is its user's again."""
    row = find(ctx, server_id)
    allow(ctx, row, "detach_interface")
    if not network.detach(ctx.tx, row.id, port_id):
        raise NotFound(f"Port id {port_id} could not be found.")
    want(ctx.tx, row, nic_tags={key: tag for key, tag in row.nic_tags.items() if key != port_id})
    note(ctx, row.id, row.project_id, "detach_interface", "compute_detach_interface", row.host)

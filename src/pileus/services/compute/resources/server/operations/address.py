"""Addresses of servers, given and taken by actions that ended with 2.43: Network's own operations took their place.

https://docs.openstack.org/api-ref/compute/#add-associate-fixed-ip-addfixedip-action-deprecated
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from pileus.core.context import Context
from pileus.core.errors import Gone
from pileus.core.fields import UNSET, Body, UnsetType
from pileus.services.compute.resources.server.operations.row import allow, find, for_project, resource
from pileus.services.compute.resources.server.table import want
from pileus.services.compute.rules.address import canonical
from pileus.services.network import interface as network

_ACTION = "/servers/{server_id}/action"
_LAST = "2.43"


class AddFixed(Body):
    """The network in which a server gets one more address."""

    network_id: Annotated[str, msgspec.Meta(min_length=1, max_length=36)] | int = msgspec.field(name="networkId")


class RemoveFixed(Body):
    """The address that a server loses."""

    address: str


class AddFloating(Body):
    """A floating IP, and the address that it shall lead to."""

    address: str
    fixed_address: str | UnsetType = UNSET


class RemoveFloating(Body):
    """A floating IP."""

    address: str


@resource.action(_ACTION, "addFixedIp", policy="os_compute_api:os-multinic:add", until=_LAST)
def add_fixed(ctx: Context, server_id: str, body: AddFixed) -> None:
    """Give a server one more address in a network. Raises BadRequest when there is none left."""
    row = find(ctx, server_id)
    allow(ctx, row, "add_fixed_ip")
    network.add_address(for_project(ctx, row), row.id, str(body.network_id))
    want(ctx.tx, row)


@resource.action(_ACTION, "removeFixedIp", policy="os_compute_api:os-multinic:remove", until=_LAST)
def remove_fixed(ctx: Context, server_id: str, body: RemoveFixed) -> None:
    """Take an address from a server. Raises BadRequest when it has not got it."""
    row = find(ctx, server_id)
    allow(ctx, row, "remove_fixed_ip")
    network.remove_address(for_project(ctx, row), row.id, canonical(body.address))
    want(ctx.tx, row)


@resource.action(_ACTION, "addFloatingIp", policy="os_compute_api:os-floating-ips:add", until=_LAST)
def add_floating(ctx: Context, server_id: str, body: AddFloating) -> None:
    """Let a floating IP lead to a server. Raises BadRequest when it cannot, NotFound when there is none."""
    row = find(ctx, server_id)
    fixed = None if body.fixed_address is UNSET else canonical(body.fixed_address)
    network.associate(for_project(ctx, row), row.id, canonical(body.address), fixed)


@resource.action(_ACTION, "removeFloatingIp", policy="os_compute_api:os-floating-ips:remove", until=_LAST)
def remove_floating(ctx: Context, server_id: str, body: RemoveFloating) -> None:
    """Let a floating IP lead to a server no more. Raises Conflict when it does not."""
    row = find(ctx, server_id)
    network.disassociate(for_project(ctx, row), row.id, canonical(body.address))


@resource.action(_ACTION, "injectNetworkInfo", policy="os_compute_api:os-admin-actions:inject_network_info")
def inject(ctx: Context, server_id: str, body: Any) -> None:
    """Tell a server's guest its addresses anew: its metadata always has them, so nothing changes."""
    row = find(ctx, server_id)
    allow(ctx, row, "inject_network_info")


@resource.action(_ACTION, "resetNetwork", faults=(410,))
def reset(ctx: Context, server_id: str, body: Any) -> None:
    """Nothing any more."""
    raise Gone("This resource is no longer available. No forwarding address is given.")

"""Networks by way of Compute, until microversion 2.35. They are Network's, and show no more than id and name.

https://docs.openstack.org/api-ref/compute/#networks-os-networks-deprecated
https://docs.openstack.org/api-ref/compute/#project-networks-os-tenant-networks-deprecated
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import NotFound
from pileus.core.policy import Rule
from pileus.services.compute.rules.persona import READER
from pileus.services.network import interface as network

RULES = (
    Rule("os_compute_api:os-networks:list", READER, "List networks"),
    Rule("os_compute_api:os-networks:show", READER, "Show a network"),
    Rule("os_compute_api:os-tenant-networks:list", READER, "List the project's networks"),
    Rule("os_compute_api:os-tenant-networks:show", READER, "Show one of the project's networks"),
)

resource = Resource("network", "networks", rules=RULES)

_SHOWN = (*("cidr", "netmask", "gateway", "broadcast", "dns1", "dns2", "cidr_v6", "gateway_v6", "netmask_v6"),)
_SHOWN_TO_ADMINS = (
    *("created_at", "updated_at", "deleted_at", "deleted", "injected", "bridge", "vlan", "vpn_public_address"),
    *("vpn_public_port", "vpn_private_address", "dhcp_start", "project_id", "host", "bridge_interface", "multi_host"),
    *("priority", "rxtx_base", "mtu", "dhcp_server", "enable_dhcp", "share_address"),
)
"""Fields that networks had when they were Compute's: always null since."""


def _view(ctx: Context, one: network.NetworkInfo) -> dict[str, Any]:
    empty = (*_SHOWN, *(_SHOWN_TO_ADMINS if ctx.auth.is_admin else ()))
    return {"id": one.id, "label": one.name, **dict.fromkeys(empty)}


def _project_view(one: network.NetworkInfo) -> dict[str, Any]:
    # The prefix has always been the text None where networks are Network's.
    return {"id": one.id, "cidr": "None", "label": one.name}


def _find(ctx: Context, network_id: str) -> network.NetworkInfo:
    try:
        return network.one_network(ctx, network_id)
    except NotFound:
        raise NotFound("Network not found") from None


@resource.get("/os-networks", policy="os_compute_api:os-networks:list", until="2.35", wraps="networks")
def list_all(ctx: Context) -> list[dict[str, Any]]:
    """The networks that the caller sees."""
    return [_view(ctx, one) for one in network.all_networks(ctx)]


@resource.get("/os-networks/{network_id}", policy="os_compute_api:os-networks:show", until="2.35", wraps="network")
def show(ctx: Context, network_id: str) -> dict[str, Any]:
    """One network."""
    return _view(ctx, _find(ctx, network_id))


@resource.get("/os-tenant-networks", policy="os_compute_api:os-tenant-networks:list", until="2.35", wraps="networks")
def list_project(ctx: Context) -> list[dict[str, Any]]:
    """The networks that the caller sees, in brief."""
    return [_project_view(one) for one in network.all_networks(ctx)]


@resource.get(
    "/os-tenant-networks/{network_id}", policy="os_compute_api:os-tenant-networks:show", until="2.35", wraps="network"
)
def show_project(ctx: Context, network_id: str) -> dict[str, Any]:
    """One network, in brief."""
    return _project_view(_find(ctx, network_id))

"""The shapes of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, Guard, View
from pileus.core.listing import Filter, Listing, boolean, integer
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.standard_attribute import (
    BULK,
    DnsName,
    Name,
    Owned,
    StandardView,
    Text,
    filters,
    sort_keys,
    standard,
)

NetworkType = Literal["local", "flat"]
Mtu = Annotated[int, msgspec.Meta(ge=0, le=9000)]
Zones = Annotated[list[Annotated[str, msgspec.Meta(max_length=255)]], msgspec.Meta(max_length=10)]

ZONE = "nova"
"""The one availability zone of networks and routers."""

DEFAULT_MTU = 1500
LEAST_MTU = 68


class NetworkCreate(Owned, kw_only=True):
    """A new network."""

    name: Name = ""
    description: Text = ""
    admin_state_up: bool = True
    shared: Annotated[bool | UnsetType, Guard("create_network:shared")] = UNSET
    external: Annotated[bool | UnsetType, Guard("create_network:router:external")] = msgspec.field(
        name="router:external", default=UNSET
    )
    is_default: Annotated[bool | UnsetType, Guard("create_network:is_default")] = UNSET
    port_security_enabled: bool = True
    mtu: Mtu | None = None
    dns_domain: DnsName = ""
    availability_zone_hints: Zones = msgspec.field(default_factory=list)
    network_type: Annotated[NetworkType | UnsetType, Guard("create_network:provider:network_type")] = msgspec.field(
        name="provider:network_type", default=UNSET
    )
    physical_network: Annotated[Name | UnsetType | None, Guard("create_network:provider:physical_network")] = (
        msgspec.field(name="provider:physical_network", default=UNSET)
    )
    segmentation_id: Annotated[UnsetType | None, Guard("create_network:provider:segmentation_id")] = msgspec.field(
        name="provider:segmentation_id", default=UNSET
    )


class NetworksCreate(Body, kw_only=True):
    """One network, or several at once."""

    network: NetworkCreate | UnsetType = UNSET
    networks: Annotated[list[NetworkCreate], BULK] | UnsetType = UNSET


class NetworkUpdate(Body, kw_only=True):
    """What may be changed of a network."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    shared: Annotated[bool | UnsetType, Guard("update_network:shared")] = UNSET
    external: Annotated[bool | UnsetType, Guard("update_network:router:external")] = msgspec.field(
        name="router:external", default=UNSET
    )
    is_default: Annotated[bool | UnsetType, Guard("update_network:is_default")] = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    mtu: Mtu | UnsetType = UNSET
    dns_domain: DnsName | UnsetType = UNSET


class NetworkView(StandardView, kw_only=True):
    """A network in a response."""

    name: str
    admin_state_up: bool
    status: str
    shared: bool
    external: bool = msgspec.field(name="router:external")
    is_default: bool | UnsetType
    mtu: int
    port_security_enabled: bool
    dns_domain: str
    subnets: list[str]
    availability_zone_hints: list[str]
    availability_zones: list[str]
    ipv4_address_scope: str | None = None
    ipv6_address_scope: str | None = None
    network_type: Annotated[str | UnsetType, Guard("get_network:provider:network_type")] = msgspec.field(
        name="provider:network_type"
    )
    physical_network: Annotated[str | UnsetType | None, Guard("get_network:provider:physical_network")] = msgspec.field(
        name="provider:physical_network"
    )
    segmentation_id: Annotated[UnsetType | None, Guard("get_network:provider:segmentation_id")] = msgspec.field(
        name="provider:segmentation_id", default=None
    )


class NetworkReply(View, kw_only=True):
    """One network, or those of a bulk request."""

    network: NetworkView | UnsetType = UNSET
    networks: list[NetworkView] | UnsetType = UNSET


def view(row: Mapping[str, Any], subnets: Sequence[str] = (), tags: Sequence[str] = ()) -> NetworkView:
    """A network's row as a response shows it."""
    return NetworkView(
        **standard(row, tags),
        name=row["name"],
        admin_state_up=row["admin_state_up"],
        status="ACTIVE" if row["admin_state_up"] else "DOWN",
        shared=row["shared"],
        external=row["external"],
        is_default=row["is_default"] if row["external"] else UNSET,
        mtu=row["mtu"],
        port_security_enabled=row["port_security_enabled"],
        dns_domain=row["dns_domain"],
        subnets=list(subnets),
        availability_zone_hints=row["availability_zone_hints"],
        availability_zones=[ZONE] if subnets else [],
        network_type=row["network_type"],
        physical_network=row["physical_network"],
    )


class _Status(Filter):
    """`status`: a network is ACTIVE while it is up."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> Any:
        """The condition for the values of one parameter."""
        return self.column.in_([{"ACTIVE": True, "DOWN": False}.get(value) for value in values])


listing = Listing(
    network,
    filters={
        **filters(
            network,
            "name",
            "dns_domain",
            flags=("admin_state_up", "shared", "is_default", "port_security_enabled"),
        ),
        "mtu": Filter(network.c.mtu, integer),
        "router:external": Filter(network.c.external, boolean),
        "status": _Status(network.c.admin_state_up),
        "provider:network_type": Filter(network.c.network_type),
        "provider:physical_network": Filter(network.c.physical_network),
    },
    sort=sort_keys(network, "name", "admin_state_up", "shared", "mtu")
    | {"status": network.c.admin_state_up, "router:external": network.c.external},
    maximum=None,
    view=NetworkView,
)

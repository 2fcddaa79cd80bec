"""The shapes of subnets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, View
from pileus.core.listing import Filter, Listing, boolean, integer
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.standard_attribute import (
    BULK,
    SOME,
    Id,
    Name,
    Owned,
    StandardView,
    Text,
    filters,
    sort_keys,
    standard,
)
from pileus.services.network.resources.subnet.table import subnet

Mode = Literal["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]


class PoolBody(Body, kw_only=True):
    """An allocation pool: its first and its last address."""

    start: str
    end: str


class RouteBody(Body, kw_only=True):
    """A static route."""

    destination: str
    nexthop: str


class SubnetCreate(Owned, kw_only=True):
    """A new subnet."""

    network_id: Id
    ip_version: Literal[4, 6] | UnsetType = UNSET
    cidr: str | UnsetType | None = UNSET
    prefixlen: Annotated[int, msgspec.Meta(ge=0, le=128)] | UnsetType | None = UNSET
    name: Name = ""
    description: Text = ""
    gateway_ip: str | UnsetType | None = UNSET
    enable_dhcp: bool = True
    allocation_pools: Annotated[list[PoolBody], SOME] | UnsetType | None = UNSET
    dns_nameservers: Annotated[list[str], SOME] | None = None
    host_routes: Annotated[list[RouteBody], SOME] | None = None
    ipv6_ra_mode: Mode | None = None
    ipv6_address_mode: Mode | None = None
    subnetpool_id: Id | None = None
    segment_id: None = None
    service_types: Annotated[list[str], msgspec.Meta(max_length=0)] = msgspec.field(default_factory=list)
    use_default_subnetpool: bool = False


class SubnetsCreate(Body, kw_only=True):
    """One subnet, or several at once."""

    subnet: SubnetCreate | UnsetType = UNSET
    subnets: Annotated[list[SubnetCreate], BULK] | UnsetType = UNSET


class SubnetUpdate(Body, kw_only=True):
    """What may be changed of a subnet."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    gateway_ip: str | UnsetType | None = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    allocation_pools: Annotated[list[PoolBody], SOME] | UnsetType = UNSET
    dns_nameservers: Annotated[list[str], SOME] | UnsetType | None = UNSET
    host_routes: Annotated[list[RouteBody], SOME] | UnsetType | None = UNSET
    service_types: Annotated[list[str], msgspec.Meta(max_length=0)] | UnsetType = UNSET


class SubnetView(StandardView, kw_only=True):
    """A subnet in a response."""

    name: str
    network_id: str
    ip_version: int
    cidr: str
    gateway_ip: str | None
    enable_dhcp: bool
    allocation_pools: list[dict[str, str]]
    dns_nameservers: list[str]
    host_routes: list[dict[str, str]]
    ipv6_ra_mode: str | None
    ipv6_address_mode: str | None
    external: bool = msgspec.field(name="router:external")
    subnetpool_id: str | None = None
    segment_id: UnsetType | None = UNSET
    service_types: list[str] = msgspec.field(default_factory=list)


class SubnetReply(View, kw_only=True):
    """One subnet, or those of a bulk request."""

    subnet: SubnetView | UnsetType = UNSET
    subnets: list[SubnetView] | UnsetType = UNSET


def view(row: Mapping[str, Any], *, external: bool, tags: Sequence[str] = ()) -> SubnetView:
    """A subnet's row as a response shows it."""
    return SubnetView(
        **standard(row, tags),
        name=row["name"],
        network_id=row["network_id"],
        ip_version=row["ip_version"],
        cidr=row["cidr"],
        gateway_ip=row["gateway_ip"],
        enable_dhcp=row["enable_dhcp"],
        allocation_pools=row["allocation_pools"],
        dns_nameservers=row["dns_nameservers"],
        host_routes=row["host_routes"],
        ipv6_ra_mode=row["ipv6_ra_mode"],
        ipv6_address_mode=row["ipv6_address_mode"],
        subnetpool_id=row["subnetpool_id"],
        external=external,
    )


class _OfNetwork(Filter):
    """`shared` and `router:external`: by an attribute of the subnet's network."""

    __slots__ = ("attribute",)

    def __init__(self, attribute: sa.ColumnElement[Any]) -> None:
        super().__init__(subnet.c.network_id)
        self.attribute = attribute

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        wanted = [boolean(value) for value in values]
        return self.column.in_(sa.select(network.c.id).where(self.attribute.in_(wanted)))


listing = Listing(
    subnet,
    filters={
        **filters(
            subnet,
            "name",
            "network_id",
            "cidr",
            "gateway_ip",
            "ipv6_ra_mode",
            "ipv6_address_mode",
            "subnetpool_id",
            flags=("enable_dhcp",),
        ),
        "ip_version": Filter(subnet.c.ip_version, integer),
        "shared": _OfNetwork(network.c.shared),
        "router:external": _OfNetwork(network.c.external),
    },
    sort=sort_keys(
        subnet,
        "name",
        "network_id",
        "ip_version",
        "cidr",
        "gateway_ip",
        "enable_dhcp",
        "ipv6_ra_mode",
        "ipv6_address_mode",
    ),
    maximum=None,
    view=SubnetView,
)

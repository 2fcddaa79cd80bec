"""Legs: the ports by which routers are in networks, and what may not lie side by side at one router.

https://docs.openstack.org/api-ref/network/v2/#add-interface-to-router

All that changes a router's legs counts its revision up, so two changes at the same time cannot both come through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.network.resources.draft import GATEWAY, LEG
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.port.table import address, port
from pileus.services.network.resources.standard_attribute import Row, every
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules import subnet as rules
from pileus.services.network.rules.fault import (
    InvalidInput,
    InvalidRoutes,
    RouterInterfaceInUseByFloatingIP,
    RouterInterfaceInUseByRoute,
)


class Leg(NamedTuple):
    """An address of a router in a subnet."""

    port_id: str
    device_owner: str
    subnet_id: str
    cidr: str
    ip_address: str


def legs_of(tx: Tx, router_id: str) -> list[Leg]:
    """All addresses of a router, the gateway's included."""
    query = (
        sa.select(port.c.id, port.c.device_owner, subnet.c.id, subnet.c.cidr, address.c.ip_address)
        .join(address, address.c.port_id == port.c.id)
        .join(subnet, subnet.c.id == address.c.subnet_id)
        .where(port.c.device_id == router_id, port.c.device_owner.in_((LEG, GATEWAY)))
        .order_by(port.c.created_at, port.c.id, address.c.position)
    )
    return [Leg._make(row) for row in tx.all(query)]


def check_room(
    legs: Sequence[Leg], subnets: Sequence[Mapping[str, str]], routes: Sequence[Mapping[str, str]] = ()
) -> None:
    """Raise InvalidInput when a router has a leg in one of these subnets, or in one that shares addresses with it.

    Nor may one of the `routes` lead into a subnet where a leg is to be.
    """
    for row in subnets:
        if any(one.subnet_id == row["id"] for one in legs):
            raise InvalidInput(f"the router already has a port on subnet {row['id']}")
        twin = rules.overlapping(ip_network(row["cidr"]), {one.subnet_id: one.cidr for one in legs})
        if twin is not None:
            raise InvalidInput(f"cidr {row['cidr']} of subnet {row['id']} overlaps with the one of subnet {twin}")
        for route in routes:
            if _within(ip_network(route["destination"]), row["cidr"]):
                raise InvalidInput(f"the router has a route to {route['destination']}, a part of subnet {row['id']}")


def check_routes(legs: Sequence[Leg], routes: Sequence[Mapping[str, str]]) -> None:
    """Raise InvalidRoutes for a route whose next hop is not a neighbour of the router, or that leads to a neighbour.

    Upstream takes the second kind. But who is in a leg's subnet is known without a route, and the subnet may be another
    project's: a route would say that one of its addresses is elsewhere. A wider one changes nothing, since the subnet's
    own goes before it; nor does one to the whole subnet by a hop in it, which upstream's acceptance tests want. What is
    outside, beyond the gateway, may lie behind a guest too.
    """
    own = {one.ip_address for one in legs}
    for route in routes:
        nexthop, destination = ip_address(route["nexthop"]), ip_network(route["destination"])
        if not any(nexthop in ip_network(one.cidr) for one in legs):
            raise InvalidRoutes(f"the nexthop {nexthop} is not connected with the router")
        if str(nexthop) in own:
            raise InvalidRoutes(f"the nexthop {nexthop} is the router itself")
        if destination.is_link_local:
            raise InvalidRoutes(f"{destination} is on each link, and no route leads there")
        inner = [one.cidr for one in legs if one.device_owner == LEG and _within(destination, one.cidr)]
        if any(ip_network(cidr) != destination or nexthop not in destination for cidr in inner):
            raise InvalidRoutes(f"{destination} is part of a subnet that the router is in")


def _within(destination: rules.Cidr, cidr: str) -> bool:
    other = ip_network(cidr)
    return destination.prefixlen >= other.prefixlen and destination.network_address in other


def check_free(tx: Tx, row: Row, legs: Sequence[Leg], leaving: Collection[Leg]) -> None:
    """Raise when a floating IP or a route needs one of the addresses that are to leave the router."""
    kept = [one for one in legs if one not in leaving]
    for leg in leaving:
        cidr = ip_network(leg.cidr)
        for route in row["routes"]:
            nexthop = ip_address(route["nexthop"])
            if nexthop in cidr and not any(nexthop in ip_network(one.cidr) for one in kept):
                raise RouterInterfaceInUseByRoute(row["id"], leg.subnet_id)
    users = (
        sa.select(address.c.subnet_id)
        .join(floatingip, floatingip.c.port_id == address.c.port_id)
        .where(
            floatingip.c.router_id == row["id"],
            floatingip.c.fixed_ip_address == address.c.ip_address,
            address.c.subnet_id.in_({one.subnet_id for one in leaving}),
        )
    )
    found = every(tx, users.limit(1))
    if found:
        raise RouterInterfaceInUseByFloatingIP(row["id"], found[0]["subnet_id"])

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


def check_room(legs: Sequence[Leg], subnets: Sequence[Mapping[str, str]]) -> None:
    """Raise InvalidInput when a router has a leg in one of these subnets, or in one that shares addresses with it."""
    for row in subnets:
        if any(one.subnet_id == row["id"] for one in legs):
            raise InvalidInput(f"the router already has a port on subnet {row['id']}")
        twin = rules.overlapping(ip_network(row["cidr"]), {one.subnet_id: one.cidr for one in legs})
        if twin is not None:
            raise InvalidInput(f"cidr {row['cidr']} of subnet {row['id']} overlaps with the one of subnet {twin}")


def check_routes(legs: Sequence[Leg], routes: Sequence[Mapping[str, str]]) -> None:
    """Raise InvalidRoutes for a route whose next hop is not a neighbour of the router."""
    own = {one.ip_address for one in legs}
    for route in routes:
        nexthop = ip_address(route["nexthop"])
        if not any(nexthop in ip_network(one.cidr) for one in legs):
            raise InvalidRoutes(f"the nexthop {nexthop} is not connected with the router")
        if str(nexthop) in own:
            raise InvalidRoutes(f"the nexthop {nexthop} is the router itself")


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

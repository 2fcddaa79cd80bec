"""How many addresses of networks are in use.

https://docs.openstack.org/api-ref/network/v2/#network-ip-availability-and-usage-stats
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.fields import View
from pileus.core.listing import integer
from pileus.core.policy import Rule
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import address
from pileus.services.network.resources.standard_attribute import ADMIN_OR_SERVICE, every
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules.address import parse
from pileus.services.network.rules.fault import NetworkNotFound


class SubnetAvailability(View):
    """The addresses of a subnet."""

    subnet_id: str
    subnet_name: str
    cidr: str
    ip_version: int
    total_ips: int
    used_ips: int


class Availability(View):
    """The addresses of a network: the sums of its subnets."""

    network_id: str
    network_name: str
    project_id: str
    tenant_id: str
    total_ips: int
    used_ips: int
    subnet_ip_availability: list[SubnetAvailability]


resource = Resource(
    "network_ip_availability",
    "network_ip_availabilities",
    rules=[Rule("get_network_ip_availability", ADMIN_OR_SERVICE, "See how many addresses of networks are in use")],
)


def _of(ctx: Context, condition: sa.ColumnElement[bool], ip_version: int | None = None) -> list[Availability]:
    nets = every(ctx.tx, sa.select(network).where(condition).order_by(network.c.created_at, network.c.id))
    ids = [net["id"] for net in nets]
    query = sa.select(subnet).where(subnet.c.network_id.in_(ids)).order_by(subnet.c.created_at, subnet.c.id)
    subnets = every(ctx.tx, query if ip_version is None else query.where(subnet.c.ip_version == ip_version))
    counts = sa.select(address.c.subnet_id, sa.func.count().label("used")).group_by(address.c.subnet_id)
    rows = ctx.tx.all(counts.where(address.c.subnet_id.in_([one["id"] for one in subnets])))
    used = {row.subnet_id: row.used for row in rows}
    parts: dict[str, list[SubnetAvailability]] = {one: [] for one in ids}
    for one in subnets:
        parts[one["network_id"]].append(
            SubnetAvailability(
                subnet_id=one["id"],
                subnet_name=one["name"],
                cidr=one["cidr"],
                ip_version=one["ip_version"],
                total_ips=sum(_size(pool) for pool in one["allocation_pools"]),
                used_ips=used.get(one["id"], 0),
            )
        )
    return [_view(net, parts[net["id"]]) for net in nets if parts[net["id"]] or ip_version is None]


def _size(pool: dict[str, str]) -> int:
    return int(parse(pool["end"])) - int(parse(pool["start"])) + 1


def _view(net: dict[str, Any], parts: list[SubnetAvailability]) -> Availability:
    return Availability(
        network_id=net["id"],
        network_name=net["name"],
        project_id=net["project_id"],
        tenant_id=net["project_id"],
        total_ips=sum(one.total_ips for one in parts),
        used_ips=sum(one.used_ips for one in parts),
        subnet_ip_availability=parts,
    )


_FILTERS = {
    "network_id": network.c.id,
    "network_name": network.c.name,
    "project_id": network.c.project_id,
    "tenant_id": network.c.project_id,
}


@resource.get(
    "/network-ip-availabilities",
    policy="get_network_ip_availability",
    guarded=True,
    wraps="network_ip_availabilities",
)
def index(ctx: Context) -> list[Availability]:
    """All networks that the request's filters let through; none for whom may not see them."""
    if not ctx.allows("get_network_ip_availability", {}):
        return []
    given = [column.in_(ctx.query.all(name)) for name, column in _FILTERS.items() if ctx.query.all(name)]
    version = ctx.query.get("ip_version")
    return _of(ctx, sa.and_(sa.true(), *given), None if version is None else integer(version))


@resource.get(
    "/network-ip-availabilities/{network_id}",
    policy="get_network_ip_availability",
    guarded=True,
    wraps="network_ip_availability",
)
def show(ctx: Context, network_id: str) -> Availability:
    """One network. Raises NetworkNotFound."""
    if not ctx.allows("get_network_ip_availability", {}):
        raise NetworkNotFound(network_id)
    found = _of(ctx, network.c.id == network_id)
    if not found:
        raise NetworkNotFound(network_id)
    return found[0]

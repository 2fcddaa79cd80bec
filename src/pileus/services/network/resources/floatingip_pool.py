"""Pools of floating IPs: the IPv4 subnets of external networks.

https://docs.openstack.org/api-ref/network/v2/#floating-ip-pools-floatingip-pools
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.fields import View
from pileus.core.policy import Rule
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.standard_attribute import ADMIN_OR_PROJECT_READER, every
from pileus.services.network.resources.subnet.table import subnet


class FloatingIPPool(View):
    """A pool in a response."""

    subnet_id: str
    subnet_name: str
    network_id: str
    cidr: str
    project_id: str
    tenant_id: str


resource = Resource(
    "floatingip_pool",
    "floatingip_pools",
    rules=[Rule("get_floatingip_pool", ADMIN_OR_PROJECT_READER, "List pools of floating IPs")],
)

_FILTERS = {
    "subnet_id": subnet.c.id,
    "subnet_name": subnet.c.name,
    "network_id": subnet.c.network_id,
    "cidr": subnet.c.cidr,
    "project_id": subnet.c.project_id,
    "tenant_id": subnet.c.project_id,
}


@resource.get("/floatingip_pools", policy="get_floatingip_pool", wraps="floatingip_pools")
def index(ctx: Context) -> list[FloatingIPPool]:
    """The pools that the caller sees, and the request's filters let through."""
    outside = sa.select(network.c.id).where(network.c.external.is_(True), networks.visible(ctx))
    query = sa.select(subnet).where(subnet.c.network_id.in_(outside), subnet.c.ip_version == 4)
    for name, column in _FILTERS.items():
        if wanted := ctx.query.all(name):
            query = query.where(column.in_(wanted))
    return [
        FloatingIPPool(
            subnet_id=row["id"],
            subnet_name=row["name"],
            network_id=row["network_id"],
            cidr=row["cidr"],
            project_id=row["project_id"],
            tenant_id=row["project_id"],
        )
        for row in every(ctx.tx, query.order_by(subnet.c.created_at, subnet.c.id))
    ]

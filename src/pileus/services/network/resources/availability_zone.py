"""Availability zones: one for networks and one for routers, for all hosts are alike.

https://docs.openstack.org/api-ref/network/v2/#availability-zones
"""

from __future__ import annotations

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.services.network.resources.network.fields import ZONE

resource = Resource(
    "availability_zone",
    "availability_zones",
    rules=[Rule("get_availability_zone", "role:reader", "List availability zones")],
)


@resource.get("/availability_zones", policy="get_availability_zone", wraps="availability_zones")
def index(ctx: Context) -> list[dict[str, str]]:
    """The zones that the request's filters let through."""
    zones = [{"name": ZONE, "resource": noun, "state": "available"} for noun in ("network", "router")]
    wanted = {name: ctx.query.all(name) for name in ("name", "resource", "state") if ctx.query.all(name)}
    return [zone for zone in zones if all(zone[name] in values for name, values in wanted.items())]

"""Service providers: what realises a kind of service; here routers alone, and in one way.

Clients ask which kinds there are before they look for what is of a kind: VPN services, for one.

https://docs.openstack.org/api-ref/network/v2/#list-service-providers
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.listing import boolean
from pileus.core.policy import Rule

resource = Resource(
    "service_provider",
    "service_providers",
    rules=[Rule("get_service_provider", "role:reader", "List service providers")],
)


@resource.get("/service-providers", policy="get_service_provider", wraps="service_providers")
def index(ctx: Context) -> list[dict[str, Any]]:
    """The providers that the request's filters let through: a router lives on one host, as upstream's `single_node`."""
    one = {"service_type": "L3_ROUTER_NAT", "name": "single_node", "default": True}
    wanted = {name: ctx.query.all(name) for name in one if ctx.query.all(name)}
    given = {name: [boolean(text) for text in texts] if name == "default" else texts for name, texts in wanted.items()}
    return [one] if all(one[name] in values for name, values in given.items()) else []

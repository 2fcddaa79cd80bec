"""Version discovery: what answers before a version is chosen.

https://docs.openstack.org/api-ref/network/v2/#list-api-versions
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Reply, Resource
from pileus.core.context import Context

resource = Resource("version", "versions")

COLLECTIONS = {
    "network": "networks",
    "subnet": "subnets",
    "port": "ports",
    "router": "routers",
    "floatingip": "floatingips",
    "security_group": "security-groups",
    "security_group_rule": "security-group-rules",
    "extension": "extensions",
    "quota": "quotas",
    "availability_zone": "availability_zones",
}
"""Nouns, and the paths of their lists below `/v2.0`."""


@resource.get("/", public=True)
def index(ctx: Context) -> dict[str, Any]:
    """The versions: one, v2.0."""
    link = {"rel": "self", "href": f"{ctx.url}/v2.0/"}
    return {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]}


@resource.get("/v2.0", public=True)
def show(ctx: Context) -> Reply:
    """The collections of v2.0."""
    resources = [
        {
            "name": noun,
            "collection": path.replace("-", "_"),
            "links": [{"rel": "self", "href": f"{ctx.url}/v2.0/{path}"}],
        }
        for noun, path in COLLECTIONS.items()
    ]
    return Reply({"resources": resources})

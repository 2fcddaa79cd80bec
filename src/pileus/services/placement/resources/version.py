"""Version discovery.

Source: https://docs.openstack.org/api-ref/placement/#api-versions
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.services.placement import versions

resource = Resource("version", "versions")


@resource.get("/", public=True)
def index(ctx: Context) -> Reply:
    """The one version, and its range of microversions."""
    ledger = versions.LEDGER
    found: dict[str, Any] = {
        "id": f"v{ledger.minimum}",
        "status": "CURRENT",
        "min_version": str(ledger.minimum),
        "max_version": str(ledger.maximum),
        "links": [{"rel": "self", "href": ""}],
    }
    return Reply({"versions": [found]}, versions.freshness(ctx.version, ctx.now))

"""Version discovery.

Source: https://docs.openstack.org/api-ref/image/versions/
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.services.image import versions
from pileus.services.image.resources.store import ImageStores

resource = Resource("version", "versions")


def _all(ctx: Context) -> dict[str, Any]:
    link = {"rel": "self", "href": f"{ctx.url}/v2/"}
    hidden = versions.CACHE if ctx.of(ImageStores).cache is None else frozenset()
    told = [version for version in versions.HISTORY if version not in hidden]
    return {
        "versions": [
            {
                "id": f"v{version}",
                "status": "CURRENT" if version == told[0] else "SUPPORTED",
                "links": [link],
            }
            for version in told
        ]
    }


@resource.get("/", public=True, status=300)
def choices(ctx: Context) -> dict[str, Any]:
    """The versions, to a client that named none."""
    return _all(ctx)


@resource.get("/versions", public=True)
def index(ctx: Context) -> dict[str, Any]:
    """The versions."""
    return _all(ctx)

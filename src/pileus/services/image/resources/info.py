"""What this cloud's image service has: stores, ways of import, and what a project uses of its quota.

Source: https://docs.openstack.org/api-ref/image/v2/#stores, #interoperable-image-import, #quota-usage
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.services.image.resources.image.operations import QUOTA
from pileus.services.image.resources.store import ImageStores

resource = Resource(
    "info",
    "info",
    rules=[Rule("stores_info_detail", "rule:context_is_admin or role:service", "Show the stores in detail")],
)


def _stores(ctx: Context) -> list[dict[str, Any]]:
    stores = ctx.of(ImageStores)
    return [{"id": name, **({"default": "true"} if name == stores.default else {})} for name in stores.by_name]


@resource.get("/info/stores")
def stores(ctx: Context) -> dict[str, Any]:
    """The stores, and which one is used when none is named."""
    return {"stores": _stores(ctx)}


@resource.get("/info/stores/detail", policy="stores_info_detail")
def stores_detail(ctx: Context) -> dict[str, Any]:
    """The stores with their kind. Raises Forbidden."""
    kinds = ctx.of(ImageStores).by_name
    return {
        "stores": [
            {**store, "type": type(kinds[store["id"]]).__module__.rsplit(".", 1)[-1], "properties": {}, "weight": 0}
            for store in _stores(ctx)
        ]
    }


@resource.get("/info/import")
def imports(ctx: Context) -> dict[str, Any]:
    """The ways by which images can be imported: data is uploaded directly, so that there are none."""
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": []}}


@resource.get("/info/usage")
def usage(ctx: Context) -> dict[str, Any]:
    """What the caller's project has and may have: images, and MiB of data."""
    project = ctx.auth.project_id or ""
    used, limits = QUOTA.used(ctx.tx, project), QUOTA.limits(ctx.tx, project)
    return {"usage": {name: {"usage": used[name], "limit": limit} for name, limit in limits.items()}}

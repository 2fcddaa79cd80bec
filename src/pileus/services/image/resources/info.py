"""What this cloud's image service has: stores, and ways of import.

Source: https://docs.openstack.org/api-ref/image/v2/#stores, #interoperable-image-import
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.store import ImageStores

resource = Resource(
    "info",
    "info",
    rules=[Rule("stores_info_detail", f"{policy.ADMIN} or {policy.SERVICE}", "Show the stores in detail")],
)


def _stores(ctx: Context) -> list[dict[str, Any]]:
    stores = ctx.of(ImageStores)
    return [
        {
            "id": name,
            **({"default": "true"} if name == stores.default else {}),
            **({"read-only": "true"} if store.read_only else {}),
        }
        for name, store in stores.by_name.items()
    ]


@resource.get("/info/stores")
def stores(ctx: Context) -> dict[str, Any]:
    """The stores, which one is used when none is named, and which take no data."""
    return {"stores": _stores(ctx)}


@resource.get("/info/stores/detail", policy="stores_info_detail")
def stores_detail(ctx: Context) -> dict[str, Any]:
    """The stores with their kind, where they keep the data, and how gladly it is read from there. Raises Forbidden."""
    found = ctx.of(ImageStores)
    return {
        "stores": [
            {
                **told,
                "type": found.by_name[told["id"]].kind,
                "properties": found.by_name[told["id"]].properties(),
                "weight": found.settings.weights.get(told["id"], 0),
            }
            for told in _stores(ctx)
        ]
    }


@resource.get("/info/import")
def imports(ctx: Context) -> dict[str, Any]:
    """The ways by which images can be imported."""
    methods = ctx.of(ImageStores).methods
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": methods}}

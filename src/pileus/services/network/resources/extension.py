"""Extensions: what this Network can do, by alias.

https://docs.openstack.org/api-ref/network/v2/#extensions
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.services.network.rules.fault import ExtensionsNotFound
from pileus.services.network.versions import EXTENSIONS

resource = Resource("extension", "extensions")


def _shown(alias: str) -> dict[str, Any]:
    one = EXTENSIONS[alias]
    return {"alias": alias, "name": one.name, "description": one.description, "updated": one.updated, "links": []}


@resource.get("/extensions", wraps="extensions")
def index(ctx: Context) -> list[dict[str, Any]]:
    """All extensions."""
    return [_shown(alias) for alias in EXTENSIONS]


@resource.get("/extensions/{alias}", wraps="extension")
def show(ctx: Context, alias: str) -> dict[str, Any]:
    """One extension."""
    if alias not in EXTENSIONS:
        raise ExtensionsNotFound(alias)
    return _shown(alias)

"""Version discovery (https://docs.openstack.org/api-ref/identity/v3/#api-versions)."""

from __future__ import annotations

from typing import Any

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.services.identity.versions import NEWEST, UPDATED

resource = Resource("version", "versions")


def _document(ctx: Context) -> dict[str, Any]:
    return {
        "id": NEWEST,
        "status": "stable",
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{ctx.url}/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


@resource.get("/", public=True, status=300)
def list_all(ctx: Context) -> Reply:
    """All versions: one."""
    return Reply({"versions": {"values": [_document(ctx)]}}, {"location": f"{ctx.url}/v3/"})


@resource.get("/v3", public=True, wraps="version")
def show(ctx: Context) -> dict[str, Any]:
    """The version v3."""
    return _document(ctx)

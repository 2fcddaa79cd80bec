"""Version discovery.

https://docs.openstack.org/api-ref/compute/#api-versions
https://docs.openstack.org/api-ref/compute/#extensions-extensions-deprecated
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import NotFound
from pileus.core.policy import Rule
from pileus.services.compute.rules.extension import EXTENSIONS
from pileus.services.compute.rules.persona import ANYONE
from pileus.services.compute.versions import LEDGER

RULES = (Rule("os_compute_api:extensions", ANYONE, "List extensions"),)

discovery = Resource("version", "versions")
resource = Resource("extension", "extensions", rules=RULES)

_UPDATED = "2013-07-23T11:33:21Z"
_MEDIA = "application/vnd.openstack.compute+json;version="


def _document(ctx: Context, name: str) -> dict[str, Any]:
    current = name == "v2.1"
    return {
        "id": name,
        "status": "CURRENT" if current else "SUPPORTED",
        "version": str(LEDGER.maximum) if current else "",
        "min_version": str(LEDGER.minimum) if current else "",
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{ctx.url}/{'v2.1' if current else 'v2'}/"}],
    }


def _full(ctx: Context, name: str) -> dict[str, Any]:
    media = {"base": "application/json", "type": _MEDIA + name.removeprefix("v").removesuffix(".0")}
    return {**_document(ctx, name), "media-types": [media]}


@discovery.get("/", public=True, wraps="versions")
def list_all(ctx: Context) -> list[dict[str, Any]]:
    """All versions."""
    return [_document(ctx, "v2.0"), _document(ctx, "v2.1")]


@discovery.get("/v2.1", public=True, wraps="version")
def show(ctx: Context) -> dict[str, Any]:
    """Version 2.1 and its microversions."""
    return _full(ctx, "v2.1")


@discovery.get("/v2", public=True, wraps="version")
def show_old(ctx: Context) -> dict[str, Any]:
    """Version 2.0: the same operations."""
    return _full(ctx, "v2.0")


def _extension(alias: str) -> dict[str, Any]:
    return {
        "alias": alias,
        "name": EXTENSIONS[alias],
        "description": "",
        "links": [],
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
        "updated": "2014-12-03T00:00:00Z",
    }


@resource.get("/extensions", policy="os_compute_api:extensions", wraps="extensions")
def list_extensions(ctx: Context) -> list[dict[str, Any]]:
    """The extensions."""
    return [_extension(alias) for alias in EXTENSIONS]


@resource.get("/extensions/{alias}", policy="os_compute_api:extensions", wraps="extension")
def show_extension(ctx: Context, alias: str) -> dict[str, Any]:
    """One extension."""
    if alias not in EXTENSIONS:
        raise NotFound(f"Extension with name {alias} could not be found")
    return _extension(alias)

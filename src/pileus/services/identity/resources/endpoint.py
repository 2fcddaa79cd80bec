"""Endpoints of the catalog (https://docs.openstack.org/api-ref/identity/v3/#service-catalog-and-endpoints)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Fault
from pileus.core.fields import OpenBody, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import region as regions
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import service as services
from pileus.services.identity.resources.attribute import (
    CLOUD_ADMIN,
    CLOUD_ADMIN_OR_SYSTEM_READER,
    Links,
    Url,
    extended,
    found,
    further,
    link,
    page,
    same_id,
    save,
    something,
    truth,
)
from pileus.services.identity.rules import template

Interface = Literal["public", "internal", "admin"]
INTERFACES: tuple[Interface, ...] = ("public", "internal", "admin")

table = sa.Table(
    "identity_endpoint",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column(
        "service_id", sa.String(64), sa.ForeignKey(services.table.c.id, ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("region_id", sa.String(255), sa.ForeignKey(regions.table.c.id), index=True),
    sa.Column("interface", sa.String(8), nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)


class Endpoint(View):
    """An endpoint. `region` is the older name of `region_id`."""

    id: str
    service_id: str
    interface: Interface
    url: str
    region_id: str | None
    region: str | None
    enabled: bool
    links: Links


class EndpointCreate(OpenBody):
    """A new endpoint. A region that is named by `region` is made where it is missing."""

    service_id: str
    interface: Interface
    url: Url
    region_id: str | UnsetType | None = UNSET
    region: str | UnsetType | None = UNSET
    enabled: bool = True


class EndpointUpdate(OpenBody):
    """What is to be changed of an endpoint."""

    service_id: str | UnsetType = UNSET
    interface: Interface | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    region_id: str | UnsetType | None = UNSET
    region: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


resource = Resource(
    "endpoint",
    "endpoints",
    rules=[
        Rule("identity:get_endpoint", CLOUD_ADMIN_OR_SYSTEM_READER, "Show an endpoint"),
        Rule("identity:list_endpoints", CLOUD_ADMIN_OR_SYSTEM_READER, "List endpoints"),
        Rule("identity:create_endpoint", CLOUD_ADMIN, "Create an endpoint"),
        Rule("identity:update_endpoint", CLOUD_ADMIN, "Update an endpoint"),
        Rule("identity:delete_endpoint", CLOUD_ADMIN, "Delete an endpoint"),
    ],
)

listing = Listing(
    table,
    filters={
        "interface": Filter(table.c.interface),
        "service_id": Filter(table.c.service_id),
        "region_id": Filter(table.c.region_id),
        "region": Filter(table.c.region_id),
        "enabled": Filter(table.c.enabled, truth),
    },
    sort={"id": table.c.id},
    maximum=None,
)


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """An endpoint. Raises NotFound."""
    return found(tx, table, "endpoint", key)


def insert(tx: Tx, **values: Any) -> str:
    """Write a new endpoint; its id."""
    key = tx.seams.hex()
    tx.insert(table, {"id": key, "enabled": True, "extra": {}, **values})
    tx.changed("identity.endpoint", key)
    return key


def view(ctx: Context, row: sa.Row[Any]) -> Endpoint:
    """A row as an endpoint."""
    endpoint = Endpoint(
        id=row.id,
        service_id=row.service_id,
        interface=row.interface,
        url=row.url,
        region_id=row.region_id,
        region=row.region_id,
        enabled=row.enabled,
        links=link(ctx, "endpoints", row.id),
    )
    return extended(endpoint, row.extra)


def _checked(ctx: Context, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The columns for what a request asks of an endpoint. Raises BadRequest for what cannot be."""
    values = dict(wanted)
    if "url" in values and not template.lawful(values["url"]):
        raise BadRequest(f"Cannot create an endpoint with an invalid URL: {values['url']}.")
    region = values.pop("region", None)
    try:
        if "service_id" in values:
            services.get(ctx.tx, values["service_id"])
        if values.get("region_id") is None and region is not None:
            values["region_id"] = region
            regions.ensure(ctx.tx, region)
        if values.get("region_id") is not None:
            regions.get(ctx.tx, values["region_id"])
    except Fault as fault:
        raise BadRequest(fault.message) from None
    return values


@resource.get("/endpoints", policy="identity:list_endpoints")
def list_all(ctx: Context) -> Page:
    """List endpoints."""
    return page(ctx, listing, sa.select(table), view)


@resource.get("/endpoints/{endpoint_id}", policy="identity:get_endpoint", wraps="endpoint")
def show(ctx: Context, endpoint_id: str) -> Endpoint:
    """Show an endpoint."""
    return view(ctx, get(ctx.tx, endpoint_id))


@resource.post("/endpoints", policy="identity:create_endpoint", accepts="endpoint", wraps="endpoint", status=201)
def create(ctx: Context, body: EndpointCreate) -> Endpoint:
    """Create an endpoint."""
    values = _checked(ctx, given(body))
    values.setdefault("region_id", None)
    key = insert(ctx.tx, **values, extra=further(ctx))
    revision.grow(ctx.tx)
    return view(ctx, get(ctx.tx, key))


@resource.patch("/endpoints/{endpoint_id}", policy="identity:update_endpoint", accepts="endpoint", wraps="endpoint")
def update(ctx: Context, endpoint_id: str, body: EndpointUpdate) -> Endpoint:
    """Change an endpoint."""
    row = get(ctx.tx, endpoint_id)
    same_id(ctx, endpoint_id)
    something(given(body), ctx, "endpoint")
    save(ctx, table, "endpoint", row, _checked(ctx, given(body)))
    revision.grow(ctx.tx)
    return view(ctx, get(ctx.tx, endpoint_id))


@resource.delete("/endpoints/{endpoint_id}", policy="identity:delete_endpoint")
def delete(ctx: Context, endpoint_id: str) -> None:
    """Delete an endpoint."""
    get(ctx.tx, endpoint_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == endpoint_id))
    ctx.tx.changed("identity.endpoint", endpoint_id)
    revision.grow(ctx.tx)

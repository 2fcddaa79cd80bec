"""Services of the catalog (https://docs.openstack.org/api-ref/identity/v3/#service-catalog-and-endpoints)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.fields import OpenBody, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.attribute import (
    CLOUD_ADMIN,
    CLOUD_ADMIN_OR_SYSTEM_READER,
    Links,
    compared,
    extended,
    found,
    further,
    given_or,
    link,
    page,
    same_id,
    save,
    something,
)

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]

table = sa.Table(
    "identity_service",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(255), nullable=False, index=True),
    sa.Column("name", sa.String(255)),
    sa.Column("description", sa.Text),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)


class ServiceView(View):
    """A service."""

    id: str
    type: str
    name: str | UnsetType
    description: str | UnsetType | None
    enabled: bool
    links: Links


class ServiceCreate(OpenBody):
    """A new service."""

    type: Text
    name: Text | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool = True


class ServiceUpdate(OpenBody):
    """What is to be changed of a service."""

    type: Text | UnsetType = UNSET
    name: Text | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


resource = Resource(
    "service",
    "services",
    rules=[
        Rule("identity:get_service", CLOUD_ADMIN_OR_SYSTEM_READER, "Show a service"),
        Rule("identity:list_services", CLOUD_ADMIN_OR_SYSTEM_READER, "List services"),
        Rule("identity:create_service", CLOUD_ADMIN, "Create a service"),
        Rule("identity:update_service", CLOUD_ADMIN, "Update a service"),
        Rule("identity:delete_service", CLOUD_ADMIN, "Delete a service"),
    ],
)

_listing = Listing(
    table,
    filters={
        "name": Filter(table.c.name),
        "type": Filter(table.c.type),
        **compared(name=table.c.name, type=table.c.type),
    },
    sort={"id": table.c.id, "name": table.c.name, "type": table.c.type},
    maximum=None,
)


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A service. Raises NotFound."""
    return found(tx, table, "service", key)


def insert(tx: Tx, kind: str, **values: Any) -> str:
    """Write a new service of a type; its id."""
    key = tx.seams.hex()
    row = {"name": None, "description": None, "enabled": True, "extra": {}, **values}
    tx.insert(table, {"id": key, "type": kind, **row})
    tx.changed("identity.service", key)
    return key


def _view(ctx: Context, row: sa.Row[Any]) -> ServiceView:
    service = ServiceView(
        id=row.id,
        type=row.type,
        name=UNSET if row.name is None else row.name,
        description=UNSET if row.description is None else row.description,
        enabled=row.enabled,
        links=link(ctx, "services", row.id),
    )
    return extended(service, row.extra)


@resource.get("/services", policy="identity:list_services")
def list_all(ctx: Context) -> Page:
    """List services."""
    return page(ctx, _listing, sa.select(table), _view)


@resource.get("/services/{service_id}", policy="identity:get_service", wraps="service")
def show(ctx: Context, service_id: str) -> ServiceView:
    """Show a service."""
    return _view(ctx, get(ctx.tx, service_id))


@resource.post("/services", policy="identity:create_service", accepts="service", wraps="service", status=201)
def create(ctx: Context, body: ServiceCreate) -> ServiceView:
    """Create a service."""
    key = insert(
        ctx.tx,
        body.type,
        name=given_or(body.name, None),
        description=given_or(body.description, None),
        enabled=body.enabled,
        extra=further(ctx),
    )
    revision.grow(ctx.tx)
    return _view(ctx, get(ctx.tx, key))


@resource.patch("/services/{service_id}", policy="identity:update_service", accepts="service", wraps="service")
def update(ctx: Context, service_id: str, body: ServiceUpdate) -> ServiceView:
    """Change a service."""
    row = get(ctx.tx, service_id)
    same_id(ctx, service_id)
    something(given(body), ctx, "service")
    save(ctx, table, "service", row, given(body))
    revision.grow(ctx.tx)
    return _view(ctx, get(ctx.tx, service_id))


@resource.delete("/services/{service_id}", policy="identity:delete_service")
def delete(ctx: Context, service_id: str) -> None:
    """Delete a service and its endpoints."""
    get(ctx.tx, service_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == service_id))
    ctx.tx.changed("identity.service", service_id)
    revision.grow(ctx.tx)

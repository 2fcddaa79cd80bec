"""Registered limits, which any project has (https://docs.openstack.org/api-ref/identity/v3/#unified-limits)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden
from pileus.core.fields import Body, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import region as regions
from pileus.services.identity.resources import service as services
from pileus.services.identity.resources.attribute import (
    CLOUD_ADMIN,
    Links,
    Name,
    compared,
    found,
    given_or,
    link,
    page,
    something,
)

Amount = Annotated[int, msgspec.Meta(ge=-1, le=0x7FFFFFFF)]
"""A limit; -1 is none."""

RegionId = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]

table = sa.Table(
    "identity_registered_limit",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("service_id", sa.String(64), sa.ForeignKey(services.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("region_id", sa.String(255), sa.ForeignKey(regions.table.c.id, ondelete="CASCADE"), index=True),
    sa.Column("resource_name", sa.String(255), nullable=False),
    sa.Column("default_limit", sa.Integer, nullable=False),
    sa.Column("description", sa.Text),
    sa.UniqueConstraint("service_id", "resource_name", "region_id"),
    sa.Index(
        "uq_identity_registered_limit_everywhere",
        "service_id",
        "resource_name",
        unique=True,
        sqlite_where=sa.text("region_id IS NULL"),
        postgresql_where=sa.text("region_id IS NULL"),
    ),
)


class RegisteredLimit(View):
    """A registered limit; without a region it holds in all of them."""

    id: str
    service_id: str
    region_id: str | None
    resource_name: str
    default_limit: int
    description: str | None
    links: Links


class RegisteredLimitCreate(Body):
    """A new registered limit."""

    service_id: str
    resource_name: Name
    default_limit: Amount
    region_id: RegionId | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET


class RegisteredLimitsCreate(Body):
    """New registered limits: all of them are made, or none."""

    registered_limits: Annotated[list[RegisteredLimitCreate], msgspec.Meta(min_length=1)]


class RegisteredLimitUpdate(Body):
    """What is to be changed of a registered limit."""

    service_id: str | UnsetType = UNSET
    region_id: RegionId | UnsetType | None = UNSET
    resource_name: Name | UnsetType = UNSET
    default_limit: Amount | UnsetType = UNSET
    description: str | UnsetType | None = UNSET


resource = Resource(
    "registered_limit",
    "registered_limits",
    rules=[
        Rule("identity:get_registered_limit", "", "Show a registered limit"),
        Rule("identity:list_registered_limits", "", "List registered limits"),
        Rule("identity:create_registered_limits", CLOUD_ADMIN, "Register limits"),
        Rule("identity:update_registered_limit", CLOUD_ADMIN, "Change a registered limit"),
        Rule("identity:delete_registered_limit", CLOUD_ADMIN, "Delete a registered limit"),
    ],
)

_listing = Listing(
    table,
    filters={
        "service_id": Filter(table.c.service_id),
        "region_id": Filter(table.c.region_id),
        "resource_name": Filter(table.c.resource_name),
        **compared(resource_name=table.c.resource_name),
    },
    sort={"id": table.c.id, "resource_name": table.c.resource_name},
    maximum=None,
)


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A registered limit. Raises NotFound."""
    return found(tx, table, "registered limit", key)


def find_for(tx: Tx, service_id: str, region_id: str | None, name: str) -> sa.Row[Any] | None:
    """The registered limit of a resource in exactly this region, or in none; None when there is no such."""
    here = (table.c.service_id == service_id, table.c.region_id == region_id, table.c.resource_name == name)
    return tx.first(sa.select(table).where(*here))


def check_places(tx: Tx, wanted: Mapping[str, Any]) -> None:
    """Raise BadRequest for a service or a region that is not there."""
    service_id, region_id = wanted.get("service_id"), wanted.get("region_id")
    if (
        service_id is not None
        and tx.first(sa.select(services.table.c.id).where(services.table.c.id == service_id)) is None
    ):
        raise BadRequest(f"Could not find service: {service_id}.")
    if region_id is not None and regions.find(tx, region_id) is None:
        raise BadRequest(f"Could not find region: {region_id}.")


def _view(ctx: Context, row: sa.Row[Any]) -> RegisteredLimit:
    return RegisteredLimit(
        id=row.id,
        service_id=row.service_id,
        region_id=row.region_id,
        resource_name=row.resource_name,
        default_limit=row.default_limit,
        description=row.description,
        links=link(ctx, "registered_limits", row.id),
    )


@resource.get("/registered_limits", policy="identity:list_registered_limits")
def list_all(ctx: Context) -> Page:
    """List registered limits."""
    return page(ctx, _listing, sa.select(table), _view)


@resource.get(
    "/registered_limits/{registered_limit_id}", policy="identity:get_registered_limit", wraps="registered_limit"
)
def show(ctx: Context, registered_limit_id: str) -> RegisteredLimit:
    """Show a registered limit."""
    return _view(ctx, get(ctx.tx, registered_limit_id))


@resource.post("/registered_limits", policy="identity:create_registered_limits", wraps="registered_limits", status=201)
def create(ctx: Context, body: RegisteredLimitsCreate) -> list[RegisteredLimit]:
    """Register limits. Raises Conflict for a resource that has one already."""
    made = []
    for wanted in body.registered_limits:
        check_places(ctx.tx, given(wanted))
        region_id = given_or(wanted.region_id, None)
        _check_free(ctx.tx, wanted.service_id, region_id, wanted.resource_name)
        key = ctx.seams.hex()
        values = {**given(wanted), "region_id": region_id, "description": given_or(wanted.description, None)}
        ctx.tx.insert(table, {"id": key, **values})
        ctx.tx.changed("identity.registered_limit", key)
        made.append(key)
    return [_view(ctx, get(ctx.tx, key)) for key in made]


def _check_free(tx: Tx, service_id: str, region_id: str | None, name: str) -> None:
    if find_for(tx, service_id, region_id, name) is not None:
        raise Conflict("Conflict occurred attempting to store registered_limit - Duplicate entry.")


@resource.patch(
    "/registered_limits/{registered_limit_id}",
    policy="identity:update_registered_limit",
    accepts="registered_limit",
    wraps="registered_limit",
)
def update(ctx: Context, registered_limit_id: str, body: RegisteredLimitUpdate) -> RegisteredLimit:
    """Change a registered limit. Raises Forbidden when projects or domains have limits of their own under it."""
    row = get(ctx.tx, registered_limit_id)
    changes = given(body)
    something(changes, ctx, "registered limit")
    check_places(ctx.tx, changes)
    _check_alone(ctx.tx, registered_limit_id)
    named = ("service_id", "region_id", "resource_name")
    place = {name: changes.get(name, row._mapping[name]) for name in named}
    if any(place[name] != row._mapping[name] for name in named):
        _check_free(ctx.tx, *place.values())
    ctx.tx.execute(sa.update(table).where(table.c.id == registered_limit_id).values(**changes))
    ctx.tx.changed("identity.registered_limit", registered_limit_id)
    return _view(ctx, get(ctx.tx, registered_limit_id))


@resource.delete("/registered_limits/{registered_limit_id}", policy="identity:delete_registered_limit")
def delete(ctx: Context, registered_limit_id: str) -> None:
    """Delete a registered limit. Raises Forbidden when projects or domains have limits of their own under it."""
    get(ctx.tx, registered_limit_id)
    _check_alone(ctx.tx, registered_limit_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == registered_limit_id))
    ctx.tx.changed("identity.registered_limit", registered_limit_id)


def _check_alone(tx: Tx, key: str) -> None:
    limit = sa.table("identity_limit", sa.column("registered_limit_id"))
    if tx.first(at(limit, "registered_limit_id"), {"value": key}) is not None:
        raise Forbidden(
            f"Unable to update or delete registered limit {key} because there are project limits associated with it."
        )

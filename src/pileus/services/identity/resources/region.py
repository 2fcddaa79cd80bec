"""Regions (https://docs.openstack.org/api-ref/identity/v3/#regions)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden
from pileus.core.fields import OpenBody, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.attribute import (
    CLOUD_ADMIN,
    Links,
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
from pileus.services.identity.rules import hierarchy

RegionId = Annotated[str, msgspec.Meta(max_length=255)]
Description = Annotated[str, msgspec.Meta(max_length=255)]

table = sa.Table(
    "identity_region",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("parent_region_id", sa.String(255), sa.ForeignKey("identity_region.id"), index=True),
    sa.Column("description", sa.String(255), nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)


class Region(View):
    """A region."""

    id: str
    description: str
    parent_region_id: str | None
    links: Links


class RegionCreate(OpenBody):
    """A new region; without an id it gets a random one."""

    id: RegionId | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    parent_region_id: RegionId | UnsetType | None = UNSET


class RegionUpdate(OpenBody):
    """What is to be changed of a region."""

    description: Description | UnsetType | None = UNSET
    parent_region_id: RegionId | UnsetType | None = UNSET


resource = Resource(
    "region",
    "regions",
    rules=[
        Rule("identity:get_region", "", "Show a region"),
        Rule("identity:list_regions", "", "List regions"),
        Rule("identity:create_region", CLOUD_ADMIN, "Create a region"),
        Rule("identity:update_region", CLOUD_ADMIN, "Update a region"),
        Rule("identity:delete_region", CLOUD_ADMIN, "Delete a region"),
    ],
)

_listing = Listing(
    table,
    filters={"parent_region_id": Filter(table.c.parent_region_id)},
    sort={"id": table.c.id},
    maximum=None,
)


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A region, None when there is no such."""
    return tx.first(at(table, "id"), {"value": key})


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A region. Raises NotFound."""
    return found(tx, table, "region", key)


def ensure(tx: Tx, key: str) -> None:
    """Make a region where it is missing."""
    tx.insert_missing(table, {"id": key, "parent_region_id": None, "description": "", "extra": {}}, key=("id",))


def below(tx: Tx, key: str) -> list[str]:
    """The ids of a region and of all those in it."""
    way = sa.select(table.c.id).where(table.c.id == key).cte("below", recursive=True)
    way = way.union(sa.select(table.c.id).join(way, table.c.parent_region_id == way.c.id))
    return [row.id for row in tx.all(sa.select(way.c.id))]


def above(tx: Tx, key: str) -> list[str]:
    """The ids of a region and of those that it is in, nearest first."""
    way = sa.select(table.c.id, table.c.parent_region_id).where(table.c.id == key).cte("above", recursive=True)
    way = way.union(sa.select(table.c.id, table.c.parent_region_id).join(way, table.c.id == way.c.parent_region_id))
    return hierarchy.chain(key, {row.id: row.parent_region_id for row in tx.all(sa.select(way))})


def _view(ctx: Context, row: sa.Row[Any]) -> Region:
    region = Region(
        id=row.id,
        description=row.description,
        parent_region_id=row.parent_region_id,
        links=link(ctx, "regions", row.id),
    )
    return extended(region, row.extra)


def _check_parent(tx: Tx, key: str, parent: str | None) -> None:
    if parent is None:
        return
    get(tx, parent)
    if key in above(tx, parent):
        raise BadRequest(f"The specified parent region {parent} would create a circular region hierarchy.")


def _create(ctx: Context, key: str, body: RegionCreate) -> Region:
    if find(ctx.tx, key) is not None:
        raise Conflict(f"Conflict occurred attempting to store region - Duplicate ID, {key}.")
    parent = given_or(body.parent_region_id, None)
    _check_parent(ctx.tx, key, parent)
    row = {"id": key, "parent_region_id": parent, "description": given_or(body.description, "")}
    ctx.tx.insert(table, {**row, "extra": further(ctx)})
    ctx.tx.changed("identity.region", key)
    return _view(ctx, get(ctx.tx, key))


@resource.get("/regions", policy="identity:list_regions")
def list_all(ctx: Context) -> Page:
    """List regions."""
    return page(ctx, _listing, sa.select(table), _view)


@resource.get("/regions/{region_id}", policy="identity:get_region", wraps="region")
def show(ctx: Context, region_id: str) -> Region:
    """Show a region."""
    return _view(ctx, get(ctx.tx, region_id))


@resource.post("/regions", policy="identity:create_region", accepts="region", wraps="region", status=201)
def create(ctx: Context, body: RegionCreate) -> Region:
    """Create a region."""
    return _create(ctx, given_or(body.id, "") or ctx.seams.hex(), body)


@resource.put("/regions/{region_id}", policy="identity:create_region", accepts="region", wraps="region", status=201)
def create_with_id(ctx: Context, region_id: str, body: RegionCreate) -> Region:
    """Create a region with the id of the path."""
    if given_or(body.id, region_id) != region_id:
        raise BadRequest(f'Conflicting region IDs specified: "{region_id}" != "{body.id}"')
    return _create(ctx, region_id, body)


@resource.patch("/regions/{region_id}", policy="identity:update_region", accepts="region", wraps="region")
def update(ctx: Context, region_id: str, body: RegionUpdate) -> Region:
    """Change a region."""
    row = get(ctx.tx, region_id)
    same_id(ctx, region_id)
    something(given(body), ctx, "region")
    changes: dict[str, Any] = {}
    if body.description is not UNSET:
        changes["description"] = body.description or ""
    if body.parent_region_id is not UNSET:
        _check_parent(ctx.tx, region_id, body.parent_region_id)
        changes["parent_region_id"] = body.parent_region_id
    save(ctx, table, "region", row, changes)
    revision.grow(ctx.tx)
    return _view(ctx, get(ctx.tx, region_id))


@resource.delete("/regions/{region_id}", policy="identity:delete_region")
def delete(ctx: Context, region_id: str) -> None:
    """Delete a region and those below it, unless endpoints are in them."""
    get(ctx.tx, region_id)
    doomed = below(ctx.tx, region_id)
    endpoint = sa.table("identity_endpoint", sa.column("region_id"))
    if ctx.tx.first(sa.select(endpoint.c.region_id).where(endpoint.c.region_id.in_(doomed))) is not None:
        raise Forbidden(
            f"Unable to delete region {region_id} because it or its child regions have associated endpoints."
        )
    ctx.tx.execute(sa.delete(table).where(table.c.id.in_(doomed)))
    ctx.tx.changed("identity.region", region_id)
    revision.grow(ctx.tx)

"""What can be done with the objects of a namespace."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import Conflict, NotFound
from pileus.services.image.resources.metadef import fields, policy
from pileus.services.image.resources.metadef.operations.content import object_values
from pileus.services.image.resources.metadef.table import thing
from pileus.services.image.rules import listing

resource = Resource("object", "objects")


def _find(ctx: Context, row: sa.Row[Any], name: str) -> sa.Row[Any]:
    found = ctx.tx.first(sa.select(thing).where(thing.c.namespace_id == row.id, thing.c.name == name))
    if found is None:
        raise NotFound(f"The metadata definition object with name={name} was not found in {row.namespace}.")
    return found


@resource.post("/metadefs/namespaces/{space}/objects", policy="add_metadef_object", guarded=True, status=201)
def create(ctx: Context, space: str, body: fields.ObjectBody) -> fields.Object:
    """Define an object. Raises NotFound, Forbidden and Conflict."""
    fields.writable(body)
    row = policy.find(ctx, space)
    values = {"namespace_id": row.id, "created_at": ctx.now, "updated_at": ctx.now, **object_values(body)}
    if not ctx.tx.insert_missing(thing, values, key=("namespace_id", "name")):
        raise Conflict(f"A metadata definition object with name={body.name} already exists in {space}.")
    ctx.tx.changed("image.metadef", row.id)
    return fields.object_view(space, _find(ctx, row, body.name))


@resource.get(
    "/metadefs/namespaces/{space}/objects",
    policy="get_metadef_objects",
    guarded=True,
    query=listing.parameters("visibility"),
)
def index(ctx: Context, space: str) -> fields.Objects:
    """The objects of a namespace, newest first unless the request says otherwise. Raises NotFound and BadRequest."""
    row = policy.find(ctx, space)
    paging = listing.paging(ctx.query, None, least=1)
    query = sa.select(thing).where(thing.c.namespace_id == row.id)
    found = fields.OBJECTS.page(ctx.acting_as(query=paging), query).rows
    if not ctx.allows("get_metadef_object", policy.target(row)):
        found = []
    return fields.Objects(objects=[fields.object_view(space, one) for one in found])


@resource.get("/metadefs/namespaces/{space}/objects/{name}", policy="get_metadef_object", guarded=True)
def show(ctx: Context, space: str, name: str) -> fields.Object:
    """An object. Raises NotFound."""
    return fields.object_view(space, _find(ctx, policy.find(ctx, space), name))


@resource.put("/metadefs/namespaces/{space}/objects/{name}", policy="modify_metadef_object", guarded=True)
def update(ctx: Context, space: str, name: str, body: fields.ObjectBody) -> fields.Object:
    """Make an object what the body says. Raises NotFound, Forbidden and Conflict (the new name is taken)."""
    fields.writable(body)
    row = policy.find(ctx, space)
    _find(ctx, row, name)
    taken = sa.select(thing.c.name).where(thing.c.namespace_id == row.id, thing.c.name == body.name)
    if body.name != name and ctx.tx.first(taken) is not None:
        raise Conflict(f"A metadata definition object with name={body.name} already exists in {space}.")
    mine = sa.update(thing).where(thing.c.namespace_id == row.id, thing.c.name == name)
    ctx.tx.execute(mine.values(**object_values(body), updated_at=ctx.now))
    ctx.tx.changed("image.metadef", row.id)
    return fields.object_view(space, _find(ctx, row, body.name))


@resource.delete("/metadefs/namespaces/{space}/objects/{name}", policy="delete_metadef_object", guarded=True)
def delete(ctx: Context, space: str, name: str) -> None:
    """Delete an object. Raises NotFound and Forbidden (also when the namespace is protected)."""
    row = policy.find(ctx, space)
    _find(ctx, row, name)
    policy.deletable(row, f"the object {name}")
    ctx.tx.execute(sa.delete(thing).where(thing.c.namespace_id == row.id, thing.c.name == name))
    ctx.tx.changed("image.metadef", row.id)


@resource.delete("/metadefs/namespaces/{space}/objects", policy="delete_metadef_namespace", guarded=True)
def clear(ctx: Context, space: str) -> None:
    """Delete all objects of a namespace. Raises NotFound and Forbidden (also when the namespace is protected)."""
    row = policy.find(ctx, space)
    policy.deletable(row, "its objects")
    ctx.tx.execute(sa.delete(thing).where(thing.c.namespace_id == row.id))
    ctx.tx.changed("image.metadef", row.id)

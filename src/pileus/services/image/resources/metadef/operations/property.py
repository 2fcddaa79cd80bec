"""What can be done with the properties of a namespace."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import Conflict, NotFound
from pileus.services.image.resources.metadef import fields, policy
from pileus.services.image.resources.metadef.table import association, prop

resource = Resource("property", "properties")


def _find(ctx: Context, row: sa.Row[Any], name: str) -> sa.Row[Any]:
    found = ctx.tx.first(sa.select(prop).where(prop.c.namespace_id == row.id, prop.c.name == name))
    if found is None:
        raise NotFound(f"The metadata definition property with name={name} was not found in {row.namespace}.")
    return found


def _view(row: sa.Row[Any]) -> fields.Property:
    return msgspec.convert({**row.definition, "name": row.name}, fields.Property)


@resource.post("/metadefs/namespaces/{space}/properties", policy="add_metadef_property", guarded=True, status=201)
def create(ctx: Context, space: str, body: fields.Property) -> fields.Property:
    """Define a property. Raises NotFound, Forbidden and Conflict."""
    fields.writable(body)
    row = policy.find(ctx, space)
    values = {
        "namespace_id": row.id,
        "name": body.name,
        "definition": fields.definition(body),
        "created_at": ctx.now,
        "updated_at": ctx.now,
    }
    if not ctx.tx.insert_missing(prop, values, key=("namespace_id", "name")):
        raise Conflict(f"A metadata definition property with name={body.name} already exists in {space}.")
    ctx.tx.changed("image.metadef", row.id)
    return _view(_find(ctx, row, body.name))


@resource.get("/metadefs/namespaces/{space}/properties", policy="get_metadef_properties", guarded=True)
def index(ctx: Context, space: str) -> fields.Properties:
    """The properties of a namespace by name. Raises NotFound."""
    row = policy.find(ctx, space)
    rows = ctx.tx.all(sa.select(prop).where(prop.c.namespace_id == row.id).order_by(prop.c.name))
    return fields.Properties(properties={one.name: one.definition for one in rows})


@resource.get(
    "/metadefs/namespaces/{space}/properties/{name}",
    policy="get_metadef_property",
    guarded=True,
    query=Parameters("resource_type"),
)
def show(ctx: Context, space: str, name: str) -> fields.Property:
    """A property; with `?resource_type=`, by its name with the prefix that it has there. Raises NotFound."""
    wanted = ctx.query.get("resource_type")
    row = policy.find(ctx, space, *(["get_metadef_resource_type"] if wanted else []))
    if wanted:
        mine = association.c.namespace_id == row.id, association.c.name == wanted
        found = ctx.tx.first(sa.select(association.c.prefix).where(*mine))
        if found is None:
            raise NotFound(f"The namespace {space} is not for the resource type {wanted}.")
        prefix = found.prefix or ""
        if not name.startswith(prefix):
            raise NotFound(f"Property {name} does not start with the prefix {prefix} of the resource type {wanted}.")
        name = name.removeprefix(prefix)
    return _view(_find(ctx, row, name))


@resource.put("/metadefs/namespaces/{space}/properties/{name}", policy="modify_metadef_property", guarded=True)
def update(ctx: Context, space: str, name: str, body: fields.Property) -> fields.Property:
    """Make a property what the body says. Raises NotFound, Forbidden and Conflict (the new name is taken)."""
    fields.writable(body)
    row = policy.find(ctx, space)
    _find(ctx, row, name)
    taken = sa.select(prop.c.name).where(prop.c.namespace_id == row.id, prop.c.name == body.name)
    if body.name != name and ctx.tx.first(taken) is not None:
        raise Conflict(f"A metadata definition property with name={body.name} already exists in {space}.")
    mine = sa.update(prop).where(prop.c.namespace_id == row.id, prop.c.name == name)
    ctx.tx.execute(mine.values(name=body.name, definition=fields.definition(body), updated_at=ctx.now))
    ctx.tx.changed("image.metadef", row.id)
    return _view(_find(ctx, row, body.name))


@resource.delete("/metadefs/namespaces/{space}/properties/{name}", policy="remove_metadef_property", guarded=True)
def delete(ctx: Context, space: str, name: str) -> None:
    """Delete a property. Raises NotFound and Forbidden (also when the namespace is protected)."""
    row = policy.find(ctx, space)
    _find(ctx, row, name)
    policy.deletable(row, f"the property {name}")
    ctx.tx.execute(sa.delete(prop).where(prop.c.namespace_id == row.id, prop.c.name == name))
    ctx.tx.changed("image.metadef", row.id)


@resource.delete("/metadefs/namespaces/{space}/properties", policy="delete_metadef_namespace", guarded=True)
def clear(ctx: Context, space: str) -> None:
    """Delete all properties of a namespace. Raises NotFound and Forbidden (also when the namespace is protected)."""
    row = policy.find(ctx, space)
    policy.deletable(row, "its properties")
    ctx.tx.execute(sa.delete(prop).where(prop.c.namespace_id == row.id))
    ctx.tx.changed("image.metadef", row.id)

"""What can be done with resource types, and with a namespace's associations with them."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import Conflict, NotFound
from pileus.services.image.resources.metadef import fields, policy
from pileus.services.image.resources.metadef.operations.content import association_values, ensure
from pileus.services.image.resources.metadef.table import association, resource_type

resource = Resource("resource_type", "resource_types")


@resource.get("/metadefs/resource_types", policy="list_metadef_resource_types")
def index(ctx: Context) -> fields.ResourceTypes:
    """All kinds of things that may have properties."""
    rows = ctx.tx.all(sa.select(resource_type).order_by(resource_type.c.name))
    return fields.ResourceTypes(
        resource_types=[fields.ResourceType(name=row.name, **fields.moments(row)) for row in rows]
    )


@resource.get("/metadefs/namespaces/{space}/resource_types", policy="get_metadef_resource_type", guarded=True)
def show(ctx: Context, space: str) -> fields.Associations:
    """The resource types for which a namespace is. Raises NotFound and Forbidden."""
    row = policy.find(ctx, space, "list_metadef_resource_types")
    query = sa.select(association).where(association.c.namespace_id == row.id).order_by(association.c.name)
    found = ctx.tx.all(query)
    return fields.Associations(resource_type_associations=[fields.association_view(one) for one in found])


@resource.post(
    "/metadefs/namespaces/{space}/resource_types",
    policy="add_metadef_resource_type_association",
    guarded=True,
    status=201,
)
def create(ctx: Context, space: str, body: fields.AssociationBody) -> fields.Association:
    """Say that a namespace is for a resource type, which is made when it is not there.

    Raises NotFound, Forbidden and Conflict.
    """
    fields.writable(body)
    row = policy.find(ctx, space)
    ensure(ctx.tx, [body.name])
    values = {"namespace_id": row.id, "created_at": ctx.now, "updated_at": ctx.now, **association_values(body)}
    if not ctx.tx.insert_missing(association, values, key=("namespace_id", "name")):
        raise Conflict(f"The namespace {space} is for the resource type {body.name} already.")
    ctx.tx.changed("image.metadef", row.id)
    mine = association.c.namespace_id == row.id, association.c.name == body.name
    found = ctx.tx.first(sa.select(association).where(*mine))
    if found is None:
        raise NotFound(f"Namespace {space} not found")
    return fields.association_view(found)


@resource.delete(
    "/metadefs/namespaces/{space}/resource_types/{name}",
    policy="remove_metadef_resource_type_association",
    guarded=True,
)
def delete(ctx: Context, space: str, name: str) -> None:
    """Take a resource type from a namespace. Raises NotFound and Forbidden (also when the namespace is protected)."""
    row = policy.find(ctx, space)
    mine = association.c.namespace_id == row.id, association.c.name == name
    if ctx.tx.first(sa.select(association.c.name).where(*mine)) is None:
        raise NotFound(f"Failed to find resource type {name} to delete")
    policy.deletable(row, f"its association with {name}")
    ctx.tx.execute(sa.delete(association).where(*mine))
    ctx.tx.changed("image.metadef", row.id)

"""What can be done with namespaces."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound
from pileus.core.listing import integer
from pileus.core.statement import at
from pileus.services.image.resources.metadef import fields, policy
from pileus.services.image.resources.metadef.operations.content import contents, fill
from pileus.services.image.resources.metadef.table import association, namespace
from pileus.services.image.rules import listing

resource = Resource("namespace", "namespaces", rules=policy.RULES)

_NESTED = {
    "resource_type_associations": "add_metadef_resource_type_association",
    "objects": "add_metadef_object",
    "properties": "add_metadef_property",
    "tags": "add_metadef_tag",
}
"""What a namespace may be created with, and the rule that guards it."""


@resource.post("/metadefs/namespaces", policy="add_metadef_namespace", status=201)
def create(ctx: Context, body: fields.NamespaceBody) -> Reply:
    """Create a namespace with all that the body says belongs to it.

    Raises Forbidden and Conflict (the name is taken, or something is named twice).
    """
    _writable(body)
    for name, rule in _NESTED.items():
        if getattr(body, name):
            ctx.enforce(rule)
    values = {"id": ctx.seams.uuid(), "created_at": ctx.now, **_values(ctx, body)}
    if not ctx.tx.insert_missing(namespace, values, key=("namespace",)):
        raise _duplicate(body.namespace)
    fill(ctx.tx, values["id"], body)
    row = ctx.tx.first(at(namespace, "id"), {"value": values["id"]})
    if row is None:
        raise NotFound(f"Namespace {body.namespace} not found")
    headers = {"Location": f"{ctx.url}{fields.PATH}/{body.namespace}"}
    return Reply(contents(ctx.tx, row), headers)


@resource.get(
    "/metadefs/namespaces",
    policy="get_metadef_namespaces",
    query=listing.parameters("visibility", "resource_types"),
)
def index(ctx: Context) -> Page:
    """The namespaces that the caller sees, newest first unless the request says otherwise. Raises BadRequest."""
    ctx.enforce("list_metadef_resource_types")
    query = sa.select(namespace).where(policy.visible(ctx))
    visibility = ctx.query.get("visibility")
    if visibility:
        if visibility not in ("public", "private"):
            raise BadRequest(f"Invalid visibility value: {visibility}")
        query = query.where(namespace.c.visibility == visibility)
    wanted = ctx.query.get("resource_types")
    if wanted is not None:
        mine = sa.select(association.c.namespace_id).where(association.c.name.in_(wanted.split(",")))
        query = query.where(namespace.c.id.in_(mine))
    schema = {"schema": f"{fields.SCHEMA}/namespaces"}
    paging = listing.paging(ctx.query, fields.PAGE)
    if integer(paging.get("limit") or "") == 0:
        return Page([], more=schema)
    page = fields.NAMESPACES.page(ctx.acting_as(query=paging), query)
    rows = [row for row in page.rows if ctx.allows("get_metadef_namespace", policy.target(row))]
    found = {row.id: fields.namespace_view(row) for row in rows}
    for one in ctx.tx.all(_associations(list(found))):
        view = found[one.namespace_id]
        view.resource_type_associations = [*(view.resource_type_associations or []), fields.association_view(one)]
    return Page(list(found.values()), page.next_marker, schema)


def _associations(ids: list[str]) -> sa.Select[Any]:
    return sa.select(association).where(association.c.namespace_id.in_(ids)).order_by(association.c.name)


@resource.get(
    "/metadefs/namespaces/{space}",
    policy="get_metadef_namespace",
    guarded=True,
    query=Parameters("resource_type"),
)
def show(ctx: Context, space: str) -> fields.Namespace:
    """A namespace with all that belongs to it.

    With `?resource_type=`, the names of properties begin with the prefix that they have there.  Raises NotFound and
    Forbidden.
    """
    row = policy.find(
        ctx,
        space,
        "list_metadef_resource_types",
        "get_metadef_objects",
        "get_metadef_properties",
        "get_metadef_tags",
    )
    return contents(ctx.tx, row, ctx.query.get("resource_type"))


@resource.put("/metadefs/namespaces/{space}", policy="modify_metadef_namespace", guarded=True)
def update(ctx: Context, space: str, body: fields.NamespaceBody) -> fields.Namespace:
    """Give a namespace other attributes, those that the body leaves out their defaults; what belongs to it stays.

    Raises NotFound, Forbidden and Conflict (the name is taken).
    """
    _writable(body)
    row = policy.find(ctx, space)
    if body.namespace != row.namespace and _find(ctx, body.namespace) is not None:
        raise _duplicate(body.namespace)
    ctx.tx.execute(sa.update(namespace).where(namespace.c.id == row.id).values(_values(ctx, body)))
    ctx.tx.changed("image.metadef", row.id)
    found = _find(ctx, body.namespace)
    if found is None:
        raise NotFound(f"Namespace {space} not found")
    return fields.namespace_view(found)


@resource.delete("/metadefs/namespaces/{space}", policy="delete_metadef_namespace", guarded=True)
def delete(ctx: Context, space: str) -> None:
    """Delete a namespace with all that belongs to it. Raises NotFound and Forbidden (also when it is protected)."""
    row = policy.find(ctx, space)
    policy.deletable(row, "it")
    mine = namespace.c.id == row.id, namespace.c.protected == sa.false()
    if ctx.tx.execute(sa.delete(namespace).where(*mine)).rowcount != 1:
        raise Forbidden(f"Namespace {space} is protected: it cannot be deleted.")
    ctx.tx.changed("image.metadef", row.id)


def _find(ctx: Context, name: str) -> sa.Row[Any] | None:
    return ctx.tx.first(at(namespace, "namespace"), {"value": name})


def _writable(body: fields.NamespaceBody) -> None:
    for one in (body, *body.objects, *body.resource_type_associations, *body.tags):
        fields.writable(one)


def _values(ctx: Context, body: fields.NamespaceBody) -> dict[str, Any]:
    return {
        "namespace": body.namespace,
        "display_name": fields.column(body.display_name),
        "description": fields.column(body.description),
        "visibility": body.visibility,
        "protected": body.protected,
        "owner": fields.column(body.owner) or ctx.auth.project_id,
        "updated_at": ctx.now,
    }


def _duplicate(name: str) -> Conflict:
    return Conflict(f"The metadata definition namespace={name} already exists.")

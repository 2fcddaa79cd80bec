"""What can be done with the tags of a namespace."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.listing import boolean, integer
from pileus.services.image.resources.metadef import fields, policy
from pileus.services.image.resources.metadef.operations.content import once
from pileus.services.image.resources.metadef.table import tag
from pileus.services.image.rules import listing

resource = Resource("tag", "tags")


def _find(ctx: Context, row: sa.Row[Any], name: str) -> sa.Row[Any]:
    found = ctx.tx.first(sa.select(tag).where(tag.c.namespace_id == row.id, tag.c.name == name))
    if found is None:
        raise NotFound(f"The metadata definition tag with name={name} was not found in {row.namespace}.")
    return found


def _view(row: sa.Row[Any]) -> fields.Tag:
    return fields.Tag(name=row.name, **fields.moments(row))


@resource.get(
    "/metadefs/namespaces/{space}/tags",
    policy="get_metadef_tags",
    guarded=True,
    query=listing.parameters("visibility"),
)
def index(ctx: Context, space: str) -> fields.Tags:
    """The tags of a namespace, newest first unless the request says otherwise. Raises NotFound and BadRequest."""
    row = policy.find(ctx, space)
    paging = listing.paging(ctx.query, None)
    if paging.get("limit") is not None and integer(paging.get("limit") or "") == 0:
        return fields.Tags(tags=[])
    query = sa.select(tag).where(tag.c.namespace_id == row.id)
    found = fields.TAGS.page(ctx.acting_as(query=paging), query).rows
    return fields.Tags(tags=[fields.TagName(name=one.name) for one in found])


@resource.post("/metadefs/namespaces/{space}/tags", policy="add_metadef_tags", guarded=True, status=201)
def replace(ctx: Context, space: str, body: fields.TagsBody) -> fields.Tags:
    """Define the tags of a namespace; they take the place of those that are there unless `X-Openstack-Append` is true.

    Raises NotFound, Forbidden and Conflict.
    """
    fields.writable(body)
    for one in body.tags:
        fields.writable(one)
    row = policy.find(ctx, space)
    once((one.name for one in body.tags), "tag")
    if body.tags and not _append(ctx):
        ctx.tx.execute(sa.delete(tag).where(tag.c.namespace_id == row.id))
    for one in body.tags:
        _insert(ctx, row, one.name)
    return fields.Tags(tags=[fields.TagName(name=one.name) for one in body.tags])


def _append(ctx: Context) -> bool:
    try:
        return boolean(ctx.headers.get(b"x-openstack-append", b"false").decode("latin-1"))
    except BadRequest:
        return False


def _insert(ctx: Context, row: sa.Row[Any], name: str) -> None:
    values = {"namespace_id": row.id, "name": name, "created_at": ctx.now, "updated_at": ctx.now}
    if not ctx.tx.insert_missing(tag, values, key=("namespace_id", "name")):
        raise Conflict(f"A metadata tag with name={name} already exists in {row.namespace}.")
    ctx.tx.changed("image.metadef", row.id)


@resource.delete("/metadefs/namespaces/{space}/tags", policy="delete_metadef_tags", guarded=True)
def clear(ctx: Context, space: str) -> None:
    """Delete all tags of a namespace. Raises NotFound and Forbidden (also when the namespace is protected)."""
    row = policy.find(ctx, space, "delete_metadef_namespace")
    policy.deletable(row, "its tags")
    ctx.tx.execute(sa.delete(tag).where(tag.c.namespace_id == row.id))
    ctx.tx.changed("image.metadef", row.id)


@resource.get("/metadefs/namespaces/{space}/tags/{name}", policy="get_metadef_tag", guarded=True)
def show(ctx: Context, space: str, name: str) -> fields.Tag:
    """A tag. Raises NotFound."""
    return _view(_find(ctx, policy.find(ctx, space), name))


@resource.post("/metadefs/namespaces/{space}/tags/{name}", policy="add_metadef_tag", guarded=True, status=201)
def create(ctx: Context, space: str, name: str) -> fields.Tag:
    """Define a tag. Raises BadRequest (the name is too long), NotFound, Forbidden and Conflict."""
    row = policy.find(ctx, space)
    if len(name) > 80:
        raise BadRequest("A tag is at most 80 characters long.")
    _insert(ctx, row, name)
    return _view(_find(ctx, row, name))


@resource.put("/metadefs/namespaces/{space}/tags/{name}", policy="modify_metadef_tag", guarded=True)
def update(ctx: Context, space: str, name: str, body: fields.TagBody) -> fields.Tag:
    """Call a tag something else. Raises NotFound, Forbidden and Conflict (the new name is taken)."""
    fields.writable(body)
    row = policy.find(ctx, space)
    _find(ctx, row, name)
    taken = sa.select(tag.c.name).where(tag.c.namespace_id == row.id, tag.c.name == body.name)
    if body.name != name and ctx.tx.first(taken) is not None:
        raise Conflict(f"A metadata tag with name={body.name} already exists in {space}.")
    mine = sa.update(tag).where(tag.c.namespace_id == row.id, tag.c.name == name)
    ctx.tx.execute(mine.values(name=body.name, updated_at=ctx.now))
    ctx.tx.changed("image.metadef", row.id)
    return _view(_find(ctx, row, body.name))


@resource.delete("/metadefs/namespaces/{space}/tags/{name}", policy="delete_metadef_tag", guarded=True)
def delete(ctx: Context, space: str, name: str) -> None:
    """Delete a tag. Raises NotFound and Forbidden (also when the namespace is protected)."""
    row = policy.find(ctx, space)
    _find(ctx, row, name)
    policy.deletable(row, f"the tag {name}")
    ctx.tx.execute(sa.delete(tag).where(tag.c.namespace_id == row.id, tag.c.name == name))
    ctx.tx.changed("image.metadef", row.id)

"""A server's tags."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Reply
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound
from pileus.core.fields import Body
from pileus.services.compute.resources.server.operations.row import allow, find, resource
from pileus.services.compute.resources.server.table import tag, tags_of
from pileus.services.compute.rules.shape import Tag

_ALL = "/servers/{server_id}/tags"
_ONE = "/servers/{server_id}/tags/{name}"
_MOST = 50


class Tags(Body):
    """All tags of a server."""

    tags: Annotated[list[Tag], msgspec.Meta(max_length=_MOST)]


def _clear(ctx: Context, row: sa.Row[Any]) -> None:
    ctx.tx.execute(sa.delete(tag).where(tag.c.server_id == row.id))
    ctx.tx.changed("compute.server", row.id)


@resource.get(_ALL, policy="os_compute_api:os-server-tags:index", since="2.26", wraps="tags")
def list_tags(ctx: Context, server_id: str) -> list[str]:
    """All tags."""
    row = find(ctx, server_id)
    return tags_of(ctx.tx, [row.id])[row.id]


@resource.put(_ALL, policy="os_compute_api:os-server-tags:update_all", since="2.26", wraps="tags")
def replace_tags(ctx: Context, server_id: str, body: Tags) -> list[str]:
    """Give a server these tags and no other."""
    row = find(ctx, server_id)
    allow(ctx, row, "update tags")
    _clear(ctx, row)
    wanted = sorted(set(body.tags))
    if wanted:
        ctx.tx.insert(tag, [{"server_id": row.id, "tag": one} for one in wanted])
    return wanted


@resource.delete(_ALL, policy="os_compute_api:os-server-tags:delete_all", since="2.26")
def delete_tags(ctx: Context, server_id: str) -> None:
    """Take all tags away."""
    row = find(ctx, server_id)
    allow(ctx, row, "delete tags")
    _clear(ctx, row)


@resource.get(_ONE, policy="os_compute_api:os-server-tags:show", since="2.26", status=204)
def has_tag(ctx: Context, server_id: str, name: str) -> None:
    """Raise NotFound unless the server has the tag."""
    row = find(ctx, server_id)
    if name not in tags_of(ctx.tx, [row.id])[row.id]:
        raise NotFound(f"Server {server_id} has no tag '{name}'")


@resource.put(_ONE, policy="os_compute_api:os-server-tags:update", since="2.26", status=204)
def add_tag(ctx: Context, server_id: str, name: str) -> Reply:
    """Give a server a tag: 201, or 204 when it has it. Raises BadRequest for the 51st."""
    row = find(ctx, server_id)
    allow(ctx, row, "update tag")
    if not 0 < len(name) <= 60 or "," in name:
        raise BadRequest(
            f"Tag '{name}' is invalid. It must be a non empty string without characters '/' and ',' of at most 60 "
            "characters."
        )
    known = tags_of(ctx.tx, [row.id])[row.id]
    if name not in known and len(known) >= _MOST:
        raise BadRequest(f"The number of tags exceeded the per-server limit {_MOST}")
    if not ctx.tx.insert_missing(tag, {"server_id": row.id, "tag": name}, key=("server_id", "tag")):
        return Reply()
    ctx.tx.changed("compute.server", row.id)
    return Reply(None, {"location": f"{ctx.url}{ctx.path}"}, 201)


@resource.delete(_ONE, policy="os_compute_api:os-server-tags:delete", since="2.26")
def delete_tag(ctx: Context, server_id: str, name: str) -> None:
    """Take a tag away."""
    row = find(ctx, server_id)
    allow(ctx, row, "delete tag")
    if ctx.tx.execute(sa.delete(tag).where(tag.c.server_id == row.id, tag.c.tag == name)).rowcount == 0:
        raise NotFound(f"Server {server_id} has no tag '{name}'")
    ctx.tx.changed("compute.server", row.id)

"""Tags of projects (https://docs.openstack.org/api-ref/identity/v3/#project-tags)."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Fault, NotFound
from pileus.services.identity.resources.attribute import Links, Tag, mutable
from pileus.services.identity.resources.project import policy
from pileus.services.identity.resources.project.fields import TagsUpdate, TagsView
from pileus.services.identity.resources.project.operations.project import checked
from pileus.services.identity.resources.project.table import set_tags, tags_of
from pileus.services.identity.resources.project.table import tag as table

MOST_TAGS = 80

resource = Resource("tag", "tags", rules=policy.TAG_RULES)


def _checked_writable(ctx: Context, project_id: str) -> None:
    """Raise Forbidden and NotFound unless the caller may change the tags of a project, which is not immutable."""
    row = checked(ctx, project_id)
    mutable(row.options, "project", project_id, {"tags": None})


def _tags(ctx: Context, project_id: str) -> TagsView:
    links = Links(self=f"{ctx.url}/v3/projects/{project_id}/tags")
    return TagsView(tags=tags_of(ctx.tx, [project_id])[project_id], links=links)


@resource.get("/projects/{project_id}/tags", policy="identity:list_project_tags", guarded=True)
def list_tags(ctx: Context, project_id: str) -> TagsView:
    """List the tags of a project."""
    checked(ctx, project_id)
    return _tags(ctx, project_id)


@resource.put("/projects/{project_id}/tags", policy="identity:update_project_tags", guarded=True)
def replace_tags(ctx: Context, project_id: str, body: TagsUpdate) -> TagsView:
    """Replace the tags of a project."""
    _checked_writable(ctx, project_id)
    set_tags(ctx.tx, project_id, body.tags)
    ctx.tx.changed("identity.project", project_id)
    return _tags(ctx, project_id)


@resource.delete("/projects/{project_id}/tags", policy="identity:delete_project_tags", guarded=True)
def delete_tags(ctx: Context, project_id: str) -> None:
    """Take all tags from a project."""
    _checked_writable(ctx, project_id)
    set_tags(ctx.tx, project_id, ())
    ctx.tx.changed("identity.project", project_id)


def _no_tag(name: str) -> Fault:
    return NotFound(f"Could not find project tag: {name}.")


@resource.get("/projects/{project_id}/tags/{tag}", policy="identity:get_project_tag", guarded=True, status=204)
def check_tag(ctx: Context, project_id: str, tag: str) -> None:
    """Check whether a project has a tag."""
    checked(ctx, project_id)
    if tag not in tags_of(ctx.tx, [project_id])[project_id]:
        raise _no_tag(tag)


@resource.put("/projects/{project_id}/tags/{tag}", policy="identity:create_project_tag", guarded=True, status=201)
def add_tag(ctx: Context, project_id: str, tag: str) -> Reply:
    """Give a project a tag."""
    _checked_writable(ctx, project_id)
    try:
        msgspec.convert(tag, Tag)
    except msgspec.ValidationError:
        raise BadRequest("A tag has 1 to 255 characters, none of them a slash or a comma.") from None
    old = tags_of(ctx.tx, [project_id])[project_id]
    if len(old) >= MOST_TAGS and tag not in old:
        raise BadRequest(f"A project has at most {MOST_TAGS} tags.")
    ctx.tx.insert_missing(table, {"project_id": project_id, "name": tag}, key=("project_id", "name"))
    ctx.tx.changed("identity.project", project_id)
    return Reply(headers={"location": f"{ctx.url}/v3/projects/{project_id}/tags/{tag}"})


@resource.delete("/projects/{project_id}/tags/{tag}", policy="identity:delete_project_tag", guarded=True)
def delete_tag(ctx: Context, project_id: str, tag: str) -> None:
    """Take a tag from a project."""
    _checked_writable(ctx, project_id)
    one = sa.delete(table).where(table.c.project_id == project_id, table.c.name == tag)
    if ctx.tx.execute(one).rowcount == 0:
        raise _no_tag(tag)
    ctx.tx.changed("identity.project", project_id)

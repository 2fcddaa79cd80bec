"""Operations on projects and their tags (https://docs.openstack.org/api-ref/identity/v3/#projects)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Fault, Forbidden, NotFound
from pileus.core.fields import given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    Links,
    Tag,
    asked,
    compared,
    flags,
    further,
    given_or,
    missing,
    mutable,
    named,
    own_domain,
    permit,
    permit_list,
    same_id,
    something,
    truth,
)
from pileus.services.identity.resources.project import policy
from pileus.services.identity.resources.project.fields import (
    Project,
    ProjectCreate,
    ProjectUpdate,
    TagsUpdate,
    TagsView,
    views,
)
from pileus.services.identity.resources.project.table import (
    find,
    find_domain,
    find_named,
    parents,
    set_tags,
    subtree,
    table,
    tag,
    tags_of,
)
from pileus.services.identity.rules import hierarchy
from pileus.services.identity.rules import name as names

MOST_TAGS = 80

resource = Resource(
    "project",
    "projects",
    rules=[
        *policy.RULES,
        Rule(
            "identity:list_user_projects",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.user.domain_id)s)"
            " or user_id:%(target.user.id)s",
            "List the projects in which a user holds a role",
        ),
    ],
)

listing = Listing(
    table,
    filters={
        "name": named(table.c.name_key),
        "domain_id": Filter(table.c.domain_id),
        "parent_id": Filter(table.c.parent_id),
        "enabled": Filter(table.c.enabled, truth),
        "is_domain": Filter(table.c.is_domain, truth),
        **compared(name=table.c.name),
    },
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)


def seen(row: sa.Row[Any] | None) -> Mapping[str, Any] | None:
    """What policy rules see of a project."""
    return None if row is None else {"id": row.id, "domain_id": row.domain_id}


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A project, or a domain. Raises NotFound."""
    row = find(tx, key)
    if row is None:
        raise missing("project", key)
    return row


def _checked(ctx: Context, rule: str, key: str) -> sa.Row[Any]:
    permit(ctx, rule, project=seen(find(ctx.tx, key)))
    return get(ctx.tx, key)


def insert(tx: Tx, name: str, *, key: str | None = None, domain_id: str | None, **values: Any) -> str:
    """Write a new project, or a new domain when `domain_id` is None; its id. Raises Conflict when the name is taken."""
    if find_named(tx, name, domain_id) is not None:
        where = "acting as domains" if domain_id is None else "in the same domain"
        raise Conflict(
            "Conflict occurred attempting to store project - it is not permitted to have two projects"
            f" {where} with the same name: {name}."
        )
    if key is not None and find(tx, key) is not None:
        raise Conflict(f"Conflict occurred attempting to store project - Duplicate ID, {key}.")
    key = key or tx.seams.hex()
    row = {"parent_id": domain_id, "description": "", "enabled": True, "options": {}, "extra": {}, **values}
    place = {"id": key, "domain_id": domain_id, "is_domain": domain_id is None}
    text = {"name": name, "name_key": names.key(name), "generation": 0, "created_at": tx.now}
    tx.execute(sa.insert(table).values(**place, **text, **row))
    tx.changed("identity.project", key)
    return key


def _check_place(tx: Tx, domain_id: str, parent_id: str) -> None:
    """Raise BadRequest or Forbidden unless a project may lie in a domain below a parent."""
    parent = find(tx, parent_id)
    if find_domain(tx, domain_id) is None:
        raise BadRequest(f"Could not find domain: {domain_id}.")
    if parent is None:
        raise BadRequest(f"Could not find project: {parent_id}.")
    if (parent.domain_id or parent.id) != domain_id:
        raise BadRequest("Cannot create project, since its parent is in a different domain.")
    above = [parent, *parents(tx, parent_id)]
    for row in above:
        if not row.enabled:
            raise BadRequest(f"cannot create a project in a branch containing a disabled project: {row.id}")
    if len(above) > hierarchy.DEPTH:
        raise Forbidden(f"Max hierarchy depth reached for {parent_id} branch.")


@resource.get("/projects")
def list_all(ctx: Context) -> Page:
    """List projects, but for those that act as domains; with a domain's token, those of that domain."""
    permit_list(ctx, "identity:list_projects")
    query = own_domain(ctx, sa.select(table), table.c.domain_id)
    if "is_domain" not in ctx.query.names():
        query = query.where(~table.c.is_domain)
    for condition in _tag_conditions(ctx):
        query = query.where(condition)
    found = listing.page(ctx, query)
    return Page(views(ctx, found.rows), found.next_marker)


def _tag_conditions(ctx: Context) -> list[sa.ColumnElement[bool]]:
    found = []
    for parameter in ("tags", "tags-any", "not-tags", "not-tags-any"):
        for text in ctx.query.all(parameter):
            has = [table.c.id.in_(sa.select(tag.c.project_id).where(tag.c.name == name)) for name in text.split(",")]
            condition = sa.or_(*has) if parameter.endswith("any") else sa.and_(*has)
            found.append(sa.not_(condition) if parameter.startswith("not") else condition)
    return found


@resource.get("/projects/{project_id}", wraps="project")
def show(ctx: Context, project_id: str) -> Project:
    """Show a project, and on request what is above and below it."""
    row = _checked(ctx, "identity:get_project", project_id)
    for first, second in (("parents_as_list", "parents_as_ids"), ("subtree_as_list", "subtree_as_ids")):
        if asked(ctx, first) and asked(ctx, second):
            raise BadRequest(f"Cannot use {first} and {second} query params at the same time.")
    project = views(ctx, [row])[0]
    expansion: dict[str, Any] = {}
    if asked(ctx, "parents_as_list"):
        expansion["parents"] = _mine(ctx, parents(ctx.tx, project_id))
    if asked(ctx, "subtree_as_list"):
        expansion["subtree"] = _mine(ctx, subtree(ctx.tx, project_id))
    if asked(ctx, "parents_as_ids"):
        way = {one.id: one.parent_id for one in (row, *parents(ctx.tx, project_id))}
        expansion["parents"] = hierarchy.parents_as_ids(project_id, way)
    if asked(ctx, "subtree_as_ids"):
        below = {one.id: one.parent_id for one in subtree(ctx.tx, project_id)}
        expansion["subtree"] = hierarchy.subtree_as_ids(project_id, below)
    return msgspec.to_builtins(project) | expansion if expansion else project


def _mine(ctx: Context, rows: Sequence[sa.Row[Any]]) -> list[dict[str, Project]]:
    """Of some projects, those in which the caller holds a role."""
    allowed = assignments.targets_of(ctx.tx, ctx.auth.user_id)
    return [{"project": view} for view in views(ctx, [row for row in rows if row.id in allowed])]


@resource.post("/projects", accepts="project", wraps="project", status=201)
def create(ctx: Context, body: ProjectCreate) -> Project:
    """Create a project; with `is_domain`, a domain."""
    permit(ctx, "identity:create_project", project={"domain_id": body.domain_id} if body.domain_id else {})
    values = {
        "description": given_or(body.description, ""),
        "enabled": given_or(body.enabled, True),
        "options": flags(body.options),
        "extra": further(ctx),
    }
    if body.is_domain:
        if given_or(body.parent_id, None) or given_or(body.domain_id, None):
            raise BadRequest("only root projects are allowed to act as domains.")
        permit(ctx, "identity:create_domain")
        key = insert(ctx.tx, body.name.strip(), domain_id=None, **values)
    else:
        domain_id = given_or(body.domain_id, ctx.auth.domain_id or users.DEFAULT_DOMAIN)
        parent_id = given_or(body.parent_id, domain_id)
        _check_place(ctx.tx, domain_id, parent_id)
        key = insert(ctx.tx, body.name.strip(), domain_id=domain_id, parent_id=parent_id, **values)
    set_tags(ctx.tx, key, given_or(body.tags, []))
    revision.grow(ctx.tx)  # an inherited role on a domain holds here from now on
    return views(ctx, [get(ctx.tx, key)])[0]


@resource.patch("/projects/{project_id}", accepts="project", wraps="project")
def update(ctx: Context, project_id: str, body: ProjectUpdate) -> Project:
    """Change a project. Disabling it makes all tokens for it void."""
    row = _checked(ctx, "identity:update_project", project_id)
    same_id(ctx, project_id)
    wanted = given(body)
    something(wanted, ctx, "project")
    mutable(row.options, "domain" if row.is_domain else "project", project_id, wanted | ctx.extra)
    if body.parent_id is not UNSET and body.parent_id != row.parent_id:
        raise Forbidden("Update of `parent_id` is not allowed.")
    if body.is_domain is not UNSET and body.is_domain != row.is_domain:
        raise BadRequest("Update of `is_domain` is not allowed.")
    if body.domain_id is not UNSET and body.domain_id != row.domain_id:
        raise BadRequest("Cannot change Domain ID")
    change(ctx.tx, row, wanted, further(ctx))
    return views(ctx, [get(ctx.tx, project_id)])[0]


def change(tx: Tx, row: sa.Row[Any], wanted: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Write the wanted attributes of a project or a domain. Raises Conflict and Forbidden."""
    options = flags(wanted.get("options", UNSET), row.options)
    changes: dict[str, Any] = {"options": options, "extra": {**row.extra, **extra}}
    name, enabled = wanted.get("name"), wanted.get("enabled")
    if name is not None:
        same = find_named(tx, name, row.domain_id)
        if same is not None and same.id != row.id:
            raise Conflict(
                "Conflict occurred attempting to store project - it is not permitted to have two projects"
                f" with the same name: {name}."
            )
        changes |= {"name": name.strip(), "name_key": names.key(name)}
    if "description" in wanted:
        changes["description"] = wanted["description"] or ""
    if enabled is not None and enabled != row.enabled:
        changes["enabled"] = enabled
        _switch(tx, row, enabled)
    if "tags" in wanted:
        set_tags(tx, row.id, wanted["tags"])
    tx.execute(sa.update(table).where(table.c.id == row.id).values(**changes))
    tx.changed("identity.project", row.id)
    revision.grow(tx)


def _switch(tx: Tx, row: sa.Row[Any], enabled: bool) -> None:
    """Check whether a project may be enabled or disabled; when disabled, make the tokens for it void for ever."""
    if enabled and not all(parent.enabled for parent in parents(tx, row.id)):
        raise Forbidden(f"Cannot enable project {row.id} since it has disabled parents")
    if enabled:
        return
    if not row.is_domain and any(child.enabled for child in subtree(tx, row.id)):
        raise Forbidden(f"Cannot disable project {row.id} since its subtree contains enabled projects.")
    inside = sa.or_(table.c.id == row.id, table.c.domain_id == row.id)
    tx.execute(sa.update(table).where(inside).values(generation=table.c.generation + 1))
    if row.is_domain:
        users.void_tokens(tx, users.table.c.domain_id == row.id)


@resource.delete("/projects/{project_id}")
def delete(ctx: Context, project_id: str) -> None:
    """Delete a project that has none below it, or a disabled domain with all that is in it."""
    row = _checked(ctx, "identity:delete_project", project_id)
    if row.is_domain:
        permit(ctx, "identity:delete_domain")
    remove(ctx.tx, row)


def remove(tx: Tx, row: sa.Row[Any]) -> None:
    """Delete a project or a domain. Raises Forbidden."""
    mutable(row.options, "domain" if row.is_domain else "project", row.id)
    if row.is_domain:
        _clear_domain(tx, row)
    elif subtree(tx, row.id):
        raise Forbidden(f"Cannot delete the project {row.id} since it is not a leaf in the hierarchy.")
    tx.execute(sa.delete(table).where(table.c.id == row.id))
    tx.changed("identity.project", row.id)
    revision.grow(tx)


def _clear_domain(tx: Tx, row: sa.Row[Any]) -> None:
    if row.id == users.DEFAULT_DOMAIN:
        raise Forbidden("Cannot delete the default domain.")
    if row.enabled:
        raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    for child in subtree(tx, row.id):
        tx.changed("identity.project", child.id)
    for user in tx.all(sa.select(users.table.c.id).where(users.table.c.domain_id == row.id)):
        tx.changed("identity.user", user.id)
    tx.execute(sa.delete(table).where(table.c.domain_id == row.id))


@resource.get("/users/{user_id}/projects")
def list_of_user(ctx: Context, user_id: str) -> Page:
    """List the projects in which a user holds a role."""
    user = users.find(ctx.tx, user_id)
    permit(ctx, "identity:list_user_projects", user=None if user is None else seen(user))
    users.get(ctx.tx, user_id)
    mine = assignments.targets_of(ctx.tx, user_id)
    query = sa.select(table).where(table.c.id.in_(mine), ~table.c.is_domain)
    found = listing.page(ctx, query)
    return Page(views(ctx, found.rows), found.next_marker)


def _tags(ctx: Context, project_id: str) -> TagsView:
    links = Links(self=f"{ctx.url}/v3/projects/{project_id}/tags")
    return TagsView(tags=tags_of(ctx.tx, [project_id])[project_id], links=links)


@resource.get("/projects/{project_id}/tags")
def list_tags(ctx: Context, project_id: str) -> TagsView:
    """List the tags of a project."""
    _checked(ctx, "identity:list_project_tags", project_id)
    return _tags(ctx, project_id)


@resource.put("/projects/{project_id}/tags")
def replace_tags(ctx: Context, project_id: str, body: TagsUpdate) -> TagsView:
    """Replace the tags of a project."""
    _checked(ctx, "identity:update_project_tags", project_id)
    set_tags(ctx.tx, project_id, body.tags)
    ctx.tx.changed("identity.project", project_id)
    return _tags(ctx, project_id)


@resource.delete("/projects/{project_id}/tags")
def delete_tags(ctx: Context, project_id: str) -> None:
    """Take all tags from a project."""
    _checked(ctx, "identity:delete_project_tags", project_id)
    set_tags(ctx.tx, project_id, ())
    ctx.tx.changed("identity.project", project_id)


def _no_tag(name: str) -> Fault:
    return NotFound(f"Could not find project tag: {name}.")


@resource.get("/projects/{project_id}/tags/{name}", status=204)
def check_tag(ctx: Context, project_id: str, name: str) -> None:
    """Check whether a project has a tag."""
    _checked(ctx, "identity:get_project_tag", project_id)
    if name not in tags_of(ctx.tx, [project_id])[project_id]:
        raise _no_tag(name)


@resource.put("/projects/{project_id}/tags/{name}", status=201)
def add_tag(ctx: Context, project_id: str, name: str) -> Reply:
    """Give a project a tag."""
    _checked(ctx, "identity:create_project_tag", project_id)
    try:
        msgspec.convert(name, Tag)
    except msgspec.ValidationError:
        raise BadRequest("A tag has 1 to 255 characters, none of them a slash or a comma.") from None
    old = tags_of(ctx.tx, [project_id])[project_id]
    if len(old) >= MOST_TAGS and name not in old:
        raise BadRequest(f"A project has at most {MOST_TAGS} tags.")
    ctx.tx.insert_missing(tag, {"project_id": project_id, "name": name}, key=("project_id", "name"))
    ctx.tx.changed("identity.project", project_id)
    return Reply(headers={"location": f"{ctx.url}/v3/projects/{project_id}/tags/{name}"})


@resource.delete("/projects/{project_id}/tags/{name}")
def delete_tag(ctx: Context, project_id: str, name: str) -> None:
    """Take a tag from a project."""
    _checked(ctx, "identity:delete_project_tag", project_id)
    one = sa.delete(tag).where(tag.c.project_id == project_id, tag.c.name == name)
    if ctx.tx.execute(one).rowcount == 0:
        raise _no_tag(name)
    ctx.tx.changed("identity.project", project_id)

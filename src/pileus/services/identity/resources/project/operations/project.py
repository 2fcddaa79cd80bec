"""Operations on projects and their tags (https://docs.openstack.org/api-ref/identity/v3/#projects)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden
from pileus.core.fields import given
from pileus.core.listing import Filter, Listing, few
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.identity.resources import limit as limits
from pileus.services.identity.resources import revision, revoke_event
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    among,
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
    views,
)
from pileus.services.identity.resources.project.table import (
    any_below,
    downward,
    find,
    find_domain,
    find_named,
    parents,
    set_tags,
    subtree,
    table,
    tag,
)
from pileus.services.identity.rules import hierarchy
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules.limit import FLAT, Model

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


class _IsDomain(Filter):
    """A filter by whether a project acts as a domain, which is then in none."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        return sa.or_(*(self.column.is_(None) if truth(value) else self.column.is_not(None) for value in values))


listing = Listing(
    table,
    filters={
        "name": named(table.c.name_key),
        "domain_id": Filter(table.c.domain_id),
        "parent_id": Filter(table.c.parent_id),
        "enabled": Filter(table.c.enabled, truth),
        "is_domain": _IsDomain(table.c.domain_id),
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


def checked(ctx: Context, key: str) -> sa.Row[Any]:
    """The project or domain of an id, once the operation's rule lets the caller. Raises Forbidden and NotFound."""
    permit(ctx, ctx.operation, project=seen(find(ctx.tx, key)))
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
    tx.insert(table, {**place, **text, **row})
    tx.changed("identity.project", key)
    return key


def _check_place(ctx: Context, domain_id: str, parent_id: str) -> None:
    """Raise BadRequest or Forbidden unless a project may lie in a domain below a parent."""
    tx = ctx.tx
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
    levels = ctx.provided.get(Model, FLAT).levels
    if len(above) > (hierarchy.DEPTH if levels is None else levels - 1):
        raise Forbidden(f"Max hierarchy depth reached for {parent_id} branch.")


@resource.get("/projects", policy="identity:list_projects", guarded=True)
def list_all(ctx: Context) -> Page:
    """List projects, but for those that act as domains; with a domain's token, those of that domain."""
    permit_list(ctx, ctx.operation)
    query = own_domain(ctx, sa.select(table), table.c.domain_id)
    if "is_domain" not in ctx.query.names():
        query = query.where(table.c.domain_id.is_not(None))
    for condition in _tag_conditions(ctx):
        query = query.where(condition)
    found = listing.page(ctx, query)
    return Page(views(ctx, found.rows), found.next_marker)


def _tag_conditions(ctx: Context) -> list[sa.ColumnElement[bool]]:
    found = []
    for parameter in ("tags", "tags-any", "not-tags", "not-tags-any"):
        texts = ctx.query.all(parameter)
        few([name for text in texts for name in text.split(",")])
        for text in texts:
            has = [table.c.id.in_(sa.select(tag.c.project_id).where(tag.c.name == name)) for name in text.split(",")]
            condition = sa.or_(*has) if parameter.endswith("any") else sa.and_(*has)
            found.append(sa.not_(condition) if parameter.startswith("not") else condition)
    return found


@resource.get("/projects/{project_id}", policy="identity:get_project", guarded=True, wraps="project")
def show(ctx: Context, project_id: str) -> Project:
    """Show a project, and on request what is above and below it."""
    row = checked(ctx, project_id)
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


def _mine(ctx: Context, rows: Sequence[sa.Row[Any]]) -> list[dict[str, Any]]:
    """Of some projects, those in which the caller holds a role; with `include_limits`, each with its limits."""
    mine = sa.select(table.c.id).where(table.c.id.in_(assignments.targets(ctx.auth.user_id)))
    allowed = {row.id for row in among(ctx.tx, mine, table.c.id, [row.id for row in rows])}
    found = [row for row in rows if row.id in allowed and not row.is_domain]
    held = limits.of_projects(ctx, [row.id for row in found]) if asked(ctx, "include_limits") else None
    shown = [{"project": msgspec.to_builtins(view)} for view in views(ctx, found)]
    for row, one in zip(found, shown, strict=True):
        one["project"] |= {} if held is None else {"limits": held[row.id]}
    return shown


@resource.post(
    "/projects", policy="identity:create_project", guarded=True, accepts="project", wraps="project", status=201
)
def create(ctx: Context, body: ProjectCreate) -> Project:
    """Create a project; with `is_domain`, a domain."""
    permit(ctx, ctx.operation, project={"domain_id": body.domain_id} if body.domain_id else {})
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
        _check_place(ctx, domain_id, parent_id)
        key = insert(ctx.tx, body.name.strip(), domain_id=domain_id, parent_id=parent_id, **values)
    set_tags(ctx.tx, key, given_or(body.tags, []))
    revision.grow(ctx.tx)  # an inherited role on a domain holds here from now on
    return views(ctx, [get(ctx.tx, key)])[0]


def _checked_writable(ctx: Context, key: str) -> sa.Row[Any]:
    row = checked(ctx, key)
    if row.is_domain:
        permit(ctx, "identity:update_domain")
    return row


@resource.patch(
    "/projects/{project_id}", policy="identity:update_project", guarded=True, accepts="project", wraps="project"
)
def update(ctx: Context, project_id: str, body: ProjectUpdate) -> Project:
    """Change a project. Disabling it makes all tokens for it void."""
    row = _checked_writable(ctx, project_id)
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


def change(
    tx: Tx, row: sa.Row[Any], wanted: Mapping[str, Any], extra: Mapping[str, Any], *, cascade: bool = False
) -> None:
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
    if enabled is not None and (cascade or enabled != row.enabled):
        changes["enabled"] = enabled
        _switch(tx, row, enabled, cascade)
    if "tags" in wanted:
        set_tags(tx, row.id, wanted["tags"])
    tx.execute(sa.update(table).where(table.c.id == row.id).values(**changes))
    tx.changed("identity.project", row.id)
    revision.grow(tx)


def _switch(tx: Tx, row: sa.Row[Any], enabled: bool, cascade: bool) -> None:
    """Check whether a project may be enabled or disabled; what is disabled has its tokens made void for ever.

    With `cascade`, what is below it follows.
    """
    if enabled and not all(parent.enabled for parent in parents(tx, row.id)):
        raise Forbidden(f"Cannot enable project {row.id} since it has disabled parents")
    if not enabled and not row.is_domain and not cascade and any_below(tx, row.id, table.c.enabled):
        raise Forbidden(f"Cannot disable project {row.id} since its subtree contains enabled projects.")
    below = table.c.id.in_(sa.select(downward([row.id]).c.id))
    if cascade:
        tx.execute(sa.update(table).where(below).values(enabled=enabled))
    if enabled:
        return
    void = sa.or_(table.c.id == row.id, below if cascade or row.is_domain else sa.false())
    tx.execute(sa.update(table).where(void).values(generation=table.c.generation + 1))
    revoke_event.note(tx, **{"domain_id" if row.is_domain else "project_id": row.id})
    if row.is_domain:
        users.void_tokens(tx, users.table.c.domain_id == row.id)


@resource.patch(
    "/projects/{project_id}/cascade",
    policy="identity:update_project",
    guarded=True,
    accepts="project",
    wraps="project",
)
def update_tree(ctx: Context, project_id: str, body: ProjectUpdate) -> Project:
    """Enable or disable a project with all that is below it; nothing else can be changed so.

    After the specification "Project tree deletion and update" of upstream, which has this below its API.
    """
    row = _checked_writable(ctx, project_id)
    wanted = given(body)
    if set(wanted) != {"enabled"} or ctx.extra:
        raise BadRequest("Cascade update is only allowed for enabled attribute.")
    mutable(row.options, "domain" if row.is_domain else "project", project_id, wanted)
    change(ctx.tx, row, wanted, {}, cascade=True)
    return views(ctx, [get(ctx.tx, project_id)])[0]


@resource.delete("/projects/{project_id}", policy="identity:delete_project", guarded=True)
def delete(ctx: Context, project_id: str) -> None:
    """Delete a project that has none below it, or a disabled domain with all that is in it."""
    row = checked(ctx, project_id)
    if row.is_domain:
        permit(ctx, "identity:delete_domain")
    remove(ctx.tx, row)


@resource.delete("/projects/{project_id}/cascade", policy="identity:delete_project", guarded=True)
def delete_tree(ctx: Context, project_id: str) -> None:
    """Delete a project with all that is below it, which must be disabled."""
    row = checked(ctx, project_id)
    if row.is_domain:
        permit(ctx, "identity:delete_domain")
    remove(ctx.tx, row, cascade=True)


def remove(tx: Tx, row: sa.Row[Any], *, cascade: bool = False) -> None:
    """Delete a project or a domain. Raises Forbidden."""
    mutable(row.options, "domain" if row.is_domain else "project", row.id)
    if row.is_domain:
        _check_domain(tx, row)
    elif not cascade and any_below(tx, row.id):
        raise Forbidden(f"Cannot delete the project {row.id} since it is not a leaf in the hierarchy.")
    elif any_below(tx, row.id, table.c.enabled):
        raise Forbidden(f"Cannot delete project {row.id} since its subtree contains enabled projects.")
    below = subtree(tx, row.id)
    for child in below:
        mutable(child.options, "project", child.id)
    if below:
        tx.execute(sa.delete(table).where(table.c.id.in_(sa.select(downward([row.id]).c.id))))
    tx.execute(sa.delete(table).where(table.c.id == row.id))
    revoke_event.note(tx, **{"domain_id" if row.is_domain else "project_id": row.id})
    for one in (row, *below):
        tx.changed("identity.project", one.id)
    revision.grow(tx)


def _check_domain(tx: Tx, row: sa.Row[Any]) -> None:
    """Check whether a domain may be deleted; its users, who go with it, are told of. Raises Forbidden."""
    if row.id == users.DEFAULT_DOMAIN:
        raise Forbidden("Cannot delete the default domain.")
    if row.enabled:
        raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    for user in tx.all(sa.select(users.table.c.id).where(users.table.c.domain_id == row.id)):
        tx.changed("identity.user", user.id)


@resource.get("/users/{user_id}/projects", policy="identity:list_user_projects", guarded=True)
def list_of_user(ctx: Context, user_id: str) -> Page:
    """List the projects in which a user holds a role."""
    user = users.find(ctx.tx, user_id)
    permit(ctx, ctx.operation, user=None if user is None else seen(user))
    users.get(ctx.tx, user_id)
    query = sa.select(table).where(table.c.id.in_(assignments.targets(user_id)), ~table.c.is_domain)
    found = listing.page(ctx, query)
    return Page(views(ctx, found.rows), found.next_marker)

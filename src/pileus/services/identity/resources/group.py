"""Groups of users (https://docs.openstack.org/api-ref/identity/v3/#groups)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.fields import OpenBody, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    Id,
    Links,
    Name,
    among,
    compared,
    extended,
    found,
    further,
    given_or,
    link,
    missing,
    named,
    own_domain,
    page,
    permit,
    permit_list,
    same_id,
    save,
    something,
    truth,
)
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules import name as names

table = sa.Table(
    "identity_group",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(names.KEY_LENGTH), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.UniqueConstraint("domain_id", "name_key"),
    sa.Index("ix_identity_group_name_key", "name_key"),
    sa.Index("ix_identity_group_domain_id", "domain_id", "id"),
)

membership = sa.Table(
    "identity_membership",
    metadata,
    sa.Column("user_id", sa.String(64), sa.ForeignKey(users.table.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("group_id", sa.String(64), sa.ForeignKey(table.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)


class Group(View):
    """A group."""

    id: str
    name: str
    domain_id: str
    description: str
    links: Links


class GroupCreate(OpenBody):
    """A new group."""

    name: Name
    domain_id: Id | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET


class GroupUpdate(OpenBody):
    """What is to be changed of a group."""

    name: Name | UnsetType = UNSET
    domain_id: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET


_IN_DOMAIN = "domain_id:%(target.group.domain_id)s"
_BOTH = f"{_IN_DOMAIN} and domain_id:%(target.user.domain_id)s"
_SEES = f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_IN_DOMAIN})"
_MANAGES = f"rule:admin_required or (role:manager and {_IN_DOMAIN})"
_MANAGES_BOTH = f"rule:admin_required or (role:manager and {_BOTH})"

resource = Resource(
    "group",
    "groups",
    rules=[
        Rule("identity:get_group", _SEES, "Show a group"),
        Rule("identity:list_groups", _SEES, "List groups"),
        Rule(
            "identity:list_groups_for_user",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(user_id)s",
            "List the groups of a user",
        ),
        Rule("identity:create_group", _MANAGES, "Create a group"),
        Rule("identity:update_group", _MANAGES, "Update a group"),
        Rule("identity:delete_group", _MANAGES, "Delete a group"),
        Rule("identity:list_users_in_group", _SEES, "List the users in a group"),
        Rule("identity:remove_user_from_group", _MANAGES_BOTH, "Take a user out of a group"),
        Rule(
            "identity:check_user_in_group",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_BOTH})",
            "Check whether a user is in a group",
        ),
        Rule("identity:add_user_to_group", _MANAGES_BOTH, "Put a user into a group"),
    ],
)

_listing = Listing(
    table,
    filters={
        "name": named(table.c.name_key),
        "domain_id": Filter(table.c.domain_id),
        **compared(name=table.c.name),
    },
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)

_members = Listing(
    users.table,
    filters={
        "name": named(users.table.c.name_key),
        "domain_id": Filter(users.table.c.domain_id),
        "enabled": Filter(users.table.c.enabled, truth),
        **compared(name=users.table.c.name),
    },
    sort={"id": users.table.c.id, "name": users.table.c.name},
    maximum=None,
)


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A group, None when there is no such."""
    return tx.first(at(table, "id"), {"value": key})


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A group. Raises NotFound."""
    return found(tx, table, "group", key)


def target(row: sa.Row[Any] | None) -> Mapping[str, Any] | None:
    """What policy rules see of a user or group."""
    return None if row is None else {"id": row.id, "domain_id": row.domain_id}


def names_of(tx: Tx, keys: Sequence[str]) -> dict[str, sa.Row[Any]]:
    """Rows with id, name and domain_id of some groups, by id."""
    query = sa.select(table.c.id, table.c.name, table.c.domain_id)
    return {row.id: row for row in among(tx, query, table.c.id, keys)}


def _view(ctx: Context, row: sa.Row[Any]) -> Group:
    group = Group(
        id=row.id,
        name=row.name,
        domain_id=row.domain_id,
        description=row.description,
        links=link(ctx, "groups", row.id),
    )
    return extended(group, row.extra)


def _check_free(tx: Tx, name: str, domain_id: str) -> None:
    taken = sa.select(table.c.id).where(table.c.domain_id == domain_id, table.c.name_key == names.key(name))
    if tx.first(taken) is not None:
        raise Conflict(f"Conflict occurred attempting to store group - Duplicate entry found with name {name}.")


@resource.get("/groups", policy="identity:list_groups", guarded=True)
def list_all(ctx: Context) -> Page:
    """List groups; with a domain's token, those of that domain."""
    permit_list(ctx, ctx.operation, "target.group.domain_id")
    return page(ctx, _listing, own_domain(ctx, sa.select(table), table.c.domain_id), _view)


@resource.get("/groups/{group_id}", policy="identity:get_group", guarded=True, wraps="group")
def show(ctx: Context, group_id: str) -> Group:
    """Show a group."""
    permit(ctx, ctx.operation, group=target(find(ctx.tx, group_id)))
    return _view(ctx, get(ctx.tx, group_id))


@resource.post("/groups", policy="identity:create_group", guarded=True, accepts="group", wraps="group", status=201)
def create(ctx: Context, body: GroupCreate) -> Group:
    """Create a group."""
    permit(ctx, ctx.operation, group={"domain_id": body.domain_id} if body.domain_id else {})
    domain_id = given_or(body.domain_id, ctx.auth.domain_id or users.DEFAULT_DOMAIN)
    if projects.find_domain(ctx.tx, domain_id) is None:
        raise missing("domain", domain_id)
    name = body.name.strip()
    _check_free(ctx.tx, name, domain_id)
    key = ctx.seams.hex()
    ctx.tx.execute(
        sa.insert(table).values(
            id=key,
            domain_id=domain_id,
            name=name,
            name_key=names.key(name),
            description=given_or(body.description, ""),
            extra=further(ctx),
        )
    )
    ctx.tx.changed("identity.group", key)
    return _view(ctx, get(ctx.tx, key))


@resource.patch("/groups/{group_id}", policy="identity:update_group", guarded=True, accepts="group", wraps="group")
def update(ctx: Context, group_id: str, body: GroupUpdate) -> Group:
    """Change a group."""
    permit(ctx, ctx.operation, group=target(find(ctx.tx, group_id)))
    row = get(ctx.tx, group_id)
    same_id(ctx, group_id)
    something(given(body), ctx, "group")
    if body.domain_id is not UNSET and body.domain_id != row.domain_id:
        raise BadRequest("Cannot change Domain ID")
    changes: dict[str, Any] = {}
    if isinstance(body.name, str):
        if names.key(body.name) != row.name_key:
            _check_free(ctx.tx, body.name, row.domain_id)
        changes |= {"name": body.name.strip(), "name_key": names.key(body.name)}
    if body.description is not UNSET:
        changes["description"] = body.description or ""
    save(ctx, table, "group", row, changes)
    return _view(ctx, get(ctx.tx, group_id))


@resource.delete("/groups/{group_id}", policy="identity:delete_group", guarded=True)
def delete(ctx: Context, group_id: str) -> None:
    """Delete a group; its members lose the roles that they held through it."""
    permit(ctx, ctx.operation, group=target(get(ctx.tx, group_id)))
    ctx.tx.execute(sa.delete(table).where(table.c.id == group_id))
    ctx.tx.changed("identity.group", group_id)
    revision.grow(ctx.tx)


@resource.get("/groups/{group_id}/users", policy="identity:list_users_in_group", guarded=True, wraps="users")
def list_members(ctx: Context, group_id: str) -> Page:
    """List the users in a group."""
    permit(ctx, ctx.operation, group=target(find(ctx.tx, group_id)))
    get(ctx.tx, group_id)
    inside = sa.select(membership.c.user_id).where(membership.c.group_id == group_id)
    query = sa.select(users.table).where(users.table.c.id.in_(inside))
    return page(ctx, _members, own_domain(ctx, query, users.table.c.domain_id), users.view)


@resource.get("/users/{user_id}/groups", policy="identity:list_groups_for_user", guarded=True)
def list_of_user(ctx: Context, user_id: str) -> Page:
    """List the groups that a user is in."""
    permit(ctx, ctx.operation, user=target(users.find(ctx.tx, user_id)))
    users.get(ctx.tx, user_id)
    mine = sa.select(membership.c.group_id).where(membership.c.user_id == user_id)
    query = sa.select(table).where(table.c.id.in_(mine))
    return page(ctx, _listing, own_domain(ctx, query, table.c.domain_id), _view)


def _pair(ctx: Context, group_id: str, user_id: str) -> None:
    group, user = find(ctx.tx, group_id), users.find(ctx.tx, user_id)
    permit(ctx, ctx.operation, group=target(group), user=target(user))
    get(ctx.tx, group_id)
    users.get(ctx.tx, user_id)


def _no_member(user_id: str, group_id: str) -> NotFound:
    return NotFound(f"User {user_id} is not found in group {group_id}.")


@resource.get("/groups/{group_id}/users/{user_id}", policy="identity:check_user_in_group", guarded=True, status=204)
def check_member(ctx: Context, group_id: str, user_id: str) -> None:
    """Check whether a user is in a group."""
    _pair(ctx, group_id, user_id)
    one = sa.select(membership).where(membership.c.group_id == group_id, membership.c.user_id == user_id)
    if ctx.tx.first(one) is None:
        raise _no_member(user_id, group_id)


@resource.put("/groups/{group_id}/users/{user_id}", policy="identity:add_user_to_group", guarded=True, status=204)
def add_member(ctx: Context, group_id: str, user_id: str) -> None:
    """Put a user into a group. Doing it again changes nothing."""
    _pair(ctx, group_id, user_id)
    row = {"user_id": user_id, "group_id": group_id}
    if ctx.tx.insert_missing(membership, row, key=("user_id", "group_id")):
        ctx.tx.changed("identity.user", user_id)
        revision.grow(ctx.tx)


@resource.delete("/groups/{group_id}/users/{user_id}", policy="identity:remove_user_from_group", guarded=True)
def remove_member(ctx: Context, group_id: str, user_id: str) -> None:
    """Take a user out of a group; the roles held through it are lost at once."""
    _pair(ctx, group_id, user_id)
    one = sa.delete(membership).where(membership.c.group_id == group_id, membership.c.user_id == user_id)
    if ctx.tx.execute(one).rowcount == 0:
        raise _no_member(user_id, group_id)
    ctx.tx.changed("identity.user", user_id)
    revision.grow(ctx.tx)

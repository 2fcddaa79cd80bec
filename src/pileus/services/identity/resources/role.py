"""Roles, and which role implies which (https://docs.openstack.org/api-ref/identity/v3/#roles)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound
from pileus.core.fields import OpenBody, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    CLOUD_ADMIN,
    CLOUD_ADMIN_OR_SYSTEM_READER,
    Flags,
    Id,
    Links,
    Name,
    compared,
    extended,
    flags,
    found,
    further,
    given_or,
    link,
    missing,
    mutable,
    named,
    page,
    permit,
    same_id,
    save,
    something,
)
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules import role as rules

table = sa.Table(
    "identity_role",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE")),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(names.KEY_LENGTH), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.UniqueConstraint("domain_id", "name_key"),
    sa.Index(
        "uq_identity_role_global_name",
        "name_key",
        unique=True,
        sqlite_where=sa.text("domain_id IS NULL"),
        postgresql_where=sa.text("domain_id IS NULL"),
    ),
)

implication = sa.Table(
    "identity_implication",
    metadata,
    sa.Column("prior_id", sa.String(64), sa.ForeignKey(table.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("implied_id", sa.String(64), sa.ForeignKey(table.c.id, ondelete="CASCADE"), primary_key=True),
)


class Role(View):
    """A role. One that belongs to a domain means nothing but by the roles that it implies."""

    id: str
    name: str
    domain_id: str | None
    description: str | None
    options: dict[str, Any]
    links: Links


class RoleCreate(OpenBody):
    """A new role."""

    name: Name
    domain_id: Id | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    options: Flags | UnsetType = UNSET


class RoleUpdate(OpenBody):
    """What is to be changed of a role."""

    name: Name | UnsetType = UNSET
    domain_id: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    options: Flags | UnsetType = UNSET


class RoleName(View):
    """A role in an inference."""

    id: str
    name: str
    links: Links


resource = Resource(
    "role",
    "roles",
    rules=[
        Rule(
            "identity:get_role",
            f"{ADMIN_OR_SYSTEM_READER} or (role:manager and rule:domain_managed_target_role)",
            "Show a role",
        ),
        Rule("identity:list_roles", f"{ADMIN_OR_SYSTEM_READER} or (role:manager and not domain_id:None)", "List roles"),
        Rule("identity:create_role", CLOUD_ADMIN, "Create a role"),
        Rule("identity:update_role", CLOUD_ADMIN, "Update a role"),
        Rule("identity:delete_role", CLOUD_ADMIN, "Delete a role"),
        Rule("identity:get_domain_role", CLOUD_ADMIN_OR_SYSTEM_READER, "Show a role of a domain"),
        Rule("identity:list_domain_roles", CLOUD_ADMIN_OR_SYSTEM_READER, "List the roles of a domain"),
        Rule("identity:create_domain_role", CLOUD_ADMIN, "Create a role of a domain"),
        Rule("identity:update_domain_role", CLOUD_ADMIN, "Update a role of a domain"),
        Rule("identity:delete_domain_role", CLOUD_ADMIN, "Delete a role of a domain"),
        Rule("identity:get_implied_role", CLOUD_ADMIN_OR_SYSTEM_READER, "Show what a role implies"),
        Rule("identity:check_implied_role", CLOUD_ADMIN_OR_SYSTEM_READER, "Check whether a role implies another"),
        Rule("identity:list_implied_roles", CLOUD_ADMIN_OR_SYSTEM_READER, "List what a role implies"),
        Rule("identity:create_implied_role", CLOUD_ADMIN, "Let a role imply another"),
        Rule("identity:delete_implied_role", CLOUD_ADMIN, "Let a role no longer imply another"),
        Rule("identity:list_role_inference_rules", CLOUD_ADMIN_OR_SYSTEM_READER, "List which roles imply which"),
    ],
)

_listing = Listing(
    table,
    filters={"name": named(table.c.name_key), "domain_id": Filter(table.c.domain_id), **compared(name=table.c.name)},
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A role, None when there is no such."""
    return tx.first(at(table, "id"), {"value": key})


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A role. Raises NotFound."""
    return found(tx, table, "role", key)


def all_by_id(tx: Tx) -> dict[str, sa.Row[Any]]:
    """Rows with id, name and domain_id of all roles, by id."""
    return {row.id: row for row in tx.all(sa.select(table.c.id, table.c.name, table.c.domain_id))}


def implications(tx: Tx) -> dict[str, list[str]]:
    """Which role ids each role id implies directly."""
    found: dict[str, list[str]] = {}
    for row in tx.all(sa.select(implication).order_by(implication.c.implied_id)):
        found.setdefault(row.prior_id, []).append(row.implied_id)
    return found


def effective(tx: Tx, keys: Iterable[str]) -> list[sa.Row[Any]]:
    """The roles that mean something when some are held: with those implied, without those that belong to a domain."""
    held = rules.implied_by(keys, implications(tx))
    if not held:
        return []
    rows = all_by_id(tx)
    global_ones = [rows[key] for key in held if key in rows and rows[key].domain_id is None]
    return sorted(global_ones, key=lambda row: row.name)


def view(ctx: Context, row: sa.Row[Any]) -> Role:
    """A row as a role."""
    role = Role(
        id=row.id,
        name=row.name,
        domain_id=row.domain_id,
        description=row.description,
        options=row.options,
        links=link(ctx, "roles", row.id),
    )
    return extended(role, row.extra)


def insert(tx: Tx, name: str, domain_id: str | None = None, **values: Any) -> str:
    """Write a new role; its id. Raises Conflict when its name is taken."""
    taken = sa.select(table.c.id).where(table.c.domain_id == domain_id, table.c.name_key == names.key(name))
    if tx.first(taken) is not None:
        raise Conflict(f"Conflict occurred attempting to store role - Duplicate entry found with name {name}.")
    key = tx.seams.hex()
    row = {"description": None, "options": {}, "extra": {}, **values}
    tx.insert(table, {"id": key, "domain_id": domain_id, "name": name, "name_key": names.key(name), **row})
    tx.changed("identity.role", key)
    return key


def _permitted(ctx: Context, verb: str, key: str) -> sa.Row[Any]:
    """The role of an id, once the operation's rule and, for a role of a domain, that of its kind let the caller.

    Raises NotFound, before anybody's permission is asked for, and Forbidden.
    """
    row = get(ctx.tx, key)
    seen = {"id": row.id, "name": row.name, "domain_id": row.domain_id}
    permit(ctx, ctx.operation, role=seen)
    if row.domain_id is not None:
        permit(ctx, f"identity:{verb}_domain_role", role=seen)
    return row


@resource.get("/roles", policy="identity:list_roles", guarded=True)
def list_all(ctx: Context) -> Page:
    """List roles: the global ones, or with `domain_id` those of a domain."""
    permit(ctx, ctx.operation)
    query = sa.select(table)
    if ctx.query.get("domain_id"):
        permit(ctx, "identity:list_domain_roles")
    else:
        query = query.where(table.c.domain_id.is_(None))
    return page(ctx, _listing, query, view)


@resource.get("/roles/{role_id}", policy="identity:get_role", guarded=True, wraps="role")
def show(ctx: Context, role_id: str) -> Role:
    """Show a role."""
    return view(ctx, _permitted(ctx, "get", role_id))


@resource.post("/roles", policy="identity:create_role", guarded=True, accepts="role", wraps="role", status=201)
def create(ctx: Context, body: RoleCreate) -> Role:
    """Create a role."""
    domain_id = given_or(body.domain_id, None)
    permit(ctx, ctx.operation)
    if domain_id is not None:
        permit(ctx, "identity:create_domain_role")
        if projects.find_domain(ctx.tx, domain_id) is None:
            raise missing("domain", domain_id)
    key = insert(
        ctx.tx,
        body.name.strip(),
        domain_id,
        description=given_or(body.description, None),
        options=flags(body.options),
        extra=further(ctx),
    )
    return view(ctx, get(ctx.tx, key))


@resource.patch("/roles/{role_id}", policy="identity:update_role", guarded=True, accepts="role", wraps="role")
def update(ctx: Context, role_id: str, body: RoleUpdate) -> Role:
    """Change a role."""
    row = _permitted(ctx, "update", role_id)
    same_id(ctx, role_id)
    wanted = given(body)
    something(wanted, ctx, "role")
    mutable(row.options, "role", role_id, wanted | ctx.extra)
    if body.domain_id is not UNSET and body.domain_id != row.domain_id:
        raise BadRequest("Cannot change Domain ID")
    changes: dict[str, Any] = {"options": flags(body.options, row.options)}
    if isinstance(body.name, str):
        key = names.key(body.name)
        _check_implied(ctx.tx, role_id, body.name)
        same = sa.select(table.c.id).where(table.c.domain_id == row.domain_id, table.c.name_key == key)
        if ctx.tx.first(same.where(table.c.id != role_id)) is not None:
            raise Conflict(f"Conflict occurred attempting to store role - Duplicate entry found with name {body.name}.")
        changes |= {"name": body.name.strip(), "name_key": key}
    if body.description is not UNSET:
        changes["description"] = body.description
    save(ctx, table, "role", row, changes)
    revision.grow(ctx.tx)
    return view(ctx, get(ctx.tx, role_id))


def _check_implied(tx: Tx, key: str, name: str) -> None:
    """Raise Forbidden for a name that no implied role may have, of a role that is implied."""
    if names.key(name) not in rules.NEVER_IMPLIED:
        return
    if tx.first(sa.select(implication.c.prior_id).where(implication.c.implied_id == key)) is not None:
        raise Forbidden(f"{key} is an implied role, and none of those may be named {name}.")


@resource.delete("/roles/{role_id}", policy="identity:delete_role", guarded=True)
def delete(ctx: Context, role_id: str) -> None:
    """Delete a role; who held it holds it no longer."""
    row = _permitted(ctx, "delete", role_id)
    mutable(row.options, "role", role_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == role_id))
    ctx.tx.changed("identity.role", role_id)
    revision.grow(ctx.tx)


def _named(ctx: Context, row: sa.Row[Any]) -> RoleName:
    return RoleName(id=row.id, name=row.name, links=link(ctx, "roles", row.id))


def _inference(ctx: Context, prior_role_id: str, implies_role_id: str) -> Mapping[str, Any]:
    inference = {
        "prior_role": _named(ctx, get(ctx.tx, prior_role_id)),
        "implies": _named(ctx, get(ctx.tx, implies_role_id)),
    }
    return {"role_inference": inference, "links": link(ctx, f"roles/{prior_role_id}/implies", implies_role_id)}


def _check_implication(ctx: Context, prior_id: str, implied_id: str) -> None:
    get(ctx.tx, prior_id)
    get(ctx.tx, implied_id)
    one = sa.select(implication).where(implication.c.prior_id == prior_id, implication.c.implied_id == implied_id)
    if ctx.tx.first(one) is None:
        raise NotFound(f"{prior_id} does not imply {implied_id}.")


@resource.get("/roles/{prior_role_id}/implies", policy="identity:list_implied_roles")
def list_implied(ctx: Context, prior_role_id: str) -> Mapping[str, Any]:
    """List what a role implies directly."""
    prior = get(ctx.tx, prior_role_id)
    query = sa.select(table.c.id, table.c.name).join(implication, implication.c.implied_id == table.c.id)
    rows = ctx.tx.all(query.where(implication.c.prior_id == prior_role_id).order_by(table.c.name))
    inference = {"prior_role": _named(ctx, prior), "implies": [_named(ctx, row) for row in rows]}
    return {"role_inference": inference, "links": {"self": f"{ctx.url}/v3/roles/{prior_role_id}/implies"}}


@resource.get("/roles/{prior_role_id}/implies/{implies_role_id}", policy="identity:get_implied_role")
def show_implied(ctx: Context, prior_role_id: str, implies_role_id: str) -> Mapping[str, Any]:
    """Show that a role implies another."""
    _check_implication(ctx, prior_role_id, implies_role_id)
    return _inference(ctx, prior_role_id, implies_role_id)


@resource.operation(
    "HEAD",
    "/roles/{prior_role_id}/implies/{implies_role_id}",
    policy="identity:check_implied_role",
    status=204,
    writes=False,
)
def check_implied(ctx: Context, prior_role_id: str, implies_role_id: str) -> None:
    """Check whether a role implies another; unlike showing it, this answers 204."""
    _check_implication(ctx, prior_role_id, implies_role_id)


@resource.put("/roles/{prior_role_id}/implies/{implies_role_id}", policy="identity:create_implied_role", status=201)
def create_implied(ctx: Context, prior_role_id: str, implies_role_id: str) -> Mapping[str, Any]:
    """Let a role imply another. No role may imply `admin`, and no global role one of a domain."""
    prior, implied = get(ctx.tx, prior_role_id), get(ctx.tx, implies_role_id)
    if names.key(implied.name) in rules.NEVER_IMPLIED:
        raise Forbidden(f"{implies_role_id} cannot be an implied role.")
    if prior.domain_id is None and implied.domain_id is not None:
        raise Forbidden("Global role cannot imply a domain-specific role")
    row = {"prior_id": prior_role_id, "implied_id": implies_role_id}
    if not ctx.tx.insert_missing(implication, row, key=("prior_id", "implied_id")):
        raise Conflict("Conflict occurred attempting to store implied_role - Duplicate entry.")
    revision.grow(ctx.tx)
    return _inference(ctx, prior_role_id, implies_role_id)


@resource.delete("/roles/{prior_role_id}/implies/{implies_role_id}", policy="identity:delete_implied_role")
def delete_implied(ctx: Context, prior_role_id: str, implies_role_id: str) -> None:
    """Let a role no longer imply another."""
    _check_implication(ctx, prior_role_id, implies_role_id)
    one = sa.delete(implication).where(
        implication.c.prior_id == prior_role_id, implication.c.implied_id == implies_role_id
    )
    ctx.tx.execute(one)
    revision.grow(ctx.tx)


@resource.get("/role_inferences", policy="identity:list_role_inference_rules")
def list_inferences(ctx: Context) -> Mapping[str, Any]:
    """List which roles imply which."""
    rows = {row.id: row for row in ctx.tx.all(sa.select(table.c.id, table.c.name))}
    found: Sequence[Any] = [
        {"prior_role": _named(ctx, rows[prior]), "implies": [_named(ctx, rows[one]) for one in implied]}
        for prior, implied in implications(ctx.tx).items()
    ]
    return {"role_inferences": found, "links": {"self": f"{ctx.url}/v3/role_inferences"}}

"""Users (https://docs.openstack.org/api-ref/identity/v3/#users)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Conflict, Forbidden, Raced, Unauthorized
from pileus.core.fields import Body, OpenBody, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    Id,
    Links,
    Name,
    compared,
    extended,
    further,
    given_or,
    link,
    missing,
    named,
    own_domain,
    permit,
    permit_list,
    same_id,
    something,
    truth,
)
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules import password as passwords

DEFAULT_DOMAIN = "default"
"""Id of the domain that things belong to when none is named."""

table = sa.Table(
    "identity_user",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(names.KEY_LENGTH), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("password_hash", sa.String(255)),
    sa.Column("default_project_id", sa.String(64)),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.UniqueConstraint("domain_id", "name_key"),
)

_BY_ID = sa.select(table).where(table.c.id == sa.bindparam("key"))


class Options(Body, omit_defaults=True):
    """Options of a user; those that concern locking, expiry and factors are kept for the day they have a meaning."""

    ignore_change_password_upon_first_use: bool | UnsetType | None = UNSET
    ignore_password_expiry: bool | UnsetType | None = UNSET
    ignore_lockout_failure_attempts: bool | UnsetType | None = UNSET
    lock_password: bool | UnsetType | None = UNSET
    ignore_user_inactivity: bool | UnsetType | None = UNSET
    multi_factor_auth_rules: list[list[str]] | UnsetType | None = UNSET
    multi_factor_auth_enabled: bool | UnsetType | None = UNSET


class User(View):
    """A user. The password is never shown."""

    id: str
    name: str
    domain_id: str
    enabled: bool
    default_project_id: str | UnsetType
    password_expires_at: str | None
    options: dict[str, Any]
    links: Links


class UserCreate(OpenBody):
    """A new user. Without a password nobody can log in as it."""

    name: Name
    domain_id: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    password: str | UnsetType | None = UNSET
    default_project_id: str | UnsetType | None = UNSET
    options: Options | UnsetType = UNSET


class UserUpdate(OpenBody):
    """What is to be changed of a user."""

    name: Name | UnsetType = UNSET
    domain_id: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    password: str | UnsetType | None = UNSET
    default_project_id: str | UnsetType | None = UNSET
    options: Options | UnsetType = UNSET


class PasswordChange(Body):
    """A user's own change of password."""

    original_password: str
    password: str


_MANAGES = "rule:admin_required or (role:manager and domain_id:%(target.user.domain_id)s)"

resource = Resource(
    "user",
    "users",
    rules=[
        Rule(
            "identity:get_user",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.user.domain_id)s)"
            " or user_id:%(target.user.id)s",
            "Show a user",
        ),
        Rule(
            "identity:list_users",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.domain_id)s)",
            "List users",
        ),
        Rule("identity:create_user", _MANAGES, "Create a user"),
        Rule("identity:update_user", _MANAGES, "Update a user"),
        Rule("identity:delete_user", _MANAGES, "Delete a user"),
        Rule("identity:revoke_tokens_for_user", "rule:admin_or_owner", "Revoke all tokens of a user"),
    ],
)

_listing = Listing(
    table,
    filters={
        "name": named(table.c.name_key),
        "domain_id": Filter(table.c.domain_id),
        "enabled": Filter(table.c.enabled, truth),
        **compared(name=table.c.name),
    },
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A user, None when there is no such."""
    return tx.execute(_BY_ID, {"key": key}).first()


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A user. Raises NotFound."""
    row = find(tx, key)
    if row is None:
        raise missing("user", key)
    return row


def find_named(tx: Tx, name: str, domain_id: str) -> sa.Row[Any] | None:
    """The user of a name in a domain, None when there is no such."""
    return tx.first(sa.select(table).where(table.c.name_key == names.key(name), table.c.domain_id == domain_id))


def view(ctx: Context, row: sa.Row[Any]) -> User:
    """A row as a user."""
    user = User(
        id=row.id,
        name=row.name,
        domain_id=row.domain_id,
        enabled=row.enabled,
        default_project_id=UNSET if row.default_project_id is None else row.default_project_id,
        password_expires_at=None,
        options=row.options,
        links=link(ctx, "users", row.id),
    )
    return extended(user, row.extra)


def _target(row: sa.Row[Any] | None) -> Mapping[str, Any] | None:
    return None if row is None else {"id": row.id, "domain_id": row.domain_id, "name": row.name}


def insert(tx: Tx, values: Mapping[str, Any]) -> str:
    """Write a new user; its id. Raises Conflict when its name is taken in the domain."""
    key = tx.seams.hex()
    name = str(values["name"]).strip()
    if find_named(tx, name, values["domain_id"]) is not None:
        raise Conflict(f"Conflict occurred attempting to store user - Duplicate entry found with name {name}.")
    row = {"enabled": True, "password_hash": None, "default_project_id": None, "options": {}, "extra": {}, **values}
    stored = {**row, "id": key, "name": name, "name_key": names.key(name), "generation": 0, "created_at": tx.now}
    tx.execute(sa.insert(table).values(**stored))
    tx.changed("identity.user", key)
    return key


def _check_default_project(tx: Tx, key: str | None) -> None:
    if key is not None and projects.find_domain(tx, key) is not None:
        raise BadRequest("User's default project ID cannot be a domain ID.")


def _check_password(password: str | UnsetType | None) -> None:
    if isinstance(password, str) and len(password) > passwords.LONGEST:
        raise Forbidden(f"The password length must be less than or equal to {passwords.LONGEST}.")


async def _digest(ctx: Request, password: str | UnsetType | None) -> str | None:
    """The hash of a new password, made where it stalls nobody."""
    if not isinstance(password, str):
        return None
    return await ctx.slow(lambda: passwords.digest(password))


@resource.get("/users")
def list_all(ctx: Context) -> Page:
    """List users; with a domain's token, those of that domain."""
    permit_list(ctx, "identity:list_users")
    found = _listing.page(ctx, own_domain(ctx, sa.select(table), table.c.domain_id))
    return Page([view(ctx, row) for row in found.rows], found.next_marker)


@resource.get("/users/{user_id}", wraps="user")
def show(ctx: Context, user_id: str) -> User:
    """Show a user."""
    row = find(ctx.tx, user_id)
    permit(ctx, "identity:get_user", user=_target(row))
    if row is None:
        raise missing("user", user_id)
    return view(ctx, row)


@resource.post("/users", accepts="user", wraps="user", status=201)
async def create(ctx: Request, body: UserCreate) -> User:
    """Create a user."""
    permit(ctx, "identity:create_user", user={"domain_id": body.domain_id} if body.domain_id else {})
    _check_password(body.password)
    extra = further(ctx)
    hashed = await _digest(ctx, body.password)
    domain_id = given_or(body.domain_id, ctx.auth.domain_id or DEFAULT_DOMAIN)

    def write(ctx: Context) -> User:
        if projects.find_domain(ctx.tx, domain_id) is None:
            raise missing("domain", domain_id)
        default_project_id = given_or(body.default_project_id, None)
        _check_default_project(ctx.tx, default_project_id)
        key = insert(
            ctx.tx,
            {
                "name": body.name,
                "domain_id": domain_id,
                "enabled": given_or(body.enabled, True),
                "password_hash": hashed,
                "default_project_id": default_project_id,
                "options": _options(body.options, {}),
                "extra": extra,
            },
        )
        return view(ctx, get(ctx.tx, key))

    return await ctx.write(write)


def _options(options: Options | UnsetType, old: Mapping[str, Any]) -> dict[str, Any]:
    found = {**old, **(msgspec.to_builtins(options) if isinstance(options, Options) else {})}
    return {name: value for name, value in found.items() if value is not None}


@resource.patch("/users/{user_id}", accepts="user", wraps="user")
async def update(ctx: Request, user_id: str, body: UserUpdate) -> User:
    """Change a user. A new password, or being disabled, makes all tokens of the user void."""

    def check(ctx: Context) -> sa.Row[Any]:
        row = find(ctx.tx, user_id)
        permit(ctx, "identity:update_user", user=_target(row))
        if row is None:
            raise missing("user", user_id)
        if body.domain_id is not UNSET and body.domain_id != row.domain_id:
            raise BadRequest("Cannot change Domain ID")
        return row

    await ctx.read(check)
    same_id(ctx, user_id)
    something(given(body), ctx, "user")
    _check_password(body.password)
    extra = further(ctx)
    hashed = await _digest(ctx, body.password)

    def write(ctx: Context) -> User:
        return _write_update(ctx, check(ctx), body, hashed, extra)

    return await ctx.write(write)


def _write_update(
    ctx: Context, row: sa.Row[Any], body: UserUpdate, hashed: str | None, extra: Mapping[str, Any]
) -> User:
    changes: dict[str, Any] = {"extra": {**row.extra, **extra}, "options": _options(body.options, row.options)}
    if isinstance(body.name, str) and names.key(body.name) != row.name_key:
        if find_named(ctx.tx, body.name, row.domain_id) is not None:
            raise Conflict(f"Conflict occurred attempting to store user - Duplicate entry found with name {body.name}.")
        changes["name_key"] = names.key(body.name)
    if isinstance(body.name, str):
        changes["name"] = body.name.strip()
    if body.default_project_id is not UNSET:
        _check_default_project(ctx.tx, body.default_project_id)
        changes["default_project_id"] = body.default_project_id
    if body.enabled is not UNSET:
        changes["enabled"] = body.enabled
    if body.password is not UNSET:
        changes["password_hash"] = hashed
    if body.password is not UNSET or body.enabled is False:
        changes["generation"] = table.c.generation + 1
    ctx.tx.execute(sa.update(table).where(table.c.id == row.id).values(**changes))
    ctx.tx.changed("identity.user", row.id)
    revision.grow(ctx.tx)
    written = find(ctx.tx, row.id)
    if written is None:
        raise Raced("The user was deleted at the same time.")
    return view(ctx, written)


@resource.delete("/users/{user_id}")
def delete(ctx: Context, user_id: str) -> None:
    """Delete a user, with its memberships and role assignments; its tokens are void."""
    row = find(ctx.tx, user_id)
    permit(ctx, "identity:delete_user", user=_target(row))
    if row is None:
        raise missing("user", user_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == user_id))
    ctx.tx.changed("identity.user", user_id)
    revision.grow(ctx.tx)


@resource.post("/users/{user_id}/password", accepts="user", public=True, status=204)
async def change_password(ctx: Request, user_id: str, body: PasswordChange) -> None:
    """Change one's own password, which the old one proves. All tokens of the user become void.

    Raises Unauthorized alike for a wrong password and for a user who is not there.
    """
    _check_password(body.password)

    def read(ctx: Context) -> sa.Row[Any] | None:
        return find(ctx.tx, user_id)

    row = await ctx.read(read)
    hashed = None if row is None else row.password_hash
    right = await ctx.slow(lambda: passwords.matches(hashed, body.original_password))
    if not right or row is None or not row.enabled:
        raise Unauthorized
    if row.options.get("lock_password"):
        raise BadRequest("The password of this user is locked: only an administrator can change it.")
    fresh = await ctx.slow(lambda: passwords.digest(body.password))
    await ctx.write(lambda ctx: _replace_password(ctx.tx, user_id, hashed, fresh))


def _replace_password(tx: Tx, key: str, old: str | None, new: str) -> None:
    where = {"id": key, "password_hash": old}
    tx.compare_and_set(table, where, {"password_hash": new, "generation": table.c.generation + 1})
    tx.changed("identity.user", key)
    revision.grow(tx)


@resource.delete("/users/{user_id}/tokens", policy="identity:revoke_tokens_for_user")
def revoke_tokens(ctx: Context, user_id: str) -> None:
    """Make all tokens of a user void."""
    get(ctx.tx, user_id)
    void_tokens(ctx.tx, table.c.id == user_id)
    revision.grow(ctx.tx)


def void_tokens(tx: Tx, which: sa.ColumnElement[bool]) -> None:
    """Make all tokens of some users void; the caller lets the revision grow, after its other writes."""
    tx.execute(sa.update(table).where(which).values(generation=table.c.generation + 1))


def names_of(tx: Tx, keys: Sequence[str]) -> dict[str, sa.Row[Any]]:
    """Rows with id, name and domain_id of some users, by id."""
    query = sa.select(table.c.id, table.c.name, table.c.domain_id).where(table.c.id.in_(keys))
    return {row.id: row for row in tx.all(query)} if keys else {}

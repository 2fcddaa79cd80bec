"""Operations on users: list, show, create, update, delete."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Forbidden, Raced
from pileus.core.fields import given
from pileus.core.listing import Filter, Listing, few
from pileus.core.store import Tx
from pileus.services.identity.resources import revision, revoke_event
from pileus.services.identity.resources.attribute import (
    compared,
    further,
    given_or,
    missing,
    named,
    own_domain,
    page,
    permit,
    permit_list,
    same_id,
    something,
    truth,
)
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.user.fields import (
    Options,
    User,
    UserCreate,
    UserUpdate,
    compliance,
    view,
)
from pileus.services.identity.resources.user.policy import RULES
from pileus.services.identity.resources.user.table import (
    DEFAULT_DOMAIN,
    find,
    find_named,
    get,
    insert,
    keep_past,
    password_values,
    table,
    taken,
)
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules import password as passwords

resource = Resource("user", "users", rules=RULES)

_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "eq": operator.eq,
    "neq": operator.ne,
}


class _Expiry(Filter):
    """`password_expires_at=OPERATOR:TIME`, e.g. `lt:2026-01-31T12:00:00Z`; several must all hold."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        return sa.and_(*(self._one(value) for value in few(values)))

    def _one(self, value: str) -> sa.ColumnElement[bool]:
        name, _, text = value.partition(":")
        compare = _COMPARISONS.get(name)
        if compare is None:
            raise BadRequest(f"password_expires_at must begin with one of {', '.join(_COMPARISONS)} and a colon.")
        try:
            moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise BadRequest(f"{text!r} is not a time of the form YYYY-MM-DDTHH:mm:ssZ") from None
        found: sa.ColumnElement[bool] = compare(self.column, moment)
        return found


class _Nobody(Filter):
    """A filter by what no user of this cloud has: it comes from a provider of identities."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        return sa.false()


_listing = Listing(
    table,
    filters={
        "name": named(table.c.name_key),
        "domain_id": Filter(table.c.domain_id),
        "enabled": Filter(table.c.enabled, truth),
        "password_expires_at": _Expiry(table.c.password_expires_at),
        **dict.fromkeys(("idp_id", "protocol_id", "unique_id"), _Nobody(table.c.id)),
        **compared(name=table.c.name),
    },
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)


def _target(row: sa.Row[Any] | None) -> Mapping[str, Any] | None:
    return None if row is None else {"id": row.id, "domain_id": row.domain_id, "name": row.name}


def _check_default_project(tx: Tx, key: str | None) -> None:
    if key is not None and projects.find_domain(tx, key) is not None:
        raise BadRequest("User's default project ID cannot be a domain ID.")


def check_password(ctx: Request, password: str | UnsetType | None) -> None:
    """Raise Forbidden for a new password that is too long, BadRequest for one of another form than is asked for."""
    if not isinstance(password, str):
        return
    if len(password) > passwords.LONGEST:
        raise Forbidden(f"The password length must be less than or equal to {passwords.LONGEST}.")
    compliance(ctx).check_form(password)


async def _digest(ctx: Request, password: str | UnsetType | None) -> str | None:
    """The hash of a new password, made where it stalls nobody."""
    if not isinstance(password, str):
        return None
    return await ctx.slow(lambda: passwords.digest(password))


@resource.get("/users", policy="identity:list_users", guarded=True)
def list_all(ctx: Context) -> Page:
    """List users; with a domain's token, those of that domain."""
    permit_list(ctx, ctx.operation)
    return page(ctx, _listing, own_domain(ctx, sa.select(table), table.c.domain_id), view)


@resource.get("/users/{user_id}", policy="identity:get_user", guarded=True, wraps="user")
def show(ctx: Context, user_id: str) -> User:
    """Show a user."""
    row = find(ctx.tx, user_id)
    permit(ctx, ctx.operation, user=_target(row))
    if row is None:
        raise missing("user", user_id)
    return view(ctx, row)


@resource.post("/users", policy="identity:create_user", guarded=True, accepts="user", wraps="user", status=201)
async def create(ctx: Request, body: UserCreate) -> User:
    """Create a user."""
    permit(ctx, ctx.operation, user={"domain_id": body.domain_id} if body.domain_id else {})
    check_password(ctx, body.password)
    extra = further(ctx)
    hashed = await _digest(ctx, body.password)
    domain_id = given_or(body.domain_id, ctx.auth.domain_id or DEFAULT_DOMAIN)

    def write(ctx: Context) -> User:
        if projects.find_domain(ctx.tx, domain_id) is None:
            raise missing("domain", domain_id)
        default_project_id = given_or(body.default_project_id, None)
        _check_default_project(ctx.tx, default_project_id)
        options = _options(body.options, {})
        expires_at = compliance(ctx).expiry(options, ctx.now, reset=True) if hashed else None
        values = {
            "name": body.name,
            "domain_id": domain_id,
            "enabled": given_or(body.enabled, True),
            "password_hash": hashed,
            "password_expires_at": expires_at,
            "default_project_id": default_project_id,
            "options": options,
            "extra": extra,
        }
        return view(ctx, get(ctx.tx, insert(ctx.tx, values)))

    return await ctx.write(write)


def _options(options: Options | UnsetType, old: Mapping[str, Any]) -> dict[str, Any]:
    found = {**old, **(msgspec.to_builtins(options) if isinstance(options, Options) else {})}
    return {name: value for name, value in found.items() if value is not None}


@resource.patch("/users/{user_id}", policy="identity:update_user", guarded=True, accepts="user", wraps="user")
async def update(ctx: Request, user_id: str, body: UserUpdate) -> User:
    """Change a user. A new password, or being disabled, makes all tokens of the user void."""

    def check(ctx: Context) -> sa.Row[Any]:
        row = find(ctx.tx, user_id)
        permit(ctx, ctx.operation, user=_target(row))
        if row is None:
            raise missing("user", user_id)
        if body.domain_id is not UNSET and body.domain_id != row.domain_id:
            raise BadRequest("Cannot change Domain ID")
        return row

    await ctx.read(check)
    same_id(ctx, user_id)
    something(given(body), ctx, "user")
    check_password(ctx, body.password)
    extra = further(ctx)
    hashed = await _digest(ctx, body.password)

    def write(ctx: Context) -> User:
        return _write_update(ctx, check(ctx), body, hashed, extra)

    return await ctx.write(write)


def _write_update(
    ctx: Context, row: sa.Row[Any], body: UserUpdate, hashed: str | None, extra: Mapping[str, Any]
) -> User:
    options = _options(body.options, row.options)
    changes: dict[str, Any] = {"extra": {**row.extra, **extra}, "options": options}
    if isinstance(body.name, str):
        if names.key(body.name) != row.name_key and find_named(ctx.tx, body.name, row.domain_id) is not None:
            raise taken(body.name)
        changes |= {"name": body.name.strip(), "name_key": names.key(body.name)}
    if body.default_project_id is not UNSET:
        _check_default_project(ctx.tx, body.default_project_id)
        changes["default_project_id"] = body.default_project_id
    if body.password is not UNSET:
        asked = compliance(ctx)
        expires_at = asked.expiry(options, ctx.now, reset=True) if hashed else None
        keep_past(ctx.tx, row, asked.unique_last_password_count)
        changes |= password_values(hashed, expires_at=expires_at, changed_at=None)
    if body.enabled is not UNSET:
        changes["enabled"] = body.enabled
    if body.enabled is True:
        changes |= {"failed_logins": 0, "failed_at": None, "active_at": ctx.now}
    if body.enabled is False:
        changes["generation"] = table.c.generation + 1
    ctx.tx.execute(sa.update(table).where(table.c.id == row.id).values(**changes))
    ctx.tx.changed("identity.user", row.id)
    if "generation" in changes:
        revoke_event.note(ctx.tx, user_id=row.id)
    revision.grow(ctx.tx)
    written = find(ctx.tx, row.id)
    if written is None:
        raise Raced("The user was deleted at the same time.")
    return view(ctx, written)


@resource.delete("/users/{user_id}", policy="identity:delete_user", guarded=True)
def delete(ctx: Context, user_id: str) -> None:
    """Delete a user, with its memberships and role assignments; its tokens are void."""
    row = find(ctx.tx, user_id)
    permit(ctx, ctx.operation, user=_target(row))
    if row is None:
        raise missing("user", user_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == user_id))
    ctx.tx.changed("identity.user", user_id)
    revoke_event.note(ctx.tx, user_id=user_id)
    revision.grow(ctx.tx)

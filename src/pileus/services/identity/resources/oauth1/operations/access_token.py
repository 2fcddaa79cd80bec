"""Operations on the access tokens of a user (https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth1-api)."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.attribute import link, missing, permit
from pileus.services.identity.resources.delegation import own_only, role_rows
from pileus.services.identity.resources.oauth1 import table as tables
from pileus.services.identity.resources.oauth1.fields import AccessToken, AccessTokenLinks, AccessTokenRole
from pileus.services.identity.resources.oauth1.table import access_token as table
from pileus.services.identity.resources.token.fields import moment

resource = Resource("access_token", "access_tokens")


def _view(ctx: Context, row: sa.Row[Any]) -> AccessToken:
    here = link(ctx, f"users/{row.authorizing_user_id}/OS-OAUTH1/access_tokens", row.id).self
    return AccessToken(
        id=row.id,
        consumer_id=row.consumer_id,
        project_id=row.project_id,
        authorizing_user_id=row.authorizing_user_id,
        expires_at=moment(row.expires_at),
        links=AccessTokenLinks(self=here, roles=f"{here}/roles"),
    )


def _role(ctx: Context, row: sa.Row[Any]) -> AccessTokenRole:
    return AccessTokenRole(
        id=row.id,
        name=row.name,
        domain_id=row.domain_id,
        options=row.options,
        links=link(ctx, "roles", row.id),
    )


def _seen(ctx: Context, user_id: str, key: str) -> sa.Row[Any]:
    """The access token that a request is about. Raises NotFound when it is not this user's."""
    permit(ctx, ctx.operation)
    own_only(ctx, "see or change access tokens")
    row = tables.find(ctx.tx, table, key)
    if row is None or row.authorizing_user_id != user_id:
        raise missing("access token", key)
    return row


@resource.get("/users/{user_id}/OS-OAUTH1/access_tokens", policy="identity:list_access_tokens", guarded=True)
def list_all(ctx: Context, user_id: str) -> Page:
    """List the access tokens that a user has let consumers have."""
    permit(ctx, ctx.operation)
    own_only(ctx, "see or change access tokens")
    rows = ctx.tx.all(sa.select(table).where(table.c.authorizing_user_id == user_id).order_by(table.c.id))
    return Page([_view(ctx, row) for row in rows])


@resource.get(
    "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}",
    policy="identity:get_access_token",
    guarded=True,
    wraps="access_token",
)
def show(ctx: Context, user_id: str, access_token_id: str) -> AccessToken:
    """Show an access token, without its secret."""
    return _view(ctx, _seen(ctx, user_id, access_token_id))


@resource.get(
    "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles",
    policy="identity:list_access_token_roles",
    guarded=True,
    wraps="roles",
)
def list_roles(ctx: Context, user_id: str, access_token_id: str) -> Page:
    """List the roles that an access token carries."""
    row = _seen(ctx, user_id, access_token_id)
    found = role_rows(ctx.tx, row.role_ids)
    return Page([_role(ctx, found[key]) for key in row.role_ids if key in found])


@resource.get(
    "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}",
    policy="identity:get_access_token_role",
    guarded=True,
    wraps="role",
)
def show_role(ctx: Context, user_id: str, access_token_id: str, role_id: str) -> AccessTokenRole:
    """Show a role, if an access token carries it."""
    row = _seen(ctx, user_id, access_token_id)
    found = role_rows(ctx.tx, [role_id]) if role_id in row.role_ids else {}
    if role_id not in found:
        raise missing("role", role_id)
    return _role(ctx, found[role_id])


@resource.delete(
    "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}", policy="identity:delete_access_token", guarded=True
)
def delete(ctx: Context, user_id: str, access_token_id: str) -> None:
    """Delete an access token; what the consumer made of it is void."""
    row = _seen(ctx, user_id, access_token_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == row.id))
    ctx.tx.changed("identity.access_token", row.id)
    revision.grow(ctx.tx)

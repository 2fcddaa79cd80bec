"""Operations on trusts (https://docs.openstack.org/api-ref/identity/v3-ext/#os-trust-api)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden
from pileus.core.listing import Filter, Listing
from pileus.core.store import Tx
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.attribute import extended, further, link, missing, permit
from pileus.services.identity.resources.delegation import role_ids, role_rows
from pileus.services.identity.resources.role import Role, effective
from pileus.services.identity.resources.token.fields import moment
from pileus.services.identity.resources.trust import table as trusts
from pileus.services.identity.resources.trust.fields import ListLinks, Trust, TrustCreate
from pileus.services.identity.resources.trust.policy import RULES
from pileus.services.identity.resources.trust.table import table
from pileus.services.identity.rules import expiry, redelegation

_PATH = "OS-TRUST/trusts"

resource = Resource("trust", "trusts", rules=RULES)

_listing = Listing(
    table,
    filters={
        "trustor_user_id": Filter(table.c.trustor_user_id),
        "trustee_user_id": Filter(table.c.trustee_user_id),
    },
    sort={"id": table.c.id},
    maximum=None,
)


def _no_program(ctx: Context) -> None:
    """Raise Forbidden for tokens by application credentials and OAuth; those by trusts may redelegate."""
    if ctx.auth.delegated and ctx.auth.trust_id is None:
        raise Forbidden("A token that was given by delegation cannot be used to see or manage trusts.")


def _moment(at: datetime | None) -> str | None:
    return None if at is None else moment(at)


def _plain(ctx: Context, row: sa.Row[Any]) -> Trust:
    return Trust(
        id=row.id,
        trustor_user_id=row.trustor_user_id,
        trustee_user_id=row.trustee_user_id,
        project_id=row.project_id,
        impersonation=row.impersonation,
        expires_at=_moment(row.expires_at),
        remaining_uses=row.remaining_uses,
        deleted_at=_moment(row.deleted_at),
        redelegated_trust_id=row.redelegated_trust_id,
        redelegation_count=row.redelegation_count,
        links=link(ctx, _PATH, row.id),
    )


def _view(ctx: Context, row: sa.Row[Any]) -> Trust:
    """A row as a trust in a list."""
    return extended(_plain(ctx, row), row.extra)


def _whole(ctx: Context, row: sa.Row[Any]) -> Trust:
    """A row as a trust with its roles."""
    trust = _plain(ctx, row)
    trust.roles = _roles(ctx, row)
    trust.roles_links = ListLinks(self=f"{link(ctx, _PATH, row.id).self}/roles")
    return extended(trust, row.extra)


def _roles(ctx: Context, row: sa.Row[Any]) -> list[Role]:
    """The roles that a trust delegates; those that are gone are left out."""
    found = role_rows(ctx.tx, row.role_ids)
    return [roles.view(ctx, found[key]) for key in row.role_ids if key in found]


def _target(row: sa.Row[Any]) -> Mapping[str, Any]:
    return {"trustor_user_id": row.trustor_user_id, "trustee_user_id": row.trustee_user_id}


def _seen(ctx: Context, trust_id: str) -> sa.Row[Any]:
    """The trust that a request is about. Raises NotFound before Forbidden, as upstream does."""
    row = trusts.get(ctx.tx, trust_id)
    permit(ctx, ctx.operation, trust=_target(row))
    _no_program(ctx)
    if row.redelegated_trust_id is not None:
        chain = trusts.chain(ctx.tx, row)
        if chain is None:
            raise missing("trust", trust_id)
        redelegation.check([trusts.terms(one) for one in chain[1:]], trusts.terms(row))
    return row


@resource.get(
    "/OS-TRUST/trusts",
    policy="identity:list_trusts",
    guarded=True,
    query=Parameters("trustor_user_id", "trustee_user_id"),
)
def list_all(ctx: Context) -> Page:
    """List trusts: all of them, or those of a trustor or of a trustee."""
    trustor, trustee = ctx.query.get("trustor_user_id"), ctx.query.get("trustee_user_id")
    allowed = ctx.allows(ctx.operation)
    if not allowed and trustor:
        permit(ctx, "identity:list_trusts_for_trustor", trust={"trustor_user_id": trustor})
    elif not allowed and trustee:
        permit(ctx, "identity:list_trusts_for_trustee", trust={"trustee_user_id": trustee})
    elif not allowed:
        permit(ctx, ctx.operation)
    _no_program(ctx)
    found = _listing.page(ctx, sa.select(table).where(table.c.deleted_at.is_(None)))
    return Page([_view(ctx, row) for row in found.rows], found.next_marker)


@resource.get("/OS-TRUST/trusts/{trust_id}", policy="identity:get_trust", guarded=True, wraps="trust")
def show(ctx: Context, trust_id: str) -> Trust:
    """Show a trust with its roles."""
    return _whole(ctx, _seen(ctx, trust_id))


@resource.get("/OS-TRUST/trusts/{trust_id}/roles", policy="identity:list_roles_for_trust", guarded=True, wraps="roles")
def list_roles(ctx: Context, trust_id: str) -> Page:
    """List the roles that a trust delegates."""
    row = _seen(ctx, trust_id)
    return Page(_roles(ctx, row))


@resource.get(
    "/OS-TRUST/trusts/{trust_id}/roles/{role_id}", policy="identity:get_role_for_trust", guarded=True, wraps="role"
)
def show_role(ctx: Context, trust_id: str, role_id: str) -> Role:
    """Show a role, if a trust delegates it."""
    row = _seen(ctx, trust_id)
    if role_id not in row.role_ids:
        raise missing("role", role_id)
    return roles.view(ctx, roles.get(ctx.tx, role_id))


@resource.delete("/OS-TRUST/trusts/{trust_id}", policy="identity:delete_trust", guarded=True)
def delete(ctx: Context, trust_id: str) -> None:
    """Delete a trust and those that were made from it; their tokens are void."""
    row = trusts.get(ctx.tx, trust_id)
    permit(ctx, ctx.operation, trust=_target(row))
    _no_program(ctx)
    trusts.delete(ctx.tx, trust_id)


@resource.post(
    "/OS-TRUST/trusts", policy="identity:create_trust", guarded=True, accepts="trust", wraps="trust", status=201
)
def create(ctx: Context, body: TrustCreate) -> Trust:
    """Create a trust, of which the caller is the trustor; with a token by a trust, pass that one on."""
    permit(ctx, ctx.operation, trust={"trustor_user_id": body.trustor_user_id})
    _no_program(ctx)
    if body.trustor_user_id != ctx.auth.user_id:
        raise Forbidden("The authenticated user should match the trustor.")
    if body.project_id and not body.roles:
        raise Forbidden("At least one role should be specified.")
    if users.find(ctx.tx, body.trustee_user_id) is None:
        raise missing("user", body.trustee_user_id)
    chain = _parents(ctx, body)
    terms = _terms(ctx, body, chain)
    _check_roles(ctx.tx, body.trustor_user_id, terms)
    redelegation.check([trusts.terms(one) for one in chain], terms)
    key = _insert(ctx, body, terms, chain[0].id if chain else None)
    return _whole(ctx, trusts.get(ctx.tx, key))


def _parents(ctx: Context, body: TrustCreate) -> list[sa.Row[Any]]:
    """The trust that the caller's token stands on and those above it; empty for a token of one's own."""
    if body.redelegated_trust_id not in (None, ctx.auth.trust_id):
        raise Forbidden("A trust is redelegated with a token by that trust.")
    if ctx.auth.trust_id is None:
        return []
    found = trusts.chain(ctx.tx, trusts.get(ctx.tx, ctx.auth.trust_id))
    if found is None:
        raise missing("trust", ctx.auth.trust_id)
    return found


def _terms(ctx: Context, body: TrustCreate, chain: list[sa.Row[Any]]) -> redelegation.Terms:
    """What the new trust is to delegate. Raises BadRequest, NotFound and Forbidden for what cannot be."""
    keys = role_ids(ctx.tx, body.roles)
    if body.project_id:
        # Where the trustor holds nothing, there is nothing for it to know.
        if not assignments.roles_of(ctx.tx, body.trustor_user_id, "project", body.project_id):
            raise missing("project", body.project_id)
    elif keys:
        raise missing("role", keys[0])
    expires_at = expiry.parse(body.expires_at, ctx.now)
    parent = chain[0] if chain else None
    if expires_at is None and parent is not None:
        expires_at = parent.expires_at
    return redelegation.Terms(
        project_id=body.project_id or None,
        role_ids=frozenset(keys),
        impersonation=body.impersonation,
        expires_at=expires_at,
        remaining_uses=body.remaining_uses,
        redelegation_count=redelegation.depth(
            bool(body.allow_redelegation),
            body.redelegation_count,
            body.remaining_uses,
            None if parent is None else parent.redelegation_count,
        ),
    )


def _check_roles(tx: Tx, trustor_id: str, terms: redelegation.Terms) -> None:
    """Raise NotFound when the trustor does not hold in the project what it would delegate."""
    if terms.project_id is None:
        return
    held = assignments.roles_of(tx, trustor_id, "project", terms.project_id)
    have = {one.id for one in held}
    for one in effective(tx, terms.role_ids):
        if one.id not in have:
            raise missing("role", one.id)
    for key in terms.role_ids:
        if not effective(tx, [key]):
            raise BadRequest(f"The role {key} means nothing by itself, and cannot be delegated.")


def _insert(ctx: Context, body: TrustCreate, terms: redelegation.Terms, parent_id: str | None) -> str:
    key = ctx.tx.seams.hex()
    ctx.tx.execute(
        sa.insert(table).values(
            id=key,
            trustor_user_id=body.trustor_user_id,
            trustee_user_id=body.trustee_user_id,
            project_id=terms.project_id,
            impersonation=terms.impersonation,
            role_ids=sorted(terms.role_ids),
            expires_at=terms.expires_at,
            remaining_uses=terms.remaining_uses,
            redelegation_count=terms.redelegation_count,
            redelegated_trust_id=parent_id,
            extra=further(ctx, "deleted_at", "roles_links"),
            created_at=ctx.now,
        )
    )
    ctx.tx.changed("identity.trust", key)
    return key

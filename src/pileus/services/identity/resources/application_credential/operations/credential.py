"""Operations on application credentials.

(https://docs.openstack.org/api-ref/identity/v3/#application-credentials)
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Conflict, Forbidden
from pileus.core.listing import Listing
from pileus.core.store import Tx
from pileus.services.identity.resources import access_rule as access_rules
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.application_credential import table as credentials
from pileus.services.identity.resources.application_credential.fields import (
    AccessRuleReference,
    ApplicationCredential,
    ApplicationCredentialCreate,
    Delegated,
)
from pileus.services.identity.resources.application_credential.policy import RULES
from pileus.services.identity.resources.application_credential.table import table
from pileus.services.identity.resources.attribute import compared, link, missing, named
from pileus.services.identity.resources.delegation import no_further, role_ids, role_rows
from pileus.services.identity.resources.role import effective
from pileus.services.identity.rules import expiry
from pileus.services.identity.rules import name as names
from pileus.services.identity.rules import password as passwords

_SECRET_BYTES = 64

resource = Resource("application_credential", "application_credentials", rules=RULES)

_listing = Listing(
    table,
    filters={"name": named(table.c.name_key), **compared(name=table.c.name)},
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)


def _moment(at: datetime | None) -> str | None:
    """A time as application credentials show it: in UTC, without saying so."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%f")


def _views(ctx: Context, rows: Sequence[sa.Row[Any]]) -> list[ApplicationCredential]:
    held = role_rows(ctx.tx, sorted({key for row in rows for key in row.role_ids}))
    return [
        ApplicationCredential(
            id=row.id,
            name=row.name,
            description=row.description,
            user_id=row.user_id,
            project_id=row.project_id,
            system=None,
            roles=[_role(held[key]) for key in row.role_ids if key in held],
            expires_at=_moment(row.expires_at),
            unrestricted=row.unrestricted,
            links=link(ctx, f"users/{row.user_id}/application_credentials", row.id),
            access_rules=row.access_rules or UNSET,
        )
        for row in rows
    ]


def _role(row: sa.Row[Any]) -> Delegated:
    return Delegated(
        id=row.id, name=row.name, domain_id=row.domain_id, description=row.description, options=row.options
    )


def _unrestricted(ctx: Request) -> None:
    """Raise Forbidden for a token by an application credential that may not manage others."""
    if ctx.auth.restricted:
        raise Forbidden("This application credential may not be used to manage application credentials.")


def _seen(ctx: Context, user_id: str, key: str) -> sa.Row[Any]:
    """The application credential that a request is about: whose it is decides, not whose the path says it is."""
    row = credentials.find(ctx.tx, key)
    ctx.enforce(ctx.operation, {"user_id": user_id if row is None else row.user_id})
    no_further(ctx)
    if row is None or row.user_id != user_id:
        raise missing("application credential", key)
    return row


@resource.get(
    "/users/{user_id}/application_credentials",
    policy="identity:list_application_credentials",
    guarded=True,
    query=Parameters("name"),
)
def list_all(ctx: Context, user_id: str) -> Page:
    """List the application credentials of a user."""
    ctx.enforce(ctx.operation, {"user_id": user_id})
    no_further(ctx)
    found = _listing.page(ctx, sa.select(table).where(table.c.user_id == user_id))
    return Page(_views(ctx, found.rows), found.next_marker)


@resource.get(
    "/users/{user_id}/application_credentials/{application_credential_id}",
    policy="identity:get_application_credential",
    guarded=True,
    wraps="application_credential",
)
def show(ctx: Context, user_id: str, application_credential_id: str) -> ApplicationCredential:
    """Show an application credential, without its secret."""
    return _views(ctx, [_seen(ctx, user_id, application_credential_id)])[0]


@resource.delete(
    "/users/{user_id}/application_credentials/{application_credential_id}",
    policy="identity:delete_application_credential",
    guarded=True,
)
def delete(ctx: Context, user_id: str, application_credential_id: str) -> None:
    """Delete an application credential; its tokens are void."""
    row = _seen(ctx, user_id, application_credential_id)
    _unrestricted(ctx)
    ctx.tx.execute(sa.delete(table).where(table.c.id == row.id))
    ctx.tx.changed("identity.application_credential", row.id)
    revision.grow(ctx.tx)


@resource.post(
    "/users/{user_id}/application_credentials",
    policy="identity:create_application_credential",
    guarded=True,
    accepts="application_credential",
    wraps="application_credential",
    status=201,
)
async def create(ctx: Request, user_id: str, body: ApplicationCredentialCreate) -> ApplicationCredential:
    """Create an application credential for the project of the caller's token, and give its secret this once."""
    ctx.enforce(ctx.operation, {"user_id": user_id})
    no_further(ctx)
    _unrestricted(ctx)
    if ctx.auth.user_id != user_id:
        raise Forbidden("Cannot create an application credential for another user.")
    if ctx.auth.project_id is None:
        raise BadRequest("An application credential is made with a token for its project.")
    secret = body.secret or _fresh_secret(ctx)
    hashed = await ctx.slow(lambda: passwords.digest(secret))

    def write(ctx: Context) -> ApplicationCredential:
        key = _insert(ctx, body, hashed)
        made = _views(ctx, [credentials.get(ctx.tx, key)])[0]
        made.secret = secret
        return made

    return await ctx.write(write)


def _fresh_secret(ctx: Request) -> str:
    drawn = ctx.seams.random.getrandbits(8 * _SECRET_BYTES).to_bytes(_SECRET_BYTES, "big")
    return base64.urlsafe_b64encode(drawn).rstrip(b"=").decode()


def _insert(ctx: Context, body: ApplicationCredentialCreate, hashed: str) -> str:
    tx, user_id = ctx.tx, ctx.auth.user_id
    keys = _roles(ctx, body)
    expires_at = expiry.parse(body.expires_at or None, ctx.now)
    name = body.name.strip()
    if credentials.find_named(tx, user_id, name) is not None:
        raise Conflict(
            f"Conflict occurred attempting to store application_credential - Duplicate entry found with name {name}."
        )
    key = tx.seams.hex()
    rules = _limits(tx, user_id, body.access_rules or [])
    tx.execute(
        sa.insert(table).values(
            id=key,
            user_id=user_id,
            project_id=ctx.auth.project_id,
            name=name,
            name_key=names.key(name),
            description=body.description,
            secret_hash=hashed,
            role_ids=keys,
            access_rules=rules,
            unrestricted=bool(body.unrestricted),
            expires_at=expires_at,
            created_at=ctx.now,
        )
    )
    if rules:
        tx.insert(access_rules.use, [{"credential_id": key, "access_rule_id": one["id"]} for one in rules])
    tx.changed("identity.application_credential", key)
    return key


def _roles(ctx: Context, body: ApplicationCredentialCreate) -> list[str]:
    """The ids of the roles to be carried, those that they imply included: of the token's roles some, or else all.

    Raises BadRequest for a role that the token has not got.
    """
    have = [key for key, _ in ctx.auth.token.roles]
    if not body.roles:
        return have
    wanted = [row.id for row in effective(ctx.tx, role_ids(ctx.tx, body.roles))]
    if not wanted or not set(wanted) <= set(have):
        raise BadRequest("Invalid application credential: Cannot create an application credential with unassigned role")
    return wanted


def _limits(tx: Tx, user_id: str, rules: list[AccessRuleReference]) -> list[dict[str, str]]:
    """The access rules that a credential is limited to; without any it is not limited."""
    wanted = [{name: value for name, value in msgspec.to_builtins(one).items() if name != "links"} for one in rules]
    return access_rules.ensure(tx, user_id, wanted)

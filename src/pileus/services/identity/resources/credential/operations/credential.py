"""Operations on credentials (https://docs.openstack.org/api-ref/identity/v3/#credentials)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.listing import Filter, Listing
from pileus.services.identity.resources.attribute import extended, further, link, missing, permit
from pileus.services.identity.resources.credential import table as credentials
from pileus.services.identity.resources.credential.fields import Credential, CredentialCreate, CredentialUpdate
from pileus.services.identity.resources.credential.policy import RULES
from pileus.services.identity.resources.credential.table import EC2, table
from pileus.services.identity.resources.delegation import own_only
from pileus.services.identity.resources.secret import Secrets

_ACT = "see or change credentials"

_FIXED = ("trust_id", "app_cred_id", "access_token_id", "access_id")
"""What an EC2 credential acts by: it cannot be made to act by something else."""

resource = Resource("credential", "credentials", rules=RULES)

_listing = Listing(
    table,
    filters={"user_id": Filter(table.c.user_id), "type": Filter(table.c.type)},
    sort={"id": table.c.id},
    maximum=None,
)


def _view(ctx: Context, row: sa.Row[Any]) -> Credential:
    credential = Credential(
        id=row.id,
        user_id=row.user_id,
        project_id=row.project_id,
        type=row.type,
        blob=ctx.of(Secrets).open(ctx.tx, row),
        links=link(ctx, "credentials", row.id),
    )
    return extended(credential, row.extra)


def _target(row: sa.Row[Any] | None) -> Mapping[str, Any] | None:
    if row is None:
        return None
    return {"id": row.id, "user_id": row.user_id, "project_id": row.project_id, "type": row.type}


def _seen(ctx: Context, key: str) -> sa.Row[Any]:
    """The credential that a request is about."""
    row = credentials.find(ctx.tx, key)
    permit(ctx, ctx.operation, credential=_target(row))
    own_only(ctx, _ACT)
    if row is None:
        raise missing("credential", key)
    return row


def _ec2_blob(blob: str) -> dict[str, Any]:
    """What an EC2 credential holds. Raises BadRequest unless it is an object with an access key."""
    try:
        found = msgspec.json.decode(blob)
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest("Invalid blob in credential") from None
    if not isinstance(found, dict) or not isinstance(found.get("access"), str):
        raise BadRequest("Expecting to find access in the blob of an EC2 credential, as a JSON object.")
    return found


@resource.get("/credentials", policy="identity:list_credentials", guarded=True, query=Parameters("user_id", "type"))
def list_all(ctx: Context) -> Page:
    """List credentials: the caller's own, and those of others for who may see them."""
    permit(ctx, ctx.operation, credential=None if ctx.auth.system_scope else {"user_id": ctx.auth.user_id})
    if ctx.auth.delegated:
        return Page([])
    query = sa.select(table)
    if not ctx.allows("identity:get_credential", {"target.credential.user_id": ""}):
        query = query.where(table.c.user_id == ctx.auth.user_id)
    found = _listing.page(ctx, query)
    seen = [row for row in found.rows if _sees(ctx, row)]
    return Page([_view(ctx, row) for row in seen], found.next_marker)


def _sees(ctx: Context, row: sa.Row[Any]) -> bool:
    target = _target(row) or {}
    return ctx.allows("identity:get_credential", {f"target.credential.{name}": part for name, part in target.items()})


@resource.get("/credentials/{credential_id}", policy="identity:get_credential", guarded=True, wraps="credential")
def show(ctx: Context, credential_id: str) -> Credential:
    """Show a credential, with what it holds."""
    return _view(ctx, _seen(ctx, credential_id))


@resource.post(
    "/credentials",
    policy="identity:create_credential",
    guarded=True,
    accepts="credential",
    wraps="credential",
    status=201,
)
def create(ctx: Context, body: CredentialCreate) -> Credential:
    """Create a credential. One for the EC2 API is known by its access key."""
    project_id = None if body.project_id is UNSET else body.project_id
    permit(
        ctx,
        ctx.operation,
        credential={"user_id": body.user_id, "project_id": project_id, "type": body.type},
    )
    own_only(ctx, _ACT)
    key = ctx.tx.seams.hex()
    if body.type.lower() == EC2:
        if body.project_id is UNSET:
            raise BadRequest("'project_id' is a required property of an EC2 credential.")
        key = credentials.key_of(_ec2_blob(body.blob)["access"])
    row = credentials.insert(
        ctx,
        key,
        user_id=body.user_id,
        project_id=project_id,
        type=body.type,
        blob=body.blob,
        extra=further(ctx),
    )
    return _view(ctx, row)


@resource.patch(
    "/credentials/{credential_id}",
    policy="identity:update_credential",
    guarded=True,
    accepts="credential",
    wraps="credential",
)
def update(ctx: Context, credential_id: str, body: CredentialUpdate) -> Credential:
    """Change what a credential holds."""
    row = _seen(ctx, credential_id)
    secrets = ctx.of(Secrets)
    if row.type.lower() == EC2:
        old, new = msgspec.json.decode(secrets.open(ctx.tx, row)), _ec2_blob(body.blob)
        for name in _FIXED:
            if old.get(name) != new.get(name):
                raise BadRequest(f"{name} can not be updated for credential")
    ctx.tx.execute(sa.update(table).where(table.c.id == row.id).values(**secrets.seal(ctx.tx, body.blob)))
    ctx.tx.changed("identity.credential", row.id)
    return _view(ctx, _seen(ctx, credential_id))


@resource.delete("/credentials/{credential_id}", policy="identity:delete_credential", guarded=True)
def delete(ctx: Context, credential_id: str) -> None:
    """Delete a credential."""
    credentials.delete(ctx.tx, _seen(ctx, credential_id).id)

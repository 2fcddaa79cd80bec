"""Operations on the keys of the EC2 API (https://docs.openstack.org/api-ref/identity/v3/#credentials, OS-EC2).

Tokens for EC2 and S3 signatures are switched off here: asking for one is answered as upstream does where they are.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import Unavailable
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import link, missing, permit
from pileus.services.identity.resources.credential import table as credentials
from pileus.services.identity.resources.credential.fields import Ec2Credential, Ec2CredentialCreate
from pileus.services.identity.resources.credential.policy import EC2_RULES
from pileus.services.identity.resources.credential.table import EC2, table
from pileus.services.identity.resources.delegation import own_only
from pileus.services.identity.resources.secret import Secrets

_ACT = "see or change EC2 keys"

resource = Resource("credential", "credentials", rules=EC2_RULES)


def _view(ctx: Context, row: sa.Row[Any]) -> Ec2Credential:
    blob = msgspec.json.decode(ctx.of(Secrets).open(ctx.tx, row))
    access = str(blob["access"])
    return Ec2Credential(
        access=access,
        secret=str(blob.get("secret") or ""),
        user_id=row.user_id,
        tenant_id=row.project_id,
        trust_id=blob.get("trust_id"),
        links=link(ctx, f"users/{row.user_id}/credentials/OS-EC2", access),
    )


def _seen(ctx: Context, user_id: str, access: str) -> sa.Row[Any]:
    """The keys that a request is about. Raises NotFound before Forbidden, as upstream does."""
    row = credentials.find(ctx.tx, credentials.key_of(access))
    if row is None or row.type.lower() != EC2:
        ctx.allows(ctx.operation, {})
        raise missing("credential", access)
    permit(ctx, ctx.operation, credential={"user_id": row.user_id})
    own_only(ctx, _ACT)
    if row.user_id != user_id:
        raise missing("credential", access)
    return row


@resource.get("/users/{user_id}/credentials/OS-EC2", policy="identity:ec2_list_credentials", guarded=True)
def list_all(ctx: Context, user_id: str) -> Page:
    """List the EC2 keys of a user."""
    ctx.enforce(ctx.operation, {"user_id": user_id})
    own_only(ctx, _ACT)
    users.get(ctx.tx, user_id)
    mine = sa.select(table).where(table.c.user_id == user_id, sa.func.lower(table.c.type) == EC2)
    return Page([_view(ctx, row) for row in ctx.tx.all(mine.order_by(table.c.id))])


@resource.post(
    "/users/{user_id}/credentials/OS-EC2",
    policy="identity:ec2_create_credential",
    guarded=True,
    wraps="credential",
    status=201,
)
def create(ctx: Context, user_id: str, body: Ec2CredentialCreate) -> Ec2Credential:
    """Create a pair of EC2 keys for a user, to a project."""
    permit(ctx, ctx.operation, credential={"user_id": user_id})
    own_only(ctx, _ACT)
    if body.tenant_id is None:
        raise missing("project", "None")
    blob = {"access": ctx.seams.hex(), "secret": ctx.seams.hex(), "trust_id": None}
    row = credentials.insert(
        ctx,
        credentials.key_of(str(blob["access"])),
        user_id=user_id,
        project_id=body.tenant_id,
        type=EC2,
        blob=msgspec.json.encode(blob).decode(),
        extra={},
    )
    return _view(ctx, row)


@resource.get(
    "/users/{user_id}/credentials/OS-EC2/{credential_id}",
    policy="identity:ec2_get_credential",
    guarded=True,
    wraps="credential",
)
def show(ctx: Context, user_id: str, credential_id: str) -> Ec2Credential:
    """Show a pair of EC2 keys, named by its access key."""
    return _view(ctx, _seen(ctx, user_id, credential_id))


@resource.delete(
    "/users/{user_id}/credentials/OS-EC2/{credential_id}", policy="identity:ec2_delete_credential", guarded=True
)
def delete(ctx: Context, user_id: str, credential_id: str) -> None:
    """Delete a pair of EC2 keys."""
    credentials.delete(ctx.tx, _seen(ctx, user_id, credential_id).id)


@resource.post("/ec2tokens", policy="identity:ec2tokens_validate", writes=False)
def ec2_token(ctx: Context) -> None:
    """Refuse to make a token of an EC2 signature: that is switched off. Raises Unavailable."""
    raise Unavailable("Cannot make a token of an EC2 credential: the method ec2credential is not enabled.")


@resource.post("/s3tokens", policy="identity:s3tokens_validate", writes=False)
def s3_token(ctx: Context) -> None:
    """Refuse to make a token of an S3 signature: that is switched off. Raises Unavailable."""
    raise Unavailable("Cannot make a token of an S3 credential: the method ec2credential is not enabled.")

"""Policies: files of rules that other services may fetch (https://docs.openstack.org/api-ref/identity/v3/#policies).

Identity keeps them and understands none: what is in force is each service's own.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.fields import OpenBody, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources.attribute import (
    CLOUD_ADMIN,
    CLOUD_ADMIN_OR_SYSTEM_READER,
    Links,
    extended,
    found,
    further,
    link,
    page,
    same_id,
    save,
    something,
)

MediaType = Annotated[str, msgspec.Meta(max_length=255)]

table = sa.Table(
    "identity_policy",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(255), nullable=False),
    sa.Column("blob", sa.Text, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
)


class PolicyView(View):
    """A policy: its rules, and the media type that they are in."""

    id: str
    type: str
    blob: str
    links: Links


class PolicyCreate(OpenBody):
    """A new policy."""

    blob: str
    type: MediaType


class PolicyUpdate(OpenBody):
    """What is to be changed of a policy."""

    blob: str | UnsetType = UNSET
    type: MediaType | UnsetType = UNSET


resource = Resource(
    "policy",
    "policies",
    rules=[
        Rule("identity:get_policy", CLOUD_ADMIN_OR_SYSTEM_READER, "Show a policy"),
        Rule("identity:list_policies", CLOUD_ADMIN_OR_SYSTEM_READER, "List policies"),
        Rule("identity:create_policy", CLOUD_ADMIN, "Create a policy"),
        Rule("identity:update_policy", CLOUD_ADMIN, "Update a policy"),
        Rule("identity:delete_policy", CLOUD_ADMIN, "Delete a policy"),
    ],
)

_listing = Listing(table, filters={"type": Filter(table.c.type)}, sort={"id": table.c.id}, maximum=None)


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A policy. Raises NotFound."""
    return found(tx, table, "policy", key)


def view(ctx: Context, row: sa.Row[Any]) -> PolicyView:
    """A row as a policy."""
    policy = PolicyView(id=row.id, type=row.type, blob=row.blob, links=link(ctx, "policies", row.id))
    return extended(policy, row.extra)


@resource.get("/policies", policy="identity:list_policies")
def list_all(ctx: Context) -> Page:
    """List policies."""
    return page(ctx, _listing, sa.select(table), view)


@resource.get("/policies/{policy_id}", policy="identity:get_policy", wraps="policy")
def show(ctx: Context, policy_id: str) -> PolicyView:
    """Show a policy."""
    return view(ctx, get(ctx.tx, policy_id))


@resource.post("/policies", policy="identity:create_policy", accepts="policy", wraps="policy", status=201)
def create(ctx: Context, body: PolicyCreate) -> PolicyView:
    """Create a policy."""
    key = ctx.seams.hex()
    ctx.tx.insert(table, {"id": key, "type": body.type, "blob": body.blob, "extra": further(ctx)})
    ctx.tx.changed("identity.policy", key)
    return view(ctx, get(ctx.tx, key))


@resource.patch("/policies/{policy_id}", policy="identity:update_policy", accepts="policy", wraps="policy")
def update(ctx: Context, policy_id: str, body: PolicyUpdate) -> PolicyView:
    """Change a policy."""
    row = get(ctx.tx, policy_id)
    same_id(ctx, policy_id)
    something(given(body), ctx, "policy")
    save(ctx, table, "policy", row, given(body))
    return view(ctx, get(ctx.tx, policy_id))


@resource.delete("/policies/{policy_id}", policy="identity:delete_policy")
def delete(ctx: Context, policy_id: str) -> None:
    """Delete a policy; nothing is associated with it any longer."""
    get(ctx.tx, policy_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == policy_id))
    ctx.tx.changed("identity.policy", policy_id)

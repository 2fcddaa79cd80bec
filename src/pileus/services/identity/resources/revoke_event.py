"""Revocation events (https://docs.openstack.org/api-ref/identity/v3-ext/#os-revoke-api).

They tell others which tokens are void.  Identity itself does not go by them: a token holds the generations of its user
and its scope, and is void when these have grown, whatever a clock says.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.context import Context
from pileus.core.fields import View
from pileus.core.listing import instant
from pileus.core.policy import Rule
from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources.attribute import CLOUD_ADMIN

RETENTION = timedelta(days=7)
"""How long an event is kept: longer than a token can be good."""

table = sa.Table(
    "identity_revoke_event",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("revoked_at", Instant, nullable=False, index=True),
    sa.Column("user_id", sa.String(64)),
    sa.Column("project_id", sa.String(64)),
    sa.Column("domain_id", sa.String(64)),
    sa.Column("audit_id", sa.String(32)),
    sa.Column("audit_chain_id", sa.String(32)),
    sa.Column("trust_id", sa.String(64)),
    sa.Column("access_token_id", sa.String(64)),
)


class RevokeEvent(View):
    """What the tokens that are void have in common: all that were issued before, and that fit each of the ids."""

    issued_before: str
    user_id: str | UnsetType = UNSET
    project_id: str | UnsetType = UNSET
    domain_id: str | UnsetType = UNSET
    audit_id: str | UnsetType = UNSET
    audit_chain_id: str | UnsetType = UNSET
    trust_id: str | UnsetType = msgspec.field(name="OS-TRUST:trust_id", default=UNSET)
    access_token_id: str | UnsetType = msgspec.field(name="OS-OAUTH1:access_token_id", default=UNSET)


resource = Resource(
    "event",
    "events",
    rules=[
        Rule(
            "identity:list_revoke_events",
            f"{CLOUD_ADMIN} or (rule:service_role and domain_id:None)",
            "List revocation events",
        ),
    ],
)


def note(tx: Tx, **what: str) -> None:
    """Write an event, and forget those of long ago. `what` are columns of the table: `user_id`, `project_id`, …"""
    tx.execute(sa.delete(table).where(table.c.revoked_at < tx.now - RETENTION))
    tx.insert(table, {"id": tx.seams.hex(), "revoked_at": tx.now, **what})


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _view(row: sa.Row[Any]) -> RevokeEvent:
    names = [name for name in RevokeEvent.__struct_fields__ if name != "issued_before"]
    held = {name: value for name in names if (value := getattr(row, name)) is not None}
    return RevokeEvent(issued_before=_moment(row.revoked_at), **held)


@resource.get("/OS-REVOKE/events", policy="identity:list_revoke_events", query=Parameters("since"))
def list_all(ctx: Context) -> Reply:
    """List the events, oldest first; those of `since` and later when that is given."""
    query = sa.select(table).order_by(table.c.revoked_at, table.c.id)
    since = ctx.query.get("since")
    if since:
        query = query.where(table.c.revoked_at >= instant(since))
    links = {"next": None, "self": f"{ctx.url}/v3/OS-REVOKE/events", "previous": None}
    return Reply({"events": [_view(row) for row in ctx.tx.all(query)], "links": links})

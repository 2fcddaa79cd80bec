"""Rows of consumers, of their request and access tokens, and of nonces; secrets are sealed."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pileus.core.statement import at
from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources import secret as secrets
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules.signature import WINDOW

REQUEST_LIFETIME = timedelta(hours=8)
"""How long a request token is good."""

ACCESS_LIFETIME = timedelta(hours=24)
"""How long an access token is good."""

consumer = secrets.holds(
    sa.Table(
        "identity_consumer",
        metadata,
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("description", sa.Text),
        *secrets.columns(),
        sa.Column("extra", sa.JSON, nullable=False),
    )
)


def _token(name: str, *more: sa.Column[Any]) -> sa.Table:
    return secrets.holds(
        sa.Table(
            name,
            metadata,
            sa.Column("id", sa.String(64), primary_key=True),
            sa.Column(
                "consumer_id",
                sa.String(64),
                sa.ForeignKey(consumer.c.id, ondelete="CASCADE"),
                nullable=False,
                index=True,
            ),
            sa.Column(
                "project_id",
                sa.String(64),
                sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"),
                nullable=False,
                index=True,
            ),
            sa.Column(
                "authorizing_user_id",
                sa.String(64),
                sa.ForeignKey(users.table.c.id, ondelete="CASCADE"),
                index=True,
            ),
            sa.Column("role_ids", sa.JSON, nullable=False),
            sa.Column("expires_at", Instant, nullable=False, index=True),
            *secrets.columns(),
            *more,
        )
    )


request_token = _token("identity_request_token", sa.Column("verifier", sa.String(16)))
"""`authorizing_user_id` and `verifier` are null until a user has authorized it."""

access_token = _token("identity_access_token")

nonce = sa.Table(
    "identity_nonce",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("expires_at", Instant, nullable=False, index=True),
)
"""What was signed once must not be sent again; kept for as long as its timestamp is near enough."""


def find(tx: Tx, table: sa.Table, key: str) -> sa.Row[Any] | None:
    """A consumer or token, None when there is no such."""
    return tx.first(at(table, "id"), {"value": key})


def first_time(tx: Tx, *parts: str) -> bool:
    """Note that something was signed; whether it was for the first time. Forgets what is too old to be sent again."""
    tx.execute(sa.delete(nonce).where(nonce.c.expires_at < tx.now))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return tx.insert_missing(nonce, {"digest": digest, "expires_at": tx.now + 2 * WINDOW}, key=("digest",))


def forget_requests(tx: Tx, before: datetime) -> None:
    """Take away request tokens that ended before a time."""
    tx.execute(sa.delete(request_token).where(request_token.c.expires_at < before))

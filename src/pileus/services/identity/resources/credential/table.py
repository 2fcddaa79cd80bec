"""Rows of credentials; what they hold is sealed."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import Conflict
from pileus.core.statement import at
from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources import secret as secrets
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import missing
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.secret import Secrets

EC2 = "ec2"
"""The type of credentials that hold a pair of keys for the EC2 API."""

table = secrets.holds(
    sa.Table(
        "identity_credential",
        metadata,
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column(
            "user_id", sa.String(64), sa.ForeignKey(users.table.c.id, ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("project_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), index=True),
        sa.Column("type", sa.String(255), nullable=False),
        *secrets.columns(),
        sa.Column("extra", sa.JSON, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
    )
)


def key_of(access: str) -> str:
    """The id of the credential that holds an EC2 access key."""
    return hashlib.sha256(access.encode()).hexdigest()


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A credential, None when there is no such."""
    return tx.first(at(table, "id"), {"value": key})


def insert(
    ctx: Context, key: str, *, user_id: str, project_id: str | None, type: str, blob: str, extra: dict[str, Any]
) -> sa.Row[Any]:
    """Write a new credential. Raises NotFound for a user or project that is not there, Conflict for a known id."""
    tx = ctx.tx
    if users.find(tx, user_id) is None:
        raise missing("user", user_id)
    if project_id is not None and projects.find(tx, project_id) is None:
        raise missing("project", project_id)
    if find(tx, key) is not None:
        raise Conflict(f"Conflict occurred attempting to store credential - Duplicate entry found with ID {key}.")
    row = {"id": key, "user_id": user_id, "project_id": project_id, "type": type, "extra": extra, "created_at": tx.now}
    tx.insert(table, {**row, **ctx.of(Secrets).seal(tx, blob)})
    tx.changed("identity.credential", key)
    written = find(tx, key)
    if written is None:
        raise missing("credential", key)
    return written


def delete(tx: Tx, key: str) -> None:
    """Take a credential away."""
    tx.execute(sa.delete(table).where(table.c.id == key))
    tx.changed("identity.credential", key)

"""Rows of application credentials."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import found
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules import name as names

table = sa.Table(
    "identity_application_credential",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), sa.ForeignKey(users.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("project_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(names.KEY_LENGTH), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("secret_hash", sa.String(255), nullable=False),
    sa.Column("role_ids", sa.JSON, nullable=False),
    sa.Column("access_rules", sa.JSON, nullable=False),
    sa.Column("unrestricted", sa.Boolean, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.UniqueConstraint("user_id", "name_key"),
    sa.Index("ix_identity_application_credential_project_id", "project_id"),
)

_BY_ID = sa.select(table).where(table.c.id == sa.bindparam("key"))


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """An application credential, None when there is no such."""
    return tx.execute(_BY_ID, {"key": key}).first()


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """An application credential. Raises NotFound."""
    return found(tx, table, "application credential", key)


def find_named(tx: Tx, user_id: str, name: str) -> sa.Row[Any] | None:
    """The application credential of a name that a user has, None when there is no such."""
    return tx.first(sa.select(table).where(table.c.user_id == user_id, table.c.name_key == names.key(name)))

"""Migrations: what was moved or resized, and how far it came.

https://docs.openstack.org/api-ref/compute/#migrations-os-migrations
https://docs.openstack.org/api-ref/compute/#server-migrations-servers-migrations
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata

migration = sa.Table(
    "compute_migration",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(64), nullable=False, unique=True),
    sa.Column("server_id", sa.String(64), sa.ForeignKey("compute_server.id"), nullable=False, index=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("source_host", sa.String(255)),
    sa.Column("dest_host", sa.String(255)),
    sa.Column("old_flavor_id", sa.String(255), nullable=False),
    sa.Column("new_flavor_id", sa.String(255), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant),
    sa.Index("ix_compute_migration_created_at", "created_at"),
)
"""`type` and `status` are upstream's words.  The uuid is the consumer in Placement that holds what a resized server had
before, until it is confirmed."""


def begin(tx: Tx, row: sa.Row[Any], kind: str, old: str, new: str, user_id: str) -> str:
    """Note that a server is being moved or resized, from and to its host; the migration's uuid."""
    uuid = tx.seams.uuid()
    values = {
        "uuid": uuid,
        "server_id": row.id,
        "project_id": row.project_id,
        "user_id": user_id,
        "type": kind,
        "status": "migrating",
        "source_host": row.host,
        "dest_host": row.host,
        "old_flavor_id": old,
        "new_flavor_id": new,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    tx.execute(sa.insert(migration).values(values))
    return uuid


def finish(tx: Tx, uuid: str, status: str) -> None:
    """Note how far a migration has come."""
    tx.execute(sa.update(migration).where(migration.c.uuid == uuid).values(status=status, updated_at=tx.now))

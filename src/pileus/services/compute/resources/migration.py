"""Migrations: what was moved or resized, and how far it came.

https://docs.openstack.org/api-ref/compute/#migrations-os-migrations
https://docs.openstack.org/api-ref/compute/#server-migrations-servers-migrations
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import Instant, metadata

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

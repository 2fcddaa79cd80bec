"""Hosts: machines on which an agent runs.

They have no API of their own; Compute shows them as services and hypervisors
(https://docs.openstack.org/api-ref/compute/#compute-services-os-services).
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import Instant, metadata

host = sa.Table(
    "fleet_host",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("network_filter", sa.String(32), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("disabled_reason", sa.String(255)),
    sa.Column("forced_down", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant),
    sa.Column("seen_at", Instant, nullable=False),
)
"""`seen_at` is when an agent was last heard, to about a minute: heartbeats themselves stay in memory."""

store = sa.Table(
    "fleet_store",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("store_id", sa.String(64), nullable=False),
    sa.Column("incarnation", sa.String(64), nullable=False, unique=True),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("at", Instant, nullable=False),
)
"""The store's identity, and one row for each run of the control plane on it."""

"""The table of routers. Their legs are ports with the router as their device."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import metadata
from pileus.services.network.resources.standard_attribute import columns

TOPIC = "network.router"

router = sa.Table(
    "network_router",
    metadata,
    *columns(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("enable_snat", sa.Boolean, nullable=False),
    sa.Column("gateway_network_id", sa.String(64), sa.ForeignKey("network_network.id"), index=True),
    sa.Column("gateway_port_id", sa.String(64)),
    sa.Column("routes", sa.JSON, nullable=False),
    sa.Column("availability_zone_hints", sa.JSON, nullable=False),
    sa.Column("host_id", sa.String(64), index=True),
)
"""`host_id` is the host of the fleet that routes."""

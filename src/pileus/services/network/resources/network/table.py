"""The table of networks."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import metadata
from pileus.services.network.resources.standard_attribute import columns

TOPIC = "network.network"

network = sa.Table(
    "network_network",
    metadata,
    *columns(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("external", sa.Boolean, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("mtu", sa.Integer, nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64), unique=True),
    sa.Column("dns_domain", sa.String(255), nullable=False),
    sa.Column("availability_zone_hints", sa.JSON, nullable=False),
)
"""Networks of the type `flat` name a physical network, which no two of them share; all others are `local`."""

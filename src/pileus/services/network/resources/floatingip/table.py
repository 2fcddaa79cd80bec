"""The table of floating IPs. The address itself belongs to a port of the cloud on the external network."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import metadata
from pileus.services.network.resources.standard_attribute import columns

TOPIC = "network.floatingip"

floatingip = sa.Table(
    "network_floatingip",
    metadata,
    *columns(),
    sa.Column("floating_network_id", sa.String(64), sa.ForeignKey("network_network.id"), nullable=False, index=True),
    sa.Column("floating_ip_address", sa.String(64), nullable=False),
    sa.Column("floating_port_id", sa.String(64), nullable=False),
    sa.Column("port_id", sa.String(64), sa.ForeignKey("network_port.id")),
    sa.Column("fixed_ip_address", sa.String(64)),
    sa.Column("router_id", sa.String(64), sa.ForeignKey("network_router.id"), index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.UniqueConstraint("port_id", "fixed_ip_address"),
)
"""`port_id` and `fixed_ip_address` are what it leads to, by `router_id`; all null when it leads nowhere."""

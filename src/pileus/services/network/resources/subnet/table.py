"""The table of subnets."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import metadata
from pileus.services.network.resources.standard_attribute import columns

TOPIC = "network.subnet"

subnet = sa.Table(
    "network_subnet",
    metadata,
    *columns(),
    sa.Column("network_id", sa.String(64), sa.ForeignKey("network_network.id"), nullable=False, index=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("cidr", sa.String(64), nullable=False),
    sa.Column("gateway_ip", sa.String(64)),
    sa.Column("enable_dhcp", sa.Boolean, nullable=False),
    sa.Column("ipv6_ra_mode", sa.String(16)),
    sa.Column("ipv6_address_mode", sa.String(16)),
    sa.Column("allocation_pools", sa.JSON, nullable=False),
    sa.Column("dns_nameservers", sa.JSON, nullable=False),
    sa.Column("host_routes", sa.JSON, nullable=False),
    sa.Column("cursor", sa.String(64)),
    sa.Column("subnetpool_id", sa.String(64), index=True),
)
"""`cursor` is the address that was given last; the search for the next one begins behind it.  `subnetpool_id` is the
pool that the prefix is out of; a pool stays as long as it has subnets."""

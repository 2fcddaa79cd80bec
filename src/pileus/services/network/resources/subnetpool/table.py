"""The table of subnet pools."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import metadata
from pileus.services.network.resources.standard_attribute import columns

TOPIC = "network.subnetpool"

subnetpool = sa.Table(
    "network_subnetpool",
    metadata,
    *columns(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("prefixes", sa.JSON, nullable=False),
    sa.Column("min_prefixlen", sa.Integer, nullable=False),
    sa.Column("default_prefixlen", sa.Integer, nullable=False),
    sa.Column("max_prefixlen", sa.Integer, nullable=False),
    sa.Column("default_quota", sa.BigInteger),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("default_of", sa.Integer, unique=True),
    sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("address_scope_id", sa.String(64), sa.ForeignKey("network_address_scope.id"), index=True),
)
"""`default_of` is the IP version of the default pool, of which there is one for each; null for all others."""

"""The tables of security groups and their rules."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import metadata
from pileus.services.network.resources.standard_attribute import columns

TOPIC = "network.security_group"
MEMBER = "network.security_group_member"
"""Topic of the change log whose keys are the ids of groups that have other members than before."""

group = sa.Table(
    "network_security_group",
    metadata,
    *columns(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("stateful", sa.Boolean, nullable=False),
    sa.Column("default_of", sa.String(255), unique=True),
)
"""`default_of` names the project whose default group this is."""

rule = sa.Table(
    "network_security_group_rule",
    metadata,
    *columns(),
    sa.Column(
        "group_id", sa.String(64), sa.ForeignKey("network_security_group.id", ondelete="CASCADE"), nullable=False
    ),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("ethertype", sa.String(8), nullable=False),
    sa.Column("protocol", sa.String(40)),
    sa.Column("port_range_min", sa.Integer),
    sa.Column("port_range_max", sa.Integer),
    sa.Column("remote_ip_prefix", sa.String(255)),
    sa.Column("normalized_cidr", sa.String(64)),
    sa.Column("remote_group_id", sa.String(64), sa.ForeignKey("network_security_group.id"), index=True),
    sa.Column("protocol_number", sa.Integer),
    sa.Column("fingerprint", sa.String(255), nullable=False),
    sa.UniqueConstraint("group_id", "fingerprint"),
)
"""`fingerprint` is the same for two rules that let the same through: a group has each but once."""

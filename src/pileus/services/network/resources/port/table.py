"""The tables of ports: ports, their addresses, their security groups."""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import Instant, metadata
from pileus.services.network.resources.standard_attribute import columns

TOPIC = "network.port"

port = sa.Table(
    "network_port",
    metadata,
    *columns(),
    sa.Column("network_id", sa.String(64), sa.ForeignKey("network_network.id"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("mac_address", sa.String(17), nullable=False),
    sa.Column("device_id", sa.String(255), nullable=False, index=True),
    sa.Column("device_owner", sa.String(255), nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("allowed_address_pairs", sa.JSON, nullable=False),
    sa.Column("extra_dhcp_opts", sa.JSON, nullable=False),
    sa.Column("dns_name", sa.String(255), nullable=False),
    sa.Column("hostname", sa.String(255), nullable=False),
    sa.Column("transient", sa.Boolean, nullable=False),
    sa.Column("attached_at", Instant),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("vnic_type", sa.String(64), nullable=False),
    sa.Column("binding_profile", sa.JSON, nullable=False),
    sa.Column("binding_host", sa.String(255), nullable=False),
    sa.Column("host_id", sa.String(64), index=True),
    sa.UniqueConstraint("network_id", "mac_address"),
    sa.Index("ix_network_port_place", "network_id", "host_id"),
)
"""`host_id` is the host of the fleet that holds the port, `binding_host` the name that `binding:host_id` shows.

`transient` ports were made for a server and go with it.  `attached_at` and `position` say in which order a server has
its ports, `hostname` is the name of that server.
"""

address = sa.Table(
    "network_address",
    metadata,
    sa.Column("subnet_id", sa.String(64), sa.ForeignKey("network_subnet.id"), primary_key=True),
    sa.Column("packed", sa.LargeBinary(16), primary_key=True),
    sa.Column("ip_address", sa.String(64), nullable=False),
    sa.Column(
        "port_id", sa.String(64), sa.ForeignKey("network_port.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("position", sa.Integer, nullable=False),
)
"""`packed` is the address in network order: it sorts like the number. Subnets of a network never overlap."""

port_group = sa.Table(
    "network_port_group",
    metadata,
    sa.Column("port_id", sa.String(64), sa.ForeignKey("network_port.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("group_id", sa.String(64), sa.ForeignKey("network_security_group.id"), primary_key=True, index=True),
)

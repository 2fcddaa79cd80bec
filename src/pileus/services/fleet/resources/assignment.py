"""Assignments: objects that a host shall hold, and what was observed of them.

Internal to the cloud; what comes closest upstream is the request that Compute's API sends to a host
(https://docs.openstack.org/api-ref/compute/#servers-servers).
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.store import Instant, metadata

assignment = sa.Table(
    "fleet_assignment",
    metadata,
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("host_id", sa.String(64), sa.ForeignKey("fleet_host.id"), primary_key=True, index=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("spec", sa.LargeBinary),
    sa.Column("tombstone", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("observed_generation", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("state", sa.String(32), nullable=False, server_default=""),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("permanent", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("reboot_nonce", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("acts", sa.JSON(none_as_null=True), comment="nonces of the acts that were applied; empty for none"),
    sa.Column("faults", sa.JSON(none_as_null=True), comment="why acts could not be applied; empty for none"),
    sa.Column("nics", sa.JSON(none_as_null=True), comment="ports whose cards the guest has; empty for none"),
    sa.Column("started_at", sa.Float),
    sa.Column("observed_at", Instant),
    sa.Column("request_id", sa.String(64)),
)
"""The upper services own `spec` and `tombstone`, the agent owns what is observed.  `request_id` is that of the request
on account of which the spec is as it is."""

call = sa.Table(
    "fleet_call",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("host_id", sa.String(64), sa.ForeignKey("fleet_host.id"), nullable=False, index=True),
    sa.Column("verb", sa.String(32), nullable=False),
    sa.Column("target", sa.String(64), nullable=False),
    sa.Column("arguments", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("answered", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("output", sa.Text),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
)
"""Questions to hosts that wait for an answer; kept for a minute."""

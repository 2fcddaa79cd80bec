"""Flavors' tables."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata

flavor = sa.Table(
    "compute_flavor",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("ram", sa.BigInteger, nullable=False),
    sa.Column("vcpus", sa.BigInteger, nullable=False),
    sa.Column("disk", sa.BigInteger, nullable=False),
    sa.Column("ephemeral", sa.BigInteger, nullable=False),
    sa.Column("swap", sa.BigInteger, nullable=False),
    sa.Column("rxtx_factor", sa.Float, nullable=False),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant),
)
"""`ram` and `swap` in MiB, `disk` and `ephemeral` in GiB."""

extra_spec = sa.Table(
    "compute_flavor_extra_spec",
    metadata,
    sa.Column("flavor_id", sa.String(255), sa.ForeignKey("compute_flavor.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
)

access = sa.Table(
    "compute_flavor_access",
    metadata,
    sa.Column("flavor_id", sa.String(255), sa.ForeignKey("compute_flavor.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", sa.String(64), primary_key=True),
)


def extra_specs(tx: Tx, ids: Collection[str]) -> dict[str, dict[str, str]]:
    """The extra specs of flavors, by flavor id."""
    found: dict[str, dict[str, str]] = {one: {} for one in ids}
    query = sa.select(extra_spec).where(extra_spec.c.flavor_id.in_(ids)).order_by(extra_spec.c.key)
    for row in tx.all(query) if ids else ():
        found[row.flavor_id][row.key] = row.value
    return found

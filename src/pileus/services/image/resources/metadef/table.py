"""The tables of namespaces and of what belongs to one."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from pileus.core.store import Instant, metadata


def _namespace_id() -> sa.Column[str]:
    foreign = sa.ForeignKey("image_metadef_namespace.id", ondelete="CASCADE")
    return sa.Column("namespace_id", sa.String(64), foreign, primary_key=True)


def _moments() -> list[sa.Column[datetime]]:
    return [sa.Column("created_at", Instant, nullable=False), sa.Column("updated_at", Instant, nullable=False)]


namespace = sa.Table(
    "image_metadef_namespace",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("namespace", sa.String(80), nullable=False, unique=True),
    sa.Column("display_name", sa.String(80)),
    sa.Column("description", sa.Text),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(255), index=True),
    *_moments(),
    sa.Index("ix_image_metadef_namespace_created_at", "created_at"),
)

thing = sa.Table(
    "image_metadef_object",
    metadata,
    _namespace_id(),
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("description", sa.Text),
    sa.Column("required", sa.JSON, comment="names of properties"),
    sa.Column("properties", sa.JSON, comment="definitions by name"),
    *_moments(),
)
"""Objects."""

prop = sa.Table(
    "image_metadef_property",
    metadata,
    _namespace_id(),
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("definition", sa.JSON, nullable=False),
    *_moments(),
)

tag = sa.Table(
    "image_metadef_tag",
    metadata,
    _namespace_id(),
    sa.Column("name", sa.String(80), primary_key=True),
    *_moments(),
)

resource_type = sa.Table(
    "image_metadef_resource_type",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True),
    *_moments(),
)

association = sa.Table(
    "image_metadef_association",
    metadata,
    _namespace_id(),
    sa.Column("name", sa.ForeignKey("image_metadef_resource_type.name"), primary_key=True, index=True),
    sa.Column("prefix", sa.String(80)),
    sa.Column("properties_target", sa.String(80)),
    *_moments(),
)
"""Which resource types a namespace is for."""

loaded = sa.Table(
    "image_metadef_loaded",
    metadata,
    sa.Column("namespace", sa.String(80), primary_key=True),
    sa.Column("at", Instant, nullable=False),
)
"""Namespaces of public definitions that were offered once: what became of them since is the operator's matter."""

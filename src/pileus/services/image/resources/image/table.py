"""The tables of images and of what belongs to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata
from pileus.services.image.resources.store import copy

image = sa.Table(
    "image_image",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255)),
    sa.Column("owner", sa.String(255)),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("os_hidden", sa.Boolean, nullable=False),
    sa.Column("container_format", sa.String(16)),
    sa.Column("disk_format", sa.String(16)),
    sa.Column("min_ram", sa.Integer, nullable=False, comment="MiB"),
    sa.Column("min_disk", sa.Integer, nullable=False, comment="GiB"),
    sa.Column("size", sa.BigInteger, comment="bytes of data"),
    sa.Column("virtual_size", sa.BigInteger, comment="bytes that a guest sees; empty when the data is not a disk"),
    sa.Column("checksum", sa.String(32)),
    sa.Column("os_hash_algo", sa.String(64)),
    sa.Column("os_hash_value", sa.String(128)),
    sa.Column("store", sa.String(64)),
    sa.Column("location", sa.String(1024)),
    sa.Column("data_key", sa.String(128), comment="the upload that the data came by"),
    sa.Column("upload_key", sa.String(128), comment="name in the store under which data is being written"),
    sa.Column("upload_until", Instant, comment="when the upload counts as dead unless it is renewed"),
    sa.Column("location_metadata", sa.JSON, comment="what clients say of the place of the data"),
    sa.Column("copies", sa.Integer, comment="how many stores of the cloud's own hold the data"),
    sa.Column("stage_key", sa.String(128), comment="name under which data waits to be imported, or comes in"),
    sa.Column("stage_size", sa.BigInteger, comment="bytes that wait to be imported; empty until all have come"),
    sa.Column("import_task", sa.String(64), comment="the task that works on the image now"),
    sa.Column("importing", sa.String(1024), comment="stores that an import will write to; empty before the first"),
    sa.Column("failed", sa.String(1024), comment="stores that the last import could not write to"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    # Lists are by owner or visibility, newest first; what is looked for by name is few.
    sa.Index(None, "owner", "created_at", "id"),
    sa.Index(None, "visibility", "created_at", "id"),
    sa.Index(None, "created_at", "id"),
    sa.Index(None, "name"),
    sa.CheckConstraint("status <> 'active' OR location IS NOT NULL", name="active_has_data"),
    sa.CheckConstraint("(status = 'saving') = (upload_key IS NOT NULL)", name="saving_has_key"),
)

prop = sa.Table(
    "image_property",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image_image.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True, index=True),
    sa.Column("value", sa.Text),
)

tag = sa.Table(
    "image_tag",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image_image.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag", sa.String(255), primary_key=True, index=True),
)

member = sa.Table(
    "image_member",
    metadata,
    sa.Column("image_id", sa.ForeignKey("image_image.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("member_id", sa.String(255), primary_key=True, index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)

gone = sa.Table(
    "image_gone",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("at", Instant, nullable=False),
)
"""Ids of deleted images: hosts keep data by id, so that one is never used again."""


@dataclass(slots=True)
class Record:
    """An image with what belongs to it."""

    row: sa.Row[Any]
    properties: dict[str, str | None]
    tags: list[str]
    copies: list[sa.Row[Any]]
    """Further places of the data, besides that of the row itself (`image_copy`)."""


def _children(*columns: sa.Column[Any]) -> sa.Select[Any]:
    """A query for what belongs to the images `ids`; made once, for making it costs as much as running it."""
    owner = columns[0].table.c.image_id
    return sa.select(owner, *columns).where(owner.in_(sa.bindparam("ids", expanding=True))).order_by(columns[0])


_PROPERTIES = _children(prop.c.name, prop.c.value)
_TAGS = _children(tag.c.tag)
_COPIES = (
    sa.select(copy)
    .where(copy.c.image_id.in_(sa.bindparam("ids", expanding=True)), copy.c.location.is_not(None))
    .order_by(copy.c.position, copy.c.id)
)


def records(tx: Tx, rows: Sequence[sa.Row[Any]]) -> list[Record]:
    """Rows with their properties, tags and places, by three queries."""
    found = {row.id: Record(row, {}, [], []) for row in rows}
    if found:
        ids = {"ids": list(found)}
        for one in tx.execute(_PROPERTIES, ids):
            found[one.image_id].properties[one.name] = one.value
        for one in tx.execute(_TAGS, ids):
            found[one.image_id].tags.append(one.tag)
        for one in tx.execute(_COPIES, ids):
            found[one.image_id].copies.append(one)
    return list(found.values())

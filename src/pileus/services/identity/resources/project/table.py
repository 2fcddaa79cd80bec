"""Rows of projects and of their tags, and the ways up and down between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Instant, Tx, metadata
from pileus.services.identity.resources.attribute import PART, among
from pileus.services.identity.rules import name as names

table = sa.Table(
    "identity_project",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("domain_id", sa.String(64), sa.ForeignKey("identity_project.id")),
    sa.Column("parent_id", sa.String(64), sa.ForeignKey("identity_project.id"), index=True),
    sa.Column("is_domain", sa.Boolean, nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("name_key", sa.String(names.KEY_LENGTH), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("extra", sa.JSON, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.UniqueConstraint("domain_id", "name_key"),
    sa.Index("ix_identity_project_name_key", "name_key"),
    sa.Index("ix_identity_project_domain_id", "domain_id", "id"),
    sa.Index(
        "uq_identity_project_domain_name",
        "name_key",
        unique=True,
        sqlite_where=sa.text("domain_id IS NULL"),
        postgresql_where=sa.text("domain_id IS NULL"),
    ),
    sa.CheckConstraint(
        "is_domain = (domain_id IS NULL) AND (domain_id IS NULL) = (parent_id IS NULL)", name="root_is_domain"
    ),
)

tag = sa.Table(
    "identity_project_tag",
    metadata,
    sa.Column("project_id", sa.String(64), sa.ForeignKey(table.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True, index=True),
)

_BY_ID = sa.select(table).where(table.c.id == sa.bindparam("key"))


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A project or a domain, None when there is no such."""
    return tx.execute(_BY_ID, {"key": key}).first()


def find_domain(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A domain, None when there is no such."""
    row = find(tx, key)
    return row if row is not None and row.is_domain else None


def find_named(tx: Tx, name: str, domain_id: str | None) -> sa.Row[Any] | None:
    """The project of a name in a domain, or the domain of a name when `domain_id` is None."""
    return tx.first(sa.select(table).where(table.c.name_key == names.key(name), table.c.domain_id == domain_id))


def tags_of(tx: Tx, keys: Sequence[str]) -> dict[str, list[str]]:
    """The tags of some projects, in order, by project id."""
    found: dict[str, list[str]] = {key: [] for key in keys}
    for row in among(tx, sa.select(tag).order_by(tag.c.name), tag.c.project_id, keys):
        found[row.project_id].append(row.name)
    return found


def set_tags(tx: Tx, key: str, tags: Iterable[str]) -> None:
    """Give a project these tags and no others."""
    tx.execute(sa.delete(tag).where(tag.c.project_id == key))
    wanted = [{"project_id": key, "name": name} for name in dict.fromkeys(tags)]
    tx.insert(tag, wanted)


def upward(start: sa.ColumnElement[Any] | str) -> sa.CTE:
    """The ids (`id`, `parent_id`) from a project up to its domain, itself included, as a recursive query."""
    way = sa.select(table.c.id, table.c.parent_id).where(table.c.id == start).cte("upward", recursive=True)
    return way.union_all(sa.select(table.c.id, table.c.parent_id).join(way, table.c.id == way.c.parent_id))


def downward(starts: Iterable[str] | sa.Select[Any]) -> sa.CTE:
    """The ids (`id`, `root`) of all projects below some projects or domains, themselves excluded, with which one."""
    way = (
        sa.select(table.c.id, table.c.parent_id.label("root"))
        .where(table.c.parent_id.in_(starts if isinstance(starts, sa.Select) else list(starts)))
        .cte("downward", recursive=True)
    )
    return way.union_all(sa.select(table.c.id, way.c.root).join(way, table.c.parent_id == way.c.id))


def parents(tx: Tx, key: str) -> list[sa.Row[Any]]:
    """The projects above one, nearest first, the domain last."""
    way = upward(key)
    rows = {row.id: row for row in tx.all(sa.select(table).where(table.c.id.in_(sa.select(way.c.id))))}
    found: list[sa.Row[Any]] = []
    row = rows.get(key)
    while row is not None and row.parent_id is not None:
        row = rows[row.parent_id]
        found.append(row)
    return found


def subtree(tx: Tx, key: str) -> Sequence[sa.Row[Any]]:
    """The projects below one."""
    return tx.all(sa.select(table).where(table.c.id.in_(sa.select(downward([key]).c.id))).order_by(table.c.name))


def all_below(tx: Tx, starts: Iterable[str]) -> dict[str, list[str]]:
    """The ids of all projects below each of some projects or domains."""
    wanted = list(starts)
    found: dict[str, list[str]] = {key: [] for key in wanted}
    for start in range(0, len(wanted), PART):
        way = downward(wanted[start : start + PART])
        for row in tx.all(sa.select(way.c.id, way.c.root)):
            found[row.root].append(row.id)
    return found


def any_below(tx: Tx, key: str, *conditions: sa.ColumnElement[bool]) -> bool:
    """Whether there is a project below one for which the conditions hold."""
    inside = table.c.id.in_(sa.select(downward([key]).c.id))
    return tx.first(sa.select(table.c.id).where(inside, *conditions).limit(1)) is not None


def names_of(tx: Tx, keys: Iterable[str]) -> dict[str, sa.Row[Any]]:
    """Rows with id, name and domain_id of some projects and domains, by id."""
    query = sa.select(table.c.id, table.c.name, table.c.domain_id)
    return {row.id: row for row in among(tx, query, table.c.id, set(keys))}

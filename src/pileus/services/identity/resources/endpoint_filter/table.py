"""Rows of endpoint groups and of the projects' associations, and the endpoints that they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import endpoint as endpoints
from pileus.services.identity.resources.project import table as projects

table = sa.Table(
    "identity_endpoint_group",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, index=True),
    sa.Column("description", sa.Text),
    sa.Column("filters", sa.JSON, nullable=False),
)

project_endpoint = sa.Table(
    "identity_project_endpoint",
    metadata,
    sa.Column("project_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column(
        "endpoint_id",
        sa.String(64),
        sa.ForeignKey(endpoints.table.c.id, ondelete="CASCADE"),
        primary_key=True,
        index=True,
    ),
)

project_group = sa.Table(
    "identity_project_endpoint_group",
    metadata,
    sa.Column("project_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column(
        "endpoint_group_id",
        sa.String(64),
        sa.ForeignKey(table.c.id, ondelete="CASCADE"),
        primary_key=True,
        index=True,
    ),
)

_DIRECT = sa.select(project_endpoint.c.endpoint_id).where(project_endpoint.c.project_id == sa.bindparam("project"))
_GROUPS = (
    sa.select(table.c.filters)
    .join(project_group, project_group.c.endpoint_group_id == table.c.id)
    .where(project_group.c.project_id == sa.bindparam("project"))
)


def matching(filters: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    """The condition for the endpoints that an endpoint group's filters describe: all of them must fit."""
    return sa.and_(sa.true(), *(endpoints.table.c[name] == value for name, value in filters.items()))


def described(tx: Tx, project_id: str) -> sa.ColumnElement[bool] | None:
    """The condition for the endpoints with which a project is associated, None when it is with none at all."""
    single = [row.endpoint_id for row in tx.execute(_DIRECT, {"project": project_id})]
    groups = [matching(row.filters) for row in tx.execute(_GROUPS, {"project": project_id})]
    if not single and not groups:
        return None
    return sa.or_(endpoints.table.c.id.in_(single), *groups)


def endpoints_of(tx: Tx, project_id: str) -> set[str] | None:
    """Ids of the endpoints that a project's catalog shows; None when nothing narrows it.

    As upstream's does by default, a project whose associations come to no endpoint sees them all.
    """
    condition = described(tx, project_id)
    if condition is None:
        return None
    return {row.id for row in tx.all(sa.select(endpoints.table.c.id).where(condition))} or None


def associated(tx: Tx, association: sa.Table, project_id: str, column: str, key: str) -> bool:
    """Whether a project is associated with an endpoint or an endpoint group."""
    mine = (association.c.project_id == project_id, association.c[column] == key)
    return tx.first(sa.select(association.c.project_id).where(*mine)) is not None


def projects_of(tx: Tx, association: sa.Table, column: str, key: str) -> Sequence[sa.Row[Any]]:
    """The projects that are associated with an endpoint or an endpoint group."""
    mine = sa.select(association.c.project_id).where(association.c[column] == key)
    return tx.all(sa.select(projects.table).where(projects.table.c.id.in_(mine)).order_by(projects.table.c.id))

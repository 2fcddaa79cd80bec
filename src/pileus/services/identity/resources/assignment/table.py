"""Rows of role assignments, and what they mean: the roles that a user holds in a scope.

A role is held directly or by a group, at the scope itself or inherited from a domain or project above it, and with all
roles that it implies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import group as groups
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import among
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules.token import Kind

SYSTEM = "system"
"""Target of assignments on the system as a whole."""

table = sa.Table(
    "identity_assignment",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), sa.ForeignKey(users.table.c.id, ondelete="CASCADE")),
    sa.Column("group_id", sa.String(64), sa.ForeignKey(groups.table.c.id, ondelete="CASCADE")),
    sa.Column("project_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE")),
    sa.Column("role_id", sa.String(64), sa.ForeignKey(roles.table.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("inherited", sa.Boolean, nullable=False),
    sa.Column("actor_id", sa.String(64), sa.Computed("coalesce(user_id, group_id)", persisted=True)),
    sa.Column("target_id", sa.String(64), sa.Computed(f"coalesce(project_id, '{SYSTEM}')", persisted=True)),
    sa.UniqueConstraint("actor_id", "target_id", "role_id", "inherited"),
    sa.CheckConstraint("(user_id IS NULL) <> (group_id IS NULL)", name="one_actor"),
    sa.Index("ix_identity_assignment_user_id", "user_id"),
    sa.Index("ix_identity_assignment_group_id", "group_id"),
    sa.Index("ix_identity_assignment_project_id", "project_id"),
    sa.Index("ix_identity_assignment_role_id", "role_id"),
)
"""`project_id` names a project or a domain; it is null for the system."""

_user: sa.BindParameter[str] = sa.bindparam("user", type_=sa.String)
_scope: sa.BindParameter[str] = sa.bindparam("scope", type_=sa.String)


def held_by(user: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The condition for a user's own assignments and those of the groups that it is in.

    The ids of users and groups are random, so one never is the other's; by this form the index of actors is used.
    """
    mine = sa.select(groups.membership.c.group_id).where(groups.membership.c.user_id == user)
    return table.c.actor_id.in_(sa.select(user).union_all(mine))


_holds = held_by(_user)
_above = projects.upward(_scope)
_here = sa.and_(table.c.project_id == _scope, ~table.c.inherited)
_from_above = sa.and_(table.c.inherited, table.c.project_id.in_(sa.select(_above.c.id).where(_above.c.id != _scope)))
_HELD: dict[Kind, sa.Select[Any]] = {
    "project": sa.select(table.c.role_id).where(_holds, sa.or_(_here, _from_above)).distinct(),
    "domain": sa.select(table.c.role_id).where(_holds, _here).distinct(),
    "system": sa.select(table.c.role_id).where(_holds, table.c.project_id.is_(None)).distinct(),
}


def roles_of(tx: Tx, user_id: str, kind: Kind, scope_id: str | None) -> list[sa.Row[Any]]:
    """The global roles that a user holds in a scope, implied ones included: rows with id and name, by name."""
    if kind == "unscoped":
        return []
    parameters = {"user": user_id} if scope_id is None else {"user": user_id, "scope": scope_id}
    return roles.effective(tx, [row.role_id for row in tx.execute(_HELD[kind], parameters)])


def targets(user_id: str) -> sa.CompoundSelect[Any]:
    """The query of the ids of projects and domains in which a user holds a role of any kind."""
    held = sa.select(table.c.project_id).where(held_by(sa.literal(user_id)), table.c.project_id.is_not(None))
    return held.where(~table.c.inherited).union_all(sa.select(projects.downward(held.where(table.c.inherited)).c.id))


def insert(
    tx: Tx,
    role_id: str,
    *,
    user_id: str | None = None,
    group_id: str | None = None,
    project_id: str | None = None,
    inherited: bool = False,
) -> None:
    """Give a user or a group a role on a project, a domain or (None) the system. Again changes nothing."""
    row = {"id": tx.seams.hex(), "role_id": role_id, "inherited": inherited}
    row |= {"user_id": user_id, "group_id": group_id, "project_id": project_id}
    if tx.insert_missing(table, row, key=("actor_id", "target_id", "role_id", "inherited")):
        tx.changed("identity.assignment", user_id or group_id or "")
        revision.grow(tx)


def held_directly(
    actor: str, actor_id: str, target_id: str | None, inherited: bool
) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions for the assignments of a user or group (`user_id`, `group_id`) on one target."""
    return (
        table.c[actor] == actor_id,
        table.c.project_id.is_(None) if target_id is None else table.c.project_id == target_id,
        table.c.inherited == inherited,
    )


def members_of(tx: Tx, keys: Iterable[str]) -> dict[str, list[str]]:
    """The ids of the users in some groups, by group id."""
    found: dict[str, list[str]] = {key: [] for key in keys}
    membership = groups.membership
    for row in among(tx, sa.select(membership), membership.c.group_id, list(found)):
        found[row.group_id].append(row.user_id)
    return found

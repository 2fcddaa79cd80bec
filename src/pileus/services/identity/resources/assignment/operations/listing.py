"""All role assignments, as they were made or in their effect (…/identity/v3/#list-role-assignments).

In effect, a group's assignment is one for each of its users, an inherited one is one for each project below, and each
role brings those that it implies; the links of an entry say which assignment it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources.assignment.operations.entry import Entry, domains_of, names_of, render
from pileus.services.identity.resources.assignment.table import held_by, members_of, table
from pileus.services.identity.resources.attribute import ADMIN_OR_SYSTEM_READER, asked, permit_target
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.rules import hierarchy
from pileus.services.identity.rules import role as rules

_DOMAIN = "domain_id:%(target.domain_id)s and not None:%(target.domain_id)s"

resource = Resource(
    "role_assignment",
    "role_assignments",
    rules=[
        Rule(
            "identity:list_role_assignments",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_DOMAIN})",
            "List role assignments",
        ),
        Rule(
            "identity:list_role_assignments_for_tree",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and {_DOMAIN})",
            "List role assignments on a project and those below it",
        ),
    ],
)


_EXCLUSIVE = (
    ("scope.domain.id", "scope.project.id", "Specify a domain or project, not both"),
    ("scope.domain.id", "scope.system", "Specify system or domain, not both"),
    ("scope.project.id", "scope.system", "Specify system or project, not both"),
    ("user.id", "group.id", "Specify a user or group, not both"),
)


def _check_query(ctx: Context) -> None:
    for one, other, message in _EXCLUSIVE:
        if ctx.query.get(one) and ctx.query.get(other):
            raise BadRequest(message)
    if asked(ctx, "effective"):
        if ctx.query.get("group.id"):
            raise BadRequest("Combining effective and group filter will always result in an empty list.")
        if ctx.query.get("scope.domain.id") and ctx.query.get("scope.OS-INHERIT:inherited_to"):
            raise BadRequest("Combining effective, domain and inherited filters will always result in an empty list.")


@resource.get("/role_assignments", policy="identity:list_role_assignments", guarded=True)
def list_all(ctx: Context) -> Page:
    """List role assignments; with a domain's token, those on that domain and its projects."""
    project_id = ctx.query.get("scope.project.id")
    tree = asked(ctx, "include_subtree")
    own = {"domain_id": ctx.auth.domain_id} if ctx.auth.domain_id else {}
    permit_target(ctx, ctx.operation, own)
    if tree:
        row = None if project_id is None else projects.find(ctx.tx, project_id)
        permit_target(
            ctx, "identity:list_role_assignments_for_tree", {} if row is None else {"domain_id": row.domain_id}
        )
        if not project_id:
            raise BadRequest("scope.project.id must be specified if include_subtree is also specified")
    _check_query(ctx)
    places = _places(ctx.tx, project_id, tree) if project_id else None
    entries = _effective(ctx, places) if asked(ctx, "effective") else _direct(ctx, places)
    found = list(dict.fromkeys(entries))
    domains = domains_of(ctx.tx, found)
    named = names_of(ctx.tx, found) if asked(ctx, "include_names") else None
    return Page([render(ctx, entry, domains, named) for entry in found])


class _Places(NamedTuple):
    """The projects that a list is about, each with all that is above it, and the condition for their assignments."""

    above: dict[str, list[str]]
    here: sa.ColumnElement[bool]


def _places(tx: Tx, project_id: str, tree: bool) -> _Places:
    parents = {row.id: row.parent_id for row in tx.all(sa.select(projects.upward(project_id)))}
    inside = {project_id}
    here = table.c.project_id == project_id
    if tree:
        below = projects.subtree(tx, project_id)
        inside |= {row.id for row in below}
        parents |= {row.id: row.parent_id for row in below}
        here = sa.or_(here, table.c.project_id.in_(sa.select(projects.downward([project_id]).c.id)))
    return _Places({key: hierarchy.chain(key, parents)[1:] for key in inside}, here)


def _rows(ctx: Context, *conditions: sa.ColumnElement[bool]) -> list[Entry]:
    """The assignments for which the conditions and the filters of any list hold, in order."""
    query = sa.select(table).where(*conditions).order_by(table.c.actor_id, table.c.target_id, table.c.role_id)
    inherited = ctx.query.get("scope.OS-INHERIT:inherited_to")
    if inherited is not None:
        query = query.where(table.c.inherited == (inherited == "projects"))
    if ctx.query.get("scope.system"):
        query = query.where(table.c.project_id.is_(None))
    if ctx.auth.domain_id is not None:
        own = sa.select(projects.table.c.id).where(projects.table.c.domain_id == ctx.auth.domain_id)
        query = query.where(sa.or_(table.c.project_id == ctx.auth.domain_id, table.c.project_id.in_(own)))
    rows = ctx.tx.all(query)
    return [Entry(row.user_id, row.group_id, row.project_id, row.role_id, row.inherited) for row in rows]


def _direct(ctx: Context, places: _Places | None) -> list[Entry]:
    """Assignments as they were made."""
    conditions = [] if places is None else [places.here]
    for parameter, column in (
        ("user.id", table.c.user_id),
        ("group.id", table.c.group_id),
        ("role.id", table.c.role_id),
        ("scope.domain.id", table.c.project_id),
    ):
        if wanted := ctx.query.get(parameter):
            conditions.append(column == wanted)
    return _rows(ctx, *conditions)


def _effective(ctx: Context, places: _Places | None) -> list[Entry]:
    """What the assignments come to, for users on projects, domains and the system."""
    conditions: list[sa.ColumnElement[bool]] = []
    user_id, role_id = ctx.query.get("user.id"), ctx.query.get("role.id")
    implications = roles.implications(ctx.tx)
    if user_id:
        conditions.append(held_by(sa.literal(user_id)))
    if role_id:
        conditions.append(table.c.role_id.in_(rules.implying(role_id, implications)))
    if domain_id := ctx.query.get("scope.domain.id"):
        conditions += [table.c.project_id == domain_id, ~table.c.inherited]
    if places is not None:
        above = {key for way in places.above.values() for key in way}
        conditions.append(sa.or_(places.here, sa.and_(table.c.inherited, table.c.project_id.in_(above))))
    held = _spread_groups(ctx.tx, _rows(ctx, *conditions), user_id)
    there = _spread_projects(ctx.tx, held) if places is None else _spread_places(held, places)
    spread = _spread_roles(ctx.tx, there, implications)
    return [entry for entry in spread if not role_id or entry.role_id == role_id]


def _spread_groups(tx: Tx, entries: list[Entry], user_id: str | None) -> list[Entry]:
    """For each assignment of a group one for each member, or for the one member that is asked for."""
    held = {entry.group_id for entry in entries if entry.group_id is not None}
    members = {key: [user_id] for key in held} if user_id else members_of(tx, held)
    found: list[Entry] = []
    for entry in entries:
        group_id = entry.group_id
        if group_id is None:
            found.append(entry)
        else:
            found += [entry._replace(user_id=one, group_id=None, by_group=group_id) for one in members[group_id]]
    return found


def _spread_projects(tx: Tx, entries: list[Entry]) -> Iterator[Entry]:
    """For each inherited assignment one for each project below."""
    below = projects.all_below(tx, {one.project_id for one in entries if one.inherited and one.project_id is not None})
    for entry in entries:
        if not entry.inherited or entry.project_id is None:
            yield entry
        else:
            for project_id in below[entry.project_id]:
                yield entry._replace(project_id=project_id, from_above=entry.project_id)


def _spread_places(entries: list[Entry], places: _Places) -> Iterator[Entry]:
    """Of the assignments, what they come to on some projects."""
    below: dict[str, list[str]] = {}
    for project_id, above in sorted(places.above.items()):
        for key in above:
            below.setdefault(key, []).append(project_id)
    for entry in entries:
        key = entry.project_id or ""
        if entry.inherited:
            for project_id in below.get(key, ()):
                yield entry._replace(project_id=project_id, from_above=key)
        elif key in places.above:
            yield entry


def _spread_roles(tx: Tx, entries: Iterable[Entry], implications: dict[str, list[str]]) -> Iterator[Entry]:
    """For each assignment one for each global role that it brings."""
    known = roles.all_by_id(tx)
    brings = {key: rules.implied_by([key], implications) for key in known}
    for entry in entries:
        for role_id, prior in brings[entry.role_id].items():
            if known[role_id].domain_id is None:
                yield entry._replace(role_id=role_id, by_role=prior, of_role=entry.role_id)

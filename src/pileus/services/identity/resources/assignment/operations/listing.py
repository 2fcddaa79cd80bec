"""All role assignments, as they were made or in their effect (…/identity/v3/#list-role-assignments).

In effect, a group's assignment is one for each of its users, an inherited one is one for each project below, and each
role brings those that it implies; the links of an entry say which assignment it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.identity.resources import group as groups
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment.table import members_of, table
from pileus.services.identity.resources.attribute import ADMIN_OR_SYSTEM_READER, asked, permit, permit_list
from pileus.services.identity.resources.project import table as projects
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
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.project.domain_id)s)",
            "List role assignments on a project and those below it",
        ),
    ],
)


class _Entry(NamedTuple):
    """An assignment, direct or in effect, and what it comes from."""

    user_id: str | None
    group_id: str | None
    project_id: str | None  # or a domain; None is the system
    role_id: str
    inherited: bool
    by_group: str | None = None
    from_above: str | None = None
    by_role: str | None = None  # the role that implies this one
    of_role: str | None = None  # the role that was given


class _Names(NamedTuple):
    """Rows with id, name and domain_id of all that a list names."""

    users: dict[str, sa.Row[Any]]
    groups: dict[str, sa.Row[Any]]
    projects: dict[str, sa.Row[Any]]
    roles: dict[str, sa.Row[Any]]


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


@resource.get("/role_assignments")
def list_all(ctx: Context) -> Page:
    """List role assignments; with a domain's token, those on that domain and its projects."""
    project_id = ctx.query.get("scope.project.id")
    tree = asked(ctx, "include_subtree")
    if tree:
        row = None if project_id is None else projects.find(ctx.tx, project_id)
        seen = None if row is None else {"id": row.id, "domain_id": row.domain_id}
        permit(ctx, "identity:list_role_assignments_for_tree", project=seen)
        if not project_id:
            raise BadRequest("scope.project.id must be specified if include_subtree is also specified")
    else:
        permit_list(ctx, "identity:list_role_assignments")
    _check_query(ctx)
    places = None if project_id is None else {project_id}
    if tree and project_id is not None:
        places = {project_id, *(row.id for row in projects.subtree(ctx.tx, project_id))}
    entries = _effective(ctx, places) if asked(ctx, "effective") else _direct(ctx, places)
    wanted_role = ctx.query.get("role.id")
    if wanted_role:
        entries = [entry for entry in entries if entry.role_id == wanted_role]
    found = list(dict.fromkeys(entries))
    domains = _domains(ctx.tx, found)
    if ctx.auth.domain_id is not None:
        found = [e for e in found if e.project_id and (domains[e.project_id] or e.project_id) == ctx.auth.domain_id]
    named = _names(ctx.tx, found) if asked(ctx, "include_names") else None
    return Page([_render(ctx, entry, domains, named) for entry in found])


def _rows(ctx: Context, *conditions: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
    query = sa.select(table).where(*conditions).order_by(table.c.actor_id, table.c.target_id, table.c.role_id)
    inherited = ctx.query.get("scope.OS-INHERIT:inherited_to")
    if inherited is not None:
        query = query.where(table.c.inherited == (inherited == "projects"))
    if ctx.query.get("scope.system"):
        query = query.where(table.c.project_id.is_(None))
    return ctx.tx.all(query)


def _direct(ctx: Context, places: set[str] | None) -> list[_Entry]:
    """Assignments as they were made."""
    conditions = []
    for parameter, column in (
        ("user.id", table.c.user_id),
        ("group.id", table.c.group_id),
        ("scope.domain.id", table.c.project_id),
    ):
        if ctx.query.get(parameter):
            conditions.append(column == ctx.query.get(parameter))
    if places is not None:
        conditions.append(table.c.project_id.in_(places))
    return [_entry(row) for row in _rows(ctx, *conditions)]


def _entry(row: sa.Row[Any]) -> _Entry:
    return _Entry(row.user_id, row.group_id, row.project_id, row.role_id, row.inherited)


def _effective(ctx: Context, places: set[str] | None) -> list[_Entry]:
    """What the assignments come to, for users on projects, domains and the system."""
    conditions: list[sa.ColumnElement[bool]] = []
    user_id = ctx.query.get("user.id")
    if user_id:
        mine = sa.select(groups.membership.c.group_id).where(groups.membership.c.user_id == user_id)
        conditions.append(sa.or_(table.c.user_id == user_id, table.c.group_id.in_(mine)))
    domain_id = ctx.query.get("scope.domain.id")
    if domain_id:
        conditions += [table.c.project_id == domain_id, ~table.c.inherited]
    if places is not None:
        above = {row.id for place in places for row in projects.parents(ctx.tx, place)}
        conditions.append(table.c.project_id.in_(places | above))
    entries: Iterable[_Entry] = [_entry(row) for row in _rows(ctx, *conditions)]
    entries = _spread_groups(ctx.tx, list(entries))
    entries = _spread_projects(ctx.tx, list(entries))
    if places is not None:
        entries = (entry for entry in entries if entry.project_id in places)
    if user_id:
        entries = (entry for entry in entries if entry.user_id == user_id)
    return list(_spread_roles(ctx.tx, entries))


def _spread_groups(tx: Tx, entries: list[_Entry]) -> Iterator[_Entry]:
    members = members_of(tx, {entry.group_id for entry in entries if entry.group_id is not None})
    for entry in entries:
        if entry.group_id is None:
            yield entry
        else:
            for user_id in members[entry.group_id]:
                yield entry._replace(user_id=user_id, group_id=None, by_group=entry.group_id)


def _spread_projects(tx: Tx, entries: list[_Entry]) -> Iterator[_Entry]:
    starts = {entry.project_id for entry in entries if entry.inherited and entry.project_id is not None}
    below: dict[str, list[str]] = {start: [] for start in starts}
    if starts:
        way = projects.downward(starts)
        for row in tx.all(sa.select(way.c.id, way.c.root)):
            below[row.root].append(row.id)
    for entry in entries:
        if not entry.inherited or entry.project_id is None:
            yield entry
        else:
            for project_id in below[entry.project_id]:
                yield entry._replace(project_id=project_id, from_above=entry.project_id)


def _spread_roles(tx: Tx, entries: Iterable[_Entry]) -> Iterator[_Entry]:
    known, implications = roles.all_by_id(tx), roles.implications(tx)
    for entry in entries:
        for role_id, prior in rules.implied_by([entry.role_id], implications).items():
            if known[role_id].domain_id is None:
                yield entry._replace(role_id=role_id, by_role=prior, of_role=entry.role_id)


def _domains(tx: Tx, entries: Iterable[_Entry]) -> dict[str, str | None]:
    """The domain of each project that is named; None for a domain."""
    keys = {key for entry in entries for key in (entry.project_id, entry.from_above) if key is not None}
    rows = projects.names_of(tx, keys)
    return {key: row.domain_id for key, row in rows.items()}


def _names(tx: Tx, entries: Iterable[_Entry]) -> _Names:
    entries = list(entries)
    found_users = users.names_of(tx, list({entry.user_id for entry in entries if entry.user_id is not None}))
    found_groups = groups.names_of(tx, list({entry.group_id for entry in entries if entry.group_id is not None}))
    found_roles = roles.all_by_id(tx)
    keys = {entry.project_id for entry in entries if entry.project_id is not None}
    found_projects = projects.names_of(tx, keys)
    rows = (*found_users.values(), *found_groups.values(), *found_projects.values(), *found_roles.values())
    found_projects |= projects.names_of(tx, {row.domain_id for row in rows if row.domain_id is not None})
    return _Names(found_users, found_groups, found_projects, found_roles)


def _thing(key: str, rows: dict[str, sa.Row[Any]], named: _Names | None) -> dict[str, Any]:
    """`{"id": …}`, with name and domain when names are wanted."""
    if named is None:
        return {"id": key}
    row = rows[key]
    found: dict[str, Any] = {"id": key, "name": row.name}
    if row.domain_id is not None:
        found["domain"] = {"id": row.domain_id, "name": named.projects[row.domain_id].name}
    return found


def _render(ctx: Context, entry: _Entry, domains: dict[str, str | None], named: _Names | None) -> dict[str, Any]:
    root = f"{ctx.url}/v3"
    scope: dict[str, Any]
    if entry.project_id is None:
        scope, place = {"system": {"all": True}}, "/system"
    else:
        kind = "domain" if domains[entry.project_id] is None else "project"
        scope = {kind: _thing(entry.project_id, named.projects if named else {}, named)}
        place = f"/{kind}s/{entry.project_id}"
    if entry.from_above is not None:
        place = f"/{'domains' if domains[entry.from_above] is None else 'projects'}/{entry.from_above}"
    found: dict[str, Any] = {"scope": scope, "links": {}}
    if entry.user_id is not None:
        found["user"] = _thing(entry.user_id, named.users if named else {}, named)
    if entry.group_id is not None:
        found["group"] = _thing(entry.group_id, named.groups if named else {}, named)
    found["role"] = _thing(entry.role_id, named.roles if named else {}, named)
    if entry.by_group is not None:
        found["links"]["membership"] = f"{root}/groups/{entry.by_group}/users/{entry.user_id}"
    holder = entry.by_group or entry.group_id
    actor = f"/groups/{holder}" if holder else f"/users/{entry.user_id}"
    assignment = f"{place}{actor}/roles/{entry.of_role or entry.role_id}"
    if entry.inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
        assignment = f"/OS-INHERIT{assignment}/inherited_to_projects"
    found["links"]["assignment"] = root + assignment
    if entry.by_role is not None:
        found["links"]["prior_role"] = f"{root}/prior_role/{entry.by_role}/implies/{entry.role_id}"
    return found

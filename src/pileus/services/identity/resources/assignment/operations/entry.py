"""One role assignment of a list, direct or in effect, and how it looks (…/identity/v3/#list-role-assignments)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.store import Tx
from pileus.services.identity.resources import group as groups
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.attribute import among
from pileus.services.identity.resources.project import table as projects


class Entry(NamedTuple):
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


class Names(NamedTuple):
    """Rows with id, name and domain_id of all that a list names."""

    users: dict[str, sa.Row[Any]]
    groups: dict[str, sa.Row[Any]]
    projects: dict[str, sa.Row[Any]]
    roles: dict[str, sa.Row[Any]]


def domains_of(tx: Tx, entries: Iterable[Entry]) -> dict[str, str | None]:
    """The domain of each project that is named; None for a domain."""
    keys = {key for entry in entries for key in (entry.project_id, entry.from_above) if key is not None}
    rows = projects.names_of(tx, keys)
    return {key: row.domain_id for key, row in rows.items()}


def names_of(tx: Tx, entries: Iterable[Entry]) -> Names:
    """The names of all that some entries name."""
    entries = list(entries)
    user = users.table
    named = sa.select(user.c.id, user.c.name, user.c.domain_id)
    keys = {entry.user_id for entry in entries if entry.user_id is not None}
    found_users = {row.id: row for row in among(tx, named, user.c.id, keys)}
    found_groups = groups.names_of(tx, list({entry.group_id for entry in entries if entry.group_id is not None}))
    found_roles = roles.all_by_id(tx)
    keys = {entry.project_id for entry in entries if entry.project_id is not None}
    found_projects = projects.names_of(tx, keys)
    rows = (*found_users.values(), *found_groups.values(), *found_projects.values(), *found_roles.values())
    found_projects |= projects.names_of(tx, {row.domain_id for row in rows if row.domain_id is not None})
    return Names(found_users, found_groups, found_projects, found_roles)


def _thing(key: str, rows: dict[str, sa.Row[Any]], named: Names | None) -> dict[str, Any]:
    """`{"id": …}`, with name and domain when names are wanted."""
    if named is None:
        return {"id": key}
    row = rows[key]
    found: dict[str, Any] = {"id": key, "name": row.name}
    if row.domain_id is not None:
        found["domain"] = {"id": row.domain_id, "name": named.projects[row.domain_id].name}
    return found


def render(ctx: Context, entry: Entry, domains: dict[str, str | None], named: Names | None) -> dict[str, Any]:
    """An entry as the API shows it; with names where they are given."""
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

"""Giving and taking roles, one at a time (https://docs.openstack.org/api-ref/identity/v3/#roles).

A grant has a path of its own for each kind of target (project, domain, system), of actor (user, group) and, for those
on projects and domains, whether projects below inherit it (OS-INHERIT).  All are alike, so one set of operations is
declared for each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden, NotFound
from pileus.core.policy import Rule
from pileus.services.identity.resources import group as groups
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment.table import SYSTEM, held_directly, insert, table
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    CLOUD_ADMIN,
    CLOUD_ADMIN_OR_SYSTEM_READER,
    missing,
    permit,
)
from pileus.services.identity.resources.project import table as projects

_SCOPES = [
    f"domain_id:%(target.{actor}.domain_id)s and domain_id:%(target.{place})s"
    for actor in ("user", "group")
    for place in ("project.domain_id", "domain.id")
]
_OWN_ROLE = "(domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s)"


def _in_domain(role: str) -> str:
    return "(" + " or ".join(f"(role:{role} and {scope})" for scope in _SCOPES) + ")"


_GIVES = (
    f"rule:admin_required or ({_in_domain('admin')} and {_OWN_ROLE})"
    f" or ({_in_domain('manager')} and rule:domain_managed_target_role)"
)

resource = Resource(
    "role",
    "roles",
    rules=[
        Rule(
            "identity:check_grant",
            f"{ADMIN_OR_SYSTEM_READER} or ({_in_domain('reader')} and {_OWN_ROLE})",
            "Check whether a user or group has a role",
        ),
        Rule(
            "identity:list_grants",
            f"{ADMIN_OR_SYSTEM_READER} or {_in_domain('reader')}",
            "List the roles of a user or group on a project or domain",
        ),
        Rule("identity:create_grant", _GIVES, "Give a user or group a role"),
        Rule("identity:revoke_grant", _GIVES, "Take a role from a user or group"),
        *(
            Rule(f"identity:{verb}_system_grant{plural}_for_{actor}", check, f"{words} of a {actor} on the system")
            for actor in ("user", "group")
            for verb, plural, check, words in (
                ("list", "s", CLOUD_ADMIN_OR_SYSTEM_READER, "List the roles"),
                ("check", "", CLOUD_ADMIN_OR_SYSTEM_READER, "Check a role"),
                ("create", "", CLOUD_ADMIN, "Give a role"),
                ("revoke", "", CLOUD_ADMIN, "Take a role"),
            )
        ),
    ],
)


class _Kind(NamedTuple):
    """One kind of grant."""

    target: str  # project, domain, system
    actor: str  # user, group
    inherited: bool

    def rule(self, verb: str) -> str:
        """The policy rule for a verb."""
        if self.target == SYSTEM:
            return f"identity:{verb}_system_grant{'s' if verb == 'list' else ''}_for_{self.actor}"
        return f"identity:{verb}_grant{'s' if verb == 'list' else ''}"


class _Grant(NamedTuple):
    """A grant that a path names; of the things, those that are there."""

    kind: _Kind
    target: sa.Row[Any] | None
    actor: sa.Row[Any] | None
    role: sa.Row[Any] | None


def _look(ctx: Context, kind: _Kind, verb: str, target_id: str | None, actor_id: str, role_id: str | None) -> _Grant:
    """Look up what a path names and enforce the verb's rule on it."""
    find = projects.find_domain if kind.target == "domain" else projects.find
    target = None if target_id is None else find(ctx.tx, target_id)
    actor = (users if kind.actor == "user" else groups).find(ctx.tx, actor_id)
    role = None if role_id is None else roles.find(ctx.tx, role_id)
    things: dict[str, Any] = {kind.actor: None if actor is None else {"id": actor.id, "domain_id": actor.domain_id}}
    if target is not None:
        things[kind.target] = {"id": target.id, "domain_id": target.domain_id}
    if role is not None:
        things["role"] = {"id": role.id, "name": role.name, "domain_id": role.domain_id}
    permit(ctx, ctx.operation, **things)
    if role_id is not None and role is None:
        raise missing("role", role_id)
    if target_id is not None and target is None:
        raise missing(kind.target, target_id)
    if actor is None and verb != "revoke":
        raise missing(kind.actor, actor_id)
    return _Grant(kind, target, actor, role)


def _conditions(kind: _Kind, target_id: str | None, actor_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return held_directly(f"{kind.actor}_id", actor_id, target_id, kind.inherited)


def _list(ctx: Context, kind: _Kind, target_id: str | None, actor_id: str) -> Page:
    """The roles that a user or a group has been given there."""
    _look(ctx, kind, "list", target_id, actor_id, None)
    given = sa.select(table.c.role_id).where(*_conditions(kind, target_id, actor_id))
    rows = ctx.tx.all(sa.select(roles.table).where(roles.table.c.id.in_(given)).order_by(roles.table.c.id))
    return Page([roles.view(ctx, row) for row in rows])


def _absent(role_id: str, actor_id: str, target_id: str | None) -> NotFound:
    return NotFound(
        f"Could not find role assignment with role: {role_id}, user or group: {actor_id},"
        f" project, domain, or system: {target_id or SYSTEM}."
    )


def _check(ctx: Context, kind: _Kind, target_id: str | None, actor_id: str, role_id: str) -> None:
    """Whether a user or a group has been given a role there. Raises NotFound."""
    _look(ctx, kind, "check", target_id, actor_id, role_id)
    one = sa.select(table.c.id).where(table.c.role_id == role_id, *_conditions(kind, target_id, actor_id))
    if ctx.tx.first(one) is None:
        raise _absent(role_id, actor_id, target_id)


def _create(ctx: Context, kind: _Kind, target_id: str | None, actor_id: str, role_id: str) -> None:
    """Give a user or a group a role there."""
    found = _look(ctx, kind, "create", target_id, actor_id, role_id)
    if found.role is not None and found.role.domain_id is not None:
        if found.target is None:
            raise BadRequest(f"Role {role_id} is a domain-specific role: it cannot be given on the system.")
        if kind.target == "project" and found.role.domain_id != (found.target.domain_id or found.target.id):
            raise Forbidden(f"Project {target_id} must be in the same domain as the role {role_id} being assigned.")
    actor = {f"{kind.actor}_id": actor_id}
    insert(ctx.tx, role_id, **actor, project_id=target_id, inherited=kind.inherited)


def _revoke(ctx: Context, kind: _Kind, target_id: str | None, actor_id: str, role_id: str) -> None:
    """Take a role from a user or a group there. Raises NotFound."""
    _look(ctx, kind, "revoke", target_id, actor_id, role_id)
    one = sa.delete(table).where(table.c.role_id == role_id, *_conditions(kind, target_id, actor_id))
    if ctx.tx.execute(one).rowcount == 0:
        raise _absent(role_id, actor_id, target_id)
    ctx.tx.changed("identity.assignment", actor_id)
    revision.grow(ctx.tx)


_One = Callable[[Context, _Kind, "str | None", str, str], None]


def _declare(kind: _Kind) -> None:
    """Declare the operations of one kind of grant."""
    place = f"/{SYSTEM}" if kind.target == SYSTEM else f"/{kind.target}s/{{target_id}}"
    many = f"{place}/{kind.actor}s/{{actor_id}}/roles"
    one = f"{many}/{{role_id}}"
    if kind.inherited:
        many, one = (f"/OS-INHERIT{path}/inherited_to_projects" for path in (many, one))
    suffix = f"{'inherited_' if kind.inherited else ''}{kind.target}_{kind.actor}"
    _declare_list(kind, many, f"list_{suffix}")
    for verb, method, work in (("check", "GET", _check), ("create", "PUT", _create), ("revoke", "DELETE", _revoke)):
        _declare_one(kind, verb, method, one, work, f"{verb}_{suffix}")


def _declare_list(kind: _Kind, path: str, name: str) -> None:
    if kind.target == SYSTEM:

        def on_system(ctx: Context, actor_id: str) -> Page:
            return _list(ctx, kind, None, actor_id)

        on_system.__name__, on_system.__doc__ = name, _list.__doc__
        resource.get(path, policy=kind.rule("list"), guarded=True)(on_system)
        return

    def on_target(ctx: Context, target_id: str, actor_id: str) -> Page:
        return _list(ctx, kind, target_id, actor_id)

    on_target.__name__, on_target.__doc__ = name, _list.__doc__
    resource.get(path, policy=kind.rule("list"), guarded=True)(on_target)


def _declare_one(kind: _Kind, verb: str, method: str, path: str, work: _One, name: str) -> None:
    if kind.target == SYSTEM:

        def on_system(ctx: Context, actor_id: str, role_id: str) -> None:
            work(ctx, kind, None, actor_id, role_id)

        on_system.__name__, on_system.__doc__ = name, work.__doc__
        resource.operation(method, path, policy=kind.rule(verb), guarded=True, status=204)(on_system)
        return

    def on_target(ctx: Context, target_id: str, actor_id: str, role_id: str) -> None:
        work(ctx, kind, target_id, actor_id, role_id)

    on_target.__name__, on_target.__doc__ = name, work.__doc__
    resource.operation(method, path, policy=kind.rule(verb), guarded=True, status=204)(on_target)


for _target in ("project", "domain", SYSTEM):
    for _actor in ("user", "group"):
        _declare(_Kind(_target, _actor, inherited=False))
        if _target != SYSTEM:
            _declare(_Kind(_target, _actor, inherited=True))

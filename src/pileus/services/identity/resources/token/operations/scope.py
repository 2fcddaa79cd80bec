"""The scopes that a token can be asked for, one function each.

Source: "Authentication and token management" of https://docs.openstack.org/api-ref/identity/v3/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden, Unauthorized
from pileus.core.store import Tx
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.token.fields import (
    DomainReference,
    ProjectReference,
    ScopeReference,
    SystemReference,
    TrustReference,
)
from pileus.services.identity.resources.token.operations.evidence import Leave
from pileus.services.identity.resources.token.operations.reference import check_reference, named_domain, named_project
from pileus.services.identity.resources.trust import table as trusts
from pileus.services.identity.resources.trust.operations import leave as trust_leave
from pileus.services.identity.rules.token import Kind


class Scope(NamedTuple):
    """What a token is to be good for; with a `leave`, that delegation says more."""

    kind: Kind
    id: str | None = None
    leave: Leave | None = None


UNSCOPED = Scope("unscoped")

Wanted = ScopeReference | str | UnsetType
"""The part of a request that names the scope."""


def unscoped(ctx: Context, user: sa.Row[Any], wanted: Any) -> Scope:
    """No scope, although there may be a default project."""
    return UNSCOPED


def project(ctx: Context, user: sa.Row[Any], wanted: ProjectReference) -> Scope:
    """A project. Raises Unauthorized when there is none."""
    row = named_project(ctx.tx, wanted)
    if row is None:
        raise Unauthorized
    return Scope("project", row.id)


def domain(ctx: Context, user: sa.Row[Any], wanted: DomainReference) -> Scope:
    """A domain. Raises Unauthorized when there is none."""
    row = named_domain(ctx.tx, wanted)
    if row is None:
        raise Unauthorized
    return Scope("domain", row.id)


def system(ctx: Context, user: sa.Row[Any], wanted: SystemReference) -> Scope:
    """The system: all of it."""
    return Scope("system")


def trust(ctx: Context, user: sa.Row[Any], wanted: TrustReference) -> Scope:
    """What a trust gives to its trustee; this is one use of it.

    Raises Unauthorized when there is none that can be used, Forbidden for others and when it is worth nothing any more.
    """
    row = trusts.find(ctx.tx, wanted.id)
    if row is None or not trusts.usable(row, ctx.now) or row.project_id is None:
        raise Unauthorized
    if row.trustee_user_id != user.id:
        raise Forbidden("User is not a trustee.")
    if trust_leave.find(ctx.tx, row.id) is None:
        raise Forbidden("Trustee has no delegated roles.")
    trusts.use(ctx.tx, row)
    return Scope("project", row.project_id, Leave("trust", row.id))


SCOPES: Mapping[str, Callable[[Context, sa.Row[Any], Any], Scope]] = {
    "project": project,
    "domain": domain,
    "system": system,
    "unscoped": unscoped,
    "trust": trust,
}
"""Attribute of `ScopeReference` to what resolves it, in the transaction that issues the token."""

WRITES = frozenset({"trust"})
"""Scopes whose resolving writes."""


def check(wanted: Wanted) -> None:
    """Raise BadRequest unless exactly one scope is asked for, in words that can be understood."""
    if wanted is UNSET or wanted == "unscoped":
        return
    if isinstance(wanted, str) or len(_named(wanted)) != 1:
        raise BadRequest("Expecting to find system, project, domain, OS-TRUST:trust or unscoped in scope.")
    if wanted.project is not UNSET:
        check_reference("scope/project", wanted.project.id, wanted.project.name, wanted.project.domain)
    if wanted.domain is not UNSET and not wanted.domain.id and not wanted.domain.name:
        raise BadRequest("Invalid input for field scope/domain: id or name must be present.")
    if wanted.system is not UNSET and not wanted.system.all:
        raise BadRequest("Invalid input for field scope/system: all must be true.")


def writes(wanted: Wanted) -> bool:
    """Whether resolving this scope needs a transaction that writes."""
    return isinstance(wanted, ScopeReference) and not WRITES.isdisjoint(_named(wanted))


def resolve(ctx: Context, user: sa.Row[Any], wanted: Wanted) -> Scope:
    """The scope that is asked for, or else the user's default project where it can be had. Raises Unauthorized."""
    if wanted is UNSET:
        return _default(ctx.tx, user)
    if isinstance(wanted, str):
        return UNSCOPED
    name = _named(wanted)[0]
    return SCOPES[name](ctx, user, getattr(wanted, name))


def _named(wanted: ScopeReference) -> list[str]:
    return [name for name in SCOPES if getattr(wanted, name) is not UNSET]


def _default(tx: Tx, user: sa.Row[Any]) -> Scope:
    key = user.default_project_id
    row = None if key is None else projects.find(tx, key)
    if row is None or row.is_domain or not row.enabled:
        return UNSCOPED
    above = projects.find_domain(tx, row.domain_id)
    if above is None or not above.enabled or not assignments.roles_of(tx, user.id, "project", row.id):
        return UNSCOPED
    return Scope("project", row.id)

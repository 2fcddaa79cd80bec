"""How a request for a token names users, projects and domains: by id, or by name within a domain."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.errors import BadRequest
from pileus.core.store import Tx
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.token.fields import DomainReference, ProjectReference, UserReference
from pileus.services.identity.resources.user.operations import login


def check_reference(place: str, key: str | None, name: str | None, domain: DomainReference | None) -> None:
    """Raise BadRequest unless something is named by id, or by name together with a domain."""
    if not key and not name:
        raise BadRequest(f"Invalid input for field {place}: id or name must be present.")
    if not key and domain is None:
        raise BadRequest(f"Expecting to find domain in {place}.")
    if domain is not None and not domain.id and not domain.name:
        raise BadRequest(f"Invalid input for field {place}/domain: id or name must be present.")


def named_domain(tx: Tx, wanted: DomainReference) -> sa.Row[Any] | None:
    """The domain that a request names, None when there is no such."""
    return projects.find_named(tx, wanted.name, None) if wanted.name else projects.find_domain(tx, wanted.id or "")


def named_user(tx: Tx, wanted: UserReference) -> sa.Row[Any] | None:
    """The user that a request names, None when there is no such."""
    if wanted.id:
        return users.find(tx, wanted.id)
    domain = None if wanted.domain is None else named_domain(tx, wanted.domain)
    return None if domain is None else users.find_named(tx, wanted.name or "", domain.id)


def naming(wanted: UserReference) -> tuple[str, ...]:
    """What `named_user` goes by, for counting failures."""
    domain = wanted.domain or DomainReference()
    return login.naming(wanted.id, wanted.name, domain.id, domain.name)


def named_project(tx: Tx, wanted: ProjectReference) -> sa.Row[Any] | None:
    """The project (or domain, which is one) that a request names, None when there is no such."""
    if wanted.id:
        return projects.find(tx, wanted.id)
    domain = None if wanted.domain is None else named_domain(tx, wanted.domain)
    return None if domain is None else projects.find_named(tx, wanted.name or "", domain.id)

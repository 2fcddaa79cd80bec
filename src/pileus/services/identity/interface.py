"""What neighbours and the composition root may ask of Identity, always within their own transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from pileus.core.quota import Shared
from pileus.core.store import Tx
from pileus.services.identity.resources import endpoint as endpoints
from pileus.services.identity.resources import limit as limits
from pileus.services.identity.resources import region as regions
from pileus.services.identity.resources import revision
from pileus.services.identity.resources import role as roles
from pileus.services.identity.resources import service as services
from pileus.services.identity.resources import user as users
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.key import KeyFailure, Keys
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.project.operations import project as project_operations
from pileus.services.identity.resources.secret import Secrets
from pileus.services.identity.resources.token.operations.registry import Tokens
from pileus.services.identity.rules import password as passwords
from pileus.services.identity.rules.compliance import Compliance
from pileus.services.identity.rules.limit import MODELS
from pileus.services.identity.rules.limit import Model as LimitModel
from pileus.services.identity.rules.role import IMPLICATIONS, PERSONAS
from pileus.services.identity.rules.throttle import Throttle

if TYPE_CHECKING:
    from pileus.core.config import Config

__all__ = [
    "ADMIN",
    "DEFAULT_DOMAIN",
    "Compliance",
    "KeyFailure",
    "Keys",
    "LimitModel",
    "Offer",
    "Secrets",
    "Started",
    "Throttle",
    "Tokens",
    "UnifiedLimits",
    "bootstrap",
    "compliance",
    "ensure_password_hash",
    "find_user",
    "hash_password",
    "lacks_administrator",
    "limit_model",
    "project_exists",
    "project_names",
    "user_names",
]

DEFAULT_DOMAIN = users.DEFAULT_DOMAIN
"""Id of the domain that every cloud begins with."""

ADMIN = "admin"
"""Name of the user, project and role that every cloud begins with."""


class Offer(NamedTuple):
    """A service that a cloud offers at a URL, e.g. `Offer("nova", "compute", "http://…/compute/v2.1")`."""

    name: str
    type: str
    url: str


class Started(NamedTuple):
    """What a cloud begins with."""

    admin_id: str
    admin_project_id: str


def compliance(config: Config) -> Compliance:
    """What a cloud's settings ask of passwords and accounts."""
    return Compliance(**{name: getattr(config, name) for name in Compliance.__struct_fields__})


def limit_model(config: Config) -> LimitModel:
    """The model of enforcement of limits that a cloud's settings name."""
    return MODELS[config.limit_model]


class UnifiedLimits:
    """Identity's limits as the quotas of other services: a `pileus.core.quota.Source`."""

    def __init__(self, model: LimitModel, region: str) -> None:
        self.model = model
        self.region = region

    def limits(self, tx: Tx, service: str, project_id: str | None) -> dict[str, int]:
        """The limits of a project in a service (a type of the catalog), or (None) of one that has none of its own."""
        return limits.in_force(tx, service, self.region, project_id)

    def shared(self, tx: Tx, service: str, project_id: str) -> Shared | None:
        """Under a model of two levels: what the projects of a domain may have together."""
        row = None if self.model.levels is None else projects.find(tx, project_id)
        if row is None or row.domain_id is None:
            return None
        project = projects.table
        members = sa.select(project.c.id).where(project.c.domain_id == row.domain_id)
        return Shared(row.domain_id, limits.in_force(tx, service, self.region, row.domain_id), members)


def project_exists(tx: Tx, project_id: str) -> bool:
    """Whether there is a project of this id (domains are none)."""
    row = projects.find(tx, project_id)
    return row is not None and not row.is_domain


def project_names(tx: Tx, ids: Iterable[str]) -> dict[str, str]:
    """Names of projects and domains by id; those that are not there are left out."""
    return {key: row.name for key, row in projects.names_of(tx, ids).items()}


def user_names(tx: Tx, ids: Iterable[str]) -> dict[str, str]:
    """Names of users by id; those that are not there are left out."""
    return {key: row.name for key, row in users.names_of(tx, list(set(ids))).items()}


def find_user(tx: Tx, name: str, domain_id: str = DEFAULT_DOMAIN) -> str | None:
    """Id of the user of a name, None when there is no such."""
    row = users.find_named(tx, name, domain_id)
    return None if row is None else row.id


def hash_password(password: str) -> str:
    """The hash of a password: about 50 ms of CPU and 64 MiB, so outside transactions."""
    return passwords.digest(password)


def ensure_password_hash(tx: Tx, user_id: str, password_hash: str) -> bool:
    """Give a user a password unless it has one; whether it was given."""
    query = sa.update(users.table).where(users.table.c.id == user_id, users.table.c.password_hash.is_(None))
    given = tx.execute(query.values(password_hash=password_hash)).rowcount == 1
    if given:
        tx.changed("identity.user", user_id)
        revision.grow(tx)
    return given


def lacks_administrator(tx: Tx) -> bool:
    """Whether `bootstrap` has use for a hash: the user `admin` is missing, or has no password."""
    found = users.find_named(tx, ADMIN, DEFAULT_DOMAIN)
    return found is None or found.password_hash is None


def bootstrap(tx: Tx, *, admin_password_hash: str | None, region: str, offers: Sequence[Offer]) -> Started:
    """Make what every cloud begins with, where it is missing; run it at each start.

    That is the domain Default, the personas' roles and what they imply, the project and the user `admin` with the role
    `admin` on the project and on the system, the region, and for each offer its service and three endpoints.  What is
    there stays as it is (a password is never replaced), but for the URLs of endpoints in the region, which follow the
    offers.  Without a hash, the user `admin` gets no password.
    """
    if projects.find(tx, DEFAULT_DOMAIN) is None:
        project_operations.insert(
            tx, "Default", key=DEFAULT_DOMAIN, domain_id=None, description="The default domain", extra={}
        )
    held = _ensure_roles(tx)
    project = projects.find_named(tx, ADMIN, DEFAULT_DOMAIN)
    project_id = project.id if project is not None else _insert_admin_project(tx)
    user_id = find_user(tx, ADMIN)
    if user_id is None:
        options = {"ignore_lockout_failure_attempts": True}
        user_id = users.insert(tx, {"name": ADMIN, "domain_id": DEFAULT_DOMAIN, "options": options})
    if admin_password_hash is not None:
        ensure_password_hash(tx, user_id, admin_password_hash)
    assignments.insert(tx, held[ADMIN], user_id=user_id, project_id=project_id)
    assignments.insert(tx, held[ADMIN], user_id=user_id)
    regions.ensure(tx, region)
    moved = [offer for offer in offers if _ensure_offer(tx, offer, region)]
    if moved:
        revision.grow(tx)
    return Started(user_id, project_id)


def _insert_admin_project(tx: Tx) -> str:
    return project_operations.insert(
        tx, ADMIN, domain_id=DEFAULT_DOMAIN, description="The project of those who run this cloud"
    )


def _ensure_roles(tx: Tx) -> dict[str, str]:
    """The id of each persona's role, which cannot be changed or deleted by accident."""
    query = sa.select(roles.table.c.id, roles.table.c.name_key).where(roles.table.c.domain_id.is_(None))
    held: dict[str, str] = {row.name_key: row.id for row in tx.all(query)}
    for name in PERSONAS:
        if name not in held:
            held[name] = roles.insert(tx, name, options={"immutable": True})
    missing = [
        {"prior_id": held[prior], "implied_id": held[implied]}
        for prior, implied in IMPLICATIONS
        if held[implied] not in roles.implications(tx).get(held[prior], [])
    ]
    if missing:
        tx.insert(roles.implication, missing)
        revision.grow(tx)
    return held


def _ensure_offer(tx: Tx, offer: Offer, region: str) -> bool:
    """Write what of a service and its endpoints is missing or has moved; whether anything was."""
    row = tx.first(sa.select(services.table.c.id).where(services.table.c.type == offer.type).order_by("id"))
    service_id = row.id if row is not None else services.insert(tx, offer.type, name=offer.name)
    table = endpoints.table
    query = sa.select(table).where(table.c.service_id == service_id, table.c.region_id == region)
    held = {one.interface: one for one in tx.all(query.order_by(table.c.id))}
    changed = False
    for interface in endpoints.INTERFACES:
        one = held.get(interface)
        if one is None:
            endpoints.insert(tx, service_id=service_id, region_id=region, interface=interface, url=offer.url)
        elif one.url != offer.url:
            tx.execute(sa.update(table).where(table.c.id == one.id).values(url=offer.url))
            tx.changed("identity.endpoint", one.id)
        changed = changed or one is None or one.url != offer.url
    return changed

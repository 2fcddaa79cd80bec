"""Shapes of authentication requests and of tokens (…/identity/v3/#authentication-and-token-management)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.fields import OpenBody
from pileus.services.identity.resources.user.fields import moment as user_moment
from pileus.services.identity.rules.token import DelegationKind, Payload


class DomainReference(OpenBody):
    """A domain by id or by name."""

    id: str | None = None
    name: str | None = None


class UserReference(OpenBody):
    """A user by id, or by name and domain, with the password to prove it."""

    id: str | None = None
    name: str | None = None
    domain: DomainReference | None = None
    password: str | None = None


class ProjectReference(OpenBody):
    """A project by id, or by name and domain."""

    id: str | None = None
    name: str | None = None
    domain: DomainReference | None = None


class PasswordProof(OpenBody):
    """The method `password`."""

    user: UserReference


class TokenProof(OpenBody):
    """The method `token`."""

    id: str


class ApplicationCredentialProof(OpenBody):
    """The method `application_credential`: one by id, or by name and user, with the secret to prove it."""

    id: str | None = None
    name: str | None = None
    user: UserReference | None = None
    secret: str | None = None


class SystemReference(OpenBody):
    """The system: all of it."""

    all: bool | None = None


class TrustReference(OpenBody):
    """A trust by id."""

    id: str


class Proofs(OpenBody):
    """How the caller proves who it is: the methods to be used, and what each needs."""

    methods: list[str]
    password: PasswordProof | UnsetType = UNSET
    token: TokenProof | UnsetType = UNSET
    application_credential: ApplicationCredentialProof | UnsetType = UNSET
    oauth1: dict[str, Any] | UnsetType = UNSET


class ScopeReference(OpenBody):
    """What the token is to be good for: exactly one of these."""

    project: ProjectReference | UnsetType = UNSET
    domain: DomainReference | UnsetType = UNSET
    system: SystemReference | UnsetType = UNSET
    unscoped: dict[str, Any] | UnsetType = UNSET
    trust: TrustReference | UnsetType = msgspec.field(name="OS-TRUST:trust", default=UNSET)


class AuthRequest(OpenBody):
    """A request for a token."""

    identity: Proofs
    scope: ScopeReference | str | UnsetType = UNSET


class Delegation(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind a token besides its user, as it is at this moment: a trust and its like.

    A token is good only for `holder_id`, in `project_id`, before `expires_at`, while `generation` is what it was, and
    while `grantor_id` is enabled and holds roles that were given.
    """

    kind: DelegationKind
    id: str
    holder_id: str
    """The user who may use it: a trustee, or the owner of an application credential."""
    user_id: str
    """Whom the token stands for: the holder, or with impersonation the trustor."""
    grantor_id: str
    """The user whose roles these are: the first trustor of a chain, or the holder."""
    project_id: str | None
    """The token's scope; None: unscoped."""
    role_ids: frozenset[str]
    """The roles that were given; what they imply counts, too."""
    whole: bool = False
    """Whether the grantor must still hold all of the roles (trusts); else what is left of them is enough."""
    generation: int = 0
    """Grows when tokens of before must not be good any longer."""
    expires_at: datetime | None = None
    document: Mapping[str, Any] = {}
    """Keys that the token's document gets, e.g. `OS-TRUST:trust`."""
    caller: Mapping[str, Any] = {}
    """Fields of `Auth`, e.g. `trustor_id`, `restricted`, `access`."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was found good, and what it means at this moment."""

    payload: Payload
    user: sa.Row[Any]
    """Whom it stands for: id, name, domain_id, domain_name, password_expires_at."""
    scope: sa.Row[Any] | None
    """Of the project: id, name, domain_id, domain_name; of a domain: id, name."""
    roles: tuple[tuple[str, str], ...]
    """Ids and names, implied ones included."""
    delegation: Delegation | None = None

    @property
    def audit_ids(self) -> list[str]:
        """Its own audit id, then that of the first token of its chain."""
        parent = self.payload.parent_audit_id
        return [self.payload.audit_id] if parent is None else [self.payload.audit_id, parent]


def moment(at: datetime) -> str:
    """A time as Identity writes it, e.g. `2026-01-31T12:00:00.000000Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def render(token: Token, catalog: msgspec.Raw | None) -> dict[str, Any]:
    """A token as clients see it; without a catalog when that is None."""
    payload, user, scope = token.payload, token.user, token.scope
    found: dict[str, Any] = {
        "methods": list(payload.methods),
        "user": {
            "domain": {"id": user.domain_id, "name": user.domain_name},
            "id": user.id,
            "name": user.name,
            "password_expires_at": user_moment(user.password_expires_at),
        },
        "audit_ids": token.audit_ids,
        "expires_at": moment(payload.expires_at),
        "issued_at": moment(payload.issued_at),
    }
    if token.delegation is not None:
        found |= token.delegation.document
    if payload.kind == "unscoped":
        return {"token": found}
    if payload.kind == "system":
        found["system"] = {"all": True}
    elif scope is not None and payload.kind == "domain":
        found["domain"] = {"id": scope.id, "name": scope.name}
    elif scope is not None:
        domain = {"id": scope.domain_id, "name": scope.domain_name}
        found["project"] = {"domain": domain, "id": scope.id, "name": scope.name}
        found["is_domain"] = False
    found["roles"] = [{"id": key, "name": name} for key, name in token.roles]
    if catalog is not None:
        found["catalog"] = catalog
    return {"token": found}

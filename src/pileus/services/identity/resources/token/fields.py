"""Shapes of authentication requests and of tokens (…/identity/v3/#authentication-and-token-management)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.fields import OpenBody
from pileus.services.identity.rules.token import Payload


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


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was found good, and what it means at this moment."""

    payload: Payload
    user: sa.Row[Any]
    """id, name, domain_id, domain_name."""
    scope: sa.Row[Any] | None
    """Of the project: id, name, domain_id, domain_name; of a domain: id, name."""
    roles: tuple[tuple[str, str], ...]
    """Ids and names, implied ones included."""

    @property
    def audit_ids(self) -> list[str]:
        """Its own audit id, then that of the first token of its chain."""
        parent = self.payload.parent_audit_id
        return [self.payload.audit_id] if parent is None else [self.payload.audit_id, parent]


def moment(at: datetime) -> str:
    """A time as Identity writes it, e.g. `2026-01-31T12:00:00.000000Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def render(token: Token, catalog: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A token as clients see it; without a catalog when that is None."""
    payload, user, scope = token.payload, token.user, token.scope
    found: dict[str, Any] = {
        "methods": list(payload.methods),
        "user": {
            "domain": {"id": user.domain_id, "name": user.domain_name},
            "id": user.id,
            "name": user.name,
            "password_expires_at": None,
        },
        "audit_ids": token.audit_ids,
        "expires_at": moment(payload.expires_at),
        "issued_at": moment(payload.issued_at),
    }
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

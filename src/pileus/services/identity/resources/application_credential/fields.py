"""Shapes of application credentials (https://docs.openstack.org/api-ref/identity/v3/#application-credentials)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, View
from pileus.services.identity.resources.attribute import Id, Links, Name
from pileus.services.identity.resources.delegation import RoleReference
from pileus.services.identity.rules import password as passwords

Path = Annotated[str, msgspec.Meta(max_length=225, pattern="^/")]

MOST_RULES = 128
"""Access rules of one application credential: all of them may be asked at each request."""

Secret = Annotated[str, msgspec.Meta(max_length=passwords.LONGEST)]


class Delegated(View):
    """A role that an application credential carries."""

    id: str
    name: str
    domain_id: str | None
    description: str | None
    options: dict[str, Any]


class ApplicationCredential(View):
    """What a program shows instead of its user's password. The secret is given at its making, and never again."""

    id: str
    name: str
    description: str | None
    user_id: str
    project_id: str
    system: None
    roles: list[Delegated]
    expires_at: str | None
    unrestricted: bool
    links: Links
    access_rules: list[dict[str, str]] | UnsetType = UNSET
    secret: str | UnsetType = UNSET


class AccessRuleReference(Body):
    """An access rule: by its id when there is one already, or by what it says."""

    id: Id | UnsetType = UNSET
    service: Id | UnsetType = UNSET
    method: Literal["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"] | UnsetType = UNSET
    path: Path | UnsetType = UNSET
    links: Any = UNSET


class ApplicationCredentialCreate(Body):
    """A new application credential, for the project of the caller's token."""

    name: Name
    description: str | None = None
    secret: Secret | None = None
    roles: list[RoleReference] | None = None
    expires_at: str | None = None
    unrestricted: bool | None = None
    access_rules: Annotated[list[AccessRuleReference], msgspec.Meta(max_length=MOST_RULES)] | None = None
    project_id: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    system: str | None = None

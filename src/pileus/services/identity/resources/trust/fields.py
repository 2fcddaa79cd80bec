"""Shapes of trusts (https://docs.openstack.org/api-ref/identity/v3-ext/#os-trust-api)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.fields import OpenBody, View
from pileus.services.identity.resources.attribute import Links
from pileus.services.identity.resources.delegation import RoleReference


class ListLinks(View):
    """Where a list within another thing is found."""

    self: str
    next: str | None = None
    previous: str | None = None


class Trust(View):
    """What a user, the trustor, lets another, the trustee, do in its place. Lists leave out the roles."""

    id: str
    trustor_user_id: str
    trustee_user_id: str
    project_id: str | None
    impersonation: bool
    expires_at: str | None
    remaining_uses: int | None
    deleted_at: str | None
    redelegated_trust_id: str | None
    redelegation_count: int
    links: Links
    roles: list[Any] | UnsetType = UNSET
    roles_links: ListLinks | UnsetType = UNSET


class TrustCreate(OpenBody):
    """A new trust."""

    trustor_user_id: str
    trustee_user_id: str
    impersonation: bool
    project_id: str | None = None
    roles: list[RoleReference] = msgspec.field(default_factory=list)
    expires_at: str | None = None
    remaining_uses: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    allow_redelegation: bool | None = None
    redelegation_count: Annotated[int, msgspec.Meta(ge=0)] | None = None
    redelegated_trust_id: str | None = None

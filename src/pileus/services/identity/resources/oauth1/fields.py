"""Shapes of OAuth 1.0a (https://docs.openstack.org/api-ref/identity/v3-ext/#os-oauth1-api)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.fields import OpenBody, View
from pileus.services.identity.resources.attribute import Links
from pileus.services.identity.resources.delegation import RoleReference

Description = Annotated[str, msgspec.Meta(max_length=255)]


class Consumer(View):
    """A program that users may let act in their place. The secret is given at its making, and never again."""

    id: str
    description: str | None
    links: Links
    secret: str | UnsetType = UNSET


class ConsumerCreate(OpenBody):
    """A new consumer."""

    description: Description | None = None


class ConsumerUpdate(OpenBody):
    """What is to be changed of a consumer."""

    description: Description | UnsetType | None = UNSET


class Authorization(OpenBody):
    """The roles that a consumer gets."""

    roles: list[RoleReference] = msgspec.field(default_factory=list)


class Verifier(View):
    """What the user hands over to the consumer."""

    oauth_verifier: str


class AccessTokenLinks(View):
    """Where an access token and its roles are found."""

    self: str
    roles: str


class AccessToken(View):
    """What a user has let a consumer do. The secret is the consumer's alone."""

    id: str
    consumer_id: str
    project_id: str
    authorizing_user_id: str
    expires_at: str
    links: AccessTokenLinks


class AccessTokenRole(View):
    """A role that an access token carries."""

    id: str
    name: str
    domain_id: str | None
    options: dict[str, Any]
    links: Links

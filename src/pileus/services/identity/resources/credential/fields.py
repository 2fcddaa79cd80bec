"""Shapes of credentials (https://docs.openstack.org/api-ref/identity/v3/#credentials)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, OpenBody, View
from pileus.services.identity.resources.attribute import Links

Type = Annotated[str, msgspec.Meta(max_length=255)]


class Credential(View):
    """Something secret that a user keeps here: keys of the EC2 API, a certificate, the seed of a TOTP, …"""

    id: str
    user_id: str
    project_id: str | None
    type: str
    blob: str
    links: Links


class CredentialCreate(OpenBody):
    """A new credential."""

    type: Type
    blob: str
    user_id: str
    project_id: str | UnsetType | None = UNSET


class CredentialUpdate(Body):
    """What can be changed of a credential: only what it holds, never whose it is or what for."""

    blob: str


class Ec2Credential(View):
    """A pair of keys for the EC2 API, to a project."""

    access: str
    secret: str
    user_id: str
    tenant_id: str | None
    trust_id: str | None
    links: Links


class Ec2CredentialCreate(OpenBody):
    """A new pair of keys."""

    tenant_id: str | None = None

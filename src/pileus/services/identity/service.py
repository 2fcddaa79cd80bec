"""The door plate of Identity."""

from __future__ import annotations

from pileus.core.api import Service, identity_paging
from pileus.core.errors import identity_envelope
from pileus.services.identity.resources import (
    attribute,
    domain,
    endpoint,
    group,
    policy,
    policy_association,
    region,
    role,
    user,
    version,
)
from pileus.services.identity.resources import service as catalog_service
from pileus.services.identity.resources.assignment.operations import grant
from pileus.services.identity.resources.assignment.operations import listing as assignment
from pileus.services.identity.resources.endpoint_filter import operations as endpoint_filter
from pileus.services.identity.resources.project import operations as project
from pileus.services.identity.resources.token.operations import authentication as token
from pileus.services.identity.resources.trust import operations as trust


def service() -> Service:
    """Identity v3, below `/identity/v3` and `/v3`. Its operations ask for the provided `Tokens`."""
    return Service(
        name="keystone",
        type="identity",
        mounts=("/identity", ""),
        roots=("/v3",),
        resources=(
            token.resource,
            domain.resource,
            project.resource,
            user.resource,
            group.resource,
            role.resource,
            grant.resource,
            assignment.resource,
            region.resource,
            catalog_service.resource,
            endpoint.resource,
            endpoint_filter.resource,
            endpoint_filter.endpoint_resource,
            policy.resource,
            policy_association.resource,
            trust.resource,
        ),
        outer=(version.resource,),
        envelope=identity_envelope,
        paging=identity_paging,
        rules=attribute.RULES,
    )

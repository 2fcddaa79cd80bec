"""The door plate of Identity."""

from __future__ import annotations

from pileus.core.api import Service, identity_paging
from pileus.core.errors import identity_envelope
from pileus.services.identity.resources import (
    access_rule,
    attribute,
    domain,
    domain_config,
    endpoint,
    group,
    limit,
    oauth2,
    policy,
    policy_association,
    region,
    registered_limit,
    revoke_event,
    role,
    simple_cert,
    version,
)
from pileus.services.identity.resources import service as catalog_service
from pileus.services.identity.resources.application_credential.operations import credential as application_credential
from pileus.services.identity.resources.assignment.operations import grant
from pileus.services.identity.resources.assignment.operations import listing as assignment
from pileus.services.identity.resources.credential.operations import credential, ec2
from pileus.services.identity.resources.endpoint_filter import operations as endpoint_filter
from pileus.services.identity.resources.oauth1.operations import access_token as oauth1_access_token
from pileus.services.identity.resources.oauth1.operations import consumer as oauth1_consumer
from pileus.services.identity.resources.oauth1.operations import request_token as oauth1_request_token
from pileus.services.identity.resources.project.operations import project
from pileus.services.identity.resources.project.operations import tag as project_tag
from pileus.services.identity.resources.token.operations import authentication as token
from pileus.services.identity.resources.token.operations import reach, validation
from pileus.services.identity.resources.trust.operations import trust
from pileus.services.identity.resources.user.operations import account, secret

BODY_LIMIT = 114_688
"""Bytes of a request's body, as upstream limits it: what is asked for without a token costs little."""


def service() -> Service:
    """Identity v3, below `/identity/v3` and `/v3`. Its operations ask for the provided `Tokens`."""
    return Service(
        name="keystone",
        type="identity",
        mounts=("/identity", ""),
        roots=("/v3",),
        resources=(
            token.resource,
            validation.resource,
            reach.resource,
            oauth2.resource,
            revoke_event.resource,
            simple_cert.resource,
            domain.resource,
            domain_config.resource,
            project.resource,
            project_tag.resource,
            account.resource,
            secret.resource,
            group.resource,
            role.resource,
            grant.resource,
            assignment.resource,
            region.resource,
            catalog_service.resource,
            endpoint.resource,
            endpoint_filter.resource,
            endpoint_filter.endpoint_resource,
            limit.resource,
            registered_limit.resource,
            policy.resource,
            policy_association.resource,
            trust.resource,
            application_credential.resource,
            access_rule.resource,
            credential.resource,
            ec2.resource,
            oauth1_consumer.resource,
            oauth1_request_token.resource,
            oauth1_access_token.resource,
        ),
        outer=(version.resource,),
        envelope=identity_envelope,
        paging=identity_paging,
        rules=attribute.RULES,
        body_limit=BODY_LIMIT,
    )

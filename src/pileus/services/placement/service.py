"""Placement's door plate."""

from __future__ import annotations

from pileus.core.api import Service
from pileus.core.errors import placement_envelope
from pileus.services.placement.resources import (
    aggregate,
    allocation,
    candidate,
    inventory,
    policy,
    provider_trait,
    reshaper,
    resource_class,
    trait,
    usage,
    version,
)
from pileus.services.placement.resources.provider import operations
from pileus.services.placement.versions import LEDGER


def service() -> Service:
    """Placement, at all of its microversions."""
    return Service(
        name="placement",
        type="placement",
        mounts=("/placement",),
        roots=("",),
        resources=[
            version.resource,
            operations.resource,
            inventory.resource,
            aggregate.resource,
            provider_trait.resource,
            usage.resource,
            allocation.resource,
            candidate.resource,
            resource_class.resource,
            trait.resource,
            reshaper.resource,
        ],
        envelope=placement_envelope,
        ledger=LEDGER,
        rules=policy.SHARED,
        query_closed=LEDGER.minimum,
    )

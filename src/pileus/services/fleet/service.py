"""Fleet's door plates: the link that agents dial, and what operators see of the hosts."""

from __future__ import annotations

from collections.abc import Sequence

from pileus.core.api import Resource, Service
from pileus.core.errors import identity_envelope
from pileus.services.fleet.resources import host, link, quarantine


def service() -> Service:
    """The operators' view, on the public port."""
    return Service(
        name="fleet",
        type="fleet",
        mounts=("/fleet",),
        roots=("/v1",),
        resources=[host.resource, quarantine.resource],
        envelope=identity_envelope,
    )


def link_service(more: Sequence[Resource] = ()) -> Service:
    """The link; upper services may hang resources of their own for hosts on it."""
    return Service(
        name="link",
        type="link",
        mounts=("",),
        roots=("",),
        resources=[link.resource, *more],
        envelope=identity_envelope,
        body_limit=64 << 20,
    )

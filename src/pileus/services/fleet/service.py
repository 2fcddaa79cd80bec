"""Fleet's door plate: the link that agents dial."""

from __future__ import annotations

from collections.abc import Sequence

from pileus.core.api import Resource, Service
from pileus.core.errors import identity_envelope
from pileus.services.fleet.resources import link


def service(more: Sequence[Resource] = ()) -> Service:
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

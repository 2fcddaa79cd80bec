"""Image's door plate."""

from __future__ import annotations

from pileus.core.api import Service, image_paging
from pileus.core.errors import image_envelope
from pileus.services.image.resources import (
    cache,
    data,
    image_import,
    info,
    location,
    member,
    schema,
    tag,
    task,
    usage,
    version,
)
from pileus.services.image.resources.image import operations, policy
from pileus.services.image.resources.metadef.operations import RESOURCES as METADEFS


def service() -> Service:
    """Image v2. It asks to be provided with `ImageStores`."""
    return Service(
        name="image",
        type="image",
        mounts=("/image",),
        roots=("/v2",),
        resources=[
            operations.resource,
            data.resource,
            image_import.resource,
            task.resource,
            location.resource,
            cache.resource,
            tag.resource,
            member.resource,
            schema.resource,
            *METADEFS,
            info.resource,
            usage.resource,
        ],
        outer=[version.resource],
        envelope=image_envelope,
        paging=image_paging,
        quota=usage.QUOTA,
        rules=policy.SERVICE_RULES,
        strict_slash=True,
    )

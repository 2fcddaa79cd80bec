"""What an image that is made of a server says of itself.

Source: Compute API guide, "Server concepts", on snapshots; the names of properties are upstream's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

_NEVER_INHERITED = frozenset(
    {
        "bittorrent",
        "block_device_mapping",
        "cache_in_nova",
        "cinder_encryption_key_deletion_policy",
        "cinder_encryption_key_id",
        "img_block_device_mapping",
        "img_mappings",
        "img_signature",
        "img_signature_certificate_uuid",
        "img_signature_hash_method",
        "img_signature_key_type",
        "mappings",
    }
)
"""Properties of an image that do not hold for one made of its server."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is to be made of a server, as Compute asks for it."""

    name: str
    image_type: Literal["snapshot", "backup"] = "snapshot"
    server_id: str
    server_project_id: str
    """The project of the server: it may use the image, whoever had it made."""
    project_id: str
    """The project of the one who asks: the image is its own."""
    user_id: str
    """Who asks."""
    base_image_id: str | None
    """The image that the server was made of."""
    min_disk: int
    """GiB: the larger one of the image's and the flavor's root disk."""
    min_ram: int
    """MiB."""
    disk_format: Literal["qcow2", "raw"] = "qcow2"
    """The `format` of the host's `SnapshotSpec`."""
    inherited: Mapping[str, str | None] = {}
    """Properties of the image that the server was made of."""
    properties: Mapping[str, str | None] = {}
    """What the request says; for a backup `backup_type` is among them.  They come before all others."""


def properties(wanted: Snapshot) -> dict[str, str | None]:
    """All properties of the image."""
    found = {
        name: value
        for name, value in wanted.inherited.items()
        if name not in _NEVER_INHERITED and not name.startswith("os_glance")
    }
    found |= {
        "image_location": "snapshot",
        "image_state": "available",
        "image_type": wanted.image_type,
        "instance_uuid": wanted.server_id,
        "owner_id": wanted.server_project_id,
        "user_id": wanted.user_id,
    }
    if wanted.base_image_id is not None:
        found["base_image_ref"] = wanted.base_image_id
    if wanted.server_project_id != wanted.project_id:
        found["instance_owner"] = wanted.server_project_id
    return found | dict(wanted.properties)

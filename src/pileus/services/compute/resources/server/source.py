"""What a server keeps of the flavor, the image and the key pair that it is made of: copies from the day it was."""

from __future__ import annotations

import string
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound
from pileus.services.compute.resources import flavor as flavors
from pileus.services.compute.resources import keypair as keypairs
from pileus.services.image.interface import ImageInfo

_ALPHABET = string.ascii_letters + string.digits
_FLAVOR = ("name", "vcpus", "ram", "disk", "ephemeral", "swap")


def flavor(ctx: Context, flavor_id: str) -> tuple[str, dict[str, Any]]:
    """The id of a flavor that the caller may use, and a copy of it. Raises BadRequest."""
    try:
        row: sa.Row[Any] = flavors.find(ctx, flavor_id)
    except NotFound as fault:
        raise BadRequest(fault.message) from None
    found = {name: getattr(row, name) for name in _FLAVOR}
    found["extra_specs"] = flavors.extra_specs(ctx.tx, [row.id])[row.id]
    return row.id, found


def image(found: ImageInfo) -> dict[str, Any]:
    """A copy of an image."""
    return {
        "format": found.disk_format,
        "sha512": found.sha512,
        "virtual_size": found.virtual_size,
        "min_disk": found.min_disk,
        "min_ram": found.min_ram,
        "properties": {name: value for name, value in found.properties.items() if value is not None},
    }


def key(ctx: Context, name: str | None) -> dict[str, str] | None:
    """A copy of the caller's key pair of this name. Raises BadRequest when there is none."""
    if not name:
        return None
    found = keypairs.find(ctx.tx, ctx.auth.user_id, name)
    if found is None:
        raise BadRequest("Invalid key_name provided.")
    return {"name": found.name, "type": found.type, "public_key": found.public_key}


def password(ctx: Context) -> str:
    """A new administrator's password."""
    return "".join(ctx.seams.random.choices(_ALPHABET, k=12))

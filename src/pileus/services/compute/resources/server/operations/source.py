"""What a server keeps of the flavor, the image and the key pair that it is made of: copies from the day it was."""

from __future__ import annotations

import base64
import string
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import BadRequest, Forbidden, NotFound
from pileus.core.quota import UNLIMITED
from pileus.services.compute.resources import flavor as flavors
from pileus.services.compute.resources import keypair as keypairs
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.fields import InjectedFile
from pileus.services.image.interface import ImageInfo

_ALPHABET = string.ascii_letters + string.digits
_FLAVOR = ("name", "vcpus", "ram", "disk", "ephemeral", "swap")


def flavor(ctx: Context, key: str) -> tuple[str, dict[str, Any]]:
    """The id of a flavor that the caller may use, and a copy of it. Raises BadRequest."""
    try:
        row: sa.Row[Any] = flavors.find(ctx, key)
    except NotFound as fault:
        raise BadRequest(fault.message) from None
    found = {name: getattr(row, name) for name in _FLAVOR}
    found["extra_specs"] = flavors.extra_specs(ctx.tx, [row.id])[row.id]
    return row.id, found


def flavor_id(reference: str | int) -> str:
    """The id that a reference to a flavor ends with: older clients send a flavor's whole URL. Raises BadRequest."""
    try:
        return urlsplit(str(reference)).path.rpartition("/")[2]
    except ValueError:
        raise BadRequest(f"{reference!r} is not a reference to a flavor.") from None


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


def files(ctx: Context, project_id: str, wanted: Sequence[InjectedFile]) -> list[dict[str, str]] | None:
    """What a server keeps of files that are to be put into its guest; None for none.

    Raises BadRequest for contents that are not base 64, and Forbidden for more than the project may have.
    """
    if not wanted:
        return None
    limits = QUOTA.limits(ctx.tx, project_id)
    asked = {
        "injected_files": (len(wanted), "Personality file limit exceeded"),
        "injected_file_path_bytes": (max(len(one.path) for one in wanted), "Personality file path exceeds its limit"),
        "injected_file_content_bytes": (
            max(len(one.contents) for one in wanted),
            "Personality file content exceeds its limit",
        ),
    }
    for name, (amount, words) in asked.items():
        if limits[name] != UNLIMITED and amount > limits[name]:
            raise Forbidden(words)
    for one in wanted:
        try:
            base64.b64decode(one.contents, validate=True)
        except ValueError:
            raise BadRequest(f"The contents of the personality file {one.path!r} are not valid base 64.") from None
    return [{"path": one.path, "contents": one.contents} for one in wanted]


def password(ctx: Context) -> str:
    """A new administrator's password."""
    return "".join(ctx.seams.random.choices(_ALPHABET, k=12))

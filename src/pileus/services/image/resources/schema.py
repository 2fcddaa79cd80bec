"""The JSON schemas of what this service gives.

Source: https://docs.openstack.org/api-ref/image/v2/#image-schemas
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.services.image.rules import schema

resource = Resource("schema", "schemas")


@resource.get("/schemas/image")
def show_image(ctx: Context) -> dict[str, Any]:
    """What an image looks like."""
    return schema.IMAGE


@resource.get("/schemas/images")
def show_images(ctx: Context) -> dict[str, Any]:
    """What a list of images looks like."""
    return schema.IMAGES


@resource.get("/schemas/member")
def show_member(ctx: Context) -> dict[str, Any]:
    """What a member of an image looks like."""
    return schema.MEMBER


@resource.get("/schemas/members")
def show_members(ctx: Context) -> dict[str, Any]:
    """What a list of members looks like."""
    return schema.MEMBERS

"""The JSON schemas of what this service gives.

Source: https://docs.openstack.org/api-ref/image/v2/#image-schemas, metadefs-index.html#metadata-definition-schemas
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.services.image.rules import metadef, schema

resource = Resource(
    "schema",
    "schemas",
    rules=[Rule("get_schema", "@", "Show the shape of images and the like; upstream asks no rule")],
)


@resource.get("/schemas/image", policy="get_schema")
def show_image(ctx: Context) -> dict[str, Any]:
    """What an image looks like."""
    return schema.IMAGE


@resource.get("/schemas/images", policy="get_schema")
def show_images(ctx: Context) -> dict[str, Any]:
    """What a list of images looks like."""
    return schema.IMAGES


@resource.get("/schemas/member", policy="get_schema")
def show_member(ctx: Context) -> dict[str, Any]:
    """What a member of an image looks like."""
    return schema.MEMBER


@resource.get("/schemas/members", policy="get_schema")
def show_members(ctx: Context) -> dict[str, Any]:
    """What a list of members looks like."""
    return schema.MEMBERS


@resource.get("/schemas/metadefs/namespace", policy="get_schema")
def show_namespace(ctx: Context) -> dict[str, Any]:
    """What a namespace of metadata definitions looks like."""
    return metadef.SCHEMAS["namespace"]


@resource.get("/schemas/metadefs/namespaces", policy="get_schema")
def show_namespaces(ctx: Context) -> dict[str, Any]:
    """What a list of namespaces looks like."""
    return metadef.SCHEMAS["namespaces"]


@resource.get("/schemas/metadefs/object", policy="get_schema")
def show_object(ctx: Context) -> dict[str, Any]:
    """What an object of a namespace looks like."""
    return metadef.SCHEMAS["object"]


@resource.get("/schemas/metadefs/objects", policy="get_schema")
def show_objects(ctx: Context) -> dict[str, Any]:
    """What a list of objects looks like."""
    return metadef.SCHEMAS["objects"]


@resource.get("/schemas/metadefs/property", policy="get_schema")
def show_property(ctx: Context) -> dict[str, Any]:
    """What a property of a namespace looks like."""
    return metadef.SCHEMAS["property"]


@resource.get("/schemas/metadefs/properties", policy="get_schema")
def show_properties(ctx: Context) -> dict[str, Any]:
    """What the properties of a namespace look like."""
    return metadef.SCHEMAS["properties"]


@resource.get("/schemas/metadefs/resource_type", policy="get_schema")
def show_resource_type(ctx: Context) -> dict[str, Any]:
    """What a namespace's association with a resource type looks like."""
    return metadef.SCHEMAS["resource_type"]


@resource.get("/schemas/metadefs/resource_types", policy="get_schema")
def show_resource_types(ctx: Context) -> dict[str, Any]:
    """What a list of associations looks like."""
    return metadef.SCHEMAS["resource_types"]


@resource.get("/schemas/metadefs/tag", policy="get_schema")
def show_tag(ctx: Context) -> dict[str, Any]:
    """What a tag of a namespace looks like."""
    return metadef.SCHEMAS["tag"]


@resource.get("/schemas/metadefs/tags", policy="get_schema")
def show_tags(ctx: Context) -> dict[str, Any]:
    """What a list of tags looks like."""
    return metadef.SCHEMAS["tags"]

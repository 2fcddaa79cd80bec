"""The JSON schemas of what this service gives.

Source: https://docs.openstack.org/api-ref/image/v2/#image-schemas, metadefs-index.html#metadata-definition-schemas
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.services.image.rules import metadef, schema

resource = Resource("schema", "schemas")  # no rule: whoever has a token may know what things look like


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


@resource.get("/schemas/task")
def show_task(ctx: Context) -> dict[str, Any]:
    """What a task looks like."""
    return schema.TASK


@resource.get("/schemas/tasks")
def show_tasks(ctx: Context) -> dict[str, Any]:
    """What a list of tasks looks like."""
    return schema.TASKS


@resource.get("/schemas/metadefs/namespace")
def show_namespace(ctx: Context) -> dict[str, Any]:
    """What a namespace of metadata definitions looks like."""
    return metadef.SCHEMAS["namespace"]


@resource.get("/schemas/metadefs/namespaces")
def show_namespaces(ctx: Context) -> dict[str, Any]:
    """What a list of namespaces looks like."""
    return metadef.SCHEMAS["namespaces"]


@resource.get("/schemas/metadefs/object")
def show_object(ctx: Context) -> dict[str, Any]:
    """What an object of a namespace looks like."""
    return metadef.SCHEMAS["object"]


@resource.get("/schemas/metadefs/objects")
def show_objects(ctx: Context) -> dict[str, Any]:
    """What a list of objects looks like."""
    return metadef.SCHEMAS["objects"]


@resource.get("/schemas/metadefs/property")
def show_property(ctx: Context) -> dict[str, Any]:
    """What a property of a namespace looks like."""
    return metadef.SCHEMAS["property"]


@resource.get("/schemas/metadefs/properties")
def show_properties(ctx: Context) -> dict[str, Any]:
    """What the properties of a namespace look like."""
    return metadef.SCHEMAS["properties"]


@resource.get("/schemas/metadefs/resource_type")
def show_resource_type(ctx: Context) -> dict[str, Any]:
    """What a namespace's association with a resource type looks like."""
    return metadef.SCHEMAS["resource_type"]


@resource.get("/schemas/metadefs/resource_types")
def show_resource_types(ctx: Context) -> dict[str, Any]:
    """What a list of associations looks like."""
    return metadef.SCHEMAS["resource_types"]


@resource.get("/schemas/metadefs/tag")
def show_tag(ctx: Context) -> dict[str, Any]:
    """What a tag of a namespace looks like."""
    return metadef.SCHEMAS["tag"]


@resource.get("/schemas/metadefs/tags")
def show_tags(ctx: Context) -> dict[str, Any]:
    """What a list of tags looks like."""
    return metadef.SCHEMAS["tags"]

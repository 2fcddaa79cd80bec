"""The JSON schemas of what this service gives.

Source: https://docs.openstack.org/api-ref/image/v2/#image-schemas, metadefs-index.html#metadata-definition-schemas
"""

from __future__ import annotations

from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.services.image.rules import metadef, schema

resource = Resource("schema", "schemas")  # no rule: whoever has a token may know what things look like


_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("an image", schema.IMAGE),
    "images": ("a list of images", schema.IMAGES),
    "member": ("a member of an image", schema.MEMBER),
    "members": ("a list of members", schema.MEMBERS),
    "task": ("a task", schema.TASK),
    "tasks": ("a list of tasks", schema.TASKS),
    "metadefs/namespace": ("a namespace of metadata definitions", metadef.SCHEMAS["namespace"]),
    "metadefs/namespaces": ("a list of namespaces", metadef.SCHEMAS["namespaces"]),
    "metadefs/object": ("an object of a namespace", metadef.SCHEMAS["object"]),
    "metadefs/objects": ("a list of objects", metadef.SCHEMAS["objects"]),
    "metadefs/property": ("a property of a namespace", metadef.SCHEMAS["property"]),
    "metadefs/properties": ("a list of properties", metadef.SCHEMAS["properties"]),
    "metadefs/resource_type": ("a namespace's association with a resource type", metadef.SCHEMAS["resource_type"]),
    "metadefs/resource_types": ("a list of associations", metadef.SCHEMAS["resource_types"]),
    "metadefs/tag": ("a tag of a namespace", metadef.SCHEMAS["tag"]),
    "metadefs/tags": ("a list of tags", metadef.SCHEMAS["tags"]),
}
"""By the end of its path: what a schema is of, and the schema."""


def _declare(name: str, what: str, found: dict[str, Any]) -> None:
    def show(ctx: Context) -> dict[str, Any]:
        return found

    show.__name__ = f"show_{name.replace('/', '_')}"
    show.__doc__ = f"What {what} looks like."
    resource.get(f"/schemas/{name}")(show)


for _name, (_what, _found) in _SHAPES.items():
    _declare(_name, _what, _found)

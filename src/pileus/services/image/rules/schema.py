"""What an image looks like, as the JSON schema that clients may ask for, and a check against it.

Source: Image API reference, "Image Schemas"; JSON Schema draft 4, of which the schema uses `type`, `enum`, `pattern`,
`maxLength`, `minimum`, `maximum` and `items`.  An attribute that no schema names is a custom property: a string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pileus.core.errors import BadRequest

Schema = dict[str, Any]

UUID = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop")
VISIBILITIES = ("community", "public", "private", "shared")
MEMBER_STATUSES = ("pending", "accepted", "rejected")
TASK_TYPES = ("import", "api_image_import", "location_import")
TASK_STATUSES = ("pending", "processing", "success", "failure")
STATUSES = ("queued", "saving", "active", "deactivated", "deleted", "killed", "importing", "uploading")

_LONGEST_PROPERTY = 65_535
_LARGEST = 2**31 - 1


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _maybe(kind: str, description: str, **more: Any) -> Schema:
    return {"type": ["null", kind], "description": description, **more}


BASE: dict[str, Schema] = {
    "id": _text("The image's identifier", pattern=UUID),
    "name": _maybe("string", "A name for people", maxLength=255),
    "status": _text("Where the image stands", readOnly=True, enum=list(STATUSES)),
    "visibility": _text("Who may see the image", enum=list(VISIBILITIES)),
    "protected": {"type": "boolean", "description": "Whether deleting the image is refused"},
    "os_hidden": {"type": "boolean", "description": "Whether the image is left out of ordinary lists"},
    "checksum": _maybe("string", "MD5 of the data, in hexadecimal", readOnly=True, maxLength=32),
    "os_hash_algo": _maybe("string", "Algorithm of os_hash_value", readOnly=True, maxLength=64),
    "os_hash_value": _maybe("string", "Hash of the data, in hexadecimal", readOnly=True, maxLength=128),
    "owner": _maybe("string", "The project that the image belongs to", maxLength=255),
    "size": _maybe("integer", "Bytes of data", readOnly=True),
    "virtual_size": _maybe("integer", "Bytes that a guest sees", readOnly=True),
    "container_format": _maybe("string", "What is around the disk", enum=[None, *CONTAINER_FORMATS]),
    "disk_format": _maybe("string", "Format of the disk", enum=[None, *DISK_FORMATS]),
    "created_at": _text("When the image was registered", readOnly=True),
    "updated_at": _text("When the image was changed last", readOnly=True),
    "tags": {
        "type": "array",
        "description": "Words that describe the image",
        "items": {"type": "string", "maxLength": 255},
    },
    "direct_url": _text("Where the data is", readOnly=True),
    "min_ram": {
        "type": "integer",
        "description": "MiB of memory that a guest must have",
        "minimum": 0,
        "maximum": _LARGEST,
    },
    "min_disk": {
        "type": "integer",
        "description": "GiB of disk that a guest must have",
        "minimum": 0,
        "maximum": _LARGEST,
    },
    "self": _text("The image's own path", readOnly=True),
    "file": _text("Path of the data", readOnly=True),
    "stores": _text("The stores that hold the data", readOnly=True),
    "schema": _text("Path of this schema", readOnly=True),
    "locations": {
        "type": "array",
        "description": "Where the data is, in each store",
        "items": {
            "type": "object",
            "properties": {"url": {"type": "string", "maxLength": 255}, "metadata": {"type": "object"}},
            "required": ["url", "metadata"],
        },
    },
}
"""The attributes that every image has."""

KNOWN: dict[str, Schema] = {
    "kernel_id": _maybe("string", "The image with the kernel of a guest that has no boot loader", pattern=UUID),
    "ramdisk_id": _maybe("string", "The image with the initial RAM disk that belongs to kernel_id", pattern=UUID),
    "instance_uuid": _text("The server that the image was made of"),
    "architecture": _text("The processor architecture that the system in the image needs"),
    "os_distro": _text("Short name of the operating system's distribution"),
    "os_version": _text("The operating system's version, as its makers write it"),
    "description": _text("What the image is, for people"),
    "cinder_encryption_key_id": _text("The key that volumes made of the image are encrypted with"),
    "cinder_encryption_key_deletion_policy": _text(
        "What becomes of that key when the image is deleted", enum=["on_image_deletion", "do_not_delete"]
    ),
}
"""Custom properties whose meaning is agreed on."""

_CUSTOM: Schema = {"type": "string", "maxLength": _LONGEST_PROPERTY}

_LINKS = [
    {"rel": "self", "href": "{self}"},
    {"rel": "enclosure", "href": "{file}"},
    {"rel": "describedby", "href": "{schema}"},
]

IMAGE: Schema = {
    "name": "image",
    "properties": {
        **{name: {**part, "is_base": False} for name, part in KNOWN.items()},
        **BASE,
    },
    "additionalProperties": {"type": "string"},
    "links": _LINKS,
}

MEMBER: Schema = {
    "name": "member",
    "properties": {
        "image_id": _text("The image", pattern=UUID),
        "member_id": _text("The project that the image is shared with"),
        "status": _text("What the project makes of it", enum=list(MEMBER_STATUSES)),
        "created_at": _text("When the image was shared"),
        "updated_at": _text("When the status was changed last"),
        "schema": {"type": "string", "readOnly": True},
    },
}


def _collection(name: str, item: Schema, *, paged: bool) -> Schema:
    pages = ("first", "next") if paged else ()
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
            **{key: {"type": "string"} for key in (*pages, "schema")},
        },
        "links": [
            *({"rel": page, "href": f"{{{page}}}"} for page in pages),
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


IMAGES = _collection("images", IMAGE, paged=True)
MEMBERS = _collection("members", MEMBER, paged=False)

_STUB: dict[str, Schema] = {
    "id": _text("The task's identifier", pattern=UUID),
    "type": _text("What is done", enum=list(TASK_TYPES)),
    "status": _text("How far it is", enum=list(TASK_STATUSES)),
    "owner": _maybe("string", "The project that asked for it"),
    "created_at": _text("When it was asked for"),
    "updated_at": _text("When it was changed last"),
    "expires_at": _text("When it will be forgotten"),
    "self": {"type": "string"},
    "schema": {"type": "string"},
}

TASK: Schema = {
    "name": "task",
    "properties": {
        **_STUB,
        "input": _maybe("object", "What the task was given"),
        "result": _maybe("object", "What came of it"),
        "message": _text("Why it failed"),
        "image_id": _maybe("string", "The image that it works on"),
        "request_id": _maybe("string", "The request that asked for it"),
        "user_id": _maybe("string", "The user who asked for it"),
    },
}

TASKS = _collection("tasks", {"name": "task", "properties": _STUB}, paged=True)

_TYPES: Mapping[str, tuple[type, ...]] = {
    "null": (type(None),),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _fault(schema: Schema, value: Any) -> str | None:
    """What is wrong with a value, or None."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, kind) for kind in kinds):
        return f"{value!r} is not of type {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not one of {schema['enum']}"
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            return f"it is longer than {schema['maxLength']} characters"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"{value!r} does not match {schema['pattern']}"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return f"{value} is not between {schema['minimum']} and {schema['maximum']}"
    if isinstance(value, list):
        return next((fault for item in value if (fault := _fault(schema["items"], item))), None)
    return None


def check(attributes: Mapping[str, Any]) -> None:
    """Raise BadRequest unless each attribute has a value that an image may have."""
    for name, value in attributes.items():
        fault = _fault(IMAGE["properties"].get(name, _CUSTOM), value)
        if fault is not None:
            raise BadRequest(f"Provided object does not match schema 'image': {name}: {fault}")

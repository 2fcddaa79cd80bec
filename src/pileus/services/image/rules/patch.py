"""Changes to an image: two drafts of JSON patch, and the rules on what may be changed.

Source: Image API reference, "Update image", and "HTTP patch media types"; RFC 6901 for the escapes in paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pileus.core.errors import BadRequest, Conflict, Forbidden
from pileus.services.image.rules import schema

MEDIA_DRAFT_4 = "application/openstack-images-v2.0-json-patch"
MEDIA_DRAFT_10 = "application/openstack-images-v2.1-json-patch"
MEDIA = (MEDIA_DRAFT_4, MEDIA_DRAFT_10)

READ_ONLY = frozenset(name for name, part in schema.BASE.items() if part.get("readOnly")) - {"stores"} | {"id"}
"""Attributes that only the service writes."""

LINKS = frozenset({"direct_url", "self", "file", "schema", "stores"})
"""Attributes that are no more than links."""

RESERVED = frozenset({"location", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance"

ATTRIBUTES = (
    "name",
    "visibility",
    "protected",
    "os_hidden",
    "owner",
    "container_format",
    "disk_format",
    "min_ram",
    "min_disk",
)
"""Attributes that a client may write, besides tags and custom properties."""

_OPERATIONS = ("add", "remove", "replace")


class Change(NamedTuple):
    """One change: `operation` on the attribute `name`; `value` is None when it removes."""

    operation: str
    name: str
    value: Any
    draft: int
    position: str | None = None
    """Place in the list of locations that is meant; None for all of it, and for other attributes."""


@dataclass(slots=True)
class Draft:
    """An image while it is being changed."""

    status: str
    attributes: dict[str, Any]
    """The values of ATTRIBUTES."""
    properties: dict[str, str | None]
    tags: list[str] = field(default_factory=list)


def reserved(name: str) -> bool:
    """Whether a name is kept for the service."""
    return name in RESERVED or name.startswith(RESERVED_PREFIX)


def _path(pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise BadRequest(f'Pointer `{pointer}` does not start with "/".')
    if re.search(r"/\s*?/", pointer[1:]) or (len(pointer) > 1 and pointer.endswith("/")) or not pointer[1:].strip():
        raise BadRequest(f"Pointer `{pointer}` holds an empty part.")
    if re.search(r"~(?![01])", pointer):
        raise BadRequest(f'Pointer `{pointer}` contains "~" not part of a recognized escape sequence.')
    parts = [part.replace("~1", "/").replace("~0", "~").strip() for part in pointer[1:].split("/")]
    if len(parts) > (2 if parts[0] == "locations" else 1):
        raise BadRequest(f"Invalid JSON pointer for this resource: '{pointer}'")
    return parts


def _operation(raw: Mapping[str, Any], draft: int) -> tuple[str, Any]:
    if draft == 10:
        operation = raw.get("op")
        if operation not in _OPERATIONS:
            raise BadRequest(f"Invalid operation: `{operation}`. It must be one of: {', '.join(_OPERATIONS)}.")
        if "path" not in raw:
            raise BadRequest("Unable to find 'path' in JSON Schema change")
        return operation, raw["path"]
    named = [operation for operation in _OPERATIONS if operation in raw]
    if len(named) != 1:
        raise BadRequest('Operation objects must contain exactly one member named "add", "remove", or "replace".')
    return named[0], raw[named[0]]


def parse(body: Any, media: str) -> list[Change]:
    """The changes that a body of a media type asks for.

    Raises BadRequest for what cannot be understood and Forbidden for attributes that no client may write.
    """
    draft = 4 if media == MEDIA_DRAFT_4 else 10
    if not isinstance(body, list):
        raise BadRequest("Request body must be a JSON array of operation objects.")
    changes = []
    for raw in body:
        if not isinstance(raw, dict):
            raise BadRequest("Operations must be JSON objects.")
        operation, pointer = _operation(raw, draft)
        name, *position = _path(pointer)
        if operation != "remove" and "value" not in raw:
            raise BadRequest(f'Operation "{operation}" requires a member named "value".')
        if name in READ_ONLY or name in LINKS:
            raise Forbidden(f"Attribute '{name}' is read-only.")
        if reserved(name):
            raise Forbidden(f"Attribute '{name}' is reserved.")
        if len(name) > 255:
            raise BadRequest("Custom property should not be greater than 255 characters.")
        if name == "locations" and bool(position) != (operation in ("add", "remove")):
            raise BadRequest(f"Invalid JSON pointer for this resource: '{pointer}'")
        if operation != "remove" and name != "locations":
            schema.check({name: raw["value"]})
        changes.append(Change(operation, name, raw.get("value"), draft, position[0] if position else None))
    return changes


def apply(draft: Draft, changes: list[Change], permit: Callable[[Change], None]) -> None:
    """Make the changes, in their order, each after `permit` let it pass. Raises Forbidden and Conflict."""
    for change in changes:
        permit(change)
        if change.name in draft.attributes or change.name == "tags":
            _apply_base(draft, change)
        elif change.operation == "add":
            if change.draft == 4 and change.name in draft.properties:
                raise Conflict(f"Property {change.name} already present.")
            draft.properties[change.name] = change.value
        elif change.name not in draft.properties:
            raise Conflict(f"Property {change.name} does not exist.")
        elif change.operation == "replace":
            draft.properties[change.name] = change.value
        else:
            del draft.properties[change.name]


def _apply_base(draft: Draft, change: Change) -> None:
    if change.operation == "remove":
        raise Forbidden(f"Property {change.name} may not be removed.")
    if change.operation == "add" and change.draft == 4:
        raise Conflict(f"Property {change.name} already present.")
    if change.name == "tags":
        draft.tags = list(dict.fromkeys(change.value))
        return
    if change.name in ("container_format", "disk_format") and draft.status != "queued":
        raise Forbidden(f"Attribute {change.name} can be only replaced for a queued image.")
    draft.attributes[change.name] = change.value

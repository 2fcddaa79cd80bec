"""An image as clients see it, and what lists may be filtered and sorted by.

Custom properties are keys of the image itself, so that a view is a plain object and not a struct.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context, Query
from pileus.core.errors import BadRequest
from pileus.core.listing import Listing, integer
from pileus.services.image.resources import place
from pileus.services.image.resources.image.table import Record, image, prop, tag
from pileus.services.image.rules import filter as language
from pileus.services.image.rules import schema

PAGE = 25
"""How many images a list gives when the request names no limit."""

SORT = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")

LISTING = Listing(
    image,
    filters={},
    sort={name: image.c[name] for name in SORT},
    order=("created_at:desc",),
)

_SHOWN = (
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "os_hidden",
    "owner",
    "container_format",
    "disk_format",
    "min_ram",
    "min_disk",
    "size",
    "virtual_size",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
)
_NUMBERS = ("size", "virtual_size", "min_ram", "min_disk")
_LISTED = ("id", "name", "status", "container_format", "disk_format")
_PLAIN = ("owner", "checksum", "os_hash_algo", "os_hash_value")
_MOMENTS = ("created_at", "updated_at")
_CONTROL = frozenset({"limit", "marker", "member_status", "sort", "sort_key", "sort_dir", "visibility", "tag"})
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def view(ctx: Context, record: Record) -> dict[str, Any]:
    """The image as responses show it."""
    row = record.row._mapping
    found: dict[str, Any] = dict(record.properties)
    found.update((name, row[name]) for name in _SHOWN)
    path = f"/v2/images/{row['id']}"
    found.update(
        created_at=f"{row['created_at']:%Y-%m-%dT%H:%M:%SZ}",
        updated_at=f"{row['updated_at']:%Y-%m-%dT%H:%M:%SZ}",
        tags=record.tags,
        self=path,
        file=f"{path}/file",
        schema="/v2/schemas/image",
    )
    found.update(place.shown(ctx, record))
    return found


def conditions(query: Query) -> list[sa.ColumnElement[bool]]:
    """What the filters of a list demand. Raises BadRequest."""
    found: list[sa.ColumnElement[bool]] = [image.c.os_hidden == _truth("os_hidden", query.get("os_hidden", "false"))]
    words = [text.strip() for text in query.all("tag")]
    found += [sa.exists().where(tag.c.image_id == image.c.id, tag.c.tag == word) for word in words]
    names = sorted(query.names() - _CONTROL - {"os_hidden"})
    return found + [_condition(name, query.get(name) or "") for name in names]


def _condition(name: str, text: str) -> sa.ColumnElement[bool]:
    if name == "changes-since":
        raise BadRequest('The "changes-since" filter is no longer available on v2.')
    if name == "protected":
        return image.c.protected == _truth(name, text)
    if name in _LISTED:
        return image.c[name].in_(language.values(text))
    if name in _PLAIN:
        return image.c[name] == text
    if name in _MOMENTS:
        compared = language.moment(text)
        return sa.cast(_COMPARE[compared.operator](image.c[name], compared.moment), sa.Boolean)
    if name in _NUMBERS:
        return image.c[name] == integer(text)
    bare, _, end = name.rpartition("_")
    if bare in _NUMBERS and end in ("min", "max"):
        return image.c[bare] >= integer(text) if end == "min" else image.c[bare] <= integer(text)
    return sa.exists().where(prop.c.image_id == image.c.id, prop.c.name == name, prop.c.value == text)


def _truth(name: str, text: str | None) -> bool:
    lowered = (text or "").lower()
    if lowered not in ("true", "false"):
        raise BadRequest(f"Invalid value '{text}' for '{name}' filter. Valid values are 'true' or 'false'.")
    return lowered == "true"


def paging(query: Query) -> Query:
    """The sort keys, limit and marker of a list in one form. Raises BadRequest."""
    pairs = [("sort", ",".join(_sorting(query)))]
    limit = query.get("limit")
    if limit is not None and integer(limit) < 0:
        raise BadRequest("limit param must be positive")
    pairs.append(("limit", limit if limit is not None else str(PAGE)))
    marker = query.get("marker")
    if marker is not None:
        pairs.append(("marker", marker))
    return Query(pairs)


def _sorting(query: Query) -> list[str]:
    keys = [key.strip() for key in query.all("sort_key")]
    directions = [direction.strip() for direction in query.all("sort_dir")]
    if query.all("sort"):
        if keys or directions:
            raise BadRequest("Old and new sorting syntax cannot be combined")
        parts = [part.partition(":") for part in (query.get("sort") or "").split(",")]
        keys = [part[0].strip() for part in parts]
        directions = [part[2].strip() or "desc" for part in parts]
    keys = keys or ["created_at"]
    directions = directions or ["desc"]
    if len(directions) == 1:
        directions *= len(keys)
    if len(keys) != len(directions):
        raise BadRequest("Number of sort dirs does not match the number of sort keys")
    for key, direction in zip(keys, directions, strict=True):
        if key not in SORT:
            raise BadRequest(f"Invalid sort key: {key}. It must be one of the following: {', '.join(SORT)}.")
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction: {direction}")
    # Ties are broken by the time of creation before the id, in the direction of the first key.
    named = [f"{key}:{direction}" for key, direction in zip(keys, directions, strict=True)]
    return named if "created_at" in keys else [*named, f"created_at:{directions[0]}"]


def choice(ctx: Context, name: str, allowed: tuple[str, ...], default: str) -> str:
    """A query parameter that is one of some words. Raises BadRequest."""
    text = ctx.query.get(name) or default
    if text not in allowed:
        raise BadRequest(f"Invalid {name} value: {text}")
    return text


VISIBILITIES = (*schema.VISIBILITIES, "all")
MEMBER_STATUSES = (*schema.MEMBER_STATUSES, "all")

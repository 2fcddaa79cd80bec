"""What lists of Image have in common beside their filters: how their sorting and paging is asked for.

Source: Image API reference, "List images", "Paginate responses", and "List namespaces".
"""

from __future__ import annotations

from collections.abc import Sequence

from pileus.core.api import Parameters
from pileus.core.context import Query
from pileus.core.errors import BadRequest
from pileus.core.listing import integer


def parameters(*names: str) -> Parameters:
    """The query parameters of a list that has these filters."""
    return Parameters(*names, "limit", "marker", "sort_key", "sort_dir")


def limit(query: Query, default: int | None, *, least: int = 0) -> str | None:
    """The number of items that a request asks for; `default` when it names none. Raises BadRequest."""
    text = query.get("limit")
    if text is None:
        return None if default is None else str(default)
    if integer(text) < least:
        raise BadRequest("limit param must be positive")
    return text


def paging(query: Query, default: int | None, *, least: int = 0) -> Query:
    """Sort key, limit and marker of a list of definitions, newest first when it names none. Raises BadRequest."""
    direction = query.get("sort_dir", "desc")
    if direction not in ("asc", "desc"):
        raise BadRequest(f"Invalid sort direction: {direction}")
    key = query.get("sort_key") or "created_at"
    # Ties are broken by the time of creation before the name, in the same direction.
    keys = [key] if key == "created_at" else [key, "created_at"]
    pairs = [("sort", f"{one}:{direction}") for one in keys]
    size = limit(query, default, least=least)
    if size is not None:
        pairs.append(("limit", size))
    marker = query.get("marker")
    if marker:
        pairs.append(("marker", marker))
    return Query(pairs)


SORT = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")
"""What lists of images may be sorted by."""


def sorting(sort: Sequence[str], keys: Sequence[str], directions: Sequence[str]) -> dict[str, str]:
    """The sort keys of a list of images with their directions, newest first when it names none.

    `sort` holds the values of the parameter of that name (`name:asc,size`), the others those of `sort_key` and
    `sort_dir`; one direction is for all keys.  Raises BadRequest.
    """
    keys = [key.strip() for key in keys]
    directions = [direction.strip() for direction in directions]
    if sort:
        if keys or directions:
            raise BadRequest("Old and new sorting syntax cannot be combined")
        parts = [part.partition(":") for part in sort[-1].strip().split(",")]
        keys = [part[0].strip() for part in parts]
        directions = [part[2].strip() or "desc" for part in parts]
    keys = keys or ["created_at"]
    directions = directions or ["desc"]
    if len(directions) == 1:
        directions *= len(keys)
    if len(keys) != len(directions):
        raise BadRequest("Number of sort dirs does not match the number of sort keys")
    found: dict[str, str] = {}
    for key, direction in zip(keys, directions, strict=True):
        if key not in SORT:
            raise BadRequest(f"Invalid sort key: {key}. It must be one of the following: {', '.join(SORT)}.")
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction: {direction}")
        found.setdefault(key, direction)
    return found

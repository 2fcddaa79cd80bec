"""What lists of Image have in common beside their filters: how their sorting and paging is asked for.

Source: Image API reference, "List images", "Paginate responses", and "List namespaces".
"""

from __future__ import annotations

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

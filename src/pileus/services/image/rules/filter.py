"""The small language of the image list's filters: `in:a,"b,c"` and `gte:2026-01-31T12:00:00Z`.

Source: Image API reference, "List images", "Filtering"; API Special Interest Group, "Filtering".
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from pileus.core.errors import BadRequest
from pileus.core.listing import instant

COMPARISONS = ("eq", "neq", "gt", "gte", "lt", "lte")

_PART = re.compile(r'"((?:[^"\\]|\\.)*)"(?:,|$)|([^",]+)(?:,|$)|,')


class Moment(NamedTuple):
    """A comparison with a moment."""

    operator: str
    moment: datetime


def values(text: str) -> list[str]:
    """The values that a filter lets pass: one, or those of an `in:` list. Raises BadRequest."""
    operator, colon, rest = text.partition(":")
    if not colon:
        return [text]
    if operator == "eq":
        return [rest]
    if operator != "in":
        raise BadRequest(f"Unable to filter by unknown operator '{operator}'.")
    found, place = [], 0
    while place < len(rest):
        match = _PART.match(rest, place)
        if match is None:
            raise BadRequest(f"Invalid filter value {rest}: quotation marks enclose a whole value.")
        quoted, plain = match.groups()
        found.append(re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain or "")
        place = match.end()
    return found


def moment(text: str) -> Moment:
    """A comparison with a moment, equality when none is named. Raises BadRequest."""
    operator, colon, rest = text.partition(":")
    if not colon or operator not in COMPARISONS:
        operator, rest = "eq", text
    return Moment(operator, instant(rest))

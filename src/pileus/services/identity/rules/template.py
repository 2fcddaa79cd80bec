"""URLs of endpoints with places for the project's and the user's id.

Source: Identity API v3, "Create endpoint"; Keystone administration guide, "Service catalog".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

KEYS = frozenset({"tenant_id", "project_id", "user_id"})
"""What may be put into a URL."""

_PLACE = re.compile(r"[$%]\(([^)]*)\)s")
_FORM = re.compile(r"[a-zA-Z0-9+.-]+:.+")


def lawful(url: str) -> bool:
    """Whether a URL has a scheme and asks only for what may be put into it."""
    rest = _PLACE.sub("", url)
    return bool(_FORM.match(url)) and set(_PLACE.findall(url)) <= KEYS and "$(" not in rest and "%(" not in rest


def fill(url: str, values: Mapping[str, str | None]) -> str | None:
    """The URL with the values in it; None when it asks for one that is not there."""
    if any(values.get(name) is None for name in _PLACE.findall(url)):
        return None
    return _PLACE.sub(lambda match: str(values[match.group(1)]), url)

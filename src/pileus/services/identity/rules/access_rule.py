"""Whether an access rule permits a request: patterns of paths.

`*` and `{name}` stand for one part of a path (at least one character, no slash), `**` for anything, even nothing.  All
else stands for itself, upper and lower case apart.

Source: Keystone user guide, "Application Credentials", "Access Rules"; Identity API v3, "Application Credentials".
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
"""Methods that a rule may permit."""

_TOKEN = re.compile(r"\{[^{}]*\}|\*\*|\*|[^{}*]+|[{}]")
_ANY = "**"
_PART = "*"


class AccessRule(NamedTuple):
    """A permission: requests of one method, to one type of service, on paths that look like this."""

    id: str
    service: str
    method: str
    path: str


@functools.lru_cache(maxsize=1024)
def _tokens(pattern: str) -> tuple[tuple[str, str], ...]:
    """The pattern in pieces: kind (`**`, `*` or empty) and text."""
    found: list[tuple[str, str]] = []
    for token in _TOKEN.findall(pattern):
        if token == _ANY:
            found.append((_ANY, ""))
        elif token == _PART or (len(token) > 1 and token[0] == "{" and token[-1] == "}"):
            found.append((_PART, ""))
        else:
            found.append(("", token))
    return tuple(found)


def matches(pattern: str, path: str) -> bool:
    """Whether a path looks like a pattern.

    The places that can be reached are followed all at once, so the time grows with pattern times path, whatever the
    pattern is: a regular expression made of it could be made to try for ever.
    """
    reached = {0}
    for kind, text in _tokens(pattern):
        if kind == _ANY:
            reached = set(range(min(reached), len(path) + 1))
        elif kind == _PART:
            reached = _parts(path, reached)
        else:
            reached = {place + len(text) for place in reached if path.startswith(text, place)}
        if not reached:
            return False
    return len(path) in reached


def _parts(path: str, places: set[int]) -> set[int]:
    """Where one can be after at least one character, and no slash, from any of some places."""
    found: set[int] = set()
    until = -1
    for place in sorted(places):
        end = until if place < until else path.find("/", place)
        end = len(path) if end < 0 else end
        found.update(range(max(place, until) + 1, end + 1))
        until = max(until, end)
    return found


def permits(rules: tuple[AccessRule, ...], service: str, method: str, paths: tuple[str, ...]) -> bool:
    """Whether any rule permits a request to a service, which may be known by several paths."""
    return any(
        rule.service == service and rule.method == method and any(matches(rule.path, path) for path in paths)
        for rule in rules
    )

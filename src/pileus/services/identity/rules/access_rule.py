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

LONGEST = 2048
"""Characters of the longest path that rules are asked about."""

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
    """Whether a path looks like a pattern."""
    return _Path(path).fits(pattern)


class _Path:
    """A path, with where its signs are.

    The places that can be reached are followed all at once, as the bits of a number, so that each sign of a pattern
    takes one step over the path, whatever the pattern is: a regular expression made of it could be made to try for
    ever, and a set of places would be made anew by each wildcard.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._end = 1 << len(path)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        """The places of each sign."""
        found: dict[str, int] = {}
        for place, sign in enumerate(self._path):
            found[sign] = found.get(sign, 0) | 1 << place
        return found

    def fits(self, pattern: str) -> bool:
        """Whether it looks like a pattern."""
        tokens = _tokens(pattern)
        start = tokens[0][1] if tokens else ""
        if not self._path.startswith(start):
            return False
        reached = 1 << len(start)
        for kind, text in tokens[1:] if start else tokens:
            if kind == _ANY:
                first = reached & -reached
                reached = 2 * self._end - first
            elif kind == _PART:
                reached = self._part(reached)
            else:
                for sign in text:
                    reached = (reached & self._places.get(sign, 0)) << 1
            if not reached:
                return False
        return bool(reached & self._end)

    def _part(self, reached: int) -> int:
        """Where one can be after at least one sign, and no slash: a sum carries each place to the end of its run."""
        others = (self._end - 1) & ~self._places.get("/", 0)
        after = (reached & others) << 1
        return ((((after & others) + others) ^ others) | after) & (2 * self._end - 1)


def permits(rules: tuple[AccessRule, ...], service: str, method: str, paths: tuple[str, ...]) -> bool:
    """Whether any rule permits a request to a service, which may be known by several paths. None permits a long one."""
    asked = [_Path(path) for path in paths if len(path) <= LONGEST]
    return any(
        rule.service == service and rule.method == method and any(path.fits(rule.path) for path in asked)
        for rule in rules
    )

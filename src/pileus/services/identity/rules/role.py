"""Roles that imply roles, and the personas that every cloud begins with.

Source: Identity API v3, "Roles"; Keystone administration guide, "Default Roles".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PERSONAS = ("admin", "manager", "member", "reader", "service")
"""The roles that every cloud has."""

IMPLICATIONS = (("admin", "manager"), ("manager", "member"), ("member", "reader"))
"""Which persona implies which."""

NEVER_IMPLIED = frozenset({"admin"})
"""Roles that no other may imply, in lower case: it would make administrators of those who hold it."""


def implied_by(roles: Iterable[str], implications: Mapping[str, Iterable[str]]) -> dict[str, str | None]:
    """All role ids that are held by holding `roles`, each with the id of the role that implies it (None: held itself).

    Circles in the implications do no harm.
    """
    found: dict[str, str | None] = dict.fromkeys(roles)
    waiting = list(found)
    while waiting:
        prior = waiting.pop()
        for implied in implications.get(prior, ()):
            if implied not in found:
                found[implied] = prior
                waiting.append(implied)
    return found


def implying(role: str, implications: Mapping[str, Iterable[str]]) -> set[str]:
    """All role ids by which a role is held: its own, and those of the roles that imply it."""
    priors: dict[str, list[str]] = {}
    for prior, implied in implications.items():
        for one in implied:
            priors.setdefault(one, []).append(prior)
    return set(implied_by([role], priors))

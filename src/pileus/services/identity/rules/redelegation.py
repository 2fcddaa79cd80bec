"""What a trust may delegate when it is made from another trust, or may be passed on itself.

Rights only ever shrink on the way: no further roles, no later end, no other project, no impersonation that was not
given, one step fewer.

Source: Identity API v3 extensions, "OS-TRUST API", "Redelegating trusts".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from pileus.core.errors import BadRequest, Forbidden

DEEPEST = 3
"""How often a trust may be passed on at most."""


class Terms(NamedTuple):
    """What a trust delegates."""

    project_id: str | None
    role_ids: frozenset[str]
    impersonation: bool
    expires_at: datetime | None
    remaining_uses: int | None
    redelegation_count: int
    """How often it may still be passed on."""


def depth(allowed: bool, requested: int | None, uses: int | None, parent: int | None) -> int:
    """How often a new trust may be passed on.

    `allowed` and `requested` are as asked for (None: as often as can be), `uses` is the limit of its uses, and `parent`
    how often the trust that it is made from may be passed on, None when it is made from none.  Raises Forbidden for
    more than is possible, BadRequest for a limit of uses on a trust that may be passed on.
    """
    if not allowed or requested == 0:
        return 0
    if requested is not None and requested > DEEPEST:
        raise Forbidden(f"Requested redelegation depth of {requested} is greater than allowed {DEEPEST}.")
    if uses is not None:
        raise BadRequest("remaining_uses must not be set if redelegation is allowed.")
    if parent is None:
        return DEEPEST if requested is None else requested
    if requested is not None and requested != parent - 1:
        raise Forbidden("redelegation_count cannot be changed upon redelegation: leave it out.")
    return max(parent - 1, 0)


def check(chain: Sequence[Terms], child: Terms) -> None:
    """Raise Forbidden unless each trust of a chain, nearest first, may have a trust below it that delegates this."""
    for parent in chain:
        if not 0 < parent.redelegation_count <= DEEPEST:
            raise Forbidden(
                f"Remaining redelegation depth of {parent.redelegation_count} out of allowed range of [0..{DEEPEST}]."
            )
        if child.remaining_uses is not None or parent.remaining_uses is not None:
            raise Forbidden("remaining_uses must not be set in order to redelegate a trust.")
        if child.project_id != parent.project_id:
            raise Forbidden("A redelegated trust is for the project of the trust that it is made from.")
        if parent.expires_at is not None and (child.expires_at is None or child.expires_at > parent.expires_at):
            raise Forbidden("Requested expiration time is more than redelegated trust can provide.")
        if not child.role_ids <= parent.role_ids:
            raise Forbidden("Some of requested roles are not in redelegated trust.")
        if child.impersonation and not parent.impersonation:
            raise Forbidden("Impersonation is not allowed because redelegated trust does not specify impersonation.")
        child = parent


def intact(chain: Sequence[Terms]) -> bool:
    """Whether each trust of a chain (the one that is used first) is lawful below the next."""
    try:
        check(chain[1:], chain[0])
    except Forbidden:
        return False
    return True

"""What a method of authentication finds out: the seam between the methods and what issues tokens.

A method works in two steps.  The first, `async`, may be slow (hashes) and runs outside transactions.  It gives a
`Proof`, whose `conclude` runs in the transaction that issues the token: what may have changed in between is looked at
there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pileus.core.context import Context, Request
from pileus.core.errors import Unauthorized
from pileus.services.identity.resources.token.fields import Proofs
from pileus.services.identity.rules.token import DelegationKind, Payload


class Leave(NamedTuple):
    """By whose leave a token is: the kind and the id of a delegation, which also names the token's scope."""

    kind: DelegationKind
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Who the caller is, as one method or several have found."""

    user_id: str
    methods: tuple[str, ...]
    generation: int
    """The user's generation when it showed its proof: when it has grown since, there is no token."""
    parent: Payload | None = None
    """The token that the caller showed: the new one lives no longer and belongs to its chain."""
    leave: Leave | None = None
    """The delegation that the caller showed the secret of; no scope may be asked for beside it."""


class Proof(NamedTuple):
    """What a method's first step leaves to do: `conclude`, in a transaction that writes where it `writes`."""

    conclude: Callable[[Context], Evidence]
    writes: bool = False


Method = Callable[[Request, Proofs], Awaitable[Proof]]
"""The first step of a method. Raises BadRequest for a proof that is not there, Unauthorized for one that is wrong."""


def combine(found: Iterable[Evidence]) -> Evidence:
    """The evidence of several methods as one. Raises Unauthorized where they do not speak of the same user."""
    first, *others = found
    for other in others:
        if (other.user_id, other.generation) != (first.user_id, first.generation):
            raise Unauthorized
        if (first.parent and other.parent) or (first.leave and other.leave):
            raise Unauthorized
        first = Evidence(
            user_id=first.user_id,
            methods=tuple(dict.fromkeys((*first.methods, *other.methods))),
            generation=first.generation,
            parent=first.parent or other.parent,
            leave=first.leave or other.leave,
        )
    return first

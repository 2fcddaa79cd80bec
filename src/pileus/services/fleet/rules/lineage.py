"""Whether a store is the one that a host has obeyed so far, or another, or an older copy of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_OLDER = "this store was restored from an older copy"


class Incarnation(NamedTuple):
    """One run of the control plane on a store: it began when the change log stood at `start`."""

    id: str
    start: int


def refusal(
    store_id: str,
    incarnations: Sequence[Incarnation],
    head: int,
    *,
    known: str | None,
    heard: str | None,
    position: int,
) -> str | None:
    """Why a host must not obey this store, or None when it may.

    `incarnations` are the store's, oldest first; `head` is where its change log stands.  The host last obeyed the
    store `known`, and heard from its run `heard` up to `position`.  A copy that was taken before that does not know
    the run, or its next run began before that position.
    """
    if known is None:
        return None
    if known != store_id:
        return f"this host obeys the store {known}, and this is the store {store_id}"
    for place, one in enumerate(incarnations):
        if one.id == heard:
            later = incarnations[place + 1 :]
            end = later[0].start if later else head
            if end >= position:
                return None
            return f"{_OLDER}: it ends at {end}, and this host has heard up to {position}"
    return f"{_OLDER}: it does not know the run that this host last heard"

"""Working on many keys in one transaction, without letting one bad key hold up the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pileus.core.reconcile import Failed, Outcome

log = logging.getLogger(__name__)

Work = Callable[[Sequence[str]], Awaitable[Mapping[str, Outcome]]]


async def together(name: str, keys: Sequence[str], work: Work) -> Mapping[str, Outcome]:
    """Work on all keys at once; when that fails, on each by itself, so that only those that fail come again."""
    try:
        return await work(keys)
    except Exception as error:
        if len(keys) == 1:
            log.exception("%s: %s", name, keys[0])
            return {keys[0]: Failed()}
        log.warning("%s: %d keys at once: %r; now one by one", name, len(keys), error)
    outcomes: dict[str, Outcome] = {}
    for key in keys:
        outcomes |= await together(name, [key], work)
    return outcomes

"""Fleet's loops: old entries of the change log and forgotten calls are cleared away."""

from __future__ import annotations

from collections.abc import Iterable

from pileus.core import changes
from pileus.core.reconcile import DONE, Controller, KeyController, Outcome
from pileus.core.store import Tx


class ChangeLog(KeyController):
    """Forgets changes that are older than their retention. There is one key."""

    name = "fleet.change-log"
    interval = 300.0

    def keys(self, tx: Tx) -> Iterable[str]:
        """The log."""
        return ["log"]

    def work(self, tx: Tx, key: str) -> Outcome:
        """Forget what is old; several processes may do so at once."""
        changes.trim(tx)
        return DONE


def controllers() -> list[Controller]:
    """The loops of this service."""
    return [ChangeLog()]

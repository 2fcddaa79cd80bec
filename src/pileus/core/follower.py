"""Where a copy in memory stands in the change log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pileus.core import changes
from pileus.core.store import Tx

MANY = 500
"""How many changed things are read one by one; where there are more, all are read anew."""


class Follower:
    """Tells who keeps a copy of the things of a topic which of them changed since it asked last."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._cursor: changes.Cursor | None = None

    @contextmanager
    def news(self, tx: Tx) -> Iterator[set[str] | None]:
        """The keys that changed; None when everything is to be read, as at the first time.

        They are taken in within the context; where that fails, everything is news again.
        """
        try:
            yield self._news(tx)
        except BaseException:
            self._cursor = None
            raise

    def _news(self, tx: Tx) -> set[str] | None:
        head = changes.head(tx)
        if self._cursor is None:
            self._cursor = head
            return None
        if not self._cursor.behind(head):
            return set()  # what is known is newer than what this transaction sees, or the same
        told = changes.since(tx, self._cursor, topic=self._topic, limit=changes.ALL)
        self._cursor = told.cursor
        keys = {one.key for one in told.changes}
        return None if told.lost or len(keys) > MANY else keys

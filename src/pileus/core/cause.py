"""Which request something is done for, across transactions and loops."""

from __future__ import annotations

import threading
from itertools import islice


class Causes:
    """On account of which request a thing is worked on: the last one that changed it, as far as this process saw.

    Loops take keys and not events, so what they write is put down to who asked last.  Safe from several threads.
    """

    LIMIT = 20_000
    """Things that are remembered; of more, those are forgotten that were known first."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, object_id: str) -> str | None:
        """The request's id, where one is known."""
        return self._known.get(object_id)

    def note(self, object_id: str, request_id: str) -> None:
        """Remember a request."""
        self._known[object_id] = request_id
        if len(self._known) > self.LIMIT:
            with self._lock:
                for old in list(islice(self._known, self.LIMIT // 2)):
                    self._known.pop(old, None)

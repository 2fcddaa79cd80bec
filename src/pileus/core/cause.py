"""Which request something is done for, across transactions and loops."""

from __future__ import annotations

import threading
from collections.abc import Sequence
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

    def attribute(self, ids: Sequence[str], request_id: str | None) -> list[str | None]:
        """The cause of each thing that one transaction changes: its own request, or the last one of the thing.

        What nobody has asked for by itself is put down to the others' one cause.
        """
        causes = [request_id or self._known.get(one) for one in ids]
        known = set(causes) - {None}
        if len(known) == 1:
            causes = [*known] * len(ids)
        for one, cause in zip(ids, causes, strict=True):
            if cause is not None:
                self.note(one, cause)
        return causes

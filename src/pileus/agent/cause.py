"""On account of which request a host does what it does: told with the assignments, named in the log, told back."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from msgspec.structs import replace

from pileus.agent.world import Key
from pileus.contracts.link import Assignment, Observation
from pileus.core.log import request_id

T = TypeVar("T")


class Causes:
    """Ids of requests by the objects that they led to; an object whose assignment names none has none."""

    def __init__(self) -> None:
        self._known: dict[Key, str] = {}

    def take(self, assignments: Iterable[Assignment]) -> None:
        """Take in what was assigned."""
        for one in assignments:
            if one.request_id:
                self._known[Key(one.kind, one.id)] = one.request_id

    def forget(self, key: Key) -> None:
        """An object is gone from the host, and the control plane has heard of it."""
        self._known.pop(key, None)

    def told(self, batch: Mapping[Key, Observation]) -> list[Observation]:
        """Observations with what they came of."""
        return [replace(one, request_id=self._known[key]) if key in self._known else one for key, one in batch.items()]

    @contextmanager
    def named(self, key: Key) -> Iterator[None]:
        """Let the log name the request that led to an object, while the block runs."""
        token = request_id.set(self._known.get(key, "-"))
        try:
            yield
        finally:
            request_id.reset(token)


async def blocking(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run work in a pool's thread, whose log names the same request."""
    return await asyncio.get_running_loop().run_in_executor(pool, contextvars.copy_context().run, work)

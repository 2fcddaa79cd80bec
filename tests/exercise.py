"""Notes which operations a run of the suite exercised: those that went through the edge and succeeded.

With PILEUS_TEST_EXERCISED, the path of a file, each is a line there: service type, method, path, and the key of an action.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pileus.core.http import Edge

VARIABLE = "PILEUS_TEST_EXERCISED"


@contextmanager
def noted() -> Iterator[None]:
    """Note what succeeds until the end, and write it then."""
    place = os.environ.get(VARIABLE)
    if place is None:
        yield
        return
    found: set[str] = set()
    run = Edge._run

    async def note(self: Edge, exchange: Any, service: Any, operation: Any, *more: Any) -> None:
        await run(self, exchange, service, operation, *more)
        found.add(f"{service.type} {exchange.scope['method']} {operation.path or '/'} {operation.action or ''}".strip())

    Edge._run = note  # type: ignore[method-assign] - a test's own eye on the edge
    try:
        yield
    finally:
        Edge._run = run  # type: ignore[method-assign]
        with Path(place).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in sorted(found))

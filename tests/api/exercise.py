"""Notes which operations a run of the suite exercised: those that went through the edge and succeeded.

With PILEUS_TEST_EXERCISED, the path of a file, each is a line there: service type, method, path, key of an action.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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
    run: Any = Edge._run

    async def note(edge: Edge, exchange: Any, service: Any, operation: Any, *more: Any) -> None:
        await run(edge, exchange, service, operation, *more)
        found.add(f"{service.type} {exchange.scope['method']} {operation.path or '/'} {operation.action or ''}".strip())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Edge, "_run", note)
        yield
    with Path(place).open("a", buffering=1 << 20, encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in sorted(found))

"""The edge: what no body and no query may do to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pileus.core.api import Resource, Service
from pileus.core.context import Context
from pileus.core.errors import identity_envelope
from tests.api.edge import Served, make_edge

_resource = Resource("thing", "things")


@_resource.post("/things")
def _create(ctx: Context, body: dict[str, Any]) -> dict[str, Any]:
    return body


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    service = Service(
        name="test", type="test", mounts=("/test",), roots=("",), resources=[_resource], envelope=identity_envelope
    )
    with make_edge(tmp_path, service) as served:
        yield served


@pytest.mark.parametrize(
    ("depth", "heart", "status"),
    [(100, '"x"', 200), (100, '"\\u0000"', 400), (900, '"\\u0000"', 400), (5_000, '"x"', 400), (200_000, '"x"', 400)],
)
def test_a_body_that_goes_deep_is_the_clients_fault(served: Served, depth: int, heart: str, status: int) -> None:
    data = b'{"a": ' + b"[" * depth + heart.encode() + b"]" * depth + b"}"
    found = served.client("member:p1").request(
        "POST", "/test/things", data=data, headers={"content-type": "application/json"}
    )
    assert found.status == status


def test_a_large_body_is_refused(served: Served) -> None:
    chunks = [b'{"a": "', *[b"x" * 65536] * 20, b'"}']
    found = served.client("member:p1").request(
        "POST", "/test/things", data=chunks, headers={"content-type": "application/json"}
    )
    assert found.status == 413

"""The edge: what no body and no query may do to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.core.api import Resource, Service
from pileus.core.context import Context
from pileus.core.errors import NotFound, identity_envelope
from pileus.core.policy import Rule
from pileus.core.store import metadata
from tests.api.edge import Served, make_edge

_thing = sa.Table("core_test_thing", metadata, sa.Column("id", sa.String(64), primary_key=True))

_resource = Resource(
    "thing", "things", rules=[Rule("list_things", "role:reader"), Rule("change_thing", "project_id:%(project_id)s")]
)


@_resource.post("/things")
def _create(ctx: Context, body: dict[str, Any]) -> dict[str, Any]:
    return body


@_resource.get("/things", policy="list_things", guarded=True)
def _list(ctx: Context) -> list[str]:
    return ["mine"] if ctx.query.get("forget") or ctx.allows("list_things") else []


@_resource.put("/things/{thing_id}", policy="change_thing", guarded=True)
def _change(ctx: Context, thing_id: str) -> None:
    ctx.tx.execute(sa.insert(_thing).values(id=thing_id))
    if thing_id != "forgotten":
        ctx.guard({"project_id": thing_id}, NotFound("No such thing."))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    service = Service(
        name="test", type="test", mounts=("/test",), roots=("",), resources=[_resource], envelope=identity_envelope
    )
    with make_edge(tmp_path, service) as served:
        yield served


@pytest.mark.parametrize(
    ("depth", "heart", "status"),
    [
        (63, '"x"', 200),
        (64, '"x"', 400),
        (63, '"\\u0000"', 400),
        (900, '"x"', 400),
        (5_000, "1", 400),
        (200_000, "1", 400),
    ],
)
def test_a_body_that_goes_deep_is_the_clients_fault(served: Served, depth: int, heart: str, status: int) -> None:
    data = b'{"a": ' + b"[" * depth + heart.encode() + b"]" * depth + b"}"
    found = served.client("member:p1").request(
        "POST", "/test/things", data=data, headers={"content-type": "application/json"}
    )
    assert found.status == status


def test_a_body_that_is_broad_does_not_go_deep(served: Served) -> None:
    body = {"a": [{"b": ["[" * 100, {"c": n}]} for n in range(100)]}
    assert served.client("member:p1").request("POST", "/test/things", body).json == body


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("&".join(f"n{number}=1" for number in range(64)), 200),
        ("&".join(f"n{number}=1" for number in range(65)), 400),
        ("&".join(f"id={number}" for number in range(1000)), 200),
        ("&".join(f"id={number}" for number in range(1001)), 400),
        ("&" * 1001, 400),
        ("name=%ff", 400),
    ],
    ids=["names", "many names", "values", "many values", "nothing", "no text"],
)
def test_a_query_has_so_many_names_and_values(served: Served, query: str, status: int) -> None:
    found = served.client("member:p1").request("GET", f"/test/things?{query}")
    assert found.status == status
    assert status == 200 or set(found.json) == {"error"}


def test_a_large_body_is_refused(served: Served) -> None:
    chunks = [b'{"a": "', *[b"x" * 65536] * 20, b'"}']
    found = served.client("member:p1").request(
        "POST", "/test/things", data=chunks, headers={"content-type": "application/json"}
    )
    assert found.status == 413


def test_a_guarded_operation_decides_about_the_thing_that_it_finds(served: Served) -> None:
    caller = served.client("member:p1")
    assert caller.request("PUT", "/test/things/p1").status == 200
    assert caller.request("PUT", "/test/things/p2").status == 404
    assert served.client("member:p1").request("GET", "/test/things").json == ["mine"]
    assert served.client("service:p1").request("GET", "/test/things").json == []


def test_an_operation_that_forgot_its_rule_answers_nothing_and_writes_nothing(served: Served) -> None:
    caller = served.client("member:p1")
    assert caller.request("PUT", "/test/things/forgotten").status == 500
    assert caller.request("GET", "/test/things?forget=1").status == 500
    rows = served.store.read_here(lambda tx: tx.all(sa.select(_thing.c.id)))
    assert rows == []


def test_a_guarded_operation_names_its_rule() -> None:
    with pytest.raises(TypeError, match="guarded by no rule"):
        _resource.get("/things/{thing_id}", guarded=True)(lambda ctx, thing_id: None)

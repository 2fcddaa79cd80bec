"""The edge: what no body and no query may do to it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.core import serve
from pileus.core.api import Resource, Service, Stream
from pileus.core.context import Context, Request
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


class _Tale:
    """What is told chunk by chunk without end, and how much of it was."""

    def __init__(self) -> None:
        self.told = 0
        self.over = threading.Event()

    async def tell(self) -> AsyncIterator[bytes]:
        try:
            while self.told < 2_000:
                self.told += 1
                await asyncio.sleep(0.001)
                yield bytes(65536)
        finally:
            self.over.set()


_tale = _Tale()


@_resource.get("/tales/{count}")
async def _tell(ctx: Request, count: str) -> Stream:
    return Stream(_tale.tell(), None) if count == "all" else Stream(_few(int(count)), 3 * int(count))


async def _few(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"abc"


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


@contextlib.asynccontextmanager
async def _listening(served: Served) -> AsyncIterator[int]:
    listener = serve.listen_tcp("127.0.0.1", 0)
    server = serve.server(served.edge)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


def test_nothing_is_read_for_a_client_that_hung_up(served: Served) -> None:
    async def act() -> None:
        async with _listening(served) as port, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /test/tales/all HTTP/1.1\r\nhost: x\r\nx-auth-token: member:p1\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(200_000)
            writer.transport.abort()
            await asyncio.to_thread(_tale.over.wait, 10)

    asyncio.run(act())
    assert 2 < _tale.told < 1_000, "it went on after the client hung up"


def test_answers_in_chunks_come_one_after_the_other(served: Served) -> None:
    async def act() -> bytes:
        async with _listening(served) as port, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = "HTTP/1.1\r\nhost: x\r\nx-auth-token: member:p1\r\n"
            for method, count, more in [("GET", 3, ""), ("HEAD", 5, ""), ("GET", 0, "content-length: 5\r\n")]:
                writer.write(f"{method} /test/tales/{count} {head}{more}\r\n".encode())
                writer.write(b"12345" if more else b"")
            writer.write(f"GET /test/tales/4 {head}connection: close\r\n\r\n".encode())
            return await reader.read()

    parts = asyncio.run(act()).split(b"HTTP/1.1 200 OK\r\n")[1:]
    bodies = [part.partition(b"\r\n\r\n")[2] for part in parts]
    assert bodies == [b"abc" * 3, b"", b"", b"abc" * 4]

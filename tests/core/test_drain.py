"""A server that leaves finishes what it has begun, and sends elsewhere what comes; over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pileus.core import serve
from pileus.core.drain import Drain
from pileus.core.http import Receive, Scope, Send

LEAVE: dict[str, asyncio.Event] = {}


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    """`/slow` ends when it may, `/ever` does not end, `/read` reads the body and says how long it was."""
    body = b"ok"
    if scope["path"] == "/slow":
        await LEAVE.setdefault("/slow", asyncio.Event()).wait()
    if scope["path"] == "/ever":
        await asyncio.Event().wait()
    if scope["path"] == "/read":
        count = 0
        while True:
            message = await receive()
            count += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        body = str(count).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Site:
    """A server that is being asked."""

    def __init__(self, port: int, drain: Drain) -> None:
        self.port = port
        self.drain = drain

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        await asyncio.sleep(0.1)
        return reader, writer


@asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    listener = serve.listen_tcp("127.0.0.1", 0)
    drain = Drain(site)
    server = serve.server(drain)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.sleep(0.05)
    try:
        yield Site(listener.getsockname()[1], drain)
    finally:
        server.should_exit = server.force_exit = True
        await task


def test_what_runs_is_finished_and_what_comes_is_refused() -> None:
    async def act() -> None:
        async with serving() as cloud:
            reader, held = await cloud.ask("/slow")
            idle_reader, idle = await cloud.ask("/")
            assert (await idle_reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            ending = asyncio.create_task(cloud.drain.end(requests=10, transfers=10))
            await asyncio.sleep(0.05)
            new, _fresh = await cloud.ask("/")
            refused = await new.read()
            assert refused.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1\r\n" in refused
            assert b"connection: close\r\n" in refused
            idle.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")  # on a connection that was kept
            assert (await idle_reader.read()).startswith(b"HTTP/1.1 503")
            assert not ending.done()
            LEAVE.pop("/slow").set()
            answer = await reader.read()  # to its end: the connection is closed
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close\r\n" in answer
            assert await ending == 0
            held.close()

    asyncio.run(act())


def test_an_upload_gets_the_time_of_transfers() -> None:
    async def act() -> None:
        async with serving() as cloud:
            reader, writer = await cloud.connect()
            head = (
                b"PUT /read HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: 4\r\n\r\n"
            )
            writer.write(head + b"12")
            await asyncio.sleep(0.1)
            ending = asyncio.create_task(cloud.drain.end(requests=0, transfers=10))
            await asyncio.sleep(0.3)
            assert not ending.done()
            writer.write(b"34")
            assert (await reader.read()).endswith(b"\r\n\r\n4")
            assert await ending == 0

    asyncio.run(act())


@pytest.mark.parametrize(("path", "body"), [("/ever", b""), ("/read", b"12")])
def test_no_request_is_waited_for_without_end(path: str, body: bytes) -> None:
    async def act() -> None:
        async with serving() as cloud:
            _, writer = await cloud.connect()
            writer.write(f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2097152\r\n\r\n".encode() + body)
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            assert await cloud.drain.end(requests=0, transfers=0.3) == 1
            assert 0.2 < asyncio.get_running_loop().time() - began < 3

    asyncio.run(act())


def test_who_serves_nobody_ends_at_once() -> None:
    async def act() -> None:
        async with serving() as cloud:
            async with asyncio.timeout(0.5):
                assert await cloud.drain.end(requests=60, transfers=60) == 0

    asyncio.run(act())

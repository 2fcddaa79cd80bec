"""No client holds a connection for ever, and none is cut off that gets on; over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pileus.core import connection, serve
from pileus.core.http import Receive, Scope, Send

HEAD, STALL = 0.5, 0.8
GET = b"GET /%s HTTP/1.1\r\nhost: x\r\n\r\n"

Client = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HEAD", HEAD), ("STALL", STALL)):
        monkeypatch.setattr(connection, name, value)
    monkeypatch.setattr(serve, "LOOK", 0.05)


class Site:
    """An application: `/read` reads the body, `/late` does so after a while, `/slow` takes its time, `/much` answers
    with many bytes, and everything else answers at once."""

    def __init__(self) -> None:
        self.read = 0
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, body = scope["path"], b"ok"
        if path in ("/slow", "/late"):
            await asyncio.sleep(3 * STALL)
        if path in ("/read", "/late"):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone += 1
                    return
                self.read += len(message["body"])
                if not message["more_body"]:
                    break
        if path == "/much":
            body = bytes(32 << 20)
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for start in range(0, len(body), 65536):
            part = body[start : start + 65536]
            await send({"type": "http.response.body", "body": part, "more_body": start + 65536 < len(body)})


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[Client]:
    listener = serve.listen_tcp("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = serve.server(site)
    task = asyncio.create_task(server.serve(sockets=[listener]))

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=sock, limit=4096)

    try:
        yield connect
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


def check(act: Callable[[Client, Site], Awaitable[None]]) -> None:
    async def body() -> None:
        site = Site()
        async with serving(site) as connect, asyncio.timeout(30):
            await act(connect, site)

    asyncio.run(body())


async def ending(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server hangs up."""
    found = b""
    try:
        while part := await reader.read(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes) -> bytes:
    writer.write(GET % path)
    head = await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(2) == b"ok"
    return head


async def drip(writer: asyncio.StreamWriter, content: bytes, pause: float, size: int = 1) -> None:
    try:
        for start in range(0, len(content), size):
            writer.write(content[start : start + size])
            await writer.drain()
            await asyncio.sleep(pause)
    except (ConnectionResetError, BrokenPipeError):
        pass


def test_a_client_that_says_nothing_is_hung_up_on() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, _ = await connect()
        assert await ending(reader) == b""

    check(act)


@pytest.mark.parametrize("after", [False, True])
def test_a_head_that_drips_is_given_up(after: bool) -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        if after:
            await exchange(reader, writer, b"")
        dripping = asyncio.create_task(drip(writer, b"\r\n" + GET % (b"x" * 200), HEAD / 20))
        assert (await ending(reader)).startswith(b"HTTP/1.1 408 ")
        dripping.cancel()

    check(act)


def test_a_head_without_end_is_refused() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\n" + b"x-filler: y\r\n" * 12000)
        assert (await ending(reader)).startswith(b"HTTP/1.1 431 ")

    check(act)


CHUNKED = b"PUT /%s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"


@pytest.mark.parametrize("path", [b"", b"read", b"late"])
@pytest.mark.parametrize(
    "content",
    [b"0\r\nx-one: y\r\n\r\n", b"0\r\n" + b"x-filler: y\r\n" * 40000, b"0\r\nx-long: " + bytes([120]) * 500_000],
    ids=["one", "many", "endless"],
)
def test_nothing_is_kept_of_what_follows_the_last_chunk(content: bytes, path: bytes) -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        writer.write(CHUNKED % path + content)
        found = await ending(reader)
        assert found.count(b"HTTP/1.1 ") == 1
        assert found.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 200 ") if path == b"" else b"HTTP/1.1 431 ")

    check(act)


def test_chunks_without_trailers_are_taken_and_the_connection_is_kept() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(CHUNKED % b"read" + (b"1;name=%s\r\nx\r\n" % (b"y" * 8000)) * 20 + b"0\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(2) == b"ok"
        assert site.read == 2 * 22

    check(act)


def test_a_body_that_drips_is_given_up() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        writer.write(b"PUT /read HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        dripping = asyncio.create_task(drip(writer, bytes(1000), 0.01))
        assert await ending(reader) == b""
        dripping.cancel()
        assert 0 < site.read < 1000
        await asyncio.sleep(0.05)
        assert site.gone == 1

    check(act)


@pytest.mark.parametrize("path", [b"/read", b"/late"])
def test_a_long_upload_that_gets_on_is_taken_and_a_slow_server_is_not_the_clients_fault(path: bytes) -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        size = 400_000 if path == b"/late" else 20_000
        writer.write(b"PUT %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path, size))
        if path == b"/late":
            writer.write(bytes(size))
        else:
            await drip(writer, bytes(size), STALL / 8, 1000)
        assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        assert site.read == size

    check(act)


def test_a_request_that_was_answered_before_its_body_came_is_not_waited_for() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        writer.write(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        dripping = asyncio.create_task(drip(writer, bytes(90000), 0.01, 90))
        assert (await ending(reader)).startswith(b"HTTP/1.1 200 ")
        dripping.cancel()

    check(act)


def test_a_request_may_take_as_long_as_it_takes() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        await exchange(reader, writer, b"slow")
        await exchange(reader, writer, b"slow")

    check(act)


def test_a_client_that_does_not_read_is_hung_up_on() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        writer.write(GET % b"much")
        await reader.readexactly(1000)
        await asyncio.sleep(4 * STALL)
        assert len(await ending(reader)) < 32 << 20

    check(act)


def test_a_client_that_reads_slowly_gets_everything() -> None:
    async def act(connect: Client, site: Site) -> None:
        reader, writer = await connect()
        writer.write(GET % b"much")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"33554432" in head
        left = 32 << 20
        for _ in range(10):
            left -= len(await reader.readexactly(1 << 18))
            await asyncio.sleep(STALL / 4)
        assert len(await reader.readexactly(left)) == left

    check(act)


def test_a_new_client_takes_the_place_of_the_one_that_waited_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.Connection, "limit", 3)

    async def act(connect: Client, site: Site) -> None:
        busy = await connect()
        busy[1].write(GET % b"slow")
        older, newer = await connect(), await connect()
        for one in (older, newer):
            await exchange(*one, b"")
        await exchange(*await connect(), b"")
        assert await ending(older[0]) == b""
        await exchange(*newer, b"")
        assert (await busy[0].readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"

    check(act)


def test_when_all_are_busy_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.Connection, "limit", 2)

    async def act(connect: Client, site: Site) -> None:
        busy = [await connect(), await connect()]
        for _, writer in busy:
            writer.write(GET % b"slow")
        await asyncio.sleep(0.1)
        reader, _ = await connect()
        refused = await ending(reader)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in refused
        for reader, _ in busy:
            assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        await exchange(*await connect(), b"")

    check(act)

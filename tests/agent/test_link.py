"""The agent's end of the link, against servers that misbehave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pileus.agent import link as link_module
from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.contracts.link import Answer, Watch, Welcome

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
WATCH = b'{"revision": "7", "position": 7, "full": false, "assignments": []}'


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """Answers each request of each connection as written; None ends the connection."""

    def __init__(self, *connections: list[bytes | None]) -> None:
        self.connections = list(connections)
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for said in self.connections.pop(0):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if length:
                await reader.readexactly(int(length[0].split(b":")[1]))
            self.heads.append(head)
            if said is None:
                break
            writer.write(said)
        writer.close()


def play(server: Server, scenario: Callable[[Link], Coroutine[Any, Any, None]], directory: Path, **trust: Any) -> None:
    async def scene() -> None:
        path = directory / "link"
        listener = await asyncio.start_unix_server(server.serve, path)
        link = Link(path, **trust)
        try:
            await asyncio.wait_for(scenario(link), 10)
        finally:
            link.close()
            listener.close()

    asyncio.run(scene())


def test_one_connection_carries_many_requests(tmp_path: Path) -> None:
    server = Server([answer(WATCH), OK, answer(WATCH)])

    async def scenario(link: Link) -> None:
        assert (await link.get("/watch", Watch)).revision == "7"
        link.host_id = "h"
        await link.send("/answer", Answer(id="x", output="y"))
        await link.get("/watch?since=7", Watch)

    play(server, scenario, tmp_path)
    assert server.heads[0].startswith(b"GET /watch HTTP/1.1\r\n")
    assert b"x-auth-token" not in server.heads[0].lower()
    assert b"x-auth-token: h\r\n" in server.heads[1].lower()


def test_a_kept_connection_that_has_ended_is_replaced(tmp_path: Path) -> None:
    async def scenario(link: Link) -> None:
        await link.send("/answer", Answer(id="x", output="y"))
        await link.send("/answer", Answer(id="x", output="y"))

    play(Server([OK, None], [OK]), scenario, tmp_path)


def test_a_watch_is_not_sent_again_behind_a_new_connection(tmp_path: Path) -> None:
    async def scenario(link: Link) -> None:
        await link.get("/watch", Watch, again=False)
        with pytest.raises(LinkDown):
            await link.get("/watch?since=7", Watch, again=False)

    server = Server([answer(WATCH), None], [answer(WATCH)])
    play(server, scenario, tmp_path)
    assert len(server.connections) == 1


def test_a_fault_is_raised_with_its_message(tmp_path: Path) -> None:
    async def scenario(link: Link) -> None:
        with pytest.raises(LinkRefused, match="another store") as caught:
            await link.post("/hello", Answer(id="x", output=None), Welcome)
        assert caught.value.status == 409
        await link.send("/answer", Answer(id="x", output="y"))

    play(Server([answer(b"another store", "409 Conflict"), OK]), scenario, tmp_path)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"revision": "x"}', b'{"revision": 7}'])
def test_an_answer_of_another_form_is_refused(tmp_path: Path, body: bytes) -> None:
    async def scenario(link: Link) -> None:
        with pytest.raises(LinkRefused, match="cannot be understood"):
            await link.get("/watch", Watch)

    play(Server([answer(body)]), scenario, tmp_path)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"garbage\r\n\r\n", answer(WATCH)[:-5]])
def test_an_answer_that_breaks_off_is_the_link_down(tmp_path: Path, said: bytes) -> None:
    async def scenario(link: Link) -> None:
        with pytest.raises(LinkDown):
            await link.get("/watch", Watch)

    play(Server([said]), scenario, tmp_path)


def test_data_comes_in_parts(tmp_path: Path) -> None:
    async def scenario(link: Link) -> None:
        parts: list[bytes] = []
        await link.download("/images/x/data", parts.append)
        assert b"".join(parts) == b"x" * 1_000_000
        assert len(parts) > 1

    play(Server([answer(b"x" * 1_000_000)]), scenario, tmp_path)


def test_a_fault_is_no_data(tmp_path: Path) -> None:
    async def scenario(link: Link) -> None:
        parts: list[bytes] = []
        with pytest.raises(LinkRefused, match="no such image"):
            await link.download("/images/x/data", parts.append)
        assert parts == []

    play(Server([answer(b"no such image", "404 Not Found")]), scenario, tmp_path)


def test_data_that_breaks_off_is_never_taken_for_whole(tmp_path: Path) -> None:
    async def scenario(link: Link) -> None:
        with pytest.raises(LinkDown):
            await link.download("/images/x/data", lambda part: None)

    play(Server([answer(b"x" * 1000)[:-1]], [OK]), scenario, tmp_path)


def test_a_server_that_says_nothing_is_the_link_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "SILENCE", 0.1)

    async def scenario(link: Link) -> None:
        with pytest.raises(LinkDown):
            await link.get("/watch", Watch)

    play(Server([b"", OK]), scenario, tmp_path)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(LinkDown, match="No such file"):
        asyncio.run(Link(tmp_path / "link").get("/watch", Watch))


def test_a_server_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    async def refused(link: Link) -> None:
        with pytest.raises(LinkDown, match="does not trust"):
            await link.get("/watch", Watch)

    play(Server([answer(WATCH)]), refused, tmp_path, peer_uid=lambda connection: 4711, trusted=4712)

    async def trusted(link: Link) -> None:
        await link.get("/watch", Watch)

    (tmp_path / "link").unlink(missing_ok=True)
    play(Server([answer(WATCH)]), trusted, tmp_path, peer_uid=lambda connection: os.getuid(), trusted=os.getuid())

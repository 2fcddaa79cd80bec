"""The metadata server of one host: a child without privilege that answers guests.

It speaks the OpenStack tree (Compute user guide, "Metadata"; `/openstack/<version>/meta_data.json` …) and the EC2 tree
(`/<version>/meta-data/…`; Amazon EC2 user guide, "Access instance metadata").  A guest is known by the network that
its connection came in on and by its source address, which the network's filter lets in from the port that has it and
from no other; whatever the request says of where it comes from is not read.  Everything that a guest sends is bounded:
request size, time, connections.
"""

from __future__ import annotations

import array
import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from pileus.agent.metadata import Message

LIMIT = 8192
"""The longest request, in bytes."""

TIMEOUT = 10.0
"""Seconds that a guest has for one request."""

CONNECTIONS = 64
"""How many connections of one network are served at once."""

EACH = 16
"""How many of them may be of one address."""


PASSWORD = re.compile(r"openstack/(?!2012-)[^/]+/password")
"""Where a guest tells the password that it made for itself: in the tree's versions since 2013."""

LONGEST = 1020
"""Bytes of such a password."""


class Answer(NamedTuple):
    """Status line and body."""

    status: str
    body: bytes


def answer(method: str, path: str, documents: Mapping[str, bytes] | None) -> Answer:
    """What a guest gets: a document, the list of what lies below a path, or a fault."""
    if method not in ("GET", "HEAD"):
        return Answer("405 Method Not Allowed", b"")
    parts = _parts(path)
    if documents is None:
        return Answer("404 Not Found", b"")
    if PASSWORD.fullmatch("/".join(parts)) and f"openstack/{parts[1]}/meta_data.json" in documents:
        return Answer("200 OK", documents.get("/".join(parts), b""))
    if (found := documents.get("/".join(parts))) is not None:
        return Answer("200 OK", found)
    names = _list(parts, documents)
    return Answer("200 OK", "\n".join(names).encode()) if names else Answer("404 Not Found", b"")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("?", 1)[0].split("/") if part]


def _list(parts: Sequence[str], documents: Mapping[str, bytes]) -> list[str]:
    """What lies below a path, by name: versions as they are, other directories with a slash, keys as `0=NAME`."""
    prefix = "".join(f"{part}/" for part in parts)
    below = {name[len(prefix) :].partition("/")[:2] for name in documents if name.startswith(prefix)}
    if not parts:
        return sorted(name for name, _ in below if name != "openstack")
    if parts == ["openstack"]:
        return sorted(name for name, _ in below)
    if parts[1:] == ["meta-data", "public-keys"]:
        return [f"{name}={_key_name(name, documents)}" for name, _ in sorted(below)]
    return sorted(name + slash for name, slash in below)


def _key_name(number: str, documents: Mapping[str, bytes]) -> str:
    """The name of a key, which of the two trees only the OpenStack one holds."""
    try:
        return msgspec.json.decode(documents["openstack/latest/meta_data.json"], type=_MetaData).keys[int(number)].name
    except (KeyError, ValueError, IndexError):
        return ""


ANSWERS = {
    200: Answer("200 OK", b""),
    400: Answer("400 Bad Request", b""),
    404: Answer("404 Not Found", b""),
    409: Answer("409 Conflict", b""),
}
"""What a guest hears of a password that it told."""


class _Key(msgspec.Struct):
    name: str


class _MetaData(msgspec.Struct):
    keys: list[_Key] = []


class Server:
    """All networks of a host."""

    def __init__(self, ask: Callable[[Message], Awaitable[None]]) -> None:
        self._listeners: dict[str, asyncio.Server] = {}
        self._places: dict[str, dict[str, str]] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self._questions: dict[str, asyncio.Future[int]] = {}
        """What guests told that has no answer yet, by guest."""
        self._ask = ask
        self._open: dict[str, int] = {}
        """Connections, by network, and by network and address."""

    async def take(self, message: Message, listener: socket.socket | None) -> None:
        """Do what the agent says."""
        if message.verb == "listen" and listener is not None:
            await self._close(message.id)
            listener.setblocking(False)
            self._listeners[message.id] = await asyncio.start_server(
                lambda reader, writer: self._serve(message.id, reader, writer), sock=listener, limit=LIMIT
            )
        elif message.verb == "close":
            await self._close(message.id)
            self._places.pop(message.id, None)
        elif message.verb == "places":
            self._places[message.id] = message.places
        elif message.verb == "guest":
            self._documents[message.id] = message.documents
        elif message.verb == "forget":
            self._documents.pop(message.id, None)
        elif message.verb == "answer":
            question = self._questions.get(message.id)
            if question is not None and not question.done():
                question.set_result(message.status)

    async def _close(self, network_id: str) -> None:
        server = self._listeners.pop(network_id, None)
        if server is not None:
            server.close()

    async def _serve(self, network_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = f"{network_id} {writer.get_extra_info('peername')[0]}"
        if self._open.get(network_id, 0) >= CONNECTIONS or self._open.get(guest, 0) >= EACH:
            writer.transport.abort()
            return
        for one in (network_id, guest):
            self._open[one] = self._open.get(one, 0) + 1
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._respond(network_id, reader, writer)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whatever a guest sends or leaves out is its own concern
        finally:
            for one in (network_id, guest):
                self._open[one] -= 1
                if not self._open[one]:
                    del self._open[one]
            writer.transport.abort()  # nothing is kept for a guest that does not read

    async def _respond(self, network_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, *_ = head.split("\r\n", 1)[0].split(" ")
        peer = writer.get_extra_info("peername")[0]
        guest = self._places.get(network_id, {}).get(peer)
        documents = None if guest is None else self._documents.get(guest)
        if (
            method == "POST"
            and guest is not None
            and documents is not None
            and PASSWORD.fullmatch("/".join(_parts(path)))
        ):
            found = await self._take_password(guest, head, reader)
        else:
            found = answer(method, path, documents)
        kind = "application/json" if path.split("?", 1)[0].endswith(".json") else "text/plain; charset=utf-8"
        lines = f"HTTP/1.1 {found.status}\r\ncontent-type: {kind}\r\ncontent-length: {len(found.body)}\r\n"
        writer.write(lines.encode() + b"connection: close\r\n\r\n" + (found.body if method == "GET" else b""))
        await writer.drain()

    async def _take_password(self, guest: str, head: str, reader: asyncio.StreamReader) -> Answer:
        """Pass on what a guest told, and wait until it is kept."""
        length = re.search(r"^content-length:[ \t]*([0-9]{1,9})[ \t]*\r?$", head, re.IGNORECASE | re.MULTILINE)
        size = int(length[1]) if length else 0
        if not 0 < size <= LONGEST:
            return Answer("400 Bad Request", b"")
        try:
            text = (await reader.readexactly(size)).decode("ascii")
        except UnicodeDecodeError:
            return Answer("400 Bad Request", b"")
        if guest in self._questions:
            return Answer("409 Conflict", b"")
        question = self._questions[guest] = asyncio.get_running_loop().create_future()
        try:
            await self._ask(Message(verb="password", id=guest, password=text))
            status = await question
        finally:
            del self._questions[guest]
        return ANSWERS.get(status, Answer("503 Service Unavailable", b""))


async def serve(channel: socket.socket) -> None:
    """Serve until the agent closes its end."""
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    one_by_one = asyncio.Lock()

    async def ask(message: Message) -> None:
        async with one_by_one:
            await loop.sock_sendall(channel, msgspec.json.encode(message) + b"\n")

    server = Server(ask)
    rest, listeners = b"", []
    ready = asyncio.Event()
    loop.add_reader(channel, ready.set)
    while True:
        await ready.wait()
        ready.clear()
        try:
            data, control, _, _ = channel.recvmsg(1 << 20, socket.CMSG_SPACE(16 * array.array("i").itemsize))
        except BlockingIOError:
            continue
        if not data:
            loop.remove_reader(channel)
            return
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
                listeners += [socket.socket(fileno=one) for one in descriptors]
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            message = msgspec.json.decode(line, type=Message)
            listener = listeners.pop(0) if message.verb == "listen" and listeners else None
            await server.take(message, listener)


def main(descriptor: int) -> None:
    """Run as a child whose channel to the agent is a file descriptor."""
    with socket.socket(fileno=descriptor) as channel:
        asyncio.run(serve(channel))

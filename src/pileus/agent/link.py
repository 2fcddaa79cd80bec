"""The agent's end of the link: HTTP/1.1 over a Unix socket (contract: `pileus.contracts.link`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import h11
import msgspec

T = TypeVar("T")

SILENCE = 60.0
"""Seconds without a byte after which the control plane counts as away. A watch is answered much sooner."""


class LinkDown(Exception):
    """The control plane cannot be reached, or went away in the middle."""


class LinkRefused(Exception):
    """The control plane answered with a fault: `status` and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Connection:
    """One connection, which carries one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._state = h11.Connection(h11.CLIENT)

    async def exchange(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: list[tuple[str, str]],
        sink: Callable[[bytes], object] | None,
        kept: bytearray,
    ) -> int:
        """Send a request and read the answer, a success into `sink` if there is one, else into `kept`; its status."""
        state, writer = self._state, self._writer
        length = [("content-length", str(len(body)))] if method != "GET" else []
        head = h11.Request(method=method, target=path, headers=[("host", "link"), *headers, *length])
        writer.write(state.send(head) or b"")
        if body:
            writer.write(state.send(h11.Data(data=body)) or b"")
        writer.write(state.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        status = 0
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(SILENCE):
                    state.receive_data(await self._reader.read(1 << 18))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                if sink is None or status >= 400:
                    kept += event.data
                else:
                    sink(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise LinkDown("the control plane closed the connection")
        if state.our_state is h11.DONE and state.their_state is h11.DONE:
            state.start_next_cycle()
        return status

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._state.our_state is h11.IDLE

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class Link:
    """Calls to the control plane. `host_id` is set by who said hello; `trusted` decides on the peer's user id."""

    def __init__(
        self, path: Path, *, peer_uid: Callable[[socket.socket], int] | None = None, trusted: int | None = None
    ) -> None:
        self.path = path
        self.host_id = ""
        self._peer_uid = peer_uid
        self._trusted = trusted
        self._idle: list[_Connection] = []

    async def get(self, path: str, kind: type[T], *, again: bool = True) -> T:
        """GET an answer of a type; on a new connection when one that was kept has ended, if `again`.

        Raises LinkDown or LinkRefused.
        """
        return _understand(await self._call("GET", path, b"", again=again), kind)

    async def post(self, path: str, body: msgspec.Struct, kind: type[T]) -> T:
        """POST a struct; the answer of a type. Raises LinkDown or LinkRefused."""
        return _understand(await self._call("POST", path, msgspec.json.encode(body)), kind)

    async def send(self, path: str, body: msgspec.Struct) -> None:
        """POST a struct that has no answer. Raises LinkDown or LinkRefused."""
        await self._call("POST", path, msgspec.json.encode(body))

    async def download(self, path: str, sink: Callable[[bytes], object]) -> None:
        """GET data of any size, part by part. Raises LinkDown or LinkRefused."""
        await self._call("GET", path, b"", sink=sink, again=False)

    def close(self) -> None:
        """Hang up all connections."""
        while self._idle:
            self._idle.pop().close()

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        sink: Callable[[bytes], object] | None = None,
        again: bool = True,
    ) -> bytes:
        kept = bytearray()
        fresh = not self._idle
        connection = await self._connect() if fresh else self._idle.pop()
        headers = [("x-auth-token", self.host_id)] if self.host_id else []
        if body:
            headers.append(("content-type", "application/json"))
        try:
            status = await connection.exchange(method, path, body, headers, sink, kept)
        except (OSError, h11.ProtocolError, LinkDown) as error:
            connection.close()
            if again and not fresh:
                self.close()
                return await self._call(method, path, body, again=False)
            raise LinkDown(str(error)) from error
        except asyncio.CancelledError:
            connection.close()
            raise
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        if status >= 400:
            raise LinkRefused(status, kept.decode(errors="replace")[:2000])
        return bytes(kept)

    async def _connect(self) -> _Connection:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 20)
        except OSError as error:
            raise LinkDown(f"{self.path}: {error.strerror or error}") from error
        if self._peer_uid is not None:
            uid = self._peer_uid(writer.get_extra_info("socket"))
            if uid not in (self._trusted, 0):
                writer.close()
                raise LinkDown(f"{self.path} is served by user {uid}, whom this host does not trust")
        return _Connection(reader, writer)


def _understand(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        raise LinkRefused(502, f"its answer cannot be understood: {error}") from error

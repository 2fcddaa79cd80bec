"""The agent's end of the link: HTTP/1.1 over a Unix socket (contract: `pileus.contracts.link`)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import h11
import msgspec

T = TypeVar("T")

SILENCE = 60.0
"""Seconds without a byte after which the control plane counts as away. A watch is answered much sooner."""

PIECE = 1 << 18
"""Bytes that are read or sent at once."""


class LinkDown(Exception):
    """The control plane cannot be reached, or went away in the middle."""


_PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})
"""Statuses of refusals that another attempt may not meet."""


class LinkRefused(Exception):
    """The control plane answered with a fault: `status` and its message; `lasting`, where trying again is useless."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.lasting = status not in _PASSING


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
        length = [("content-length", str(len(body)))] if method != "GET" else []
        await self.send(h11.Request(method=method, target=path, headers=[("host", "link"), *headers, *length]))
        if body:
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())
        status = await self._answer(sink, kept)
        state = self._state
        if state.our_state is h11.DONE and state.their_state is h11.DONE:
            state.start_next_cycle()
        return status

    async def give(
        self, method: str, path: str, file: BinaryIO, size: int, headers: list[tuple[str, str]], kept: bytearray
    ) -> int:
        """Send what is left of a file, `size` bytes, unless the control plane answers without it; the status."""
        more = [("content-length", str(size)), ("expect", "100-continue")]
        await self.send(h11.Request(method=method, target=path, headers=[("host", "link"), *headers, *more]))
        event = await self._next(SILENCE)
        if isinstance(event, h11.Response):
            return await self._answer(None, kept, event.status_code)
        answer = asyncio.create_task(self._answer(None, kept, patient=True))
        try:
            while not answer.done() and (piece := await asyncio.to_thread(file.read, PIECE)):
                async with asyncio.timeout(SILENCE):
                    await self.send(h11.Data(data=piece))
            if not answer.done():
                await self.send(h11.EndOfMessage())
            async with asyncio.timeout(5 * SILENCE):
                return await answer
        except OSError:
            # It may have answered and hung up before all was sent.
            async with asyncio.timeout(1.0):
                return await answer
        finally:
            answer.cancel()

    async def send(self, event: h11.Event) -> None:
        """Send a part of a request, and wait until there is room for the next."""
        self._writer.write(self._state.send(event) or b"")
        await self._writer.drain()

    async def begin(self, path: str, headers: list[tuple[str, str]], kept: bytearray) -> int:
        """Send the head of a request whose body and answer go on side by side; the answer's status."""
        more = [("transfer-encoding", "chunked")]
        await self.send(h11.Request(method="POST", target=path, headers=[("host", "link"), *headers, *more]))
        event = await self._next(SILENCE)
        if not isinstance(event, h11.Response):
            raise LinkDown("the control plane does not speak as it should")
        return event.status_code if event.status_code < 400 else await self._answer(None, kept, event.status_code)

    async def receive(self) -> bytes:
        """The next bytes of an answer, however long it takes; empty at its end."""
        event = await self._next(None)
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _answer(
        self,
        sink: Callable[[bytes], object] | None,
        kept: bytearray,
        status: int = 0,
        *,
        patient: bool = False,
    ) -> int:
        """Read the answer to its end; `status` is what its head said, if that was read already.

        `patient`: it may take as long as it takes.
        """
        while not isinstance(event := await self._next(None if patient else SILENCE), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data) and (sink is None or status >= 400):
                kept += event.data
            elif isinstance(event, h11.Data) and sink is not None:
                sink(bytes(event.data))
        return status

    async def _next(self, silence: float | None) -> h11.Event:
        """What comes next. Raises LinkDown, OSError and h11.ProtocolError."""
        state = self._state
        while (event := state.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(silence):
                state.receive_data(await self._reader.read(PIECE))
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise LinkDown("the control plane closed the connection")
        return cast("h11.Event", event)

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._state.our_state is h11.IDLE

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class Channel:
    """Bytes both ways between this host and the control plane, at the pace of whoever takes them."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def read(self) -> bytes:
        """The next bytes; empty when the control plane has no more. Raises LinkDown."""
        try:
            return await self._connection.receive()
        except (OSError, h11.ProtocolError) as error:
            raise LinkDown(str(error)) from error

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait until there is room for more. Raises LinkDown."""
        try:
            await self._connection.send(h11.Data(data=data))
        except (OSError, h11.ProtocolError) as error:
            raise LinkDown(str(error)) from error

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Link:
    """Calls to the control plane. `host_id` is set by who said hello; `trusted` decides on the peer's user id."""

    def __init__(
        self, path: Path, *, peer_uid: Callable[[socket.socket], int] | None = None, trusted: int | None = None
    ) -> None:
        self.path = path
        self.host_id = ""
        self.sparing = False
        """Whether a connection is not kept beside one that is in use, since the control plane has so many hosts."""
        self._used = 0
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

    async def upload(self, path: str, file: BinaryIO, size: int) -> None:
        """PUT a file of `size` bytes, from where it stands; nothing is sent that is not wanted any more.

        Raises LinkDown or LinkRefused.
        """
        connection, kept = await self._connect(), bytearray()
        headers = [*self._headers(), ("content-type", "application/octet-stream")]
        try:
            status = await connection.give("PUT", path, file, size, headers, kept)
        except (OSError, h11.ProtocolError) as error:
            raise LinkDown(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        _check(status, kept)

    async def channel(self, path: str) -> Channel:
        """POST what goes on both ways until one side hangs up. Raises LinkDown or LinkRefused."""
        connection, kept = await self._connect(), bytearray()
        try:
            headers = [*self._headers(), ("content-type", "application/octet-stream")]
            status = await connection.begin(path, headers, kept)
            _check(status, kept)
        except (OSError, h11.ProtocolError) as error:
            connection.close()
            raise LinkDown(str(error) or type(error).__name__) from error
        except BaseException:
            connection.close()
            raise
        return Channel(connection)

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
        headers = self._headers()
        if body:
            headers.append(("content-type", "application/json"))
        self._used += 1
        try:
            status = await connection.exchange(method, path, body, headers, sink, kept)
        except (OSError, h11.ProtocolError, LinkDown) as error:
            connection.close()
            if again and not fresh:
                self.close()
                return await self._call(method, path, body, again=False)
            raise LinkDown(str(error) or "it does not answer") from error
        except BaseException:
            connection.close()
            raise
        finally:
            self._used -= 1
        if connection.reusable and not (self.sparing and self._used):
            self._idle.append(connection)
        else:
            connection.close()
        _check(status, kept)
        return bytes(kept)

    def _headers(self) -> list[tuple[str, str]]:
        return [("x-auth-token", self.host_id)] if self.host_id else []

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


def _check(status: int, kept: bytearray) -> None:
    if status >= 400:
        raise LinkRefused(status, kept.decode(errors="replace")[:2000])


def _understand(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        raise LinkRefused(502, f"its answer cannot be understood: {error}") from error

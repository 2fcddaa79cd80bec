"""One client's connection: uvicorn's protocol, with an end to every wait for the client.

uvicorn waits for a request's head, for its body and for a client that does not read, as long as the client likes; a
few hundred such clients would be all that are served.  Here each wait has an end, found by one look a second at all
connections of a server, so that a request costs no timer:

- the head of a request has to come within `HEAD` seconds, and to be no longer than `HEAD_LIMIT` bytes (408, 431);
- a body in chunks has no trailers (431), and between what it holds there are no more than `HEAD_LIMIT` bytes of what
  says how it is sent, since uvicorn and its parser would keep all that comes there;
- a body that has begun, and an answer that is being read, may take as long as they need, and bring `PROGRESS` bytes
  or their end in each `STALL` seconds; time in which the server does not take what comes is not counted;
- there are `CONNECTIONS` at most: a new one takes the place of the one that has waited longest for its next request,
  or is refused (503) when all are in the middle of one.

A request that is being worked on, as a watch is, may take as long as it takes.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

logger = logging.getLogger(__name__)

HEAD = 20.0
"""Seconds from a request's first byte (or from connecting) to the end of its headers."""
HEAD_LIMIT = 64 * 1024
"""Bytes of a request's first line and headers."""
STALL = 30.0
"""Seconds in which a body or an answer must get on."""
PROGRESS = 4096
"""Bytes by which."""
CONNECTIONS = 512
"""Open connections of one server; descriptors are 1,024 by default, and files and the link need some."""
LARGE = 1 << 20
"""Bytes of a body from which on it is read in pieces of this size: fewer wake-ups for the same data."""
LOOK = 1.0
"""Seconds between two looks."""


class _Span:
    """A stretch of at most `STALL` seconds in which a count of bytes has to grow by `PROGRESS`."""

    __slots__ = ("began", "count")

    def __init__(self) -> None:
        self.began: float | None = None
        self.count = 0

    def over(self, now: float, count: int) -> bool:
        """Whether time is up without enough progress; with enough, a new stretch begins."""
        if self.began is None or count - self.count >= PROGRESS:
            self.began, self.count = now, count
        return now - self.began > STALL

    def stop(self) -> None:
        """Nothing is waited for."""
        self.began = None


class Connection(HttpToolsProtocol):
    """A connection whose client is not waited for without end; whoever serves it calls `look` every second or so."""

    limit: int | None = CONNECTIONS
    """The most of them at once; None for no limit."""
    patient = False
    """Whether bodies and answers may stand still."""
    refused = False
    """Whether it was turned away before a byte was read."""
    _head: float | None = None
    """Since when the end of a head is waited for; None when nothing of one has come, and in a body."""
    _head_bytes = 0
    _body = False
    _aside = 0
    """Bytes that came during a body since the last one that is of its content."""
    _received = 0
    _unsent = 0
    _resumed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        if self.limit is not None and len(self.connections) >= self.limit and not self._make_room():
            logger.warning("%d connections are in use: another is refused", len(self.connections))
            self.refused = True
            self._end(transport, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        super().connection_made(transport)
        self._head = self.loop.time()
        self._reading, self._writing = _Span(), _Span()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if not self._body:
            self._head = self._head or self.loop.time()
            self._head_bytes += len(data)
        self._aside += len(data)
        super().data_received(data)
        if self._head is not None and self._head_bytes > HEAD_LIMIT:
            self._end(self.transport, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._body and self._aside > HEAD_LIMIT:
            self._give_up_body()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._body:
            self._give_up_body()
            return
        if name.lower() == b"content-length" and value.isdigit() and int(value) >= LARGE:
            self._read_size(LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head, self._head_bytes, self._aside, self._body = None, 0, 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._aside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head, self._body = None, False
        self._read_size(None)
        super().on_message_complete()

    def _give_up_body(self) -> None:
        """Close for what comes in a body and is none of it; the request is as one whose client has gone away."""
        if self.transport.is_closing():
            return
        cycle, status = self.cycle, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if cycle is None:  # of what would have become a WebSocket
            self._end(self.transport, status)
            return
        cycle.disconnected = True
        cycle.message_event.set()
        self._end(self.transport, None if cycle.response_started else status)

    def _read_size(self, size: int | None) -> None:
        """How much is read from the socket at once; None: as asyncio has it."""
        if size is not None:
            self.transport.max_size = size  # type: ignore[attr-defined] # of asyncio's own transports, not of all
        elif "max_size" in vars(self.transport):
            del self.transport.max_size  # type: ignore[attr-defined]

    def resume_writing(self) -> None:
        self._resumed = True
        super().resume_writing()

    @property
    def answering(self) -> bool:
        """Whether a request is being worked on or answered."""
        return not getattr(self.cycle, "response_complete", True)

    def look(self) -> None:
        """Hang up when the client has been waited for long enough."""
        now = self.loop.time()
        if not self.patient and (self._stuck(now) or self._starved(now)):
            logger.info("%s: the client does not get on; the connection is closed", self.client)
            self.transport.abort()
        elif self.answering:
            self._head = None if self._head is None else now  # of a request that may not be begun before this one ends
        elif self._body:
            self._head = self._head or now  # of a request that was answered before its body was there
        if self._head is not None and now - self._head > HEAD and not self.transport.is_closing():
            self._end(self.transport, HTTPStatus.REQUEST_TIMEOUT if self._head_bytes else None)

    def _stuck(self, now: float) -> bool:
        """Whether the client does not read what it is sent."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent > self._unsent or self._resumed:
            self._writing.stop()
        self._unsent, self._resumed = unsent, False
        return bool(unsent) and self._writing.over(now, -unsent)

    def _starved(self, now: float) -> bool:
        """Whether the client does not send the body that it has begun, though it is asked to."""
        if not self._body or not self.answering or self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._reading.stop()
            return False
        return self._reading.over(now, self._received)

    def _make_room(self) -> bool:
        """Hang up on who has waited longest between two requests; whether there was one."""
        waiting = [one for one in self.connections if isinstance(one, Connection) and one.since is not None]
        if not waiting:
            return False
        longest = min(waiting, key=lambda one: one.since or 0)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    @property
    def since(self) -> float | None:
        """Since when the next request is waited for; None while there is one."""
        if self.answering or self._body:
            return None
        if self._head is None and self.timeout_keep_alive_task is not None:
            return self.timeout_keep_alive_task.when() - self.timeout_keep_alive
        return self._head

    def _end(self, transport: asyncio.Transport, status: HTTPStatus | None) -> None:
        """Close, with an answer or without a word."""
        if status is not None:
            transport.write(_answer(status))
        transport.close()


def _answer(status: HTTPStatus) -> bytes:
    retry = "retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n{retry}\r\n"
    return head.encode()


_silent = logging.getLogger(f"{__name__}.websocket")
_silent.addFilter(lambda record: record.levelno >= logging.WARNING)


class WebSocket(WSProtocol):
    """A WebSocket; its address holds a token, so that nothing is logged of how it came to be."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.logger = _silent

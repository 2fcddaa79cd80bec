"""Ending without breaking anything off: what has begun is finished, what comes is sent elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from pileus.core.connection import LARGE
from pileus.core.http import Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)


class _Exchange:
    """A request that is being answered."""

    __slots__ = ("transfer",)

    def __init__(self, scope: Scope) -> None:
        self.transfer = False
        """Whether it moves data rather than words."""
        for name, value in scope["headers"]:
            if name == b"content-length":
                self.transfer |= value.isdigit() and int(value) >= LARGE
            elif name == b"content-type":
                self.transfer |= value.startswith(b"application/octet-stream")


class Drain:
    """An ASGI application before another, which can be told to begin nothing more.

    From then on each request is answered with 503, `Retry-After` and `Connection: close`, as a load balancer expects
    of a server that leaves, and those that had begun close their connection when they are done.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._running: set[_Exchange] = set()
        self._done = asyncio.Event()
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        if self.draining:
            await _refuse(send)
            return
        exchange = _Exchange(scope)
        self._running.add(exchange)

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                exchange.transfer |= _is_large(message["headers"])
                if self.draining:
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            await self._application(scope, receive, answer)
        finally:
            self._running.discard(exchange)
            self._done.set()

    async def end(self, *, requests: float, transfers: float) -> int:
        """Begin nothing more, and wait for what runs, so many seconds at most; how many requests were not done."""
        self.draining = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._running:
            logger.info("%d requests are being finished", len(self._running))
        while limits := [transfers if one.transfer else requests for one in self._running]:
            self._done.clear()
            try:
                async with asyncio.timeout_at(began + max(limits)):
                    await self._done.wait()
            except TimeoutError:
                break
        if self._running:
            logger.warning("%d requests were not done in time", len(self._running))
        return len(self._running)


def _is_large(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-length" and value.isdigit() and int(value) >= LARGE for name, value in headers)


async def _refuse(send: Send) -> None:
    headers = [(b"connection", b"close"), (b"retry-after", b"1"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})

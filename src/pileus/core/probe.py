"""What machines ask of a control plane: whether it lives (`/healthz`), whether it serves (`/readyz`), and its figures.

The first two are for everybody, as load balancers and supervisors ask without a name, and say no more than yes or no.
Figures (`/metrics`) tell how much a cloud is used, so they are for administrators, and for whoever reaches an address
that is for them alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from pileus.core.errors import Fault
from pileus.core.http import Receive, Scope, Send
from pileus.core.metrics import MEDIA

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
logger = logging.getLogger(__name__)

FRESH = 1.0
"""Seconds for which an answer about readiness holds: asking costs a look into the store."""


class _Answer(NamedTuple):
    status: int
    text: bytes
    media: str = "text/plain; charset=utf-8"


_WRONG_METHOD = _Answer(405, b"GET or HEAD\n")
_UNKNOWN = _Answer(404, b"not found\n")


class Probe:
    """Answers the paths of probes, and leaves all others to an application, or to nobody.

    `unready` says why requests cannot be served now (empty: they can); `figures` writes the figures down; `admits`
    decides by a request's headers who may see them.
    """

    def __init__(
        self,
        application: Application | None,
        unready: Callable[[], Awaitable[str]],
        figures: Callable[[], Awaitable[bytes]],
        admits: Callable[[dict[bytes, bytes]], Awaitable[bool]],
    ) -> None:
        self._application = application
        self._unready = unready
        self._figures = figures
        self._admits = admits
        self._asked = -FRESH
        self._reason = ""
        self._paths: dict[str, Callable[[Scope], Awaitable[_Answer]]] = {
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (ASGI 3)."""
        path = self._paths.get(scope.get("path", ""))
        if path is None and self._application is not None:
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        found = _UNKNOWN if path is None else _WRONG_METHOD
        if path is not None and scope["method"] in ("GET", "HEAD"):
            found = await path(scope)
        headers = [
            (b"content-type", found.media.encode()),
            (b"content-length", str(len(found.text)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else found.text})

    async def _health(self, scope: Scope) -> _Answer:
        """This process answers."""
        if b"ready" in scope["query_string"].split(b"&"):
            return await self._readiness(scope)
        return _Answer(200, b"ok\n")

    async def _readiness(self, scope: Scope) -> _Answer:
        now = time.monotonic()
        if now - self._asked >= FRESH:
            self._asked = now
            before, self._reason = self._reason, await self._unready()
            if self._reason != before:
                logger.warning("readiness: %s", self._reason or "serves again")
        return _Answer(503, b"not ready\n") if self._reason else _Answer(200, b"ready\n")

    async def _metrics(self, scope: Scope) -> _Answer:
        if not await self._admits(dict(scope["headers"])):
            return _Answer(401, b"for administrators: send a token as X-Auth-Token\n")
        try:
            return _Answer(200, await self._figures(), MEDIA)
        except Fault as fault:
            logger.warning("figures: %s", fault.message)
            return _Answer(503, b"no figures now\n")

"""Between a browser's WebSocket and the stream that the guest's host opens: who may, and the bytes both ways.

Upstream's proxy is described in the Compute administrator guide, "Configure remote console access"; what it accepts is
accepted here: the token in the query or in a cookie, and an `Origin` that is the address that was asked for, or one of
those that the operator allows.  A client without `Origin` is no browser, and cannot be led astray by a page.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from pileus.app.console import page
from pileus.core.config import Config
from pileus.core.errors import Fault
from pileus.core.http import Receive, Scope, Send
from pileus.core.serve import Application
from pileus.core.store import Store
from pileus.services.compute import interface as compute
from pileus.services.fleet import interface as fleet

logger = logging.getLogger(__name__)

ROOT = "/console/"

SESSIONS = 200
"""Consoles that are open at once in this process: each is a connection of the API's, which needs some for itself."""

EACH = 10
"""Of them, those of one server."""


class Console:
    """Answers what is below `/console/`, and hands everything else on."""

    def __init__(self, application: Application, hosts: fleet.Fleet, store: Store, config: Config) -> None:
        self._application = application
        self._fleet = hosts
        self._store = store
        self._timeout = config.console_session_timeout
        self._allowed = frozenset(name.lower() for name in config.console_allowed_origins)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(ROOT):
            await _answer(scope, send)
        else:
            await self._application(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # that somebody is there
        headers: dict[bytes, bytes] = dict(scope["headers"])
        found = await self._find(scope, headers)
        if found is None or not _welcome(headers, found.origin, self._allowed):
            await send({"type": "websocket.close"})  # before it was accepted: 403
            return
        if self._open.total() >= SESSIONS or self._open[found.server_id] >= EACH:
            logger.warning("server %s: too many consoles are open", found.server_id)
            await _refuse(send, 503)
            return
        self._open[found.server_id] += 1
        try:
            opened = fleet.console(self._fleet, self._store, found.host_id, found.server_id, found.kind)
            async with opened as channel:
                await send({"type": "websocket.accept", "subprotocol": _subprotocol(scope)})
                logger.info("server %s: its %s console is open", found.server_id, found.kind)
                left = (found.expires_at - self._store.seams.clock.now()).total_seconds() if self._timeout else None
                await _splice(receive, send, channel, left)
                logger.info("server %s: its %s console is closed", found.server_id, found.kind)
        except Fault as fault:
            logger.info("server %s: its %s console cannot be opened: %s", found.server_id, found.kind, fault.message)
            await _refuse(send, 503)
        finally:
            self._open[found.server_id] -= 1
            self._open += Counter()  # those without any are forgotten

    async def _find(self, scope: Scope, headers: Mapping[bytes, bytes]) -> compute.Console | None:
        """What the token of a request is good for, if it is one for this address."""
        text = _token(scope["query_string"].decode("latin-1"), headers.get(b"cookie", b"").decode("latin-1"))
        if scope["path"] not in (compute.STREAM, compute.SERIAL) or not text:
            return None
        try:
            return await self._store.read(lambda tx: compute.lookup(tx, text))
        except Fault:
            return None


async def _splice(receive: Receive, send: Send, channel: fleet.Channel, seconds: float | None) -> None:
    """Pass bytes both ways until either side hangs up, or time is up; then the other side is hung up on."""

    async def inwards() -> None:
        while (message := await receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            await channel.write(data if data is not None else (message.get("text") or "").encode())

    async def outwards() -> None:
        while data := await channel.read():
            await send({"type": "websocket.send", "bytes": data})

    ways = [asyncio.create_task(inwards()), asyncio.create_task(outwards())]
    try:
        await asyncio.wait(ways, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        with contextlib.suppress(Exception):  # who is gone needs no word
            await send({"type": "websocket.close", "code": 1000})


def _token(query: str, cookie: str) -> str:
    """The token that a request carries, empty for none: in its query, or in a cookie, as old versions of noVNC do."""
    found = parse_qs(query).get("token")
    if found:
        return found[-1]
    for part in cookie.split(";"):
        with contextlib.suppress(CookieError):
            morsels: SimpleCookie = SimpleCookie(part.strip())
            if "token" in morsels:
                return morsels["token"].value
    return ""


def _welcome(headers: Mapping[bytes, bytes], origin: str, allowed: Iterable[str]) -> bool:
    """Whether the page that opens a WebSocket is one that may: of this address and scheme, or allowed by name."""
    said = headers.get(b"origin")
    if said is None:
        return True
    try:
        page_of = urlsplit(said.decode("latin-1"))
        here = urlsplit("//" + headers.get(b"host", b"").decode("latin-1")).hostname
        name, scheme = page_of.hostname, page_of.scheme
    except ValueError:
        return False
    forwarded = headers.get(b"x-forwarded-proto")
    if forwarded is not None:
        scheme = forwarded.decode("latin-1")
    return bool(name) and name in {here, *allowed} and scheme == urlsplit(origin).scheme


def _subprotocol(scope: Scope) -> str | None:
    """Bytes as they are are the only protocol that there is; who asks for none gets them too."""
    return "binary" if "binary" in scope["subprotocols"] else None


async def _refuse(send: Send, status: int) -> None:
    with contextlib.suppress(Exception):  # it may have been accepted, or be gone
        await send({"type": "websocket.http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "websocket.http.response.body", "body": b""})


async def _answer(scope: Scope, send: Send) -> None:
    """Give a file to a browser, unless it has this very version."""
    serial = scope["path"] == compute.SERIAL
    found = page.files().get("serial.html" if serial else scope["path"].removeprefix(ROOT))
    status, content, headers = 404, b"There is no such page.\n", [*page.HEADERS]
    if scope["method"] not in ("GET", "HEAD"):
        status, content = 405, b"Pages are read.\n"
        headers.append((b"allow", b"GET, HEAD"))
    elif found is not None:
        known = dict(scope["headers"]).get(b"if-none-match") == found.tag
        status, content = (304, b"") if known else (200, found.content)
        headers.append((b"etag", found.tag))
    media = found.media if status == 200 and found is not None else "text/plain; charset=utf-8"
    if status != 304:
        headers += [(b"content-type", media.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

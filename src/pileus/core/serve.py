"""Sockets, and the servers that speak HTTP on them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from pileus.core.connection import LOOK, Connection, WebSocket
from pileus.core.http import Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted."""

HANDSHAKE = 10.0
"""Seconds that a client may take to begin TLS."""

UNSENT = 128 * 1024
"""Bytes that the kernel takes for a client before the client has read those before."""


MESSAGE = 1 << 20
"""Bytes of a WebSocket's message."""


class ListenFailure(Exception):
    """An address cannot be listened on; the message says why and what to do."""


class Server(uvicorn.Server):
    """uvicorn, in a process that handles its signals itself, and with an end to what clients may make it wait for."""

    _looked = 0.0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve the sockets that are given."""
        self.servers = []
        for one in sockets or []:
            self.servers.append(await self._listen(one))
        self.started = True

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        config = self.config

        def begin() -> asyncio.Protocol:
            kind: Callable[..., asyncio.Protocol] = config.http_protocol_class
            return kind(config=config, server_state=self.server_state, app_state=self.lifespan.state)

        return await asyncio.get_running_loop().create_server(
            begin,
            sock=listener,
            backlog=BACKLOG,
            ssl=config.ssl,
            ssl_handshake_timeout=HANDSHAKE if config.ssl else None,
        )

    async def on_tick(self, counter: int) -> bool:
        """What uvicorn does ten times a second, and a look at the connections now and then."""
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            for one in list(self.server_state.connections):
                if isinstance(one, Connection):
                    one.look()
        return await super().on_tick(counter)


def server(
    application: Application,
    protocol: type[Connection] = Connection,
    context: ssl.SSLContext | None = None,
    *,
    websockets: bool = False,
) -> Server:
    """A server of an ASGI application, to be given sockets; over TLS with a context; of WebSockets if asked for."""
    config = uvicorn.Config(
        application,
        http=protocol,
        ws=WebSocket if websockets else "none",
        ws_max_size=MESSAGE,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
    )
    config.load()
    config.ssl = context
    return Server(config)


def checked(peer_uid: Callable[[socket.socket], int]) -> type[Connection]:
    """Connections from root and from this process's own user alone."""

    class Checked(Connection):
        """Hangs up on everybody else before a byte is read; takes as many as there are hosts.

        A host may be silent in the middle of a body, or read nothing of an answer, as long as it likes: so is a
        guest's console.
        """

        limit = None
        patient = True

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
            uid = peer_uid(transport.get_extra_info("socket"))
            if uid not in (0, os.getuid()):
                logger.warning("user %d may not use the link", uid)
                self.refused = True
                transport.abort()
                return
            super().connection_made(transport)

    return Checked


def listen_tcp(host: str, port: int, setting: str = "--listen") -> socket.socket:
    """A socket on which clients are waited for. Raises ListenFailure, which names the setting that says where."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY on those alone; without it each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Its connections inherit it.  Else megabytes wait in the kernel, and one cannot see whether a client reads.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ListenFailure(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another by {setting}"
        ) from None
    listener.listen(BACKLOG)
    return listener


def listen_unix(path: Path) -> socket.socket:
    """A socket at a path, for its owner alone; one that an earlier life left there is replaced."""
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o755)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    listener.listen(BACKLOG)
    return listener

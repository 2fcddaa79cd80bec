"""Sockets, and the servers that speak HTTP on them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pileus.core.http import Edge

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted."""


class ListenFailure(Exception):
    """An address cannot be listened on; the message says why and what to do."""


class Server(uvicorn.Server):
    """uvicorn, in a process that handles its signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def server(edge: Edge, protocol: type[asyncio.Protocol] | None = None) -> Server:
    """A server of an edge, to be given sockets; `protocol` in place of uvicorn's own."""
    return Server(
        uvicorn.Config(
            edge,
            http=protocol or "httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
    )


def checked(peer_uid: Callable[[socket.socket], int]) -> type[asyncio.Protocol]:
    """uvicorn's protocol, for connections from root and from this process's own user alone."""

    class Checked(HttpToolsProtocol):
        """Hangs up on everybody else before a byte is read."""

        refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
            uid = peer_uid(transport.get_extra_info("socket"))
            if uid not in (0, os.getuid()):
                logger.warning("user %d may not use the link", uid)
                self.refused = True
                transport.abort()
                return
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            if not self.refused:
                super().connection_lost(exc)

    return Checked


def listen_tcp(host: str, port: int) -> socket.socket:
    """A socket on which clients are waited for. Raises ListenFailure."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY on those alone; without it each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ListenFailure(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another by --listen"
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

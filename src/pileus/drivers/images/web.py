"""Image data on the web: a store that is read and never written.

A location is a URL.  Whether it may be fetched at all is a filter's decision, which is asked three times: about the
URL, about each address that its host has, and about each redirect.  A connection is made to the address that was
judged, so that a name that changes in between leads nowhere else (DNS rebinding); TLS still checks the name.  No proxy,
no cookies, no credentials, no more headers than HTTP needs.

Sources: RFC 9110 (HTTP semantics: redirects, ranges, `Content-Length`); RFC 6125 (names in certificates).
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import urljoin, urlsplit

from pileus.contracts.images import StoreFailure
from pileus.core.address import Address, read_address

REDIRECTS = 5
"""How many redirects are followed."""

TIMEOUT = 30.0
"""Seconds that a connection may take, or stay silent."""

HEAD = 60.0
"""Seconds until the head of an answer is there, from the first connection on, however many redirects there are."""

GRACE = 60.0
"""Seconds after which a server that is too slow is given up."""

SLOWEST = 4096
"""Bytes in a second that a server must send."""

CheckURL = Callable[[str], tuple[str, str, int]]
"""Gives scheme, host and port of a URL that may be fetched. Raises ValueError."""
JudgeAddress = Callable[[Address], None]
"""Raises ValueError for an address that may not be connected to."""


class WebImageStore:
    """An `ImageStore` of what is on the web. `check` and `judge` decide what may be fetched."""

    kind: ClassVar[str] = "http"
    read_only: ClassVar[bool] = True

    def __init__(self, check: CheckURL, judge: JudgeAddress, *, timeout: float = TIMEOUT) -> None:
        self._check = check
        self._judge = judge
        self._timeout = timeout

    @cached_property
    def _context(self) -> ssl.SSLContext:
        """The authorities that this host trusts; to read them takes 20 ms, which only a fetch has to spend."""
        return ssl.create_default_context()

    def open_new(self, image_id: str) -> BinaryIO:
        """Nothing can be written. Raises StoreFailure."""
        raise StoreFailure("Nothing can be written to the web.")

    def commit(self, image_id: str) -> str:
        """Nothing can be written. Raises StoreFailure."""
        raise StoreFailure("Nothing can be written to the web.")

    def abort(self, image_id: str) -> None:
        """Nothing can be written. Raises StoreFailure."""
        raise StoreFailure("Nothing can be written to the web.")

    def open(self, location: str, start: int = 0) -> BinaryIO:
        """Read what is at a URL from a byte on. Raises StoreFailure when it is gone, or may not be fetched."""
        response = self._fetch("GET", location, {"Range": f"bytes={start}-"} if start else {})
        if start and response.status == 200:
            # A server need not know ranges: what comes before is read and thrown away.
            left = start
            while left and (block := response.read(min(left, 1 << 20))):
                left -= len(block)
        return response

    def size(self, location: str) -> int | None:
        """Bytes at a URL, as its server says; None when it does not."""
        response = self._fetch("HEAD", location, {})
        response.close()
        length = response.headers.get("Content-Length")
        return int(length) if length is not None and length.isdecimal() else None

    def remove(self, location: str) -> None:
        """Nothing: the data is somebody else's."""

    def locations(self) -> Iterator[str]:
        """None of the cloud's own."""
        return iter(())

    def url(self, location: str) -> str:
        """The URL itself."""
        return location

    def path(self, location: str) -> Path | None:
        """There is no local file."""
        return None

    def properties(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    def _fetch(self, method: str, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The answer of the last server in a row of redirects. Raises StoreFailure."""
        deadline = time.monotonic() + HEAD
        for _ in range(REDIRECTS + 1):
            response = self._request(method, url, headers, deadline)
            if response.status in (301, 302, 303, 307, 308) and (target := response.headers.get("Location")):
                response.close()
                url = urljoin(url, target)
                continue
            if response.status not in (200, 206):
                response.close()
                raise StoreFailure(f"{_plain(url)} answers {response.status} {response.reason}")
            return response
        raise StoreFailure(f"{_plain(url)} is behind more than {REDIRECTS} redirects")

    def _request(self, method: str, url: str, headers: dict[str, str], deadline: float) -> http.client.HTTPResponse:
        try:
            scheme, host, port = self._check(url)
        except ValueError as reason:
            raise StoreFailure(f"{_plain(url)} does not pass filtering: {reason}") from None
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        named = {"Host": parts.netloc, "User-Agent": "pileus", "Accept-Encoding": "identity", "Connection": "close"}
        try:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
            connection.response_class = _Response
            connection.sock = _Socket(_Timed(self._connect(scheme, host, port, deadline), self._timeout, deadline))
            connection.request(method, target, headers={**named, **headers})
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise StoreFailure(f"{_plain(url)} cannot be fetched: {_reason(error)}") from error

    def _connect(self, scheme: str, host: str, port: int, deadline: float) -> socket.socket:
        """A connection to one of the addresses of a host that may be connected to. Raises StoreFailure and OSError."""
        failure: Exception = OSError("it has no address")
        found = dict.fromkeys(entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        end = min(deadline, time.monotonic() + self._timeout)
        for text in found:
            address = read_address(str(text).split("%", 1)[0])
            try:
                self._judge(address)
                plain = socket.create_connection((str(address), port), max(0.1, end - time.monotonic()))
            except (ValueError, OSError) as error:
                failure = error
                continue
            # What is agreed on for TLS has one wait in all, however little comes at a time.
            plain.settimeout(max(0.1, min(self._timeout, deadline - time.monotonic())))
            return self._context.wrap_socket(plain, server_hostname=host) if scheme == "https" else plain
        if isinstance(failure, OSError):
            raise failure
        raise StoreFailure(f"{host} does not pass filtering: {failure}")


class _Timed(io.RawIOBase):
    """What comes of a socket, each wait for which ends at a deadline: the socket's own limit is for one wait alone."""

    def __init__(self, sock: socket.socket, timeout: float, deadline: float) -> None:
        super().__init__()
        self.sock = sock
        self.deadline = deadline
        self._timeout = timeout

    def limit(self) -> None:
        """Let the next wait end in time. Raises TimeoutError."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server is too slow")
        self.sock.settimeout(min(self._timeout, left))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.limit()
        return self.sock.recv_into(buffer)

    def close(self) -> None:
        super().close()
        self.sock.close()


class _Socket:
    """A socket as `http.client` uses one: it lets go of it when there is a file, which is then the one to close."""

    def __init__(self, raw: _Timed) -> None:
        self.raw = raw
        self._shared = False

    def sendall(self, data: bytes) -> None:
        self.raw.limit()
        self.raw.sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        self._shared = True
        return io.BufferedReader(self.raw)

    def close(self) -> None:
        if not self._shared:
            self.raw.close()


class _Response(http.client.HTTPResponse):
    """A response whose errors are a store's, and that gives what has come without waiting for more."""

    def __init__(self, sock: Any, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self._raw: _Timed = sock.raw
        self._began = time.monotonic()
        self._got = 0

    def read(self, amt: int | None = None) -> bytes:
        """Some more bytes. Raises StoreFailure when the server goes away in the middle, or is too slow."""
        self._raw.deadline = time.monotonic() + GRACE  # what is between the chunks may drip as well
        try:
            block = super().read() if amt is None or amt < 0 else self.read1(amt)
        except (OSError, http.client.HTTPException) as error:
            raise StoreFailure(f"the server went away: {_reason(error)}") from error
        if not block and amt != 0 and self.length:
            raise StoreFailure(f"the server went away {self.length} bytes before the end")
        self._got += len(block)
        seconds = time.monotonic() - self._began
        if seconds > GRACE and self._got < seconds * SLOWEST:
            raise StoreFailure(f"the server sends less than {SLOWEST} bytes in a second")
        return block


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _plain(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"

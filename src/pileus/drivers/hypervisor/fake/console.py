"""What a simulated guest's screen and serial port say.

The screen speaks RFB 3.8 (RFC 6143) without authentication: a plain colour, which each key that is pressed changes.
The serial port gives back what is typed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

WIDTH, HEIGHT = 320, 200
"""Pixels of the screen."""

_RAW = 0
_FORMAT = struct.Struct(">BBBBHHHBBB3x")
_TRUE_COLOUR = _FORMAT.pack(32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_LENGTHS = {0: 19, 2: 3, 3: 9, 4: 7, 5: 5, 6: 7}
"""Message type (RFC 6143, 7.5) to the bytes that follow it, before any variable part."""


def serve(act: Callable[[socket.socket], None], name: str) -> tuple[socket.socket, socket.socket]:
    """A connected pair of sockets: the first is for a client, while `act` serves the second in a thread."""
    client, server = socket.socketpair()

    def body() -> None:
        with server, contextlib.suppress(OSError, EOFError):
            act(server)

    threading.Thread(target=body, name=name, daemon=True).start()
    return client, server


def echo(line: socket.socket) -> None:
    """Give back what is typed, until the client hangs up."""
    while typed := line.recv(4096):
        line.sendall(typed)


def show(line: socket.socket, title: str) -> None:
    """Be a screen, until the client hangs up."""
    line.sendall(b"RFB 003.008\n")
    if not _read(line, 12).startswith(b"RFB 003."):
        return
    line.sendall(b"\x01\x01")  # one security type: None
    if _read(line, 1) != b"\x01":
        reason = b"only the security type None is offered"
        line.sendall(struct.pack(">II", 1, len(reason)) + reason)
        return
    line.sendall(b"\0\0\0\0")
    _read(line, 1)
    name = title.encode()
    line.sendall(struct.pack(">HH", WIDTH, HEIGHT) + _TRUE_COLOUR + struct.pack(">I", len(name)) + name)
    _Screen(line).run()


class _Screen:
    """A screen after the handshake."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pixel_bytes = 4
        self._colour = 0x40
        self._waiting: tuple[int, int, int, int] | None = None
        """The rectangle of an incremental request: it is answered once something changes (7.5.3)."""

    def run(self) -> None:
        while True:
            (kind,) = _read(self._line, 1)
            if kind not in _LENGTHS:
                return
            self._take(kind, _read(self._line, _LENGTHS[kind]))

    def _take(self, kind: int, body: bytes) -> None:
        if kind == 0:
            self._pixel_bytes = max(1, body[3] // 8)
        elif kind == 2:
            _read(self._line, 4 * struct.unpack(">xH", body)[0])
        elif kind == 3:
            incremental, x, y, width, height = struct.unpack(">BHHHH", body)
            area = (x, y, min(width, max(0, WIDTH - x)), min(height, max(0, HEIGHT - y)))
            self._waiting = area if incremental else None
            if not incremental:
                self._paint(*area)
        elif kind == 4 and body[0]:
            self._colour = (self._colour + 0x20) % 0x100
            if self._waiting is not None:
                area, self._waiting = self._waiting, None
                self._paint(*area)
        elif kind == 6:
            _read(self._line, struct.unpack(">3xI", body)[0])

    def _paint(self, x: int, y: int, width: int, height: int) -> None:
        header = struct.pack(">BxHHHHHi", 0, 1, x, y, width, height, _RAW)
        self._line.sendall(header + bytes([self._colour]) * (width * height * self._pixel_bytes))


def _read(line: socket.socket, count: int) -> bytes:
    """Exactly so many bytes. Raises EOFError when the client hangs up before."""
    found = b""
    while len(found) < count:
        part = line.recv(min(count - len(found), 1 << 16))
        if not part:
            raise EOFError
        found += part
    return found

"""A client of WebSockets (RFC 6455) and of the screens behind them (RFB 3.8, RFC 6143), for tests: plain sockets."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)


class Refused(Exception):
    """The server did not take the WebSocket; `status` is what it said."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


def address(url: str) -> tuple[str, int, str]:
    """Host, port and path of the WebSocket behind a console's URL: of a page of noVNC's, or of the socket itself."""
    parts = urlsplit(url)
    path = parse_qs(parts.query).get("path")
    target = "/" + unquote(path[0]) if path else f"{parts.path}?{parts.query}"
    return parts.hostname or "", parts.port or 80, target


class Socket:
    """An open WebSocket. A context manager. Raises Refused, and TimeoutError when nothing comes."""

    def __init__(
        self,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        context: ssl.SSLContext | None = None,
        seconds: float = 20.0,
    ) -> None:
        host, port, target = address(url)
        plain = socket.create_connection((host, port), seconds)
        self.socket = plain if context is None else context.wrap_socket(plain, server_hostname=host)
        self._state = WSConnection(ConnectionType.CLIENT)
        self._messages: deque[bytes] = deque()
        self.closed = False
        self.subprotocol: str | None = None
        extra = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        request = Request(host=f"{host}:{port}", target=target, subprotocols=["binary"], extra_headers=extra)
        self.socket.sendall(self._state.send(request))
        self._open = False
        while not self._open:
            self._receive()

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        self._state.receive_data(data or None)
        for event in self._state.events():
            if isinstance(event, AcceptConnection):
                self._open, self.subprotocol = True, event.subprotocol
            elif isinstance(event, RejectConnection):
                self.socket.close()
                raise Refused(event.status_code)
            elif isinstance(event, RejectData):
                continue
            elif isinstance(event, BytesMessage):
                self._messages.append(bytes(event.data))
            elif isinstance(event, TextMessage):
                self._messages.append(event.data.encode())
            elif isinstance(event, Ping):
                self.socket.sendall(self._state.send(event.response()))
            elif isinstance(event, CloseConnection):
                self.closed = True
        if not data:
            self.closed = True

    def receive(self) -> bytes:
        """The next message; empty when the server has closed."""
        while not self._messages and not self.closed:
            self._receive()
        return self._messages.popleft() if self._messages else b""

    def read(self, count: int) -> bytes:
        """Exactly so many bytes, whatever messages they came in. Raises EOFError."""
        found = b""
        while len(found) < count:
            part = self.receive()
            if not part:
                raise EOFError(f"{len(found)} of {count} bytes came")
            found += part
        if len(found) > count:
            self._messages.appendleft(found[count:])
        return found[:count]

    def send(self, data: bytes) -> None:
        """Send a message."""
        self.socket.sendall(self._state.send(BytesMessage(data)))

    def send_text(self, text: str) -> None:
        """Send a message of text."""
        self.socket.sendall(self._state.send(TextMessage(text)))

    def close(self) -> None:
        """Say goodbye, and hang up."""
        if not self.closed:
            self.socket.sendall(self._state.send(CloseConnection(1000)))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Screen:
    """A screen behind a WebSocket, after the handshake: its size, its name, and its pixels."""

    def __init__(self, line: Socket) -> None:
        self._line = line
        self.version = line.read(12)
        line.send(b"RFB 003.008\n")
        self.security = list(line.read(line.read(1)[0]))
        line.send(b"\x01")
        assert line.read(4) == b"\0\0\0\0"
        line.send(b"\x01")
        self.width, self.height = struct.unpack(">HH", line.read(4))
        line.read(16)
        (length,) = struct.unpack(">I", line.read(4))
        self.name = line.read(length).decode()

    def pixels(self) -> bytes:
        """What is shown now: red, green and blue of each pixel, from the upper left, row by row (raw encoding)."""
        line = self._line
        # 32 bits a pixel, depth 24, little endian, true colour: blue in the first byte.
        line.send(struct.pack(">B3xBBBBHHHBBB3x", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        line.send(struct.pack(">BxHi", 2, 1, 0))
        line.send(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        shown = bytearray(self.width * self.height * 3)
        missing = self.width * self.height
        while missing > 0:
            missing -= self._update(shown)
        return bytes(shown)

    def _update(self, shown: bytearray) -> int:
        """Take one update in; how many pixels it was of."""
        kind = self._line.read(1)[0]
        assert kind == 0, f"message {kind} is not an update"
        (rectangles,) = struct.unpack(">xH", self._line.read(3))
        count = 0
        for _ in range(rectangles):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self._line.read(12))
            assert encoding == 0
            data = self._line.read(width * height * 4)
            for row in range(height):
                part = data[row * width * 4 : (row + 1) * width * 4]
                start = ((y + row) * self.width + x) * 3
                line = bytearray(width * 3)
                line[0::3], line[1::3], line[2::3] = part[2::4], part[1::4], part[0::4]
                shown[start : start + width * 3] = line
            count += width * height
        return count

    def press(self, key: int) -> None:
        """Press and let go of a key, by its keysym."""
        for down in (1, 0):
            self._line.send(struct.pack(">BBxxI", 4, down, key))

"""Streams: bytes both ways between a host and the control plane, for as long as somebody looks at a console.

The host opens each stream, because it was asked to (`contracts.link.Call`, `open_console`): it posts what comes from
the guest and reads what goes to it from the answer, side by side.  Upstream's console proxies dial the hosts instead,
as https://docs.openstack.org/api-ref/compute/#server-consoles-servers-remote-consoles leads to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from pileus.core.errors import Fault, NotFound

WAITING = 1 << 16
"""Bytes that may wait for a host that does not take them; whoever sends more waits."""


class Channel:
    """The control plane's end of a stream. One reads, one writes, anybody closes."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        self.arrived = asyncio.Event()
        """Set once the host has opened the stream, or it was closed."""
        self.closed = False
        self._incoming: AsyncIterator[bytes] | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def connect(self, incoming: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The host has come: `incoming` is what it sends. Gives what is to be sent to it."""
        self._incoming = incoming
        self.arrived.set()
        return self._outgoing()

    async def read(self) -> bytes:
        """The next bytes from the host; empty at the end of the stream."""
        if self._incoming is None or self.closed:
            return b""
        try:
            return await anext(self._incoming, b"")
        except Fault:
            return b""  # the host has hung up in the middle

    async def write(self, data: bytes) -> None:
        """Send bytes to the host, and wait until it has taken most of them. Those of a closed stream are lost."""
        self._waiting.append(data)
        self._size += len(data)
        self._news.set()
        while self._size > WAITING and not self.closed:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """End the stream, on both sides."""
        self.closed = True
        for event in (self.arrived, self._news, self._room):
            event.set()

    async def _outgoing(self) -> AsyncIterator[bytes]:
        try:
            while self._waiting or not self.closed:
                if self._waiting:
                    data = b"".join(self._waiting)
                    self._waiting.clear()
                    yield data
                    self._size = sum(map(len, self._waiting))
                    self._room.set()
                else:
                    self._news.clear()
                    await self._news.wait()
        finally:
            self.close()


class Streams:
    """The streams of one process that hosts were asked to open."""

    def __init__(self) -> None:
        self._expected: dict[str, Channel] = {}
        self._open: set[Channel] = set()

    def expect(self, name: str, host_id: str) -> Channel:
        """A host is about to be asked to open a stream of this name."""
        channel = self._expected[name] = Channel(host_id)
        self._open.add(channel)
        return channel

    def take(self, name: str, host_id: str) -> Channel:
        """The channel of a stream that a host opens, once. Raises NotFound when it was not asked to."""
        channel = self._expected.get(name)
        if channel is None or channel.host_id != host_id or channel.closed:
            raise NotFound("No such stream is waited for.")
        del self._expected[name]
        return channel

    def end(self, name: str, channel: Channel) -> None:
        """Close a stream, whether it was ever opened or not."""
        self._expected.pop(name, None)
        self._open.discard(channel)
        channel.close()

    def close(self) -> None:
        """Close all streams: this process is about to end."""
        for channel in self._open:
            channel.close()

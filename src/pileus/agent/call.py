"""Questions of the control plane to this host, and consoles that it passes on."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import msgspec

from pileus.agent.image_cache import ImageCache
from pileus.agent.link import Channel, Link, LinkDown, LinkRefused
from pileus.contracts.hypervisor import ConsoleKind, DiskSpec, GuestFailure, Hypervisor
from pileus.contracts.link import Answer, Call
from pileus.contracts.storage import StorageFailure

T = TypeVar("T")
log = logging.getLogger(__name__)

PIECE = 1 << 16
"""Bytes of a console that are passed on at once; as many again may wait on their way."""


class Calls:
    """Answers calls, each in a task of its own."""

    def __init__(self, hypervisor: Hypervisor, images: ImageCache, link: Link, pool: ThreadPoolExecutor) -> None:
        self._hypervisor = hypervisor
        self._images = images
        self._link = link
        self._pool = pool
        self.tasks: set[asyncio.Task[None]] = set()
        """Calls that are being answered, and consoles that are open."""

    def take(self, call: Call) -> None:
        """Answer a call, soon."""
        task = asyncio.create_task(self._serve(call))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def close(self) -> None:
        """Give up what is under way: all consoles end."""
        for task in self.tasks:
            task.cancel()

    async def _serve(self, call: Call) -> None:
        console: tuple[socket.socket, Channel] | None = None
        try:
            if call.verb == "open_console":
                console = await self._open(call)
                answer = Answer(id=call.id, output="")
            elif call.verb == "fetch_image":
                await self._fetch(call)
                answer = Answer(id=call.id, output="")
            else:
                answer = Answer(id=call.id, output=await self._measure(call))
        except (GuestFailure, StorageFailure, OSError, LinkDown, LinkRefused, msgspec.ValidationError) as error:
            answer = Answer(id=call.id, output=None, error=str(error) or type(error).__name__)
        try:
            await self._link.send("/answer", answer)
        except (LinkDown, LinkRefused) as error:
            log.warning("an answer was lost: %s", error)
        except asyncio.CancelledError:
            if console is not None:
                console[0].close()
                console[1].close()
            raise
        if console is not None:
            await splice(*console)

    async def _measure(self, call: Call) -> str:
        if call.verb == "diagnostics":
            found = await self._blocking(lambda: self._hypervisor.diagnostics(call.target))
            return msgspec.json.encode(found).decode()
        lines = call.arguments.get("lines")
        return await self._blocking(lambda: self._hypervisor.console_log(call.target, lines))

    async def _fetch(self, call: Call) -> None:
        form, sha512 = (msgspec.convert(call.arguments.get(name), str) for name in ("format", "sha512"))
        disk = DiskSpec(id="root", image_id=call.target, image_format=form, image_sha512=sha512, size_gib=0)
        await self._images.fetch(disk, self._link)

    async def _open(self, call: Call) -> tuple[socket.socket, Channel]:
        kind: ConsoleKind = msgspec.convert(call.arguments.get("kind"), ConsoleKind)
        stream = msgspec.convert(call.arguments.get("stream"), str)
        guest = await self._blocking(lambda: self._hypervisor.open_console(call.target, kind))
        try:
            return guest, await self._link.channel(f"/streams/{stream}")
        except BaseException:
            guest.close()
            raise

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def splice(guest: socket.socket, channel: Channel) -> None:
    """Pass bytes both ways between a guest's console and the control plane, until either side hangs up."""
    guest.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=guest, limit=PIECE)
    writer.transport.set_write_buffer_limits(high=PIECE)

    async def outwards() -> None:
        while data := await reader.read(PIECE):
            await channel.write(data)

    async def inwards() -> None:
        while data := await channel.read():
            writer.write(data)
            await writer.drain()

    ways = [asyncio.create_task(outwards()), asyncio.create_task(inwards())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        channel.close()
        writer.transport.abort()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*ways, return_exceptions=True)

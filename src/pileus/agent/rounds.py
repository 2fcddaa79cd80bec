"""What an agent looks at by the clock, whether or not anybody told of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from pileus.agent.host import Host
from pileus.agent.world import Key, World
from pileus.contracts.hypervisor import DiskSpec, GuestSpec

log = logging.getLogger(__name__)

RESYNC = 60.0
"""Seconds between two looks at everything that the host is to hold."""

NURSE = 1.0
"""Seconds after which services that ended by themselves are looked for."""


class Rounds:
    """The rounds of one agent. `look_at` lets it look at an object, `ask` calls a driver in a thread.

    `heard` is set while all that was assigned is known.
    """

    def __init__(
        self,
        host: Host,
        world: World,
        look_at: Callable[[Key], None],
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        heard: asyncio.Event,
    ) -> None:
        self._host = host
        self._world = world
        self._look_at = look_at
        self._ask = ask
        self._heard = heard

    def works(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What is to be run until it is cancelled, side by side."""
        yield self._resync()
        yield self._make_room()
        if not self._host.simulated:  # whose services are no processes
            yield self._nurse()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC)
            for kind in ("network", "router", "guest"):
                for key in self._world.keys(kind):
                    self._look_at(key)

    async def _make_room(self) -> None:
        while True:
            await self._heard.wait()
            try:
                await self._host.images.make_room(self._disks)
            except OSError as error:
                log.warning("images that nothing needs cannot be deleted: %s", error)
            await asyncio.sleep(RESYNC)

    def _disks(self) -> list[DiskSpec]:
        specs = (self._world.spec("guest", key.id, GuestSpec) for key in self._world.keys("guest"))
        return [disk for spec in specs if spec is not None for disk in spec.disks]

    async def _nurse(self) -> None:
        """Look at what lost a service soon after it did: DHCP that is gone is missed at the next lease."""
        known: set[Key] = set()
        while True:
            await asyncio.sleep(NURSE)
            found = {Key(kind, object_id) for kind, object_id in await self._ask(self._host.network.ailing)}
            for key in found - known:  # the others are tried again at the queue's own pace
                log.warning("a service of %s has ended: it is started again", key)
                self._look_at(key)
            known = found

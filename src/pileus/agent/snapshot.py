"""Snapshots: taken once by the hypervisor's driver, kept by the storage driver, sent until the control plane has them.

They have workers of their own, few, since each moves a whole disk and keeps no guest waiting.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.agent.world import Key, World
from pileus.contracts.hypervisor import GuestFailure, GuestSpec, Hypervisor, SnapshotSpec
from pileus.contracts.link import Observation
from pileus.contracts.storage import Storage, StorageFailure
from pileus.core.reconcile import DONE, Failed, Outcome, Queue
from pileus.core.seams import reach

T = TypeVar("T")
log = logging.getLogger(__name__)

PARALLEL = 2
"""Snapshots that are worked on at once."""

ATTEMPTS = 5
"""How often a host tries to take a snapshot: what fails as often will not succeed, and somebody waits for word."""


class Snapshots:
    """The snapshots of one host. `observe` is told what is seen; a snapshot that is gone is forgotten by the world."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        storage: Storage,
        link: Link,
        world: World,
        pool: ThreadPoolExecutor,
        observe: Callable[[Observation], None],
    ) -> None:
        self._hypervisor = hypervisor
        self._storage = storage
        self._link = link
        self._world = world
        self._pool = pool
        self._observe = observe
        self._queue = Queue()
        self._sent: dict[Key, int] = {}
        """The generation of which the control plane has all."""
        self._attempts: dict[tuple[Key, int], int] = {}

    def add(self, key: Key) -> None:
        """Look at a snapshot, soon."""
        self._queue.add(str(key))

    async def work(self) -> None:
        """Serve until cancelled; several may run."""
        while True:
            await self.turn()

    async def turn(self) -> None:
        """Work on the next snapshot; waits for one."""
        (text,) = await self._queue.take(1)
        key = Key.parse(text)
        generation = self._world.generation(key)
        try:
            outcome = await self._reconcile(key, generation)
        except LinkDown as error:
            log.info("%s waits: %s", key, error)
            outcome = Failed()
        except Exception as error:
            outcome = self._fail(key, generation, error)
        self._queue.finish(text, outcome)

    async def _reconcile(self, key: Key, generation: int) -> Outcome:
        if self._world.wanted(key) is None:
            return DONE
        spec = self._world.spec("snapshot", key.id, SnapshotSpec)
        if spec is None:
            await self._blocking(lambda: self._storage.remove_snapshot(key.id))
            self._tell(key, generation, "absent")
            self._sent.pop(key, None)
            self._attempts.pop((key, generation - 1), None)
            if self._world.generation(key) == generation:
                self._world.forget(key)
            return DONE
        if self._sent.get(key) != generation:
            path = await self._blocking(lambda: self._take(spec))
            await self._send(key.id, path)
            self._sent[key] = generation
        self._tell(key, generation, "ready")
        return DONE

    def _take(self, spec: SnapshotSpec) -> Path:
        """Have the snapshot's file: it is of the moment when it was first made."""
        target = self._storage.snapshot(spec.id)
        if not target.exists():
            self._hypervisor.snapshot(spec, self._disk(spec), target)
            reach("agent.snapshot.taken")
        return target

    def _disk(self, spec: SnapshotSpec) -> Path:
        """The file of the disk, in the incarnation that the guest is to have."""
        guest = self._world.spec("guest", spec.guest_id, GuestSpec)
        disks = {disk.id: disk.incarnation for disk in guest.disks} if guest is not None else {}
        found = self._storage.disk(spec.guest_id, spec.disk_id, disks.get(spec.disk_id))
        if found is None:
            coming = spec.disk_id in disks
            raise GuestFailure(f"guest {spec.guest_id} has no disk {spec.disk_id} on this host", permanent=not coming)
        return found

    async def _send(self, snapshot_id: str, path: Path) -> None:
        file = await self._blocking(lambda: path.open("rb"))
        try:
            size = os.fstat(file.fileno()).st_size
            await self._link.upload(f"/snapshots/{snapshot_id}/data", file, size)
        finally:
            file.close()
        reach("agent.snapshot.sent")

    def _fail(self, key: Key, generation: int, error: Exception) -> Outcome:
        attempts = self._attempts[key, generation] = self._attempts.get((key, generation), 0) + 1
        permanent = bool(getattr(error, "permanent", False)) or attempts >= ATTEMPTS
        if isinstance(error, LinkRefused):
            permanent = error.lasting or attempts >= ATTEMPTS  # data that is not wanted now never is
        expected = (GuestFailure, StorageFailure, LinkRefused, OSError)
        if isinstance(error, expected):
            log.warning("%s: %s", key, error)
        else:
            log.error("%s: cannot be made", key, exc_info=error)
        detail = str(error)[:500] or type(error).__name__
        self._tell(key, generation, "failed", detail=detail, permanent=permanent)
        return DONE if permanent else Failed()

    def _tell(self, key: Key, generation: int, state: str, *, detail: str = "", permanent: bool = False) -> None:
        seen = Observation(
            kind=key.kind, id=key.id, generation=generation, state=state, detail=detail, permanent=permanent
        )
        self._observe(seen)

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

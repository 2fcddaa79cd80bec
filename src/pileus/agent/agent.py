"""The agent of one host: watches its assignments, reconciles them through the drivers, reports what it observed.

An object goes only by its tombstone.  What the drivers find that was never assigned is left alone and reported as
unknown.  A store that is another, or an older copy, is refused: everything keeps running, nothing is changed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

import pileus
from pileus.agent.image_cache import ImageCache
from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.agent.metadata import Metadata
from pileus.agent.world import Key, World
from pileus.contracts.hypervisor import GuestFailure, GuestObserved, GuestPlan, GuestSpec, Hypervisor
from pileus.contracts.link import Answer, Call, Heartbeat, Hello, Observation, Report, Unknown, Watch, Welcome
from pileus.contracts.network import Network, NetworkFailure, RouterSpec
from pileus.contracts.storage import Storage, StorageFailure
from pileus.core.reconcile import DONE, Again, Failed, Outcome, Queue
from pileus.core.seams import reach

T = TypeVar("T")
log = logging.getLogger(__name__)

HEARTBEAT = 5.0
"""Seconds between two heartbeats."""

RESYNC = 60.0
"""Seconds between two looks at everything that the host is to hold."""


class Identity(msgspec.Struct):
    """Whom the host obeys, kept across restarts: the store, the last run of it, and how far it was heard."""

    store_id: str | None = None
    incarnation: str | None = None
    revision: int = 0


@dataclass(frozen=True, kw_only=True)
class Host:
    """The drivers and places of one host."""

    name: str
    state: Path | None
    """Where the agent keeps its identity; None for a simulated host."""
    hypervisor: Hypervisor
    network: Network
    storage: Storage
    images: ImageCache
    metadata: Metadata | None
    """None where nobody asks for metadata."""


class Agent:
    """One host's agent; `run` it in an event loop. `pool` runs the drivers."""

    def __init__(self, host: Host, link: Link, pool: ThreadPoolExecutor, *, parallel: int = 16) -> None:
        self.host = host
        self.link = link
        self.world = World()
        self.identity = self._read_identity()
        self._pool = pool
        self._parallel = parallel
        self._queue = Queue()
        self._seen: dict[Key, Observation] = {}
        self._news: dict[Key, Observation] = {}
        self._reporting = asyncio.Event()
        self._ensured: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        self._loop = asyncio.get_running_loop()
        self.host.hypervisor.watch(self._guest_changed)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._report())
            tasks.create_task(self._beat())
            tasks.create_task(self._resync())
            for _ in range(self._parallel):
                tasks.create_task(self._work())

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # -- the link ------------------------------------------------------------------------------------------------

    async def _hello(self) -> None:
        facts = await self._blocking(self.host.hypervisor.facts)
        network = await self._blocking(self.host.network.facts)
        known = self.identity
        message = Hello(
            host=self.host.name,
            facts=facts,
            network=network.filter,
            version=pileus.__version__,
            store_id=known.store_id,
            incarnation=known.incarnation,
            revision=known.revision,
        )
        self.link.host_id = ""
        welcome = await self.link.post("/hello", message, Welcome)
        self.link.host_id = welcome.host_id
        self._remember(Identity(welcome.store_id, welcome.incarnation, 0), at_once=True)

    async def _watch(self) -> None:
        greeted, since = False, None
        while True:
            try:
                if not greeted:
                    await self._hello()
                    greeted, since = True, None
                path = "/watch" if since is None else f"/watch?since={since}"
                found = await self.link.get(path, Watch)
            except LinkDown as error:
                log.info("the control plane is away: %s", error)
                greeted = False
                await asyncio.sleep(0.5)
                continue
            except LinkRefused as error:
                log.error("the control plane refuses this host: %s", error)
                greeted = False
                await asyncio.sleep(5)
                continue
            since = found.revision
            self._take(found)

    def _take(self, found: Watch) -> None:
        touched = self.world.apply(found.assignments)
        if found.full:
            # A report may have been lost with the control plane that was to hear it.
            self._news |= {key: self._seen[key] for key in touched if key in self._seen}
            self._reporting.set()
        for key in touched:
            self._queue.add(str(key))
        self._remember(Identity(self.identity.store_id, self.identity.incarnation, found.revision), at_once=False)
        for call in found.calls:
            task = asyncio.ensure_future(self._answer(call))
            task.add_done_callback(lambda done: done.exception())

    async def _answer(self, call: Call) -> None:
        lines = call.arguments.get("lines")
        try:
            text = await self._blocking(lambda: self.host.hypervisor.console_log(call.target, lines))
            answer = Answer(id=call.id, output=text)
        except (GuestFailure, OSError) as error:
            answer = Answer(id=call.id, output=None, error=str(error))
        try:
            await self.link.send("/answer", answer)
        except (LinkDown, LinkRefused) as error:
            log.warning("an answer was lost: %s", error)

    async def _report(self) -> None:
        while True:
            await self._reporting.wait()
            self._reporting.clear()
            batch, self._news = self._news, {}
            if not batch:
                continue
            try:
                await self.link.send("/report", Report(observations=list(batch.values())))
            except (LinkDown, LinkRefused) as error:
                log.info("a report waits: %s", error)
                self._news = batch | self._news
                await asyncio.sleep(0.5)
                self._reporting.set()
                continue
            for key, one in batch.items():
                if one.state == "absent" and key not in self._news:
                    self._seen.pop(key, None)

    async def _beat(self) -> None:
        while True:
            try:
                if self.link.host_id:
                    message = await self._blocking(self._heartbeat)
                    await self.link.send("/heartbeat", message)
                    self._write_identity()
            except (LinkDown, LinkRefused, OSError) as error:
                log.info("a heartbeat was lost: %s", error)
            await asyncio.sleep(HEARTBEAT if self.link.host_id else 0.2)

    def _heartbeat(self) -> Heartbeat:
        unknown: list[Unknown] = [
            *self.world.unknown("guest", {*self.host.hypervisor.guests(), *self.host.storage.guests()}),
            *self.world.unknown("network", self.host.network.networks()),
            *self.world.unknown("router", self.host.network.routers()),
        ]
        return Heartbeat(free_disk_gib=self.host.storage.free_gib(), unknown=unknown)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC)
            for kind in ("network", "router", "guest"):
                for key in self.world.keys(kind):
                    self._queue.add(str(key))

    # -- reconciling ---------------------------------------------------------------------------------------------

    def _guest_changed(self, guest_id: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.add, str(Key("guest", guest_id)))

    async def _work(self) -> None:
        while True:
            (text,) = await self._queue.take(1)
            key = Key.parse(text)
            try:
                outcome = await self._reconcile(key)
            except (GuestFailure, NetworkFailure, StorageFailure, LinkDown, LinkRefused, OSError) as error:
                outcome = self._fail(key, error)
            except Exception as error:
                log.exception("%s: cannot be made as wanted", key)
                outcome = self._fail(key, error)
            self._queue.finish(text, outcome)

    def _fail(self, key: Key, error: Exception) -> Outcome:
        permanent = bool(getattr(error, "permanent", False))
        log.warning("%s: %s", key, error)
        state = Observation(
            kind=key.kind,
            id=key.id,
            generation=self.world.generation(key),
            state="failed",
            detail=str(error)[:500] or type(error).__name__,
            permanent=permanent,
        )
        self._observe(state)
        return DONE if permanent else Failed()

    def _observe(self, seen: Observation) -> None:
        key = Key(seen.kind, seen.id)
        if self._seen.get(key) != seen:
            self._seen[key] = self._news[key] = seen
            self._reporting.set()

    async def _reconcile(self, key: Key) -> Outcome:
        wanted = self.world.wanted(key)
        if wanted is None:
            return DONE
        if key.kind == "guest":
            return await self._guest(key)
        if key.kind == "network":
            return await self._network(key)
        if key.kind == "router":
            return await self._router(key)
        networks = self.world.dependents(key)
        for network in networks:
            self._queue.add(str(network))
        if key.kind == "security_group":
            self._settle(key, wanted.generation, gone=wanted.spec is None)
        elif wanted.spec is None and not any(self.world.wanted(network) for network in networks):
            self._settle(key, wanted.generation, gone=True)
        return DONE

    def _settle(self, key: Key, generation: int, *, gone: bool) -> None:
        self._observe(Observation(kind=key.kind, id=key.id, generation=generation, state="absent" if gone else "ready"))
        if gone and self.world.generation(key) == generation:
            self.world.forget(key)

    async def _network(self, key: Key) -> Outcome:
        generation = self.world.generation(key)
        state = self.world.state(key.id)
        ports = {Key("port", one): self.world.generation(Key("port", one)) for one in self.world.ports_of(key.id)}
        if state is None:
            users = [port for port in ports if self.world.spec("port", port.id, msgspec.Struct) is not None]
            routers = [one for one in self.world.keys("router") if key.id in self.world.networks_of_router(one.id)]
            if users or routers:
                return Again(0.2)
            if self.host.metadata is not None:
                self.host.metadata.close_network(key.id)
            self._ensured.discard(key.id)
            await self._blocking(lambda: self.host.network.remove_network(key.id))
            reach("agent.network.removed")
            for port, seen in ports.items():
                self._settle(port, seen, gone=True)
            self._settle(key, generation, gone=True)
            return DONE
        await self._blocking(lambda: self.host.network.ensure_network(state))
        reach("agent.network.ensured")
        if self.host.metadata is not None:
            await self._blocking(functools.partial(self.host.metadata.open_network, state, self.host.network))
        self._settle(key, generation, gone=False)
        held = {port.id for port in state.ports}
        for port, seen in ports.items():
            if port.id not in held or self.world.complete(port.id):
                self._settle(port, seen, gone=port.id not in held)
        fresh = key.id not in self._ensured
        self._ensured.add(key.id)
        for dependent in self.world.dependents(key):
            if fresh or dependent.kind == "guest":
                self._wake(dependent)
        return DONE

    def _wake(self, key: Key) -> None:
        """Look at a dependent again, unless it has nothing to wait for."""
        seen = self._seen.get(key)
        if seen is None or seen.state == "failed" or seen.generation != self.world.generation(key):
            self._queue.add(str(key))

    async def _router(self, key: Key) -> Outcome:
        generation = self.world.generation(key)
        router = self.world.spec("router", key.id, RouterSpec)
        if router is None:
            await self._blocking(lambda: self.host.network.remove_router(key.id))
            self._settle(key, generation, gone=True)
            return DONE
        if not self.world.networks_of_router(key.id) <= self._ensured:
            return DONE if generation == self.world.generation(key) else Again(0.1)
        await self._blocking(lambda: self.host.network.ensure_router(router))
        self._settle(key, generation, gone=False)
        return DONE

    async def _guest(self, key: Key) -> Outcome:
        generation = self.world.generation(key)
        spec = self.world.spec("guest", key.id, GuestSpec)
        if spec is None:
            if self.host.metadata is not None:
                self.host.metadata.forget_guest(key.id)
            await self._blocking(lambda: self._remove_guest(key.id))
            self._settle(key, generation, gone=True)
            return DONE
        for nic in spec.nics:
            seen = self._seen.get(Key("port", nic.port_id))
            if seen is None or seen.state != "ready":
                return DONE  # the port's network wakes this guest when its filter is in force
        for disk in spec.disks:
            if disk.image_id is not None:
                await self.host.images.fetch(disk, self.link)
        reach("agent.image.fetched")
        if self.host.metadata is not None:
            self.host.metadata.set_guest(spec)
        observed = await self._blocking(lambda: self._ensure_guest(spec))
        self._observe_guest(generation, observed)
        return DONE if _settled(spec, observed) else Again(1.0)

    def _ensure_guest(self, spec: GuestSpec) -> GuestObserved:
        disks = {
            disk.id: self.host.storage.ensure_disk(spec.id, disk, self.host.images.path(disk)) for disk in spec.disks
        }
        drive = None
        if spec.config_drive:
            drive = self.host.storage.ensure_config_drive(spec.id, dict(spec.documents))
        nics = {nic.port_id: self.host.network.plug(nic.port_id) for nic in spec.nics}
        reach("agent.disk.made")
        seen = self.host.hypervisor.ensure(GuestPlan(spec=spec, disks=disks, nics=nics, config_drive=drive))
        reach("agent.guest.ensured")
        return seen

    def _remove_guest(self, guest_id: str) -> None:
        self.host.hypervisor.remove(guest_id)
        reach("agent.guest.removed")
        self.host.storage.remove_guest(guest_id)
        reach("agent.disk.removed")

    def _observe_guest(self, generation: int, seen: GuestObserved) -> None:
        self._observe(
            Observation(
                kind="guest",
                id=seen.id,
                generation=generation,
                state=seen.state,
                detail=seen.detail,
                reboot_nonce=seen.reboot_nonce,
                started_at=seen.started_at,
            )
        )

    # -- identity ------------------------------------------------------------------------------------------------

    def _identity_file(self) -> Path | None:
        return None if self.host.state is None else self.host.state / "identity.json"

    def _read_identity(self) -> Identity:
        file = self._identity_file()
        if file is None or not file.exists():
            return Identity()
        return msgspec.json.decode(file.read_bytes(), type=Identity)

    def _remember(self, identity: Identity, *, at_once: bool) -> None:
        self.identity = identity
        if at_once:
            self._write_identity()

    def _write_identity(self) -> None:
        file = self._identity_file()
        if file is not None:
            partial = file.with_suffix(".new")
            partial.write_bytes(msgspec.json.encode(self.identity))
            partial.replace(file)


def _settled(spec: GuestSpec, seen: GuestObserved) -> bool:
    """Whether nothing more is to be done until a signal: the guest is as wanted, or ended itself and awaits word."""
    reached = seen.state == spec.power or seen.state in ("shutdown", "failed")
    return reached and seen.reboot_nonce >= spec.reboot_nonce

"""The agent of one host: watches its assignments, reconciles them through the drivers, reports what it observed.

An object goes only by its tombstone.  What the drivers find that was never assigned is left alone and reported as
unknown.  A store that is another, or an older copy, is refused: everything keeps running, nothing is changed.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from msgspec.structs import replace

import pileus
from pileus.agent.boot import booted_at
from pileus.agent.call import Calls
from pileus.agent.cause import Causes, blocking
from pileus.agent.guest import Guests, observation, settled
from pileus.agent.guest_password import teller
from pileus.agent.host import Host
from pileus.agent.identity import Identity, IdentityFile
from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.agent.rounds import Rounds
from pileus.agent.snapshot import PARALLEL, Snapshots
from pileus.agent.world import Key, World
from pileus.contracts.hypervisor import GuestBusy, GuestFailure, GuestSpec, HypervisorFacts
from pileus.contracts.link import Heartbeat, Hello, Observation, Pace, Report, Unknown, Watch, Welcome
from pileus.contracts.network import NetworkFacts, NetworkFailure, NetworkSpec, NetworkState, RouterSpec
from pileus.contracts.storage import StorageFailure
from pileus.core.reconcile import DONE, Again, Failed, Outcome, Queue
from pileus.core.seams import reach

T = TypeVar("T")
log = logging.getLogger(__name__)

HEARTBEAT = 5.0
"""Seconds between two heartbeats."""

SPARING = 10.0
"""Seconds between heartbeats from which on a control plane has so many hosts that connections are spared."""

PAUSE = 0.5
"""Seconds before the link is tried again."""

SPREAD = 30.0
"""Seconds within which hosts that had no answer try again, each at a time of its own: who is asked more than it can
answer must not be asked all of it again at once."""

REFUSED = 5.0
"""Seconds before a control plane that refuses this host is asked again."""

BUSY = 5.0
"""Seconds before a guest is looked at again that its driver is busy with: its disk is copied, at rest."""

GATHER = 0.01
"""Seconds that a report waits at most for what is still being worked on, so that one carries it all."""

REPORT = 1000
"""The most observations in one report."""


class Agent:
    """One host's agent; `run` it in an event loop.

    `pool` runs the drivers.  `door` bounds how many of several agents in one process greet the control plane at once.
    """

    def __init__(
        self,
        host: Host,
        link: Link,
        pool: ThreadPoolExecutor,
        *,
        parallel: int = 16,
        door: asyncio.Semaphore | None = None,
    ) -> None:
        self.host = host
        self.link = link
        self._door = door or asyncio.Semaphore(1)
        self.world = World()
        self._file = IdentityFile(host.state, durable=not host.simulated)
        self.identity = self._file.read()
        self._pool = pool
        self._parallel = parallel
        self._queue = Queue()
        self._filters = Queue()
        """All but guests and snapshots: what keeps those apart waits for none of them, and they may take minutes."""
        self._causes = Causes()
        self._seen: dict[Key, Observation] = {}
        self._news: dict[Key, Observation] = {}
        self._reporting = asyncio.Event()
        self._quiet = asyncio.Event()
        self._obeying = asyncio.Event()
        self._ensured: set[str] = set()
        self._changed: set[str] = set()
        self._waiting: set[Key] = set()
        self._guests = Guests(host.hypervisor, host.network, host.storage, host.images, host.metadata)
        self._calls = Calls(host.hypervisor, host.images, link, pool)
        self._snapshots = Snapshots(host.hypervisor, host.storage, link, self.world, pool, self._observe)
        self._rounds = Rounds(host, self.world, self._look_at, self._blocking, self._obeying)
        self._spread = PAUSE + SPREAD * zlib.crc32(host.name.encode()) / (1 << 32)
        self._revision = ""
        """How far the assignments were heard, since everything was."""
        self._facts: tuple[HypervisorFacts, NetworkFacts] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        self._loop = asyncio.get_running_loop()
        self.host.hypervisor.watch(self._guest_changed)
        if self.host.metadata is not None:
            self.host.metadata.tell = teller(self.link, self._loop)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch())
                tasks.create_task(self._report())
                tasks.create_task(self._beat())
                for work in self._rounds.works():
                    tasks.create_task(work)
                for number in range(self._parallel):
                    tasks.create_task(self._work(self._queue))
                    if number % 2 == 0:
                        tasks.create_task(self._work(self._filters))
                for _ in range(PARALLEL):
                    tasks.create_task(self._snapshots.work())
        finally:
            self._calls.close()

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await blocking(self._pool, work)

    # -- the link ------------------------------------------------------------------------------------------------

    async def _hello(self) -> None:
        if self._facts is None:
            facts, network = await self._blocking(lambda: (self.host.hypervisor.facts(), self.host.network.facts()))
            self._facts = replace(facts, booted_at=booted_at()), network
        facts, network = self._facts
        known = self.identity
        message = Hello(
            host=self.host.name,
            facts=facts,
            network=network.filter,
            version=pileus.__version__,
            store_id=known.store_id,
            incarnation=known.incarnation,
            position=known.position,
        )
        welcome = await self.link.post("/hello", message, Welcome)
        self.link.host_id = welcome.host_id
        # The same store counts on: what was heard from its earlier run, this run must know.
        position = known.position if known.store_id == welcome.store_id else 0
        identity = Identity(welcome.store_id, welcome.incarnation, position)
        try:
            await self._blocking(lambda: self._file.write(identity))
        except OSError as error:
            if self._file.read().store_id != welcome.store_id:
                raise  # nobody is obeyed of whom the next life of this agent would not know
            # What makes room is told by the store that this is about: it is obeyed, and heartbeats write again.
            # Until one can, another life refuses this store's copies from where the last one wrote.
            log.warning("how far this host has heard cannot be written: %s", error)
        self.identity = identity

    async def _watch(self) -> None:
        while True:
            pause = await self._listen()
            await asyncio.sleep(pause)

    async def _listen(self) -> float:
        """Hear what is new, or everything; the seconds after which to listen again."""
        try:
            if self._obeying.is_set():
                # A watch is never sent again behind a new connection: who answers there may be another store.
                found = await self.link.get(f"/watch?since={self._revision}", Watch, again=False)
            else:
                async with self._door:
                    await self._hello()
                    found = await self.link.get("/watch", Watch, again=False)
        except LinkDown as error:
            log.info("the control plane is away: %s", error)
            self._obeying.clear()
            return self._spread if isinstance(error.__cause__, TimeoutError) else PAUSE
        except LinkRefused as error:
            log.error("the control plane refuses this host: %s", error)
            self._obeying.clear()
            return REFUSED
        except (GuestFailure, NetworkFailure, OSError) as error:
            # Of what a greeting tells. Guests that run need nobody; the host gets no others until it is mended.
            log.error("this host cannot hold guests: %s", error)
            return REFUSED
        self._revision = found.revision
        self._take(found)
        self._obeying.set()
        return 0.0

    def _take(self, found: Watch) -> None:
        touched, unreadable = self.world.apply(found.assignments, full=found.full)
        self._causes.take(found.assignments)
        if found.full:
            # A report may have been lost with the control plane that was to hear it.
            self._news |= {key: self._seen[key] for key in touched if key in self._seen}
            self._reporting.set()
        for key in touched:
            if key.kind == "guest":
                # What is under way for a guest that is to go keeps the worker that would remove it.
                self.host.hypervisor.hurry(key.id, on=self.world.spec("guest", key.id, GuestSpec) is None)
            self._look_at(key)
        for key, (generation, why) in unreadable.items():
            self._fail(key, generation, GuestFailure(f"this host does not understand the spec: {why}", permanent=True))
        self.identity = Identity(self.identity.store_id, self.identity.incarnation, found.position)
        for call in found.calls:
            self._calls.take(call)

    async def _report(self) -> None:
        while True:
            await self._reporting.wait()
            await self._obeying.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self._quiet.wait()
            if not await self._tell():
                await asyncio.sleep(PAUSE)

    async def _tell(self) -> bool:
        """Report what is new; whether the control plane has it."""
        self._reporting.clear()
        batch = dict(islice(self._news.items(), REPORT))
        if not batch:
            return True
        self._news = {key: one for key, one in self._news.items() if key not in batch}
        try:
            await self.link.send("/report", Report(observations=self._causes.told(batch)))
        except (LinkDown, LinkRefused) as error:
            log.info("a report waits: %s", error)
            self._news = batch | self._news
            self._reporting.set()
            return False
        if self._news:
            self._reporting.set()
        for key, one in batch.items():
            if one.state == "absent" and self._seen.get(key) == one:
                self._seen.pop(key, None)
                self._causes.forget(key)
        return True

    async def _beat(self) -> None:
        while True:
            await self._obeying.wait()
            pause = HEARTBEAT
            try:
                pace = await self.link.post("/heartbeat", await self._blocking(self._heartbeat), Pace)
                pause = max(pause, pace.seconds)
                self.link.sparing = pace.seconds > SPARING
                await self._blocking(lambda: self._file.write(self.identity))
            except (LinkDown, LinkRefused, OSError) as error:
                log.info("a heartbeat was lost: %s", error)
            await asyncio.sleep(pause)

    def _heartbeat(self) -> Heartbeat:
        unknown: list[Unknown] = [
            *self.world.unknown("guest", {*self.host.hypervisor.guests(), *self.host.storage.guests()}),
            *self.world.unknown("network", self.host.network.networks()),
            *self.world.unknown("router", self.host.network.routers()),
            *self.world.unknown("snapshot", self.host.storage.snapshots()),
        ]
        return Heartbeat(free_disk_gib=self.host.storage.free_gib(), unknown=unknown)

    def _look_at(self, key: Key) -> None:
        if key.kind == "snapshot":
            self._snapshots.add(key)
        else:
            (self._queue if key.kind == "guest" else self._filters).add(str(key))

    # -- reconciling ---------------------------------------------------------------------------------------------

    def _guest_changed(self, guest_id: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look_at_guest, guest_id)

    def _look_at_guest(self, guest_id: str) -> None:
        self._changed.add(guest_id)
        self._queue.hint(str(Key("guest", guest_id)))  # it may be the end of what was started in vain just now

    async def _work(self, queue: Queue) -> None:
        while True:
            await self._turn(queue)

    async def _turn(self, queue: Queue) -> None:
        """Work on the next key; waits for one."""
        (text,) = await queue.take(1)
        self._quiet.clear()
        key = Key.parse(text)
        generation = self.world.generation(key)
        try:
            with self._causes.named(key):
                outcome = await self._reconcile(key)
        except GuestBusy as error:
            log.info("%s waits: %s", key, error)
            outcome = Again(BUSY)
        except (GuestFailure, NetworkFailure, StorageFailure, LinkDown, LinkRefused, OSError) as error:
            outcome = self._fail(key, generation, error)
        except Exception as error:
            log.exception("%s: cannot be made as wanted", key)
            outcome = self._fail(key, generation, error)
        queue.finish(text, outcome)
        if self._queue.idle() and self._filters.idle():
            self._quiet.set()

    def _fail(self, key: Key, generation: int, error: Exception) -> Outcome:
        permanent = bool(getattr(error, "permanent", False))
        state = Observation(
            kind=key.kind,
            id=key.id,
            generation=generation,
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
            with self._causes.named(key):
                level = logging.WARNING if seen.state == "failed" else logging.INFO
                log.log(level, "%s is %s%s", key, seen.state, f": {seen.detail}" if seen.detail else "")

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
            self._look_at(network)
        if key.kind == "security_group":
            self._settle(key, wanted.generation, gone=wanted.spec is None)
        elif wanted.spec is None and not any(map(self.world.wanted, networks)) and (networks or self._swept()):
            self._settle(key, wanted.generation, gone=True)
        return DONE

    def _swept(self) -> bool:
        """Whether every network here was made anew by this agent, so that none holds a port that it never heard of."""
        return all(
            key.id in self._ensured and self.world.spec("network", key.id, NetworkSpec) is not None
            for key in self.world.keys("network")
        )

    def _settle(self, key: Key, generation: int, *, gone: bool) -> None:
        self._observe(Observation(kind=key.kind, id=key.id, generation=generation, state="absent" if gone else "ready"))
        if gone and self.world.generation(key) == generation:
            self.world.forget(key)

    async def _network(self, key: Key) -> Outcome:
        generation = self.world.generation(key)
        state = self.world.state(key.id)
        ports = {Key("port", one): self.world.generation(Key("port", one)) for one in self.world.ports_of(key.id)}
        if state is None:
            return await self._remove_network(key, generation, ports)
        complete = {port for port in ports if self.world.complete(port.id)}
        await self._blocking(lambda: self._ensure_network(state))
        self._settle(key, generation, gone=False)
        held = {port.id for port in state.ports}
        for port, seen in ports.items():
            if port.id not in held or port in complete:
                self._settle(port, seen, gone=port.id not in held)
        fresh = key.id not in self._ensured
        self._ensured.add(key.id)
        for dependent in self.world.dependents(key):
            if fresh or dependent.kind == "guest":
                self._wake(dependent)
        if fresh:
            self._look_at_strays()
        return DONE

    async def _remove_network(self, key: Key, generation: int, ports: dict[Key, int]) -> Outcome:
        routers = [one for one in self.world.keys("router") if key.id in self.world.networks_of_router(one.id)]
        if routers or self.world.held(key.id):
            return Again(1.0)  # each of them, once it is gone, lets this network be looked at again
        self._ensured.discard(key.id)
        await self._blocking(lambda: self._take_network_down(key.id))
        for port, seen in ports.items():
            self._settle(port, seen, gone=True)
        self._settle(key, generation, gone=True)
        self._look_at_strays()
        return DONE

    def _ensure_network(self, state: NetworkState) -> None:
        self.host.network.ensure_network(state)
        reach("agent.network.ensured")
        if self.host.metadata is not None:
            self.host.metadata.open_network(state, self.host.network)

    def _take_network_down(self, network_id: str) -> None:
        if self.host.metadata is not None:
            self.host.metadata.close_network(network_id)
        self.host.network.remove_network(network_id)
        reach("agent.network.removed")

    def _look_at_strays(self) -> None:
        for port in self.world.strays():
            self._look_at(port)

    def _wake(self, key: Key) -> None:
        """Look at a dependent again, unless it has nothing to wait for."""
        seen = self._seen.get(key)
        if (
            key in self._waiting
            or seen is None
            or seen.state == "failed"
            or seen.generation != self.world.generation(key)
        ):
            self._waiting.discard(key)
            self._look_at(key)

    async def _router(self, key: Key) -> Outcome:
        generation = self.world.generation(key)
        router = self.world.spec("router", key.id, RouterSpec)
        if router is None:
            await self._blocking(lambda: self.host.network.remove_router(key.id))
            self._gone(key, generation)
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
            await self._blocking(lambda: self._guests.remove(key.id))
            self._gone(key, generation)
            return DONE
        if key.id in self._changed:
            self._changed.discard(key.id)
            observed = await self._blocking(lambda: self._guests.observe(key.id))
            if self._seen.get(key) == observation(generation, observed):
                return DONE  # the driver told of what this agent had it do
        for nic in spec.nics:
            port = Key("port", nic.port_id)
            seen = self._seen.get(port)
            if seen is None or seen.state != "ready" or seen.generation != self.world.generation(port):
                self._waiting.add(key)
                return DONE  # the port's network wakes this guest when its filter is in force
        for disk in await self._blocking(lambda: self._guests.missing(spec)):
            if disk.image_id is not None and disk.copy_of is None:
                await self.host.images.fetch(disk, self.link)
        reach("agent.image.fetched")
        if self.world.spec("guest", key.id, GuestSpec) is None:
            return DONE  # its tombstone came meanwhile, and lets it be looked at again
        made = await self._blocking(lambda: self._guests.ensure(spec))
        if made is None:
            return Again(1.0)
        self._observe(observation(generation, made))
        return DONE if settled(spec, made) else Again(1.0)

    def _gone(self, key: Key, generation: int) -> None:
        """A guest or a router is off the host; what it stood on may go now, if it is to go."""
        networks = self.world.dependents(key)
        self._settle(key, generation, gone=True)
        for network in networks:
            self._look_at(network)

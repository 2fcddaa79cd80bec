"""A control plane of the real fleet service on a real socket, and hosts of simulated drivers, in one event loop.

What a host would keep when its agent dies (guests, networks, disks, identity) is in `Machine`; each `boot` is a new
agent on new drivers that adopt it.  Drivers are checked as they are called: `Machine.faults` says what came too early.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import sqlalchemy as sa
import uvicorn

from pileus.agent.agent import Agent
from pileus.agent.host import Host
from pileus.agent.image_cache import ImageCache, NoImages
from pileus.agent.link import Link, LinkDown
from pileus.contracts.hypervisor import (
    GuestFailure,
    GuestObserved,
    GuestPlan,
)
from pileus.contracts.network import (
    NetworkState,
    RouterSpec,
)
from pileus.core.api import Resource
from pileus.core.connection import Connection
from pileus.core.context import Auth, Query, Request
from pileus.core.http import Edge
from pileus.core.policy import Policy
from pileus.core.store import Store, Tx
from pileus.drivers.hypervisor.fake import FakeHypervisor
from pileus.drivers.network.fake import FakeHost, FakeNetwork
from pileus.drivers.storage.fake import FakeStorage
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.interface import Fleet
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.service import link_service
from tests.agent.spec import KIND, group, guest, network, port, router

T = TypeVar("T")

SECONDS = 30.0
"""How long anything may take before a test fails."""


async def until(found: Callable[[], bool], what: str | Callable[[], object] = "it", seconds: float = SECONDS) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {seconds} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.005)


# -- the control plane -----------------------------------------------------------------------------------------------


class Control:
    """One life of the control plane after another, on one store and one socket."""

    def __init__(self, url: str, directory: Path, *more: Resource) -> None:
        self.url = url
        self.more = more
        self.path = directory / "link"
        self.store = Store(url)
        self.fleet = Fleet(self.store.seams.clock)
        self.requests: list[tuple[str, str]] = []
        self.lives = 0
        self._server: uvicorn.Server | None = None
        self._listener = -1

    async def start(self) -> None:
        """Begin a life: a new run of the store, and a new socket."""
        self.store.write_here(fleet.begin)
        self.fleet = Fleet(self.store.seams.clock)
        self.fleet.attach(self.store)
        edge = Edge([link_service(self.more)], self.store, Policy(), _host, {Fleet: self.fleet})

        self.lives += 1
        life = self.lives

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            if life != self.lives:
                raise ConnectionAbortedError("a connection that came in while this life ended")
            self.requests.append((scope["method"], scope["path"]))
            await edge(scope, receive, send)

        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        listener.listen(128)
        config = uvicorn.Config(
            noted,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
        )
        config.load()
        self._listener = listener.fileno()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        # The parts of `serve` without its loop, which would take a tenth of a second to notice the end.
        await self._server.startup(sockets=[listener])

    async def stop(self) -> None:
        """Die: connections end where they are."""
        if self._server is None:
            return
        self.path.unlink(missing_ok=True)
        self.lives += 1
        # A connection that is accepted while its server closes is never heard of again, as long as the process lives.
        asyncio.get_running_loop().remove_reader(self._listener)
        await asyncio.sleep(0.001)
        self.cut()
        self._server.force_exit = True
        await self._server.shutdown()
        self.store.observers.clear()
        self._server = None

    def cut(self) -> None:
        """Break all connections in the middle of whatever they carry."""
        if self._server is not None:
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()

    def write(self, work: Callable[[Tx], T]) -> T:
        """A transaction."""
        return self.store.write_here(work)

    def host_id(self, name: str = "host-1") -> str:
        """The id of a host that has said hello."""
        return next(one.id for one in self.hosts() if one.name == name)

    def hosts(self) -> list[fleet.Host]:
        """All hosts."""
        return self.store.read_here(lambda tx: fleet.hosts(tx, self.fleet))

    def assign(self, *specs: msgspec.Struct, host: str = "host-1") -> dict[str, int]:
        """Let a host hold objects; their generations by id."""
        host_id = self.host_id(host)
        rows = [fleet.Spec(host_id, KIND[type(one)], one.id, one) for one in specs]  # type: ignore[attr-defined] # all have ids
        return {key[2]: generation for key, generation in self.write(lambda tx: fleet.assign(tx, rows)).items()}

    def tombstone(self, *keys: str, host: str | None = None) -> None:
        """Let objects go, `kind/id` each, in one transaction, from one host or from all."""
        host_id = None if host is None else self.host_id(host)

        def work(tx: Tx) -> None:
            for kind in KIND.values():
                ids = [key.partition("/")[2] for key in keys if key.startswith(f"{kind}/")]
                fleet.tombstone(tx, kind, ids, host_id)

        self.write(work)

    def rows(self) -> dict[str, Any]:
        """All assignments, by `kind/id`."""
        rows = self.store.read_here(lambda tx: tx.all(sa.select(assignment)))
        return {f"{row.kind}/{row.id}": row for row in rows}

    def rows_by_host(self) -> dict[str, dict[str, Any]]:
        """All assignments, by host and `kind/id`."""
        names = {one.id: one.name for one in self.hosts()}
        found: dict[str, dict[str, Any]] = {}
        for row in self.store.read_here(lambda tx: tx.all(sa.select(assignment))):
            found.setdefault(names[row.host_id], {})[f"{row.kind}/{row.id}"] = row
        return found

    def state(self, key: str) -> str:
        """What was observed of the newest spec; empty when nothing was, `gone` without a row."""
        row = self.rows().get(key)
        if row is None:
            return "gone"
        return str(row.state) if row.observed_generation == row.generation else ""

    def settled(self) -> bool:
        """Whether the newest spec of everything was observed, and nothing is on its way out."""
        return all(
            not row.tombstone
            and row.observed_generation == row.generation
            and row.state in (("ready",) if row.kind != "guest" else ("running", "stopped", "paused", "shutdown"))
            for row in self.rows().values()
        )

    def unknown(self, host: str = "host-1") -> set[str]:
        """What a host said that nobody assigned, as `kind/id`."""
        pulse = self.fleet.pulses.get(self.host_id(host))
        return set() if pulse is None else {f"{one.kind}/{one.id}" for one in pulse.unknown}

    async def reaches(self, key: str, state: str) -> None:
        """Wait until something was observed of the newest spec."""
        await until(lambda: self.state(key) == state, lambda: f"{key} is {self.state(key)!r} and not {state!r}")

    async def settles(self) -> None:
        """Wait until `settled`."""
        await until(self.settled, lambda: f"still unsettled: {list(self.rows().values())}", 30)

    async def empties(self) -> None:
        """Wait until no assignment is left."""
        await until(lambda: not self.rows(), lambda: f"still there: {sorted(self.rows())}", 30)

    def request(self) -> Request:
        """A request of an operator, for what a service asks of a host."""
        return Request(
            store=self.store,
            policy=Policy(),
            auth=Auth(user_id="operator"),
            request_id="req-1",
            operation="",
            version=None,
            url="",
            path="",
            query=Query([]),
            headers={},
            provided={Fleet: self.fleet},
        )


def _host(tx: Tx, token: str, headers: Mapping[bytes, bytes]) -> Auth:
    return Auth(user_id=token, roles=frozenset({"host"}))


# -- hosts -----------------------------------------------------------------------------------------------------------


class Hypervisor(FakeHypervisor):
    """Checks that a guest starts behind filters that are in force; fails as it is told to."""

    def __init__(self, machine: Machine, **more: Any) -> None:
        super().__init__(host=machine.name, state=machine.directory / "guests.jsonl", **more)
        self._machine = machine

    def ensure(self, plan: GuestPlan) -> GuestObserved:
        machine, spec = self._machine, plan.spec
        machine.calls.append(("ensure guest", spec.id))
        machine.attempts[spec.id] = machine.attempts.get(spec.id, 0) + 1
        held = {one.id: (one, state) for state in list(machine.network.networks.values()) for one in state.ports}
        for nic in spec.nics:
            if nic.port_id not in held:
                machine.faults.append(f"guest {spec.id} before its port {nic.port_id}")
                continue
            found, state = held[nic.port_id]
            if not set(found.security_groups) <= set(state.groups):
                machine.faults.append(f"guest {spec.id} before the groups of its port {nic.port_id}")
        if (failure := machine.failing.get(spec.id)) is not None:
            raise failure
        return super().ensure(plan)

    def remove(self, guest_id: str) -> None:
        self._machine.calls.append(("remove guest", guest_id))
        if (failure := self._machine.failing.get(guest_id)) is not None:
            raise failure
        super().remove(guest_id)


class Network(FakeNetwork):
    """Notes what is asked for."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(host=machine.network)
        self._machine = machine

    def ensure_network(self, state: NetworkState) -> None:
        self._machine.calls.append(("ensure network", state.network.id))
        if (failure := self._machine.failing.get(state.network.id)) is not None:
            raise failure
        super().ensure_network(state)

    def remove_network(self, network_id: str) -> None:
        self._machine.calls.append(("remove network", network_id))
        for one in list(self._machine.network.routers.values()):
            if any(leg.network_id == network_id for leg in one.interfaces):
                self._machine.faults.append(f"network {network_id} before its router {one.id}")
        super().remove_network(network_id)

    def ensure_router(self, router: RouterSpec) -> None:
        self._machine.calls.append(("ensure router", router.id))
        super().ensure_router(router)

    def remove_router(self, router_id: str) -> None:
        self._machine.calls.append(("remove router", router_id))
        super().remove_router(router_id)

    def ailing(self) -> Sequence[tuple[Literal["network", "router"], str]]:
        return list(self._machine.ailing)


class BrokenLink(Link):
    """A link that can be made to lose what it carries."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lost: Callable[[str], bool] = lambda path: False
        """Whether a message is lost before the control plane has it."""
        self.unanswered: Callable[[str], bool] = lambda path: False
        """Whether the answer is lost, after the control plane took the message."""

    async def _call(self, method: str, path: str, body: bytes, **more: Any) -> bytes:
        if self.lost(path):
            raise LinkDown("lost")
        answer = await super()._call(method, path, body, **more)
        if self.unanswered(path):
            raise LinkDown("lost")
        return answer


class Machine:
    """A host: what outlives its agent, and the agent that runs now."""

    def __init__(self, control: Control, directory: Path, name: str = "host-1", **hypervisor: Any) -> None:
        self.control = control
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.network = FakeHost()
        self.images: ImageCache = NoImages()
        self.calls: list[tuple[str, str]] = []
        self.attempts: dict[str, int] = {}
        self.faults: list[str] = []
        self.ailing: list[tuple[Literal["network", "router"], str]] = []
        self.failing: dict[str, Exception] = {}
        """What a driver raises, by the id of the object that it is asked to make."""
        self._more = hypervisor
        self._pool = ThreadPoolExecutor(32)
        self._task: asyncio.Task[None] | None = None
        self.hypervisor = Hypervisor(self, **hypervisor)
        self.link = BrokenLink(control.path)
        self.agent: Agent | None = None

    def boot(self, **link: Callable[[str], bool]) -> None:
        """Start an agent on what is there."""
        self.hypervisor = Hypervisor(self, **self._more)
        self.link = BrokenLink(self.control.path)
        for name, value in link.items():
            setattr(self.link, name, value)
        host = Host(
            name=self.name,
            state=self.directory,
            hypervisor=self.hypervisor,
            network=Network(self),
            storage=FakeStorage(root=self.directory / "disks"),
            images=self.images,
            metadata=None,
        )
        self.agent = Agent(host, self.link, self._pool)
        self._task = asyncio.create_task(self.agent.run())

    async def kill(self) -> None:
        """End the agent where it is; a driver's call that runs is finished, as the kernel would finish it."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = ThreadPoolExecutor(32)
        self.link.close()
        self.hypervisor.close()

    def failed(self) -> BaseException | None:
        """Why the agent ended, if it did."""
        return self._task.exception() if self._task is not None and self._task.done() else None

    async def join(self) -> None:
        """Boot, and wait until the control plane has heard of this host."""
        self.boot()
        await until(lambda: any(one.name == self.name for one in self.control.hosts()), "the host says hello")

    @property
    def guests(self) -> dict[str, str]:
        """State of each guest that is on the host."""
        return {one: self.hypervisor.observe(one).state for one in self.hypervisor.guests()}

    @property
    def ports(self) -> set[str]:
        """The ports that are plugged in."""
        return {one.id for state in self.network.networks.values() for one in state.ports}

    def disks(self) -> list[str]:
        """The guests that have disks here."""
        while True:
            with suppress(FileNotFoundError):  # one went while they were counted
                return FakeStorage(root=self.directory / "disks").guests()

    def left(self) -> list[str]:
        """Everything that is on the host."""
        return [*self.guests, *self.network.networks, *self.network.routers, *self.ports, *self.disks()]


def play(
    scenario: Callable[..., Coroutine[Any, Any, None]], url: str, directory: Path, hosts: int = 1, **hypervisor: Any
) -> None:
    """Run a scenario with a control plane and hosts (`host-1` …) that have joined it."""

    async def scene() -> None:
        control = Control(url, directory)
        machines = [Machine(control, directory, f"host-{number + 1}", **hypervisor) for number in range(hosts)]
        try:
            await control.start()
            for machine in machines:
                await machine.join()
            await scenario(control, *machines)
            for machine in machines:
                assert machine.failed() is None
                assert machine.faults == []
        finally:
            for machine in machines:
                await machine.kill()
            await control.stop()
            control.store.close()

    asyncio.run(scene())


def failure(*, permanent: bool = False) -> GuestFailure:
    """What a driver says when it cannot."""
    return GuestFailure("the driver cannot", permanent=permanent)


def index(calls: Iterable[tuple[str, str]], call: tuple[str, str]) -> int:
    """Where a call came for the last time."""
    return max(place for place, one in enumerate(calls) if one == call)


async def hold(control: Control, number: int = 1) -> None:
    """Guests g1…, each with a port of its own in network n with group s, and a router r."""
    control.assign(
        network("n"),
        group("s", "0.0.0.0/0"),
        router("r", "n"),
        *(port(f"p{one}", "n", "s", guest_id=f"g{one}") for one in range(1, number + 1)),
        *(guest(f"g{one}", f"p{one}") for one in range(1, number + 1)),
    )
    await control.settles()

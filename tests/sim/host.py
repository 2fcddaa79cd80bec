"""A simulated host: what would be in its kernel and on its disk, and the agent that lives on it, step by step.

The agent is the real one, and so is what it says over the link; its steps are taken one at a time, by whom the seed
names.  A death leaves what the drivers keep, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pileus.agent.agent import Agent
from pileus.agent.host import Host
from pileus.agent.image_cache import NoImages
from pileus.agent.link import Link, LinkDown, LinkRefused
from pileus.contracts.hypervisor import GuestFailure, HypervisorFacts
from pileus.contracts.link import Pace
from pileus.contracts.network import NetworkFailure
from pileus.contracts.storage import StorageFailure
from pileus.core.reconcile import Queue
from pileus.core.seams import ManualClock
from pileus.drivers.hypervisor.fake import FakeHypervisor
from pileus.drivers.network.fake import FakeHost, FakeNetwork
from pileus.drivers.storage.fake import FakeStorage
from tests.sim.chance import Chance, Death

T = TypeVar("T")

Application = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]


class Timers(Queue):
    """A queue whose waiting is told by a clock that is moved by hand."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.due: dict[str, float] = {}

    def add(self, key: str) -> None:
        self.due.pop(key, None)
        super().add(key)

    def _later(self, key: str, seconds: float) -> None:
        self.due[key] = self._clock.monotonic() + seconds

    def ring(self) -> None:
        """Let those come whose time it is."""
        for key in [key for key, at in self.due.items() if at <= self._clock.monotonic()]:
            self.add(key)

    @property
    def ready(self) -> bool:
        """Whether there is something to do now."""
        return bool(self._ready)


class AtOnce(ThreadPoolExecutor):
    """A pool of threads without threads."""

    def submit(self, work: Callable[..., T], /, *arguments: Any, **more: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(work(*arguments, **more))
        except BaseException as error:
            done.set_exception(error)
        return done


class SteppedAgent(Agent):
    """The agent, which does what drivers do in its own thread, and one thing at a time."""

    def __init__(self, host: Host, link: Link, clock: ManualClock) -> None:
        super().__init__(host, link, AtOnce(1))
        self.timers = {name: Timers(clock) for name in ("networks", "guests", "snapshots")}
        self._filters = self.timers["networks"]
        self._queue = self.timers["guests"]
        self._snapshots._queue = self.timers["snapshots"]

    @property
    def ready(self) -> bool:
        """Whether there is something to do now."""
        for one in self.timers.values():
            one.ring()
        return any(one.ready for one in self.timers.values())

    async def do(self) -> None:
        """The next thing, if there is any."""
        if self.ready:
            ready = next(name for name, one in self.timers.items() if one.ready)
            await (self._snapshots.turn() if ready == "snapshots" else self._turn(self.timers[ready]))

    @property
    def quiet(self) -> bool:
        """Whether it has nothing to do, to wait for or to tell."""
        idle = all(one.idle() and not one.due for one in self.timers.values())
        return idle and not self._news and self._obeying.is_set()


class Fallible:
    """A driver whose calls fail, or end the agent, before or after they did what they do."""

    def __init__(self, driver: Any, place: str, failure: type[Exception], host: SimulatedHost) -> None:
        self._driver = driver
        self._place = place
        self._failure = failure
        self._host = host

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if name not in _STEPS:
            return found

        def step(*arguments: Any, **more: Any) -> Any:
            self._host.live()
            fate = self._host.chance.at(f"{self._place}.{name}")
            if fate == "dies before":
                self._host.die()
            if fate == "fails before":
                raise self._failure("this time it does not work")
            done = found(*arguments, **more)
            if fate == "dies after":
                self._host.die()
            if fate == "fails after":
                raise self._failure("it worked, but who asked is not told")
            return done

        return step


_STEPS = frozenset(
    {
        *("ensure", "remove", "snapshot", "ensure_disk", "ensure_config_drive", "settle", "remove_guest"),
        *("remove_snapshot", "ensure_network", "remove_network", "ensure_router", "remove_router", "plug"),
    }
)


class DirectLink(Link):
    """The link without a socket: requests and answers may be lost."""

    def __init__(self, host: SimulatedHost, reach: Callable[[], Application | None]) -> None:
        super().__init__(Path("/nonexistent"))
        self._host = host
        self._reach = reach

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        sink: Callable[[bytes], object] | None = None,
        again: bool = True,
        kind: str = "application/json",
    ) -> bytes:
        self._host.live()
        fate = self._host.chance.at(f"link {path.partition('?')[0].split('/')[1]}")
        application = self._reach()
        if application is None or fate == "fails before":
            raise LinkDown("nobody answers")
        if fate == "dies before":
            self._host.die()
        status, answer = await ask(
            application, method, path, body, {"x-auth-token": self.host_id or "new", "content-type": kind}
        )
        if self._reach() is not application or fate == "fails after" or status == 0:
            raise LinkDown("the connection broke before the answer")
        if fate == "dies after":
            self._host.die()
        if status >= 400:
            raise LinkRefused(status, answer.decode(errors="replace")[:2000])
        if sink is not None:
            sink(answer)
        return answer

    async def upload(self, path: str, file: BinaryIO, size: int) -> None:
        await self._call("PUT", path, file.read(size), kind="application/octet-stream")


async def ask(
    application: Application, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes]:
    """One request of an ASGI application; status 0 when it died before it answered."""
    bare, _, query = path.partition("?")
    given = {"content-length": str(len(body)), **headers} if body else headers
    scope = {
        "type": "http",
        "scheme": "http",
        "method": method,
        "path": bare,
        "query_string": query.encode("ascii"),
        "headers": [(b"host", b"sim"), *((name.encode(), value.encode()) for name, value in given.items())],
    }
    waiting = [body]
    status = 0
    answer = bytearray()

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()  # the client stays
        return {"type": "http.request", "body": waiting.pop(0), "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            answer.extend(message.get("body", b""))

    try:
        await application(scope, receive, send)
    except Death:
        return 0, b""
    return status, bytes(answer)


class SimulatedHost:
    """What outlives the agent, and the agent."""

    def __init__(
        self,
        name: str,
        directory: Path,
        clock: ManualClock,
        chance: Chance,
        facts: HypervisorFacts,
        reach: Callable[[], Application | None],
    ) -> None:
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.clock = clock
        self.chance = chance
        self.facts = facts
        self.kernel = FakeHost()
        self.dead = False
        self.deaths = 0
        self._reach = reach
        self.boot()

    def boot(self) -> None:
        """A new agent, on what an earlier one left."""
        self.dead = False
        self.hypervisor = FakeHypervisor(
            host=self.name,
            state=self.directory / "guests.jsonl",
            clock=lambda: self.clock.now().timestamp(),
            facts=self.facts,
        )
        self.storage = FakeStorage(root=self.directory / "disks")
        host = Host(
            name=self.name,
            state=self.directory,
            hypervisor=self._fallible(self.hypervisor, "hypervisor", GuestFailure),
            network=self._fallible(FakeNetwork(host=self.kernel), "network", NetworkFailure),
            storage=self._fallible(self.storage, "storage", StorageFailure),
            images=NoImages(),
            metadata=None,
        )
        self.agent = SteppedAgent(host, DirectLink(self, self._reach), self.clock)

    def _fallible(self, driver: Any, place: str, failure: type[Exception]) -> Any:
        return Fallible(driver, place, failure, self)

    def live(self) -> None:
        """Raise Death when this life is over."""
        if self.dead:
            raise Death

    def die(self) -> None:
        """End this life here."""
        self.dead = True
        self.deaths += 1
        raise Death

    async def step(self, what: str) -> None:
        """One thing that an agent does: `listen`, `work`, `tell` or `beat`."""
        agent = self.agent
        try:
            if what == "listen":
                await agent._listen()
            elif what == "work":
                await agent.do()
            elif what == "tell":
                if agent._obeying.is_set():
                    await agent._tell()
            elif agent._obeying.is_set():
                await agent.link.post("/heartbeat", agent._heartbeat(), Pace)
            while agent._calls.tasks:
                await asyncio.wait(set(agent._calls.tasks))
        except (LinkDown, LinkRefused):
            pass
        except Death:
            self.dead = True
        if self.dead:
            self.hypervisor.close()
            self.boot()

    async def turn(self, most: int = 50) -> None:
        """Everything that an agent does, once; all that it has to work on, up to a number."""
        await self.step("listen")
        await self.step("beat")
        for _ in range(most):
            if not self.agent.ready:
                break
            await self.step("work")
        await self.step("tell")

"""Control loops: keyed work queues in the manner of Kubernetes.

A controller takes keys, never events.  A key comes into its queue by signal (the change log names it), by timer (the
controller lists what is not settled) or by its own `Again`.  One worker has a key at a time; a key that is signalled
while it is worked on is worked on once more.  An error is tried again with exponential back-off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pileus.core import changes
from pileus.core.metrics import Counter, Family, Gauge, Histogram
from pileus.core.seams import reach
from pileus.core.store import Change, Store, Tx

log = logging.getLogger(__name__)


class Done:
    """The key is as wanted, or waits for something that will signal."""


class Again:
    """Work on the key once more, after some seconds."""

    def __init__(self, after: float) -> None:
        self.after = after


class Broken:
    """The key cannot be made as wanted until it changes; `why` is for operators."""

    def __init__(self, why: str) -> None:
        self.why = why


Outcome = Done | Again | Broken
DONE = Done()


class Controller(Protocol):
    """A control loop."""

    name: str
    topics: frozenset[str]
    """Topics of the change log whose keys are this controller's keys."""
    interval: float
    """Seconds between two looks at everything that is not settled."""
    batch: int
    """How many keys one call of `reconcile` may get."""
    parallel: int
    """How many calls of `reconcile` may run at once."""

    def keys(self, tx: Tx) -> Iterable[str]:
        """Keys that are not settled, for the timer: what a signal would have named, had it not been lost."""

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Look at each key and do what is missing. A key that the answer leaves out is Done."""


class KeyController:
    """A controller that works on one key in one transaction: derive, and write `work`."""

    name = "unnamed"
    topics: frozenset[str] = frozenset()
    interval = 30.0
    batch = 32
    parallel = 1

    def keys(self, tx: Tx) -> Iterable[str]:
        """Keys that are not settled."""
        return ()

    def work(self, tx: Tx, key: str) -> Outcome:
        """Do what is missing for one key; runs again from its start when it loses a race."""
        raise NotImplementedError

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Each key in a transaction of its own; on SQLite they share a commit."""

        def bound(key: str) -> Callable[[Tx], Outcome]:
            return lambda tx: self.work(tx, key)

        found = await asyncio.gather(*(store.write(bound(key)) for key in keys), return_exceptions=True)
        outcomes: dict[str, Outcome] = {}
        for key, outcome in zip(keys, found, strict=True):
            if isinstance(outcome, BaseException):
                log.error("%s: %s: %r", self.name, key, outcome, exc_info=outcome)
                outcomes[key] = Failed()
            else:
                outcomes[key] = outcome
        return outcomes


class Failed(Again):
    """An error: the queue backs off."""

    def __init__(self) -> None:
        super().__init__(0)


TURNS = 4
"""Turns of the event loop that a commit's news waits for the answer to who wrote."""


HINT = 1.5
"""Seconds that news of a key waits at most while the key backs off."""


class Queue:
    """Keys that wait, keys that are worked on, and how often each has failed."""

    def __init__(self) -> None:
        self._ready: dict[str, None] = {}
        self._busy: set[str] = set()
        self._dirty: set[str] = set()
        self._hinted: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def add(self, key: str) -> None:
        """Let a key be worked on: soon, or again when its worker is finished. It is not waited for any longer."""
        if (timer := self._timers.pop(key, None)) is not None:
            # Else each look at everything would leave one more timer behind, for as long as the key is not settled.
            timer.cancel()
        if key in self._busy:
            self._dirty.add(key)
        else:
            self._ready[key] = None
            self._wake.set()

    def hint(self, key: str) -> None:
        """`add`, for news that the work on the key may itself have made: what fails then still backs off.

        A key that backs off already comes back at the latest when a hint may wait no longer.
        """
        if key in self._busy:
            self._hinted.add(key)
        elif key not in self._failures or key in self._ready:
            self.add(key)
        elif self._waits(key) > HINT:
            self._later(key, HINT)

    async def take(self, most: int) -> list[str]:
        """Keys to work on, oldest first; waits for the first."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        keys = list(self._ready)[:most]
        for key in keys:
            del self._ready[key]
            self._busy.add(key)
        return keys

    def finish(self, key: str, outcome: Outcome) -> None:
        """Put a key away, or let it come back."""
        self._busy.discard(key)
        hinted = key in self._hinted
        self._hinted.discard(key)
        if isinstance(outcome, Failed):
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._later(key, min(60.0, 0.1 * 2 ** min(failures, 12)))
        else:
            self._failures.pop(key, None)
            if isinstance(outcome, Again):
                self._later(key, outcome.after)
        if key in self._dirty or (hinted and not isinstance(outcome, Failed)):
            self._dirty.discard(key)
            self.add(key)

    @property
    def depth(self) -> int:
        """How many keys wait."""
        return len(self._ready)

    def idle(self) -> bool:
        """Whether nothing waits and nothing is worked on."""
        return not self._ready and not self._busy

    def _later(self, key: str, seconds: float) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    def _waits(self, key: str) -> float:
        """How long a key waits still, in seconds."""
        timer = self._timers.get(key)
        return 0.0 if timer is None else timer.when() - asyncio.get_running_loop().time()


class Loops:
    """Runs controllers on one store, in one event loop.

    `poll` is how often, in seconds, the change log is read for what other processes changed.  An embedded store has
    no other processes; there the controllers' timers are the net below the signals.
    """

    def __init__(self, store: Store, controllers: Iterable[Controller], *, poll: float = 1.0) -> None:
        self.store = store
        self.controllers = tuple(controllers)
        self.queues = {controller.name: Queue() for controller in self.controllers}
        self.broken: dict[tuple[str, str], str] = {}
        self.poll = poll
        self._cursor = changes.Cursor(0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._runs = Histogram("pileus_loop_duration_seconds", "Time of one call of a control loop.", ("loop",))
        self._failures = Counter("pileus_loop_failures_total", "Keys that a control loop failed on.", ("loop",))

    @property
    def alive(self) -> bool:
        """Whether all loops run."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def families(self) -> list[Family]:
        """Figures of the loops."""
        waiting = Gauge(
            "pileus_loop_queue_depth",
            "Keys that wait for a control loop.",
            lambda: [((name,), queue.depth) for name, queue in self.queues.items()],
            ("loop",),
        )
        broken = Gauge(
            "pileus_loop_broken",
            "Keys that a control loop cannot make as wanted until they change.",
            lambda: [((name,), sum(loop == name for loop, _ in self.broken)) for name in self.queues],
            ("loop",),
        )
        return [self._runs, self._failures, waiting, broken]

    async def start(self) -> None:
        """Begin: everything that is not settled is looked at once."""
        self._loop = asyncio.get_running_loop()
        self._cursor = await self.store.read(changes.head)
        self.store.observers.append(self._observe)
        for controller in self.controllers:
            self._tasks.append(asyncio.create_task(self._resync(controller)))
            self._tasks += [asyncio.create_task(self._run(controller)) for _ in range(controller.parallel)]
        if not self.store.embedded:
            self._tasks.append(asyncio.create_task(self._follow()))

    async def stop(self) -> None:
        """End all loops; what is running is finished by whoever starts next."""
        if self._observe in self.store.observers:
            self.store.observers.remove(self._observe)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def signal(self, found: Sequence[Change]) -> None:
        """Wake the controllers whose topics these changes are of. Only from the event loop's thread."""
        for one in found:
            for controller in self.controllers:
                if one.topic in controller.topics:
                    self.queues[controller.name].add(one.key)

    def _observe(self, found: Sequence[Change]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._let_pass, found, TURNS)

    def _let_pass(self, found: Sequence[Change], turns: int) -> None:
        """Signal after some turns of the event loop: who wrote is answered before what follows from it begins."""
        if turns:
            asyncio.get_running_loop().call_soon(self._let_pass, found, turns - 1)
        else:
            self.signal(found)

    async def _run(self, controller: Controller) -> None:
        queue = self.queues[controller.name]
        while True:
            keys = await queue.take(controller.batch)
            reach(f"loop.{controller.name}.begun")
            began = time.perf_counter()
            try:
                outcomes = await controller.reconcile(self.store, keys)
            except Exception:
                log.exception("%s failed on %d keys", controller.name, len(keys))
                outcomes = dict.fromkeys(keys, Failed())
            reach(f"loop.{controller.name}.done")
            self._runs.observe(time.perf_counter() - began, (controller.name,))
            for key in keys:
                outcome = outcomes.get(key, DONE)
                if isinstance(outcome, Failed):
                    self._failures.add((controller.name,))
                if isinstance(outcome, Broken):
                    self.broken[controller.name, key] = outcome.why
                    log.warning("%s: %s is broken: %s", controller.name, key, outcome.why)
                else:
                    self.broken.pop((controller.name, key), None)
                queue.finish(key, outcome)

    async def _resync(self, controller: Controller) -> None:
        while True:
            try:
                for key in await self.store.read(lambda tx: list(controller.keys(tx))):
                    self.queues[controller.name].add(key)
            except Exception:
                log.exception("%s cannot list what is not settled", controller.name)
            await asyncio.sleep(controller.interval)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.poll)
            try:
                found = await self.store.read(lambda tx: changes.since(tx, self._cursor))
            except Exception:  # whatever it is: without this task nothing is heard of other processes any more
                log.exception("cannot read the change log")
                continue
            self._cursor = found.cursor
            self.signal(found.changes)

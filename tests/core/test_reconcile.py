"""Work queues and loops: one worker for a key, nothing lost, errors back off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pileus.core.errors import Unavailable
from pileus.core.reconcile import DONE, Again, Broken, Failed, KeyController, Loops, Outcome, Queue
from pileus.core.store import Store, Tx


def test_a_key_that_is_signalled_while_it_is_worked_on_comes_back_once() -> None:
    async def run() -> None:
        queue = Queue()
        queue.add("a")
        queue.add("a")
        assert await queue.take(10) == ["a"]
        queue.add("a")
        queue.add("a")
        queue.finish("a", DONE)
        assert await queue.take(10) == ["a"]
        queue.finish("a", DONE)
        assert queue.idle()

    asyncio.run(run())


def test_again_and_failed_come_back() -> None:
    async def run() -> None:
        queue = Queue()
        queue.add("a")
        await queue.take(1)
        queue.finish("a", Again(0.01))
        assert await asyncio.wait_for(queue.take(1), 1) == ["a"]
        queue.finish("a", Failed())
        assert await asyncio.wait_for(queue.take(1), 1) == ["a"]
        queue.finish("a", Broken("no use"))
        assert queue.idle()

    asyncio.run(run())


def test_a_hint_cancels_no_back_off_and_a_change_does() -> None:
    async def run() -> None:
        loop, queue = asyncio.get_running_loop(), Queue()
        queue.add("a")
        for _ in range(8):  # the next back-off is of half a minute
            assert await asyncio.wait_for(queue.take(1), 1) == ["a"]
            queue.finish("a", Failed())
            queue.add("a")
        await queue.take(1)
        queue.hint("a")
        queue.finish("a", Failed())
        assert queue.idle(), "what fails may itself have made the news"
        began = loop.time()
        queue.hint("a")
        assert queue.idle()
        assert await asyncio.wait_for(queue.take(1), 2) == ["a"]
        assert loop.time() - began > 1
        queue.hint("a")
        queue.add("a")
        queue.finish("a", Failed())
        assert await asyncio.wait_for(queue.take(1), 0.1) == ["a"], "a change acts at once"
        queue.hint("a")
        queue.finish("a", DONE)
        assert await asyncio.wait_for(queue.take(1), 0.1) == ["a"], "what did not fail is looked at again"
        queue.finish("a", DONE)
        queue.hint("a")
        assert await asyncio.wait_for(queue.take(1), 0.1) == ["a"]

    asyncio.run(run())


class Counting(KeyController):
    """Fails the first time for each key, and notes whether two workers ever had one key."""

    name = "counting"
    topics = frozenset({"number"})
    interval = 60.0
    parallel = 4
    batch = 2

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.busy: set[str] = set()
        self.overlap = False
        self.settled = asyncio.Event()

    def keys(self, tx: Tx) -> Iterable[str]:
        return ["listed"]

    def work(self, tx: Tx, key: str) -> Outcome:
        self.seen[key] = self.seen.get(key, 0) + 1
        if self.seen[key] == 1:
            raise RuntimeError("the first time")
        return DONE

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        self.overlap |= bool(self.busy & set(keys))
        self.busy |= set(keys)
        await asyncio.sleep(0)
        found = await super().reconcile(store, keys)
        self.busy -= set(keys)
        if len(self.seen) == 11 and all(count >= 2 for count in self.seen.values()):
            self.settled.set()
        return found


def test_loops_work_by_signal_and_by_timer_and_after_failures(tmp_path: Path) -> None:
    async def run() -> Counting:
        controller = Counting()
        store = Store(f"sqlite:///{tmp_path / 'store.db'}")
        store.create()
        loops = Loops(store, [controller])
        await loops.start()
        for key in range(10):
            await store.write(lambda tx, key=key: tx.changed("number", str(key)))  # type: ignore[misc] # bound here
        async with asyncio.timeout(10):
            await controller.settled.wait()
        await loops.stop()
        store.close()
        return controller

    controller = asyncio.run(run())
    assert not controller.overlap
    assert controller.seen.keys() == {"listed", *map(str, range(10))}


def test_a_key_that_is_added_while_it_waits_is_not_worked_on_twice_as_often() -> None:
    """Else each look at everything would leave one more timer behind for a key that goes on failing."""

    async def run() -> list[str]:
        queue = Queue()
        for _ in range(5):
            queue.add("a")
            await queue.take(1)
            queue.finish("a", Again(0.05))
        await asyncio.sleep(0.2)
        first = await asyncio.wait_for(queue.take(1), 1)
        queue.finish("a", DONE)
        await asyncio.sleep(0.2)
        assert queue.idle()
        return first

    assert asyncio.run(run()) == ["a"]


def test_a_key_that_goes_on_failing_has_one_timer() -> None:
    async def run() -> int:
        queue, turns = Queue(), 0
        for _ in range(20):
            queue.add("a")
        deadline = asyncio.get_running_loop().time() + 0.5
        while asyncio.get_running_loop().time() < deadline:
            for _ in range(3):
                queue.add("a")  # the timer of the controller, and signals
            if queue.idle():
                continue
            await queue.take(1)
            queue.finish("a", Again(30))
            turns += 1
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        pending = [one for one in getattr(loop, "_scheduled", ()) if not one.cancelled()]
        assert turns > 10
        return len(pending)

    assert asyncio.run(run()) <= 2


def test_the_change_log_is_followed_again_after_the_store_did_not_answer(database_url: str) -> None:
    class Following(KeyController):
        name = "following"
        topics = frozenset({"number"})
        interval = 60.0

        def __init__(self) -> None:
            self.seen = asyncio.Event()

        def work(self, tx: Tx, key: str) -> Outcome:
            self.seen.set()
            return DONE

    async def run(store: Store) -> None:
        controller = Following()
        loops = Loops(store, [controller], poll=0.02)
        await loops.start()
        following = asyncio.create_task(loops._follow())
        read, calls = store.read, 0

        async def refuse(work: object) -> object:
            nonlocal calls
            calls += 1
            raise Unavailable("the engine is being started anew")

        store.read = refuse  # type: ignore[assignment,method-assign] # the engine, down for a moment
        await asyncio.sleep(0.1)
        store.read = read  # type: ignore[method-assign]
        assert calls
        store.observers.clear()  # as if another process had written
        await store.write(lambda tx: tx.changed("number", "1"))
        try:
            await asyncio.wait_for(controller.seen.wait(), 5)
        finally:
            following.cancel()
            await loops.stop()

    store = Store(database_url)
    store.create()
    try:
        asyncio.run(run(store))
    finally:
        store.close()

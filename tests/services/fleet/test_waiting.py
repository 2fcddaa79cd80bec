"""Waiting for changes: what one waiter gives up takes nothing from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from pileus.core.seams import ManualClock, Seams
from pileus.core.store import Change, Store
from pileus.services.fleet.interface import Fleet
from pileus.services.fleet.resources.host import TRUST


def test_a_topic_that_is_forgotten_meanwhile_wakes_the_others(tmp_path: Path) -> None:
    async def run(fleet: Fleet, store: Store) -> float:
        fleet.attach(store)
        topics = [f"topic.{number}" for number in range(20)]
        for topic in topics:
            fleet.expect(topic)
        changes: Sequence[Change] = [Change(topic, "x") for topic in topics]
        store.observers[0](changes)  # a commit, told from the writer's thread
        for topic in topics[:10]:
            fleet.forget(topic)  # before the event loop came to hear of it
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(fleet.changed(topic, 2.0) for topic in topics[10:]))
        return asyncio.get_running_loop().time() - began

    seams = Seams()
    store = Store(f"sqlite:///{tmp_path / 'store.sqlite'}", seams)
    try:
        assert asyncio.run(run(Fleet(seams.clock), store)) < 1.0
    finally:
        store.close()


def test_a_topic_is_quiet_for_who_has_heard_all_of_it_and_not_for_ever() -> None:
    async def run() -> None:
        clock = ManualClock()
        fleet = Fleet(clock)
        fleet.expect("topic")
        assert not fleet.quiet("topic", "1"), "nobody has read it"
        fleet.tell("topic", "1")
        assert fleet.quiet("topic", "1")
        assert not fleet.quiet("topic", "0"), "the answer was lost"
        assert not fleet.quiet("topic", None)
        clock.advance(TRUST)
        assert not fleet.quiet("topic", "1"), "a commit may have been told to nobody"
        fleet.tell("topic", "1")
        fleet._wake({"topic"})
        assert not fleet.quiet("topic", "1"), "something was committed"

    asyncio.run(run())

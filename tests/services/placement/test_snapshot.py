"""The copy in memory of all providers is what the store holds, in each of two processes, whoever wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from pileus.core import changes
from pileus.core.store import Store, Tx, change
from pileus.services.placement import interface as placement
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.snapshot import Snapshot, snapshot_of, summary
from pileus.services.placement.rules.candidate.land import Land
from pileus.services.placement.service import service
from tests.api.edge import Served, make_edge
from tests.api.test_placement_providers import Caller

AGGREGATES = tuple(f"a0000000-0000-0000-0000-00000000000{number}" for number in range(3))
CONSUMERS = tuple(f"c0000000-0000-0000-0000-00000000000{number}" for number in range(4))
PROVIDERS = tuple(f"00000000-0000-0000-0000-00000000000{number}" for number in range(6))
TRAITS = ("MISC_SHARES_VIA_AGGREGATE", "HW_CPU_X86_AVX", "HW_CPU_X86_SSE")


@pytest.fixture(name="clouds")
def two_clouds(database_url: str) -> Iterator[tuple[Served, Served]]:
    """Two control processes on one store."""
    with make_edge(database_url, service()) as one, make_edge(database_url, service()) as other:
        yield one, other


def plain(land: Land) -> Any:
    """All that a search looks at."""
    return (
        {uuid: (one.root, one.parent, one.traits, one.aggregates, one.slots) for uuid, one in land.places.items()},
        {root: set(tree) for root, tree in land.trees.items()},
        {name: set(ones) for name, ones in land.sharing.items()},
    )


def check(store: Store, snapshot: Snapshot) -> None:
    """The copy is as the store."""

    def compare(tx: Tx) -> None:
        with snapshot.fresh(tx):
            fresh = table.capacities(tx, None)
            assert plain(snapshot.land) == plain(Land(fresh))
            for one in fresh:
                assert msgspec.json.decode(snapshot.summary(one.uuid)) == summary(one)

    store.read_here(compare)


class Walk:
    """Writes by chance, through either process."""

    def __init__(self, callers: tuple[Caller, Caller], random: Random) -> None:
        self.callers, self.random = callers, random
        self.done: set[str] = set()

    def call(self, method: str, path: str, json: Any = None, version: str = "1.39") -> int:
        answer = self.random.choice(self.callers)(method, path, json, version)
        assert answer.status < 500, answer
        return answer.status

    def step(self) -> None:
        acts = (self.make, self.move, self.offer, self.know, self.group, self.hold, self.hold, self.reshape, self.end)
        act = self.random.choice(acts)
        if act(self.random.choice(PROVIDERS)) < 300:
            self.done.add(act.__name__)

    def generation(self, uuid: str) -> int:
        found = self.callers[0]("GET", f"/resource_providers/{uuid}").json
        return int(found.get("generation", 0))

    def make(self, uuid: str) -> int:
        parent = self.random.choice([None, *PROVIDERS])
        return self.call("POST", "/resource_providers", {"uuid": uuid, "name": uuid, "parent_provider_uuid": parent})

    def move(self, uuid: str) -> int:
        parent = self.random.choice([None, *PROVIDERS])
        return self.call("PUT", f"/resource_providers/{uuid}", {"name": uuid, "parent_provider_uuid": parent})

    def inventories(self, uuid: str) -> dict[str, Any]:
        names = self.random.sample(("VCPU", "DISK_GB", "MEMORY_MB"), 2)
        offer = {name: {"total": self.random.randint(4, 9)} for name in names}
        return {"inventories": offer, "resource_provider_generation": self.generation(uuid)}

    def offer(self, uuid: str) -> int:
        return self.call("PUT", f"/resource_providers/{uuid}/inventories", self.inventories(uuid))

    def know(self, uuid: str) -> int:
        if self.random.random() < 0.2:
            return self.call("DELETE", f"/resource_providers/{uuid}/traits")
        names = [name for name in TRAITS if self.random.random() < 0.5]
        body = {"traits": names, "resource_provider_generation": self.generation(uuid)}
        return self.call("PUT", f"/resource_providers/{uuid}/traits", body)

    def group(self, uuid: str) -> int:
        names = [name for name in AGGREGATES if self.random.random() < 0.5]
        if self.random.random() < 0.5:
            return self.call("PUT", f"/resource_providers/{uuid}/aggregates", names, "1.18")
        body = {"aggregates": names, "resource_provider_generation": self.generation(uuid)}
        return self.call("PUT", f"/resource_providers/{uuid}/aggregates", body)

    def hold(self, uuid: str) -> int:
        consumer = self.random.choice(CONSUMERS)
        if self.random.random() < 0.3:
            return self.call("DELETE", f"/allocations/{consumer}")
        resources = {"VCPU": self.random.randint(1, 3)}
        body = {"allocations": {uuid: {"resources": resources}}, "project_id": "p", "user_id": "u"}
        if self.random.random() < 0.5:
            return self.call("PUT", f"/allocations/{consumer}", body, "1.12")
        return self.call("POST", "/allocations", {consumer: body}, "1.13")

    def reshape(self, uuid: str) -> int:
        body = {"inventories": {uuid: self.inventories(uuid)}, "allocations": {}}
        return self.call("POST", "/reshaper", body, "1.30")

    def end(self, uuid: str) -> int:
        return self.call("DELETE", f"/resource_providers/{uuid}")


@pytest.mark.parametrize("seed", range(3))
def test_the_copies_follow_all_writes(clouds: tuple[Served, Served], seed: int) -> None:
    one, other = clouds
    walk = Walk((Caller(one.client("admin+service:ops")), Caller(other.client("admin+service:ops"))), Random(seed))
    for uuid in PROVIDERS[:4]:
        walk.call("POST", "/resource_providers", {"uuid": uuid, "name": uuid})
    for _ in range(200):
        walk.step()
        if walk.random.random() < 0.7:
            for served in clouds:
                check(served.store, snapshot_of(served.store))
    assert walk.done == {"make", "move", "offer", "know", "group", "hold", "reshape", "end"}


def test_what_neighbours_write_is_seen(clouds: tuple[Served, Served]) -> None:
    one, other = clouds
    uuid, name = PROVIDERS[:2]
    snapshot = snapshot_of(other.store)
    check(other.store, snapshot)

    def offer(tx: Tx) -> None:
        placement.ensure_provider(tx, uuid, name)
        placement.set_inventory(tx, uuid, {"VCPU": placement.Inventory(total=4)})
        placement.set_traits(tx, uuid, TRAITS[1:])
        placement.set_aggregates(tx, uuid, AGGREGATES)

    def claim(tx: Tx) -> None:
        placement.claim(tx, CONSUMERS[0], uuid, {"VCPU": 3}, project_id="p", user_id="u")

    for write in (
        offer,
        claim,
        lambda tx: placement.release(tx, CONSUMERS[0]),
        lambda tx: placement.remove_provider(tx, uuid),
    ):
        one.store.write_here(write)
        check(other.store, snapshot)
    assert not snapshot.land.places


def test_a_copy_that_missed_too_much_is_made_anew(clouds: tuple[Served, Served]) -> None:
    one, _ = clouds
    snapshot = snapshot_of(one.store)
    check(one.store, snapshot)
    one.store.write_here(lambda tx: placement.ensure_provider(tx, PROVIDERS[0], "lost"))
    one.store.write_here(lambda tx: tx.changed("another.topic", "x"))
    newest = sa.select(sa.func.max(change.c.seq)).scalar_subquery()
    one.store.write_here(lambda tx: tx.execute(sa.delete(change).where(change.c.seq < newest)))
    check(one.store, snapshot)
    assert PROVIDERS[0] in snapshot.land.places


def test_many_changes_at_once_are_taken_in(clouds: tuple[Served, Served]) -> None:
    one, _ = clouds
    snapshot = snapshot_of(one.store)
    check(one.store, snapshot)

    def many(tx: Tx) -> None:
        for number in range(600):
            placement.ensure_provider(tx, f"00000000-0000-0000-0000-{number:012d}", str(number))

    one.store.write_here(many)
    check(one.store, snapshot)
    assert len(snapshot.land.places) == 600


def test_a_transaction_that_stays_open_hides_nothing(clouds: tuple[Served, Served]) -> None:
    one, other = clouds
    if one.store.embedded:
        pytest.skip("SQLite has one writer at a time")
    snapshot = snapshot_of(other.store)
    check(other.store, snapshot)
    begun, done = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        placement.ensure_provider(tx, PROVIDERS[5], "slow")
        begun.set()
        assert done.wait(20)

    writer = threading.Thread(target=one.store.write_here, args=(slow,))
    writer.start()
    try:
        assert begun.wait(20)
        for number in range(3):
            other.store.write_here(partial(placement.ensure_provider, uuid=PROVIDERS[number], name=str(number)))
            check(other.store, snapshot)
        assert set(snapshot.land.places) == set(PROVIDERS[:3])
    finally:
        done.set()
        writer.join()
    check(other.store, snapshot)
    assert set(snapshot.land.places) == {*PROVIDERS[:3], PROVIDERS[5]}


def test_an_older_transaction_does_not_set_a_copy_back(clouds: tuple[Served, Served]) -> None:
    one, _ = clouds
    snapshot = snapshot_of(one.store)
    check(one.store, snapshot)

    def older(tx: Tx) -> None:
        changes.position(tx)  # from here on this transaction sees no newer writes, on SQLite
        one.store.write_here(lambda inner: placement.ensure_provider(inner, PROVIDERS[0], "new"))
        thread = threading.Thread(target=check, args=(one.store, snapshot))
        thread.start()
        thread.join()
        with snapshot.fresh(tx):
            assert PROVIDERS[0] in snapshot.land.places

    one.store.read_here(older)
    check(one.store, snapshot)

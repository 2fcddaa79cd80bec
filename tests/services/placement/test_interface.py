"""What a scheduler does with Placement: providers, snapshots, claims."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from pileus.core.errors import BadRequest, Conflict, NotFound, Raced
from pileus.core.store import Store, Tx
from pileus.services.placement.interface import (
    CapacityExceeded,
    Claim,
    Inventory,
    allocations_of,
    claim,
    claim_many,
    consumers_on,
    ensure_provider,
    release,
    release_many,
    remove_provider,
    set_aggregates,
    set_inventory,
    set_traits,
    snapshot,
)

T = TypeVar("T")

P1, P2, P3 = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3))
OFFER = {
    "VCPU": Inventory(total=4, allocation_ratio=2.0),
    "MEMORY_MB": Inventory(total=1000, reserved=200),
    "DISK_GB": Inventory(total=100, step_size=10),
}


def consumer(number: int) -> str:
    return f"c0000000-0000-0000-0000-{number:012}"


@pytest.fixture(name="store")
def one_store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)

    def fill(tx: Tx) -> None:
        for uuid in (P1, P2):
            ensure_provider(tx, uuid, f"host {uuid}")
            set_inventory(tx, uuid, OFFER)

    store.write_here(fill)
    yield store
    store.close()


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """The statements that are sent while the context lasts, transactions' own ones left out."""
    found: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")):
            found.append(statement)

    sa.event.listen(store.engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(store.engine, "before_cursor_execute", note)


def take(number: int, uuid: str = P1, generation: int | None = None, **resources: int) -> Callable[[Tx], None]:
    def work(tx: Tx) -> None:
        claim(tx, consumer(number), uuid, resources, project_id="p", user_id="u", generation=generation)

    return work


def used(store: Store, uuid: str = P1) -> dict[str, int]:
    (found,) = store.read_here(lambda tx: snapshot(tx, [uuid]))
    return {name: room.used for name, room in found.rooms.items()}


def test_a_snapshot_tells_everything(store: Store) -> None:
    store.write_here(lambda tx: set_traits(tx, P1, ["HW_CPU_X86_AVX", "HW_CPU_X86_SSE"]))
    store.write_here(lambda tx: set_aggregates(tx, P1, [P3]))
    store.write_here(take(1, VCPU=2, MEMORY_MB=100))
    with statements(store) as sent:
        one, two = store.read_here(snapshot)
    assert len(sent) == 4
    assert (one.uuid, one.name, one.root, one.parent) == (P1, f"host {P1}", P1, None)
    assert one.traits == {"HW_CPU_X86_AVX", "HW_CPU_X86_SSE"}
    assert one.aggregates == {P3}
    assert one.generation == two.generation + 3
    assert one.rooms["VCPU"].capacity == 8
    assert one.rooms["VCPU"].free == 6
    assert one.rooms["MEMORY_MB"].capacity == 800
    assert one.rooms["MEMORY_MB"].used == 100
    assert one.fits({"VCPU": 6})
    assert not one.fits({"VCPU": 7})
    assert not one.fits({"DISK_GB": 5})
    assert not one.fits({"PCPU": 1})
    assert [found.uuid for found in store.read_here(lambda tx: snapshot(tx, [P2, P3]))] == [P2]
    assert store.read_here(lambda tx: snapshot(tx, [])) == []


def test_what_is_so_already_is_not_written(store: Store) -> None:
    store.write_here(lambda tx: set_traits(tx, P1, ["HW_CPU_X86_AVX"]))
    before = store.read_here(snapshot)

    def again(tx: Tx) -> list[bool]:
        ensure_provider(tx, P1, f"host {P1}")
        return [set_inventory(tx, P1, OFFER), set_traits(tx, P1, ["HW_CPU_X86_AVX"]), set_aggregates(tx, P1, [])]

    with statements(store) as sent:
        assert store.write_here(again) == [False, False, False]
    assert not [one for one in sent if not one.startswith("SELECT")]
    assert store.read_here(snapshot) == before


def test_what_is_kept_stays_beside_what_is_offered(store: Store) -> None:
    more = {**OFFER, "PCPU": Inventory(total=2)}
    store.write_here(lambda tx: set_inventory(tx, P1, more))
    assert not store.write_here(lambda tx: set_inventory(tx, P1, OFFER, keep="PC"))
    less = {name: one for name, one in OFFER.items() if name != "DISK_GB"}
    assert store.write_here(lambda tx: set_inventory(tx, P1, less, keep="PC"))
    assert set(store.read_here(snapshot)[0].rooms) == {"VCPU", "MEMORY_MB", "PCPU"}


def test_a_host_may_be_renamed_but_names_are_unique(store: Store) -> None:
    store.write_here(lambda tx: ensure_provider(tx, P1, "other"))
    assert store.read_here(snapshot)[0].name == "other"
    with pytest.raises(Conflict):
        store.write_here(lambda tx: ensure_provider(tx, P2, "other"))
    with pytest.raises(Conflict):
        store.write_here(lambda tx: ensure_provider(tx, P3, "other"))


def test_bad_inventories_are_refused(store: Store) -> None:
    with pytest.raises(BadRequest):
        store.write_here(lambda tx: set_inventory(tx, P1, {"NONSENSE": Inventory(total=1)}))
    with pytest.raises(BadRequest):
        store.write_here(lambda tx: set_traits(tx, P1, ["NONSENSE"]))
    with pytest.raises(NotFound):
        store.write_here(lambda tx: set_inventory(tx, P3, OFFER))


def test_what_is_held_stays_in_the_inventory(store: Store) -> None:
    store.write_here(take(1, VCPU=8))
    with pytest.raises(Conflict):
        store.write_here(lambda tx: set_inventory(tx, P1, {"MEMORY_MB": Inventory(total=1)}))
    with pytest.raises(Conflict):
        store.write_here(lambda tx: remove_provider(tx, P1))
    store.write_here(lambda tx: set_inventory(tx, P1, {"VCPU": Inventory(total=2)}))
    (one,) = store.read_here(lambda tx: snapshot(tx, [P1]))
    assert (one.rooms["VCPU"].used, one.rooms["VCPU"].free) == (8, -6)
    store.write_here(lambda tx: release(tx, consumer(1)))
    store.write_here(lambda tx: remove_provider(tx, P1))
    store.write_here(lambda tx: remove_provider(tx, P1))
    assert [found.uuid for found in store.read_here(snapshot)] == [P2]


def test_a_claim_is_counted_and_given_back(store: Store) -> None:
    store.write_here(take(1, VCPU=2, DISK_GB=20))
    assert used(store) == {"VCPU": 2, "MEMORY_MB": 0, "DISK_GB": 20}
    assert store.read_here(lambda tx: allocations_of(tx, [consumer(1), consumer(2)])) == {
        consumer(1): {P1: {"VCPU": 2, "DISK_GB": 20}}
    }
    assert store.read_here(lambda tx: consumers_on(tx, P1)) == {consumer(1)}
    assert store.write_here(lambda tx: release(tx, consumer(1))) is True
    assert store.write_here(lambda tx: release(tx, consumer(1))) is False
    assert used(store) == {"VCPU": 0, "MEMORY_MB": 0, "DISK_GB": 0}
    assert store.read_here(lambda tx: allocations_of(tx, [consumer(1)])) == {}


def test_a_claim_takes_the_place_of_the_one_before(store: Store) -> None:
    store.write_here(take(1, VCPU=8))
    store.write_here(take(1, VCPU=8))
    store.write_here(take(1, VCPU=3, MEMORY_MB=1))
    assert used(store) == {"VCPU": 3, "MEMORY_MB": 1, "DISK_GB": 0}
    store.write_here(take(1, P2, VCPU=1))
    assert used(store) == {"VCPU": 0, "MEMORY_MB": 0, "DISK_GB": 0}
    assert used(store, P2)["VCPU"] == 1


@pytest.mark.parametrize(
    ("uuid", "resources", "fault"),
    [
        (P1, {"VCPU": 9}, CapacityExceeded),
        (P1, {"MEMORY_MB": 801}, CapacityExceeded),
        (P1, {"DISK_GB": 15}, CapacityExceeded),
        (P1, {"VCPU": 1, "PCPU": 1}, CapacityExceeded),
        (P1, {"VCPU": 1, "NONSENSE": 1}, BadRequest),
        (P3, {"VCPU": 1}, BadRequest),
    ],
)
def test_what_does_not_fit_writes_nothing(store: Store, uuid: str, resources: dict[str, int], fault: type) -> None:
    with pytest.raises(fault):
        store.write_here(take(1, uuid, **resources))
    assert set(used(store).values()) == {0}
    assert store.read_here(lambda tx: allocations_of(tx, [consumer(1)])) == {}


def test_a_provider_that_changed_since_it_was_seen_is_refused(store: Store) -> None:
    seen = store.read_here(snapshot)[0].generation
    store.write_here(take(1, VCPU=1, generation=seen))
    with pytest.raises(Raced):
        store.write_here(take(2, VCPU=1, generation=seen))
    store.write_here(take(2, VCPU=1, generation=seen + 1))
    store.write_here(lambda tx: set_inventory(tx, P1, OFFER | {"PCPU": Inventory(total=1)}))
    with pytest.raises(Raced):
        store.write_here(take(3, VCPU=1, generation=seen + 2))
    store.write_here(take(3, VCPU=1))


def many(*numbers: int, **more: Any) -> list[Claim]:
    return [
        Claim(consumer_uuid=consumer(number), resources={"VCPU": 1}, project_id="p", user_id="u", **more)
        for number in numbers
    ]


def test_claims_in_one_go(store: Store) -> None:
    one, two = store.read_here(snapshot)
    claims = [
        *many(*range(10), provider_uuid=P1, generation=one.generation),
        *many(10, 11, provider_uuid=P2, generation=two.generation),
        *many(12, provider_uuid=P2, generation=two.generation + 1),
        *many(13, provider_uuid=P3),
    ]
    with statements(store) as sent:
        refused = store.write_here(lambda tx: claim_many(tx, claims))
    assert {number: type(refused[consumer(number)]) for number in range(14) if consumer(number) in refused} == {
        8: CapacityExceeded,
        9: CapacityExceeded,
        12: Raced,
        13: BadRequest,
    }
    assert used(store)["VCPU"] == 8
    assert used(store, P2)["VCPU"] == 2
    assert store.read_here(snapshot)[0].generation == one.generation + 1
    with statements(store) as more:
        store.write_here(lambda tx: claim_many(tx, many(20, provider_uuid=P2)))
    assert len(sent) <= len(more) + 1 <= 12
    with statements(store) as sent:
        gone = store.write_here(lambda tx: release_many(tx, [consumer(number) for number in range(30)]))
    assert len(gone) == 11
    assert len(sent) <= 8
    assert used(store)["VCPU"] == used(store, P2)["VCPU"] == 0


def test_a_consumer_is_named_once(store: Store) -> None:
    with pytest.raises(ValueError, match="twice"):
        store.write_here(lambda tx: claim_many(tx, many(1, 1, provider_uuid=P1)))


def test_the_last_place_is_given_once(database_url: str, store: Store) -> None:
    """Sixteen threads on two stores, as two processes would have them, race for the same last places."""
    other = Store(database_url)
    for turn in range(12):
        store.write_here(lambda tx: set_inventory(tx, P1, {"VCPU": Inventory(total=3)}))
        outcomes: list[str] = []
        start = threading.Barrier(16)

        def race(number: int, turn: int, start: threading.Barrier, outcomes: list[str]) -> None:
            mine = store if number % 2 else other
            start.wait()
            try:
                mine.write_here(take(turn * 100 + number, VCPU=1))
                outcomes.append("won")
            except CapacityExceeded:
                outcomes.append("full")
            except Raced:
                outcomes.append("raced")

        threads = [threading.Thread(target=race, args=(number, turn, start, outcomes)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 16
        assert outcomes.count("won") == 3
        assert outcomes.count("raced") == 0
        assert used(store)["VCPU"] == 3
        store.write_here(lambda tx: release_many(tx, consumers_on(tx, P1)))
        assert used(store)["VCPU"] == 0
    other.close()


def test_a_consumer_that_is_claimed_for_at_once_holds_one_claim(database_url: str, store: Store) -> None:
    other = Store(database_url)
    for turn in range(10):
        start = threading.Barrier(8)

        def race(number: int, turn: int, start: threading.Barrier) -> None:
            start.wait()
            try:
                (store if number % 2 else other).write_here(take(turn, (P1, P2)[number // 2 % 2], VCPU=number % 3 + 1))
            except (Raced, sa.exc.IntegrityError):
                return

        threads = [threading.Thread(target=race, args=(number, turn, start)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holding = store.read_here(partial(allocations_of, consumer_uuids=[consumer(turn)]))[consumer(turn)]
        assert len(holding) == 1
        (uuid,) = holding
        assert used(store, uuid)["VCPU"] == holding[uuid]["VCPU"]
        assert used(store, P1 if uuid == P2 else P2)["VCPU"] == 0
        store.write_here(partial(release, consumer_uuid=consumer(turn)))
    other.close()

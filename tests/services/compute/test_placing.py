"""Where servers go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.contracts.hypervisor import HypervisorFacts
from pileus.services.compute.rules import placing
from pileus.services.compute.rules.machine import PLAIN
from pileus.services.compute.rules.placing import Host, Stock, Wish
from pileus.services.compute.rules.ranking import Ranks

FACTS = HypervisorFacts(type="QEMU", version=1, accelerator="tcg", vcpus=8, memory_mib=16384, disk_gib=100)

GOLD = PLAIN._replace(required=("CUSTOM_GOLD",), forbidden=("CUSTOM_SLOW",))

PLENTY = {
    "VCPU": Stock(8, 0, 4.0, 0),
    "MEMORY_MB": Stock(16384, 512, 1.0, 0),
    "DISK_GB": Stock(100, 0, 1.0, 0),
}


def host(name: str = "h1", **changes: object) -> Host:
    plain = Host(
        id=name, name=name, up=True, disabled=False, disabled_reason=None, zone="nova", generation=1, stock=PLENTY
    )
    return plain._replace(**changes)  # type: ignore[arg-type] # each test names fields with their types


def wish(**changes: object) -> Wish:
    plain = Wish("s", {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}, None, None, False)
    return plain._replace(**changes)  # type: ignore[arg-type] # as above


@pytest.mark.parametrize(
    ("asked", "judged", "expected"),
    [
        (wish(), host(), None),
        (wish(host="h1"), host(), None),
        (wish(host="h2"), host(), "requested"),
        (wish(), host(up=False), "up"),
        (wish(), host(disabled=True), "enabled"),
        (wish(zone="nova"), host(), None),
        (wish(zone="b"), host(), "zone"),
        (wish(), host(stock={}), "VCPU"),
        (wish(resources={"VCPU": 32}), host(), None),
        (wish(resources={"VCPU": 33}), host(), "VCPU"),
        (wish(resources={"MEMORY_MB": 15872}), host(), None),
        (wish(resources={"MEMORY_MB": 15873}), host(), "MEMORY_MB"),
        (wish(resources={"DISK_GB": 101}), host(), "DISK_GB"),
        (wish(host="h1", forced=True), host(up=False, disabled=True), None),
        (wish(host="h1", forced=True, resources={"VCPU": 33}), host(), "VCPU"),
        (wish(resources={"CUSTOM_GOLD": 1}), host(), "resources"),
        (wish(resources={"CUSTOM_GOLD": 1}), host(stock={"CUSTOM_GOLD": Stock(1, 0, 1.0, 0)}), None),
        (wish(capabilities={"vcpus": ">= 9"}), host(facts=FACTS), "capabilities"),
        (wish(beside=["h1"]), host(), None),
        (wish(beside=["h2"]), host(), "hinted"),
        (wish(beside=[]), host(), "hinted"),
        (wish(apart=["h1"]), host(), "hinted"),
        (wish(apart=["h2"]), host(), None),
        (wish(machine=GOLD), host(), "traits"),
        (wish(machine=GOLD), host(traits={"CUSTOM_GOLD"}), None),
        (wish(machine=GOLD), host(traits={"CUSTOM_GOLD", "CUSTOM_SLOW"}), "traits"),
        (wish(machine=GOLD._replace(beyond="never")), host(facts=FACTS, traits={"CUSTOM_GOLD"}), "machine"),
    ],
)
def test_filters(asked: Wish, judged: Host, expected: str | None) -> None:
    verdict = placing.judge(asked, judged)
    assert (verdict[0] if verdict else None) == expected
    if verdict is not None:
        assert verdict[1]


def test_the_reason_says_what_is_missing() -> None:
    verdict = placing.judge(wish(resources={"VCPU": 33}), host())
    assert verdict == ("VCPU", "33 VCPU needed, 32 of 32 free")
    closed = placing.judge(wish(), host(disabled=True, disabled_reason="new fans"))
    assert closed == ("enabled", "the host is disabled: new fans")


def test_the_emptiest_host_is_taken() -> None:
    busy = placing.take(host("h1"), {"MEMORY_MB": 8000})
    found = placing.decide(wish(), [busy, host("h2")])
    assert found.host is not None
    assert found.host.name == "h2"
    assert [one["host"] for one in found.best] == ["h2", "h1"]


def test_equals_are_taken_by_name() -> None:
    found = placing.decide(wish(), [host("h2"), host("h1"), host("h3")])
    assert found.host is not None
    assert found.host.name == "h1"


def test_nobody_is_found() -> None:
    found = placing.decide(wish(), [host("h1", up=False), host("h2", disabled=True), host("h3", disabled=True)])
    assert found.host is None
    assert found.counts == {"up": 1, "enabled": 2}
    assert set(found.refused) == {"h1", "h2", "h3"}


AMOUNTS = st.fixed_dictionaries(
    {"VCPU": st.integers(1, 16), "MEMORY_MB": st.integers(1, 9000), "DISK_GB": st.integers(0, 60)}
)


@given(st.lists(AMOUNTS, max_size=30), st.integers(1, 4))
def test_a_batch_never_gives_more_than_there_is(amounts: list[dict[str, int]], count: int) -> None:
    hosts = [host(f"h{number}") for number in range(count)]
    wishes = [Wish(str(number), one, None, None, False) for number, one in enumerate(amounts)]
    decisions = Ranks(hosts).decide_all(wishes)
    assert [one.server_id for one in decisions] == [one.server_id for one in wishes]
    for each in hosts:
        taken = [wishes[int(one.server_id)] for one in decisions if one.host is not None and one.host.id == each.id]
        for name, stock in each.stock.items():
            assert sum(one.resources.get(name, 0) for one in taken) <= stock.capacity


@given(st.lists(AMOUNTS, min_size=1, max_size=10))
def test_who_is_refused_fits_nowhere(amounts: list[dict[str, int]]) -> None:
    hosts = {"h1": host("h1"), "h2": host("h2")}
    for number, one in enumerate(amounts):
        found = placing.decide(Wish(str(number), one, None, None, False), hosts.values())
        if found.host is None:
            assert set(found.refused) == set(hosts)
            for each in hosts.values():
                assert any(amount > each.stock[name].free for name, amount in one.items())
        else:
            hosts[found.host.id] = placing.take(found.host, one)


@pytest.mark.parametrize(
    ("flavor", "virtual", "expected"),
    [
        ({"vcpus": 2, "ram": 512, "disk": 5, "ephemeral": 0, "swap": 0}, None, (2, 512, 5)),
        ({"vcpus": 1, "ram": 64, "disk": 5, "ephemeral": 3, "swap": 1}, 1 << 40, (1, 64, 9)),
        ({"vcpus": 1, "ram": 64, "disk": 0, "ephemeral": 0, "swap": 2048}, (1 << 30) + 1, (1, 64, 4)),
    ],
)
def test_resources(flavor: dict[str, int], virtual: int | None, expected: tuple[int, int, int]) -> None:
    found = placing.resources(flavor, virtual)
    assert (found["VCPU"], found["MEMORY_MB"], found["DISK_GB"]) == expected


def test_extra_specs_say_what_else_is_needed() -> None:
    flavor = {"vcpus": 2, "ram": 512, "disk": 1, "ephemeral": 0, "swap": 0}
    specs = {"resources:VCPU": "0", "resources:CUSTOM_GOLD": "2", "resources1:CUSTOM_GOLD": "1", "resources:X": "many"}
    found = placing.resources({**flavor, "extra_specs": specs}, None)
    assert found == {"VCPU": 0, "MEMORY_MB": 512, "DISK_GB": 1, "CUSTOM_GOLD": 3}

"""Server groups' thinking: policies as objections and preferences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pileus.services.compute.rules.group import Group, Policy
from pileus.services.compute.rules.placing import Host, Stock, Wish
from pileus.services.compute.rules.ranking import Ranks

NAMES = ("a", "b", "c", "d")
POLICIES = st.sampled_from(["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"])


def hosts(room: int = 100) -> list[Host]:
    """Four hosts with room for so many servers each."""
    stock = {"VCPU": Stock(total=room, reserved=0, ratio=1.0, used=0)}
    return [Host(name, name, True, False, None, "nova", 1, stock) for name in NAMES]


def place(
    policy: Policy, count: int, *, most: int = 1, members: dict[str, int] | None = None, room: int = 100
) -> list[str]:
    """Where so many new members go, one after another in one batch; an empty name where none was found."""
    group = Group("g", policy, most, members or {})
    wishes = [Wish(f"s{number}", {"VCPU": 1}, None, None, False, group) for number in range(count)]
    return [one.host.name if one.host else "" for one in Ranks(hosts(room)).decide_all(wishes)]


def test_affinity_keeps_members_together_and_gives_up_when_the_host_is_full() -> None:
    assert len(set(place("affinity", 5))) == 1
    assert place("affinity", 2, members={"c": 1}) == ["c", "c"]
    assert place("affinity", 3, members={"c": 1}, room=2) == ["c", "c", ""]


def test_anti_affinity_keeps_members_apart() -> None:
    assert sorted(place("anti-affinity", 4)) == sorted(NAMES)
    assert place("anti-affinity", 5).count("") == 1
    assert place("anti-affinity", 9, most=2).count("") == 1
    assert "b" not in place("anti-affinity", 3, members={"b": 1})


def test_soft_policies_prefer_and_never_refuse() -> None:
    assert place("soft-affinity", 3, members={"d": 1}) == ["d", "d", "d"]
    assert place("soft-affinity", 3, members={"d": 1}, room=2).count("d") == 2
    assert sorted(place("soft-anti-affinity", 4)) == sorted(NAMES)
    assert "" not in place("soft-anti-affinity", 9)


@given(
    policy=POLICIES,
    most=st.integers(1, 3),
    count=st.integers(0, 10),
    members=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3), max_size=1),
)
def test_hard_policies_hold_after_any_batch(policy: Policy, most: int, count: int, members: dict[str, int]) -> None:
    found = [name for name in place(policy, count, most=most, members=members) if name]
    after = {name: found.count(name) + members.get(name, 0) for name in NAMES}
    if policy == "affinity":
        assert sum(amount > 0 for amount in after.values()) <= 1
    if policy == "anti-affinity":
        assert all(after[name] <= max(most, members.get(name, 0)) for name in NAMES)

"""What a host is to hold: `pileus.agent.world`, alone and against a model."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.agent.world import Key, World
from pileus.contracts.hypervisor import GuestSpec, NicSpec, SnapshotSpec
from pileus.contracts.link import KINDS, Assignment, Kind, Unknown
from pileus.contracts.network import (
    NetworkSpec,
    PortSpec,
    RouterInterfaceSpec,
    RouterSpec,
    RuleSpec,
    SecurityGroupSpec,
)


def network(network_id: str, *, mtu: int = 1450) -> NetworkSpec:
    return NetworkSpec(id=network_id, mtu=mtu, subnets=(), dhcp_mac="fa:16:3e:00:00:01")


def port(port_id: str, network_id: str, *groups: str, guest_id: str | None = None) -> PortSpec:
    return PortSpec(
        id=port_id,
        network_id=network_id,
        mac_address="fa:16:3e:00:00:02",
        fixed_ips=(),
        security_groups=groups,
        guest_id=guest_id,
    )


def group(group_id: str, *remotes: str) -> SecurityGroupSpec:
    rules = tuple(RuleSpec(direction="ingress", ethertype="IPv4", remote_group_id=one) for one in remotes)
    return SecurityGroupSpec(id=group_id, rules=rules)


def guest(guest_id: str, *ports: str) -> GuestSpec:
    nics = tuple(NicSpec(port_id=one, mac_address="fa:16:3e:00:00:02", mtu=1450) for one in ports)
    return GuestSpec(id=guest_id, name=guest_id, vcpus=1, memory_mib=64, disks=(), nics=nics, power="running")


def router(router_id: str, *networks: str) -> RouterSpec:
    legs = tuple(
        RouterInterfaceSpec(port_id=f"leg-{one}", network_id=one, mac_address="fa:16:3e:00:00:03", addresses=())
        for one in networks
    )
    return RouterSpec(id=router_id, interfaces=legs)


def wanted(kind: Kind, object_id: str, spec: msgspec.Struct, generation: int = 1) -> Assignment:
    raw = msgspec.Raw(msgspec.json.encode(spec))
    return Assignment(kind=kind, id=object_id, generation=generation, spec=raw)


def gone(kind: Kind, object_id: str, generation: int = 2) -> Assignment:
    return Assignment(kind=kind, id=object_id, generation=generation, spec=msgspec.Raw(b"null"), tombstone=True)


def world(*assignments: Assignment) -> World:
    made = World()
    made.apply(assignments)
    return made


def test_a_key_survives_its_text() -> None:
    for kind in KINDS:
        assert Key.parse(str(Key(kind, "an/odd id"))) == Key(kind, "an/odd id")


def test_an_older_generation_changes_nothing() -> None:
    here = world(wanted("network", "n", network("n", mtu=9000), 5))
    assert here.apply([wanted("network", "n", network("n"), 4)]).touched == set()
    assert here.apply([gone("network", "n", 3)]).touched == set()
    assert here.generation(Key("network", "n")) == 5
    assert here.spec("network", "n", NetworkSpec) == network("n", mtu=9000)


def test_the_same_generation_is_looked_at_again() -> None:
    here = world(wanted("network", "n", network("n"), 5))
    assert here.apply([wanted("network", "n", network("n"), 5)]).touched == {Key("network", "n")}


def test_a_tombstone_is_wanted_until_it_is_forgotten() -> None:
    here = world(wanted("network", "n", network("n")), gone("network", "n"))
    key = Key("network", "n")
    assert here.wanted(key) is not None
    assert here.spec("network", "n", NetworkSpec) is None
    assert here.state("n") is None
    assert here.keys("network") == [key]
    here.forget(key)
    assert here.wanted(key) is None
    assert here.generation(key) == 0
    assert here.keys("network") == []
    here.forget(key)


def test_a_forgotten_port_leaves_its_network() -> None:
    here = world(wanted("network", "n", network("n")), wanted("port", "p", port("p", "n")), gone("port", "p"))
    assert here.network_of("p") == "n"
    assert here.ports_of("n") == ["p"]
    here.forget(Key("port", "p"))
    assert here.network_of("p") is None
    assert here.ports_of("n") == []


def test_a_full_list_with_missing_rows_deletes_nothing() -> None:
    here = world(wanted("network", "n", network("n")), wanted("port", "p", port("p", "n")))
    assert here.apply([wanted("network", "n", network("n"))], full=True).touched == {Key("network", "n")}
    assert here.spec("port", "p", PortSpec) == port("p", "n")
    assert [one.id for one in here.held("n")] == ["p"]


def test_what_is_not_in_the_full_list_is_unknown_until_it_is_assigned_again() -> None:
    here = world(wanted("network", "n", network("n")), wanted("network", "m", network("m")))
    found = ["n", "m", "stranger"]
    assert here.unknown("network", found) == [Unknown(kind="network", id="stranger")]
    here.apply([wanted("network", "n", network("n"))], full=True)
    assert {one.id for one in here.unknown("network", found)} == {"m", "stranger"}
    here.apply([wanted("network", "m", network("m"))])
    assert {one.id for one in here.unknown("network", found)} == {"stranger"}


def test_a_spec_that_cannot_be_read_changes_nothing() -> None:
    here = world(wanted("network", "n", network("n")))
    strange = Assignment(kind="network", id="n", generation=2, spec=msgspec.Raw(b'{"mtu": "wide"}'))
    applied = here.apply([strange, wanted("port", "p", port("p", "n"))])
    assert applied.touched == {Key("port", "p")}
    assert applied.unreadable[Key("network", "n")].generation == 2
    assert "mtu" in applied.unreadable[Key("network", "n")].why or "id" in applied.unreadable[Key("network", "n")].why
    assert here.spec("network", "n", NetworkSpec) == network("n")


def test_the_state_of_a_network_holds_its_ports_and_their_groups() -> None:
    here = world(
        wanted("network", "n", network("n")),
        wanted("network", "m", network("m")),
        wanted("port", "p2", port("p2", "n", "web")),
        wanted("port", "p1", port("p1", "n")),
        wanted("port", "q", port("q", "m", "other")),
        wanted("security_group", "web", group("web", "lb")),
        wanted("security_group", "lb", group("lb", "far")),
        wanted("security_group", "far", group("far")),
        wanted("security_group", "other", group("other")),
    )
    state = here.state("n")
    assert state is not None
    assert [one.id for one in state.ports] == ["p1", "p2"]
    # The remote of a remote decides nothing here.
    assert set(state.groups) == {"web", "lb"}


def test_a_group_that_is_both_remote_and_a_ports_own_brings_its_remotes() -> None:
    here = world(
        wanted("network", "n", network("n")),
        wanted("port", "p", port("p", "n", "web", "lb")),
        wanted("security_group", "web", group("web", "lb", "web")),
        wanted("security_group", "lb", group("lb", "far")),
        wanted("security_group", "far", group("far")),
    )
    state = here.state("n")
    assert state is not None
    assert set(state.groups) == {"web", "lb", "far"}


def test_a_port_is_complete_with_its_network_and_its_groups() -> None:
    here = world(wanted("port", "p", port("p", "n", "web")))
    assert not here.complete("p")
    here.apply([wanted("network", "n", network("n"))])
    assert not here.complete("p")
    here.apply([wanted("security_group", "web", group("web", "lb"))])
    assert here.complete("p")
    here.apply([gone("security_group", "web")])
    assert not here.complete("p")
    assert not here.complete("stranger")


def test_what_depends_on_what() -> None:
    here = world(
        wanted("network", "n", network("n")),
        wanted("network", "m", network("m")),
        wanted("port", "p", port("p", "n", "web")),
        wanted("port", "q", port("q", "m")),
        wanted("security_group", "web", group("web", "lb")),
        wanted("security_group", "lb", group("lb")),
        wanted("security_group", "idle", group("idle")),
        wanted("guest", "g", guest("g", "p")),
        wanted("guest", "h", guest("h", "q")),
        wanted("router", "r", router("r", "n", "m")),
        wanted("router", "s", router("s", "m")),
    )
    assert here.dependents(Key("port", "p")) == {Key("network", "n")}
    assert here.dependents(Key("port", "stranger")) == set()
    assert here.dependents(Key("security_group", "web")) == {Key("network", "n")}
    assert here.dependents(Key("security_group", "lb")) == {Key("network", "n")}
    assert here.dependents(Key("security_group", "idle")) == set()
    assert here.dependents(Key("network", "n")) == {Key("router", "r"), Key("guest", "g")}
    assert here.dependents(Key("network", "m")) == {Key("router", "r"), Key("router", "s"), Key("guest", "h")}
    assert here.dependents(Key("guest", "g")) == {Key("network", "n")}
    assert here.dependents(Key("router", "s")) == {Key("network", "m")}


def test_a_routers_gateway_is_a_leg() -> None:
    leg = RouterInterfaceSpec(port_id="x", network_id="public", mac_address="fa:16:3e:00:00:03", addresses=())
    here = world(wanted("router", "r", RouterSpec(id="r", interfaces=(), gateway=leg)))
    assert here.networks_of_router("r") == {"public"}


def test_a_routers_legs_are_known_until_it_is_gone() -> None:
    here = world(wanted("router", "r", router("r", "n")), gone("router", "r"))
    assert here.spec("router", "r", RouterSpec) is None
    assert here.networks_of_router("r") == {"n"}
    here.forget(Key("router", "r"))
    assert here.networks_of_router("r") == set()


@pytest.mark.parametrize("by", ["nic", "port"])
def test_a_port_is_held_until_its_guest_is_gone(by: str) -> None:
    owner = "g" if by == "port" else None
    nics = ("p",) if by == "nic" else ()
    here = world(
        wanted("network", "n", network("n")),
        wanted("port", "p", port("p", "n", guest_id=owner)),
        wanted("guest", "g", guest("g", *nics)),
        gone("port", "p"),
        gone("guest", "g"),
    )
    assert [one.id for one in here.held("n")] == ["p"]
    assert not here.complete("p")
    assert here.dependents(Key("guest", "g")) == {Key("network", "n")}
    here.forget(Key("guest", "g"))
    assert here.held("n") == []


def test_a_port_whose_guest_stays_goes_at_once() -> None:
    here = world(
        wanted("network", "n", network("n")),
        wanted("port", "p", port("p", "n", guest_id="g")),
        wanted("guest", "g", guest("g", "p")),
        gone("port", "p"),
    )
    assert here.held("n") == []


def test_a_tombstone_of_a_port_that_was_never_seen_is_a_stray() -> None:
    here = world(gone("port", "p"), wanted("port", "q", port("q", "n")), gone("port", "q"))
    assert here.strays() == [Key("port", "p")]


_IDS = st.sampled_from(["a", "b", "c"])


@st.composite
def _assignments(draw: st.DrawFn) -> Assignment:
    kind: Kind = draw(st.sampled_from(get_args(Kind)))
    object_id, generation = draw(_IDS), draw(st.integers(1, 6))
    if draw(st.booleans()):
        return gone(kind, object_id, generation)
    others = draw(st.lists(_IDS, max_size=2, unique=True))
    if kind == "network":
        return wanted(kind, object_id, network(object_id), generation)
    if kind == "port":
        spec = port(object_id, draw(_IDS), *others, guest_id=draw(st.none() | _IDS))
        return wanted(kind, object_id, spec, generation)
    if kind == "snapshot":
        return wanted(kind, object_id, SnapshotSpec(id=object_id, guest_id=draw(_IDS)), generation)
    made = {"security_group": group, "guest": guest, "router": router}[kind]
    return wanted(kind, object_id, made(object_id, *others), generation)


@given(st.lists(st.tuples(_assignments(), st.booleans()), max_size=30))
def test_whatever_comes_in_whatever_order(steps: list[tuple[Assignment, bool]]) -> None:
    """Generations never go back, and what the world says of its parts fits together, after each step."""
    here, newest = World(), dict[Key, int]()
    for one, forget in steps:
        key = Key(one.kind, one.id)
        known = newest.get(key, 0)
        touched = here.apply([one]).touched
        assert touched == ({key} if one.generation >= known else set())
        newest[key] = max(known, one.generation)
        assert {key: here.generation(key) for key in newest} == newest
        current = here.wanted(key)
        assert current is not None
        if forget and current.spec is None:
            here.forget(key)
            del newest[key]
        _check(here)


def _check(here: World) -> None:
    for network_id in "abc":
        state, held = here.state(network_id), {one.id for one in here.held(network_id)}
        living = {
            key.id
            for key in here.keys("port")
            if (one := here.spec("port", key.id, PortSpec)) is not None and one.network_id == network_id
        }
        assert living <= held <= set(here.ports_of(network_id))
        if state is None:
            continue
        assert {one.id for one in state.ports} == held
        for one in state.ports:
            assert one.network_id == network_id
            if here.complete(one.id):
                assert set(one.security_groups) <= set(state.groups)
    for key in here.keys("port"):
        assert (key in here.strays()) == (here.network_of(key.id) is None)
        place = here.network_of(key.id)
        assert here.dependents(key) == ({Key("network", place)} if place else set())

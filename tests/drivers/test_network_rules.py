"""The text of the Linux network driver: filters as values, their changes, and what dnsmasq is told."""

from __future__ import annotations

import random
import re

import msgspec
import pytest

from pileus.contracts.network import AddressPair, DhcpOption, FixedIP, HostRoute, NetworkState, RouterSpec
from pileus.contracts.suite.network import Lan, rule
from pileus.drivers.host import namespace, netfilter
from pileus.drivers.host.process import ChildFailure, run
from pileus.drivers.network.bridge.dhcp import advertise, serve
from pileus.drivers.network.bridge.guard import ENGINES, Engine, Guard
from pileus.drivers.network.bridge.name import Names, device
from pileus.drivers.network.bridge.ruleset import change, replacement
from tests.drivers.network_host import needs_host


@pytest.fixture
def lan() -> Lan:
    lan = Lan()
    lan.group("web", rule("egress"), rule("ingress", protocol=6, ports=(80, 443)), rule("ingress", group="web"))
    lan.groups["web"] = msgspec.structs.replace(lan.groups["web"], members=("10.0.0.10", "2001:db8:1::a"))
    lan.group("ping", rule("ingress", protocol=1, ports=(8, 0)), stateful=False)
    lan.port("one", 10, "web", "ping")
    lan.port("two", 11, "web")
    return lan


def _varied(lan: Lan, seed: int) -> NetworkState:
    """The state after some change that a user could make."""
    chance = random.Random(seed)
    match chance.randrange(6):
        case 0:
            lan.port(f"port{seed}", chance.randrange(20, 250), *chance.sample(["web", "ping"], chance.randrange(3)))
        case 1:
            name = chance.choice(list(lan.ports))
            lan.alter(name, security_groups=tuple(chance.sample(["web", "ping"], chance.randrange(3))))
        case 2 if len(lan.ports) > 1:
            del lan.ports[chance.choice(list(lan.ports))]
        case 3:
            rules = [rule("ingress", protocol=17, ports=(low, low)) for low in chance.sample(range(99), 3)]
            lan.group("web", *rules, rule("ingress", group=chance.choice(["web", "ping", "gone"])))
        case 4:
            members = [f"10.0.0.{last}" for last in chance.sample(range(9), 4)]
            old = lan.groups["web"]
            lan.groups["web"] = msgspec.structs.replace(old, members=(*members, f"10.{chance.randrange(9)}.0.0/16"))
        case _:
            name = chance.choice(list(lan.ports))
            pair = AddressPair(mac_address="00:00:5e:00:01:05", ip_address=f"10.0.{chance.randrange(9)}.0/24")
            lan.alter(
                name,
                port_security=chance.random() < 0.7,
                admin_state_up=chance.random() < 0.7,
                allowed_address_pairs=(pair,),
            )
    return lan.state


def _listing() -> list[str]:
    """Everything in force, in an order that does not depend on how it came about."""
    text = run(["nft", "-n", "list", "ruleset"]).decode()
    blocks = re.findall(r"^\t(?:chain|set|map) .*?^\t}", text, re.MULTILINE | re.DOTALL)
    found = []
    for block in blocks:
        head, _, rest = block.partition("elements = {")
        found.append(head + str(sorted(part.strip() for part in rest.rstrip("\n\t }").split(","))))
    return sorted(found)


@needs_host
@pytest.mark.parametrize("seed", range(3))
def test_a_changed_filter_is_the_same_as_a_fresh_one(lan: Lan, seed: int) -> None:
    guard = Guard("br_netfilter")

    def walk() -> None:
        rules = guard.ruleset(lan.state)
        netfilter.load(replacement(rules))
        for step in range(12):
            after = guard.ruleset(_varied(lan, seed * 100 + step))
            if text := change(rules, after):
                netfilter.load(text)
            rules = after
        changed = _listing()
        netfilter.load(replacement(Guard("br_netfilter").ruleset(lan.state)))
        assert changed == _listing()
        assert changed

    namespace.scratch(walk)


def test_a_change_touches_only_what_changed(lan: Lan) -> None:
    guard = Guard("br_netfilter")
    for last in range(20, 220):
        lan.port(f"port{last}", last, "web")
    before = guard.ruleset(lan.state)
    assert change(before, guard.ruleset(lan.state)) == ""
    lan.port("new", 15, "web")
    text = change(before, guard.ruleset(lan.state))
    assert len(text.splitlines()) < 30
    assert "flush" not in text
    old = guard.ruleset(lan.state)
    lan.groups["web"] = msgspec.structs.replace(lan.groups["web"], members=("10.0.0.10", "10.0.0.11"))
    text = change(old, guard.ruleset(lan.state))
    assert sorted(text.splitlines()) == [
        "add element inet pileus members4-web { 10.0.0.11 }",
        "delete element inet pileus members6-web { 2001:db8:1::a }",
    ]


def test_both_engines_judge_by_the_same_chains(lan: Lan) -> None:
    def judged(engine: Engine) -> dict[str, tuple[str, ...]]:
        return {name: lines for (_, name), lines in Guard(engine).ruleset(lan.state).chains.items()}

    assert judged("bridge") == judged("br_netfilter")
    assert {family for family, _ in Guard("bridge").ruleset(lan.state).chains} == {"bridge"}
    assert {family for family, _ in Guard("br_netfilter").ruleset(lan.state).chains} == {"bridge", "inet"}


@needs_host
@pytest.mark.parametrize("engine", ENGINES)
def test_nft_understands_the_filter(lan: Lan, engine: Engine) -> None:
    text = replacement(Guard(engine).ruleset(lan.state))
    try:
        namespace.scratch(lambda: run(["nft", "-c", "-f", "-"], content=text.encode()))
    except ChildFailure as failure:
        if engine == "bridge" and "Protocol error" in failure.output and "syntax" not in failure.output:
            pytest.skip("this kernel has no connection tracking in the bridge family: only the syntax was checked")
        raise


def test_a_profile_has_the_same_mark_in_every_life(lan: Lan) -> None:
    first, second = (Guard("bridge").ruleset(lan.state).sets["bridge", "target"].members for _ in range(2))
    assert first == second
    assert len(set(first.values())) == 2
    assert all(int(mark) > 1 for mark in first.values())


def test_what_users_choose_cannot_become_configuration(lan: Lan) -> None:
    evil = "x\ndhcp-script=/bin/sh"
    lan.alter(
        "one",
        hostname=evil,
        dhcp_options=(DhcpOption(opt_name=evil, opt_value="1"), DhcpOption(opt_name="66", opt_value=evil)),
    )
    lan.network = msgspec.structs.replace(lan.network, dns_domain=evil)
    config = serve(lan.state, "/nowhere")
    assert config is not None
    assert not any("dhcp-script" in content for content in (config.main, *dict(config.files).values()))
    for field, value in (("mac_address", evil), ("id", evil)):
        lan.alter("one", **{field: value})
        with pytest.raises(ValueError):
            serve(lan.state, "/nowhere")
        lan.alter("one", mac_address="fa:16:3e:00:00:01", id="one")


def test_no_text_behind_an_address_becomes_configuration(lan: Lan) -> None:
    zone = "%x\ndhcp-script=/bin/sh\n#"
    six = lan.network.subnets[1]
    hostile: list[dict[str, object]] = [
        {"cidr": f"2001:db8::{zone}/64"},
        {"dhcp_address": f"2001:db8::2{zone}"},
        {"dns_nameservers": (f"2001:db8::3{zone}",)},
    ]
    modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful", "dhcp_address": "2001:db8:1::2"}
    for values in hostile:
        subnet = msgspec.structs.replace(six, enable_dhcp=True, **(modes | values))
        network = msgspec.structs.replace(lan.network, subnets=(lan.network.subnets[0], subnet))
        with pytest.raises(ValueError, match="is no address"):
            serve(msgspec.structs.replace(lan.state, network=network), "/nowhere")
        if "cidr" in values:
            with pytest.raises(ValueError, match="is no address"):
                advertise(RouterSpec(id="r", interfaces=(lan.leg(advertise=(subnet,)),)))
    for more in (
        {"gateway_ip": f"10.0.0.1{zone}"},
        {"host_routes": (HostRoute(destination=f"::{zone}/0", nexthop="::"),)},
    ):
        other = Lan()
        other.resubnet(**more)
        with pytest.raises(ValueError, match="is no address"):
            serve(other.state, "/nowhere")
    lan.alter("one", fixed_ips=(FixedIP(subnet_id=six.id, ip_address=f"2001:db8:1::9{zone}"),))
    with pytest.raises(ValueError, match="is no address"):
        serve(lan.state, "/nowhere")


@pytest.mark.parametrize(
    ("mode", "told"), [("slaac", "ra-only"), ("dhcpv6-stateless", "ra-stateless"), ("dhcpv6-stateful", "static")]
)
def test_advertisements_follow_the_mode(lan: Lan, mode: str, told: str) -> None:
    subnet = msgspec.structs.replace(lan.subnet6, ipv6_ra_mode=mode)
    leg = msgspec.structs.replace(lan.leg(), advertise=(subnet,))
    config = advertise(RouterSpec(id="router", interfaces=(leg,)))
    assert config is not None
    assert f",{told},64," in config.main
    assert advertise(RouterSpec(id="router", interfaces=(leg,), admin_state_up=False)) is None
    assert advertise(RouterSpec(id="router", interfaces=(lan.leg(),))) is None


def test_names_fit_and_tell_what_they_are() -> None:
    identifier = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    assert device("tap", identifier) == "tap1b4e28ba-2f"
    assert device("tap", "not-a-uuid") != device("tap", "not-another")
    names = Names("pileus")
    assert names.uplink(identifier) == "pileus-1b4e28ba"
    assert names.network(identifier) == f"pileus-net-{identifier}"
    for kind in ("tap", "leg", "gate", "rtr"):
        assert len(device(kind, identifier)) <= 15
    for prefix in ("", "Pileus", "seven77", "a-b", "1a"):
        with pytest.raises(ValueError):
            Names(prefix)

"""Network's thinking: addresses, subnets, security group rules, statuses, specs."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pileus.contracts.network import RuleSpec
from pileus.core.errors import BadRequest, Fault
from pileus.services.network.rules import address, gateway, security, spec, status, subnet
from pileus.services.network.rules.address import Span

NUMBERS = st.integers(0, 400)
TAKEN = st.sets(NUMBERS, max_size=300)


@st.composite
def pools(draw: st.DrawFn) -> list[Span]:
    """Pools that do not overlap, in any order."""
    edges = sorted(draw(st.sets(NUMBERS, min_size=2, max_size=12)))
    found = [Span(*edges[place : place + 2]) for place in range(0, len(edges) - 1, 2)]
    return draw(st.permutations(found))


def fetcher(taken: set[int], calls: list[int] | None = None) -> address.Fetch:
    def fetch(first: int, last: int, most: int) -> list[int]:
        if calls is not None:
            calls.append(first)
        return sorted(one for one in taken if first <= one <= last)[:most]

    return fetch


@given(pools(), TAKEN, st.none() | NUMBERS, st.integers(1, 50))
def test_chosen_addresses_are_free_and_all_that_there_are(
    spans: list[Span], taken: set[int], cursor: int | None, count: int
) -> None:
    chosen = address.choose(address.spans_after(spans, cursor), fetcher(taken), count)
    free = {one for span in spans for one in range(span.first, span.last + 1)} - taken
    assert len(chosen) == len(set(chosen)) == min(count, len(free))
    assert set(chosen) <= free
    if cursor is not None and any(one > cursor for one in free):
        assert chosen[0] == min(one for one in free if one > cursor)
    elif free:
        assert chosen[0] == min(free)


@given(pools(), st.none() | NUMBERS)
def test_a_search_begins_behind_the_cursor_and_leaves_nothing_out(spans: list[Span], cursor: int | None) -> None:
    order = [one for span in address.spans_after(spans, cursor) for one in range(span.first, span.last + 1)]
    assert sorted(order) == sorted(one for span in spans for one in range(span.first, span.last + 1))
    if cursor is not None:
        behind = [one > cursor for one in order]
        assert behind == sorted(behind, reverse=True)


def test_the_next_address_behind_the_cursor_costs_one_look() -> None:
    calls: list[int] = []
    taken = set(range(1, 60_000))
    [chosen] = address.choose(address.spans_after([Span(1, 65_000)], 59_999), fetcher(taken, calls), 1)
    assert (chosen, calls) == (60_000, [60_000])


@given(st.integers(0, 2**24 - 1))
def test_made_mac_addresses_are_addresses(bits: int) -> None:
    mac = address.mac_address(bits)
    assert address.parse_mac(mac) == mac
    assert mac.startswith("fa:16:3e:")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("FA:16:3E:00:00:01", "fa:16:3e:00:00:01"),
        ("fa-16-3e-00-00-01", "fa:16:3e:00:00:01"),
        ("fa16.3e00.0001", "fa:16:3e:00:00:01"),
    ],
)
def test_mac_addresses_are_read(text: str, canonical: str) -> None:
    assert address.parse_mac(text) == canonical


@pytest.mark.parametrize("text", ["", "fa:16:3e:00:00", "00:00:00:00:00:00", "01:00:5e:00:00:01", "zz:16:3e:00:00:01"])
def test_what_is_no_mac_address_of_a_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MAC"):
        address.parse_mac(text)


def test_slaac_is_modified_eui_64() -> None:
    # The example of RFC 4291, appendix A, with the prefix of RFC 3849.
    assert str(address.slaac("34:56:78:9a:bc:de", "2001:db8::/64")) == "2001:db8::3656:78ff:fe9a:bcde"


@given(st.integers(1, 32))
def test_default_pools_hold_every_host_but_the_gateway(prefix: int) -> None:
    cidr = ip_network(f"10.0.0.0/{max(prefix, 8)}")
    hop = subnet.default_gateway(cidr)
    found = subnet.default_pools(cidr, hop)
    size = sum(int(ip_address(one.end)) - int(ip_address(one.start)) + 1 for one in found)
    usable = cidr.num_addresses - (2 if cidr.prefixlen < 31 else 0)
    assert size == usable - (hop is not None)
    assert subnet.check_pools(cidr, [one._asdict() for one in found], hop) == found


@pytest.mark.parametrize(
    ("cidr", "hop", "start", "end"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254"),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1", "10.0.0.1"),
        ("fd00::/64", "fd00::1", "fd00::2", "fd00::ffff:ffff:ffff:ffff"),
        ("fd00::/127", "fd00::", "fd00::1", "fd00::1"),
    ],
)
def test_default_gateway_and_pool(cidr: str, hop: str, start: str, end: str) -> None:
    network = ip_network(cidr)
    assert subnet.default_gateway(network) == hop
    assert subnet.default_pools(network, hop) == [subnet.Pool(start, end)]


def test_a_gateway_in_the_middle_splits_the_pool() -> None:
    found = subnet.default_pools(ip_network("10.0.0.0/29"), "10.0.0.3")
    assert found == [subnet.Pool("10.0.0.1", "10.0.0.2"), subnet.Pool("10.0.0.4", "10.0.0.6")]


@pytest.mark.parametrize(
    ("pools_given", "kind"),
    [
        ([("10.0.0.9", "10.0.0.5")], "InvalidAllocationPool"),
        ([("10.0.0.5", "10.0.1.5")], "OutOfBoundsAllocationPool"),
        ([("10.0.0.0", "10.0.0.5")], "OutOfBoundsAllocationPool"),
        ([("10.0.0.5", "10.0.0.9"), ("10.0.0.9", "10.0.0.20")], "OverlappingAllocationPools"),
        ([("10.0.0.1", "10.0.0.9")], "GatewayConflictWithAllocationPools"),
        ([("fd00::1", "fd00::9")], "InvalidInput"),
    ],
)
def test_pools_that_cannot_be(pools_given: list[tuple[str, str]], kind: str) -> None:
    with pytest.raises(Fault) as caught:
        subnet.check_pools(
            ip_network("10.0.0.0/24"), [{"start": one, "end": two} for one, two in pools_given], "10.0.0.1"
        )
    assert caught.value.type == kind


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.0/33", "0.0.0.0/0", "224.0.0.0/8", "127.0.0.0/8", "fe80::/64"])
def test_prefixes_that_cannot_be(text: str) -> None:
    with pytest.raises(BadRequest):
        subnet.parse_cidr(text)


@pytest.mark.parametrize(
    ("version", "dhcp", "ra", "mode", "good"),
    [
        (6, True, "slaac", "slaac", True),
        (6, True, None, "dhcpv6-stateful", True),
        (6, True, "dhcpv6-stateless", None, True),
        (6, True, "slaac", "dhcpv6-stateful", False),
        (6, False, "slaac", "slaac", False),
        (4, True, "slaac", None, False),
        (4, True, None, None, True),
    ],
)
def test_ipv6_modes(version: int, dhcp: bool, ra: str | None, mode: str | None, good: bool) -> None:
    cidr = ip_network("fd00::/64" if version == 6 else "10.0.0.0/24")
    if good:
        subnet.check_modes(cidr, enable_dhcp=dhcp, ra_mode=ra, address_mode=mode)
    else:
        with pytest.raises(BadRequest):
            subnet.check_modes(cidr, enable_dhcp=dhcp, ra_mode=ra, address_mode=mode)


@pytest.mark.parametrize(
    ("protocol", "ethertype", "number"),
    [
        (None, "IPv4", None),
        ("any", "IPv4", None),
        ("TCP", "IPv4", 6),
        ("17", "IPv6", 17),
        ("icmp", "IPv4", 1),
        ("icmp", "IPv6", 58),
        ("ipv6-icmp", "IPv6", 58),
        ("vrrp", "IPv4", 112),
    ],
)
def test_protocols(protocol: str | None, ethertype: str, number: int | None) -> None:
    assert security.protocol_number(protocol, ethertype) == number


@pytest.mark.parametrize(("protocol", "ethertype"), [("nonsense", "IPv4"), ("256", "IPv4"), ("icmpv6", "IPv4")])
def test_protocols_that_cannot_be(protocol: str, ethertype: str) -> None:
    with pytest.raises(BadRequest):
        security.protocol_number(protocol, ethertype)


@pytest.mark.parametrize(
    ("number", "first", "last", "good"),
    [
        (6, 80, 80, True),
        (6, 81, 80, False),
        (6, 0, 80, False),
        (6, 80, 70_000, False),
        (6, 80, None, False),
        (None, 80, 80, False),
        (47, 1, 1, False),
        (1, 8, 0, True),
        (1, 8, None, True),
        (1, None, 0, False),
        (58, 256, None, False),
        (6, None, None, True),
    ],
)
def test_ports_and_icmp_types(number: int | None, first: int | None, last: int | None, good: bool) -> None:
    if good:
        security.check_ports(number, first, last)
    else:
        with pytest.raises(BadRequest):
            security.check_ports(number, first, last)


def test_rules_that_let_the_same_through_have_one_fingerprint() -> None:
    plain = RuleSpec(direction="ingress", ethertype="IPv4", protocol=6)
    wide = RuleSpec(
        direction="ingress",
        ethertype="IPv4",
        protocol=6,
        port_range_min=1,
        port_range_max=65535,
        remote_ip_prefix="0.0.0.0/0",
    )
    narrow = RuleSpec(direction="ingress", ethertype="IPv4", protocol=6, port_range_min=22, port_range_max=22)
    assert security.fingerprint(plain) == security.fingerprint(wide)
    assert security.fingerprint(plain) != security.fingerprint(narrow)


READY, FAILED = status.Seen("ready", True), status.Seen("failed", True, True)


@pytest.mark.parametrize(
    ("up", "bound", "seen", "found"),
    [
        (False, True, READY, "DOWN"),
        (True, False, READY, "DOWN"),
        (True, True, None, "BUILD"),
        (True, True, READY, "ACTIVE"),
        (True, True, status.Seen("ready", False), "ACTIVE"),
        (True, True, FAILED, "ERROR"),
        (True, True, status.Seen("failed", True), "DOWN"),
        (True, True, status.Seen("absent", True), "BUILD"),
    ],
)
def test_port_status(up: bool, bound: bool, seen: status.Seen | None, found: str) -> None:
    assert status.port_status(admin_state_up=up, bound=bound, seen=seen) == found


@pytest.mark.parametrize(
    ("up", "legs", "seen", "found"),
    [
        (True, False, None, "ACTIVE"),
        (True, True, None, "BUILD"),
        (True, True, READY, "ACTIVE"),
        (True, True, FAILED, "ERROR"),
        (False, True, READY, "DOWN"),
        (True, True, status.Seen("absent", False), "BUILD"),
    ],
)
def test_router_status(up: bool, legs: bool, seen: status.Seen | None, found: str) -> None:
    assert status.router_status(admin_state_up=up, legs=legs, seen=seen) == found


@pytest.mark.parametrize(
    ("before", "associated", "seen", "found"),
    [
        ("DOWN", False, READY, "DOWN"),
        ("DOWN", True, None, "DOWN"),
        ("DOWN", True, READY, "ACTIVE"),
        ("DOWN", True, status.Seen("ready", False), "DOWN"),
        ("ACTIVE", True, status.Seen("ready", False), "ACTIVE"),
        ("ACTIVE", True, FAILED, "ERROR"),
    ],
)
def test_floatingip_status(before: str, associated: bool, seen: status.Seen | None, found: str) -> None:
    assert status.floatingip_status(before=before, associated=associated, seen=seen) == found


def test_the_host_with_most_ports_routes() -> None:
    one, two = gateway.Candidate("1", "a"), gateway.Candidate("2", "b")
    assert gateway.choose([], {}, {}) is None
    assert gateway.choose([two, one], {}, {}) == one
    assert gateway.choose([one, two], {"2": 1}, {"1": 5}) == two
    assert gateway.choose([one, two], {}, {"2": 1}) == two


def test_nexthops_are_one_of_each_version() -> None:
    rows: list[dict[str, Any]] = [
        {"gateway_ip": None, "ip_version": 4},
        {"gateway_ip": "fd00::1", "ip_version": 6},
        {"gateway_ip": "10.0.0.1", "ip_version": 4},
        {"gateway_ip": "10.1.0.1", "ip_version": 4},
    ]
    assert spec.nexthops(rows) == ("10.0.0.1", "fd00::1")


def test_services_without_a_port_have_a_mac_address_of_their_own() -> None:
    mac = spec.metadata_mac("11111111-2222-3333-4444-555555abcdef")
    assert mac == "fa:16:3f:ab:cd:ef"
    assert address.parse_mac(mac) == mac


def _group(members: Iterable[str]) -> tuple[str, ...]:
    return spec.group_spec({"id": "g", "stateful": True}, [], members).members


def test_few_members_are_told_one_by_one() -> None:
    assert _group(["10.0.0.4", "10.0.0.3", "10.0.0.3"]) == ("10.0.0.3", "10.0.0.4")


@pytest.mark.parametrize("seed", range(5))
def test_a_crowd_is_told_by_prefixes_that_hold_nobody_else(seed: int) -> None:
    random = Random(seed)
    fourth = {str(ip_address(0x0A000000 + random.randrange(1200))) for _ in range(700)} | {"10.0.9.0/24", "10.0.2.0/25"}
    sixth = {f"fd00::{random.randrange(400):x}" for _ in range(200)}
    told = _group(fourth | sixth)
    assert [IPv4Network(one) for one in told if ":" not in one] == list(collapse_addresses(map(IPv4Network, fourth)))
    assert [IPv6Network(one) for one in told if ":" in one] == list(collapse_addresses(map(IPv6Network, sixth)))
    assert "/32" not in "".join(told)
    assert len(_group(str(ip_address(0x0A000002 + number)) for number in range(10_000))) < 20

"""How much one port may ask of what its neighbours and the host share, with limits small enough to reach."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from pileus.contracts.network import RouterSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Lan, rule
from pileus.contracts.suite.network_bench import NOBODY, SILENCE, Bench, Station, lease, towards
from pileus.drivers.host import netfilter
from pileus.drivers.network.bridge import limit
from tests.drivers.network_host import BridgeHarness, needs_host, scratch_host

pytestmark = needs_host

MOST = 8
SERVICE = "10.0.0.2"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(limit, "CONNECTIONS", MOST)
    monkeypatch.setattr(limit, "FREE", MOST)
    monkeypatch.setattr(limit, "RATES", dict.fromkeys(limit.RATES, (1, MOST)))
    with scratch_host():
        harness = BridgeHarness()
        bench = Bench(harness.driver(), harness)
        yield bench
        bench.close()
        harness.close()


@pytest.fixture
def lan() -> Lan:
    """Guests `flood`, `sane` and `third`, and the beacon; everything is let through."""
    lan = Lan()
    lan.group("all", rule("ingress"), rule("egress"))
    for last, name in enumerate(("flood", "sane", "third", "beacon"), 10):
        lan.port(name, last, "all")
    return lan


def _passed(beacon: Station, bench: Bench, sender: Station, receiver: Station, *sent: bytes) -> int:
    return sum(bench.passes(beacon, sender, receiver, *sent))


def test_connections_of_a_guest_are_bounded(bench: Bench, lan: Lan) -> None:
    flood, sane, third, beacon = bench.up(lan)
    space = bench.driver.plug(flood.port.id).namespace
    asked = [flood.udp(sane, port) for port in range(1000, 1100)]
    assert bench.passes(beacon, flood, sane, asked[0]) == [True]
    assert bench.passes(beacon, sane, flood, sane.udp(flood, 40000, sport=1000)) == [True]
    assert _passed(beacon, bench, flood, sane, *asked[1:]) < MOST
    assert bench.passes(beacon, flood, sane, asked[0]) == [True], "a connection that stands goes on"
    assert len(netfilter.connections(space)) <= MOST
    assert bench.passes(beacon, sane, third, sane.udp(third, 7)) == [True]
    # Nor can a crowd of callers fill the table through a guest that lets them in.
    assert _passed(beacon, bench, third, sane, *[third.udp(sane, port) for port in range(1, MOST)]) == 0


def test_connections_of_guests_without_port_security_are_bounded(
    bench: Bench, lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, "CONNECTIONS", 1000)
    lan.alter("flood", port_security=False, security_groups=())
    flood, sane, third, beacon = bench.up(lan)
    space = bench.driver.plug(flood.port.id).namespace
    for number in range(50):
        mac, ip = f"fa:16:3e:66:66:{number:02x}", f"10.0.0.{100 + number}"
        flood.card.send(frame.packet(ip, mac, sane.mac, sane.ip, frame.UDP, frame.udp(40000, 1000 + number, b"x")))
    assert bench.passes(beacon, third, sane, third.udp(sane, 7)) == [True]
    assert 0 < len(netfilter.connections(space)) <= MOST + 1


def test_requests_for_leases_are_bounded_and_others_are_served(bench: Bench, lan: Lan) -> None:
    flood, sane, *_ = bench.up(lan)
    asks = frame.udp(68, 67, frame.dhcp(flood.mac, 1))
    for _ in range(5 * MOST):
        flood.card.send(frame.packet(NOBODY, flood.mac, frame.BROADCAST, "255.255.255.255", frame.UDP, asks))
    answers = 0
    while bench.hears(flood, towards(frame.UDP, 68), SILENCE) is not None:
        answers += 1
    assert 0 < answers <= MOST + 1
    bench.drain(sane)
    assert (lease(bench, sane) or ("",))[0] == sane.ip


@pytest.mark.parametrize("way", ["direct", "router"])
@pytest.mark.parametrize("what", ["names", "neighbours", "metadata", "pings"])
def test_questions_are_bounded(bench: Bench, lan: Lan, what: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever the limit of connections would leave.
    monkeypatch.setattr(limit, "CONNECTIONS", 1000)
    flood, *_ = bench.up(lan)
    service = lan.network.dhcp_mac
    if way == "router":
        leg = lan.leg()
        bench.driver.ensure_router(RouterSpec(id=str(uuid.uuid4()), interfaces=(leg,)))
        # Who sends by its router, or by one of its own in a network that is shared, is bounded as well.
        service = leg.mac_address
    with bench.driver.listen(lan.network.id, "169.254.169.254", 80):
        flood.card.send(frame.arp(flood.mac, flood.mac, flood.ip, SERVICE))
        bench.drain(flood)
        for number in range(1, 5 * MOST):
            question = frame.udp(40000 + number, 53, frame.question("sane"))
            call = frame.tcp(40000 + number, 80, frame.SYN)
            ping = frame.icmp(8, identifier=number)
            flood.card.send(
                {
                    "names": frame.packet(flood.ip, flood.mac, service, SERVICE, frame.UDP, question),
                    "neighbours": frame.arp(flood.mac, flood.mac, flood.ip, SERVICE),
                    "metadata": frame.packet(flood.ip, flood.mac, service, "169.254.169.254", frame.TCP, call),
                    "pings": frame.packet(flood.ip, flood.mac, service, SERVICE, frame.ICMP, ping),
                }[what]
            )
        answers: set[bytes] = set()
        heard = 0
        while (got := flood.card.receive(SILENCE)) is not None:
            datagram = frame.read(got)
            heard += datagram is None
            if datagram is not None and datagram.dport not in {67, 68}:
                answers.add(got[34:42] if what == "pings" else got[34:38])
    assert 0 < (heard if what == "neighbours" else len(answers)) <= MOST + 1


@pytest.mark.parametrize("to", [frame.BROADCAST, "01:00:5e:01:02:03"])
def test_what_goes_to_everybody_is_bounded(bench: Bench, lan: Lan, to: str) -> None:
    lan.alter("flood", port_security=False, security_groups=())
    flood, sane, _, beacon = bench.up(lan)
    crowd = [
        frame.packet(flood.ip, flood.mac, to, "239.1.2.3", frame.UDP, frame.udp(1, 2, bytes([number])))
        for number in range(5 * MOST)
    ]
    assert 0 < _passed(beacon, bench, flood, sane, *crowd) <= MOST + 1
    assert bench.passes(beacon, flood, sane, flood.udp(sane, 1)) == [True], "what is for one goes on"


@pytest.mark.parametrize("way", ["direct", "router"])
@pytest.mark.parametrize("kind", ["tcp 22", "udp 9", "gre"])
def test_the_network_serves_nothing_else(bench: Bench, lan: Lan, kind: str, way: str) -> None:
    flood, sane, _, beacon = bench.up(lan)
    service = lan.network.dhcp_mac
    if way == "router":
        leg = lan.leg()
        bench.driver.ensure_router(RouterSpec(id=str(uuid.uuid4()), interfaces=(leg,)))
        service = leg.mac_address
    protocol, body = {
        "tcp 22": (frame.TCP, frame.tcp(40000, 22, frame.SYN)),
        "udp 9": (frame.UDP, frame.udp(40000, 9)),
        "gre": (47, bytes(8)),
    }[kind]
    flood.card.send(frame.arp(flood.mac, flood.mac, flood.ip, SERVICE))
    flood.card.send(frame.packet(flood.ip, flood.mac, service, SERVICE, protocol, body))
    # Not so much as a refusal.
    got = bench.hears(flood, lambda one: (told := frame.read(one)) is not None and told.source == SERVICE, SILENCE)
    assert got is None
    assert bench.passes(beacon, flood, sane, flood.udp(sane, 1)) == [True]

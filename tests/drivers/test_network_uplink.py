"""The uplink of the Linux network driver: what it leaves on the host, and what of the host guests reach by it."""

from __future__ import annotations

import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from pileus.contracts.suite.network import Lan
from pileus.drivers.host import namespace, netfilter
from pileus.drivers.host.netlink import Route, inside
from pileus.drivers.host.process import apart
from pileus.drivers.network.bridge import border, uplink
from tests.drivers.network_host import BridgeHarness, needs_host, scratch_host
from tests.drivers.network_site import Site, ask, echo, external, host_server, send, serve, settle, stop

pytestmark = needs_host

_OUTER = ("203.0.113.0/24", "198.51.100.0/24")


@pytest.fixture
def harness() -> Iterator[BridgeHarness]:
    with scratch_host():
        harness = BridgeHarness()
        yield harness
        harness.close()
        assert harness.leftovers() == []


@pytest.fixture
def sites(harness: BridgeHarness) -> Iterator[Callable[..., Site]]:
    """Makes projects on one external network."""
    with external(harness) as make:
        yield make


@pytest.fixture
def below(harness: BridgeHarness) -> Iterator[str]:
    """The namespace of a machine that the host reaches at 192.0.2.2 and 169.254.169.254; the host is 192.0.2.1."""
    name = f"below-{uuid.uuid4().hex[:8]}"
    namespace.create(name)
    try:
        inside(None, lambda link: link.add_veth("up0", None, "down0", name))
        inside(None, lambda link: settle(link, "up0", "192.0.2.1/24"))
        inside(name, lambda link: settle(link, "down0", "192.0.2.2/24", "169.254.169.254/32"))
        inside(None, lambda link: link.add_route(Route("169.254.169.254/32", "up0")))
        yield name
    finally:
        inside(None, lambda link: link.delete("up0"))
        namespace.remove(name)


def test_the_host_is_not_there_for_guests(sites: Callable[..., Site], below: str) -> None:
    site = sites(10)
    guest = site.guest(5)
    site.floating(("203.0.113.50", "10.0.0.5"))
    machine = site.machine(90)
    # What a container engine does: a port of the host, whichever address is called, leads elsewhere.
    netfilter.load(
        "table ip engine {\nchain pre {\ntype nat hook prerouting priority -100\n"
        "fib daddr type local tcp dport 8088 dnat to 192.0.2.2:8080\n}\n}\n"
    )
    servers = [host_server(8080), apart(lambda: host_server(8080), below), serve(machine, 2222), serve(guest, 2222)]
    try:
        for who in (guest, machine):
            for address in ("203.0.113.1", "192.0.2.1"):
                assert ask(who, address, 8080, 0.3) == "TimeoutError", "a service of the host"
                assert ask(who, address, 8088, 0.3) == "TimeoutError", "what the host redirects"
            assert echo(who, "203.0.113.1"), "a ping is answered"
            assert ask(who, "192.0.2.2", 8080) == "192.0.2.1", "what is beyond the host is there"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("", 4444))
            listener.settimeout(0.2)
            guest.does(lambda: send("203.0.113.1", 4444))
            with pytest.raises(TimeoutError):
                listener.recv(10)
        assert ask(None, "203.0.113.50", 2222) == "203.0.113.1"
        assert ask(guest, "203.0.113.90", 2222) == "203.0.113.50"
    finally:
        stop(*servers)
        netfilter.load("delete table ip engine\n")


def test_the_host_forwards_to_no_link_local_address(sites: Callable[..., Site], below: str) -> None:
    # As where the host is itself a guest of a cloud: that cloud's metadata is at its next hop.
    machine = sites(10).machine(90)
    server = apart(lambda: host_server(8080), below)
    assert ask(None, "169.254.169.254", 8080) == "192.0.2.1"
    assert ask(machine, "192.0.2.2", 8080) == "192.0.2.1", "it forwards, masqueraded"
    assert ask(machine, "169.254.169.254", 8080, 0.3) == "TimeoutError"
    stop(server)


@pytest.fixture
def small_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that tracks no more than 64 connections."""
    monkeypatch.setattr(uplink, "_TRACKED", "no/such/setting")
    monkeypatch.setattr(uplink, "_TRACKED_ELSE", 64)
    monkeypatch.setattr(border, "LEAST", 1)


@pytest.mark.usefixtures("small_host")
def test_guests_cannot_fill_the_hosts_table_of_connections(sites: Callable[..., Site]) -> None:
    one, other = sites(10).machine(90), sites(11).machine(91)

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for port in range(1000, 1100):
                sock.sendto(b"x", ("192.0.2.9", port))

    inside(None, lambda link: link.add_tap("other0"))
    try:
        inside(None, lambda link: settle(link, "other0", "192.0.2.7/24"))
        for who, address in ((one, "203.0.113.90"), (other, "203.0.113.91")):
            deadline = time.monotonic() + 5
            while _tracked(address) < 4:  # an eighth of the half
                assert time.monotonic() < deadline, "nothing of it is tracked"
                who.does(flood)
            who.does(flood)
            time.sleep(0.2)
            assert _tracked(address) == 4
    finally:
        inside(None, lambda link: link.delete("other0"))


def _tracked(source: str) -> int:
    return [ends[0] for ends in netfilter.connections()].count(source)


def test_uplink_and_switch_come_and_go(harness: BridgeHarness) -> None:
    driver = harness.driver()
    first, second = (Lan(cidr=cidr, external=True, dhcp=False) for cidr in _OUTER)

    def switch() -> str:
        return apart(lambda: namespace.get_kernel("ipv4/ip_forward"))

    assert switch() == "0"
    driver.ensure_network(first.state)
    driver.ensure_network(second.state)
    assert switch() == "1"
    harness.driver().ensure_network(first.state)
    text = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    assert text.count("masquerade") == 1
    assert all(cidr in text for cidr in _OUTER)
    driver.remove_network(first.network.id)
    assert switch() == "1"
    driver.remove_network(second.network.id)
    assert switch() == "0"
    assert harness.leftovers() == []


def test_a_flushed_host_filter_comes_back(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan(cidr=_OUTER[0], external=True, dhcp=False)
    driver.ensure_network(lan.state)
    netfilter.load("flush ruleset\n")
    driver.ensure_network(lan.state)
    assert sorted(netfilter.tables()) == [("inet", f"{harness.prefix}-uplink"), ("ip", f"{harness.prefix}-uplink")]
    netfilter.load(f"delete table inet {harness.prefix}-uplink\n")
    driver.ensure_network(lan.state)
    assert ("inet", f"{harness.prefix}-uplink") in netfilter.tables()
    # Rules of others are no reason to touch ours.
    netfilter.load("add table ip other\n")
    driver.ensure_network(lan.state)
    netfilter.load("delete table ip other\nflush ruleset\n")
    driver.teardown()
    assert apart(lambda: namespace.get_kernel("ipv4/ip_forward")) == "0"


@pytest.mark.parametrize("first", [0, 1])
def test_two_clouds_on_one_host_leave_each_other_alone(harness: BridgeHarness, first: int) -> None:
    with closing(BridgeHarness()) as other:
        drivers = [one.driver() for one in (harness, other)]
        lans = [Lan(cidr=cidr, external=True, dhcp=False) for cidr in _OUTER]
        for driver, lan in zip(drivers, lans, strict=True):
            driver.ensure_network(lan.state)
        assert [list(driver.networks()) for driver in drivers] == [[lan.network.id] for lan in lans]
        drivers[first].teardown()
        assert apart(lambda: namespace.get_kernel("ipv4/ip_forward")) == "1"
        assert list(drivers[1 - first].networks()) == [lans[1 - first].network.id]
        drivers[1 - first].teardown()
        assert apart(lambda: namespace.get_kernel("ipv4/ip_forward")) == "0"


def test_a_switch_that_was_on_stays_on(harness: BridgeHarness) -> None:
    apart(lambda: namespace.set_kernel({"ipv4/ip_forward": "1"}))
    driver = harness.driver()
    driver.ensure_network(Lan(cidr="203.0.113.0/24", external=True, dhcp=False).state)
    driver.teardown()
    assert apart(lambda: namespace.get_kernel("ipv4/ip_forward")) == "1"
    apart(lambda: namespace.set_kernel({"ipv4/ip_forward": "0"}))

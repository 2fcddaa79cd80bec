"""Services, threads and crashes of the Linux network driver on a scratch host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import NicAttachment
from pileus.contracts.network import DhcpOption, NetworkFailure, RouterSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Lan, rule
from pileus.contracts.suite.network_bench import Bench, lease, link_local
from pileus.drivers.host import namespace, netfilter
from pileus.drivers.host.netlink import Netlink, inside
from pileus.drivers.host.process import Child
from pileus.drivers.network.bridge import BridgeNetwork
from tests.drivers.network_host import BridgeHarness, TapCard, dnsmasq, needs_host, scratch_host

pytestmark = needs_host


@pytest.fixture
def harness() -> Iterator[BridgeHarness]:
    with scratch_host():
        harness = BridgeHarness()
        yield harness
        harness.close()
        assert harness.leftovers() == []


def test_facts_say_what_really_filters(harness: BridgeHarness) -> None:
    driver = BridgeNetwork(state=harness.state, prefix=harness.prefix)
    facts = driver.facts()
    assert facts.driver == "bridge"
    assert facts.filter in {"bridge", "br_netfilter"}
    assert harness.leftovers() == []


def test_stateful_dhcpv6_gives_the_port_its_address(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    mode = "dhcpv6-stateful"
    subnet = msgspec.structs.replace(
        lan.subnet6, enable_dhcp=True, dhcp_address="2001:db8:1::2", ipv6_ra_mode=mode, ipv6_address_mode=mode
    )
    lan.network = msgspec.structs.replace(lan.network, subnets=(lan.subnet, subnet))
    port = lan.port("host", 5)
    driver.ensure_network(lan.state)
    card = TapCard(driver.plug(port.id))
    mac = bytes.fromhex(port.mac_address.replace(":", ""))
    client = b"\x00\x01\x00\x0a\x00\x03\x00\x01" + mac
    solicit = b"\x01\x12\x34\x56" + client + b"\x00\x03\x00\x0c" + b"\x00\x00\x00\x01" + bytes(8)
    link = link_local(port.mac_address)
    answer = None
    for _ in range(5):
        body = frame.udp(546, 547, solicit)
        card.send(frame.packet(link, port.mac_address, "33:33:00:01:00:02", "ff02::1:2", frame.UDP, body))
        while answer is None and (got := card.receive(0.3)) is not None:
            datagram = frame.read(got)
            if datagram and datagram.kind == 135:
                # The server asks for the client's MAC address, by which it knows the port.
                told = frame.neighbour(136, link, port.mac_address)
                card.send(
                    frame.packet(link, port.mac_address, lan.network.dhcp_mac, datagram.source, frame.ICMPV6, told)
                )
            if datagram and datagram.dport == 546:
                answer = datagram.payload
        if answer:
            break
    card.close()
    assert answer is not None
    assert answer[0] == 2
    assert socket.inet_pton(socket.AF_INET6, "2001:db8:1::5") in answer


def test_the_dhcp_service_has_no_privilege_it_could_shed(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    driver.ensure_network(lan.state)
    (pid,) = dnsmasq(harness, "networks", lan.network.id)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Groups"].strip() == ""
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapPrm"], 16) == 1 << 12
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def test_a_service_that_died_is_started_again(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    driver.ensure_network(lan.state)
    (pid,) = dnsmasq(harness, "networks", lan.network.id)
    driver.ensure_network(lan.state)
    assert dnsmasq(harness, "networks", lan.network.id) == [pid]
    assert driver.ailing() == []
    _kill(pid)
    assert driver.ailing() == [("network", lan.network.id)]
    driver.ensure_network(lan.state)
    (fresh,) = dnsmasq(harness, "networks", lan.network.id)
    assert fresh != pid
    assert driver.ailing() == []


def test_a_port_is_plugged_while_its_network_is_made_anew(harness: BridgeHarness) -> None:
    """A guest that is looked at meanwhile waits; it is not told that its port is on no network."""
    driver, lan = harness.driver(), Lan()
    port = lan.port("host", 5)
    driver.ensure_network(lan.state)
    plug = driver.plug(port.id)
    states = []
    for number in range(6, 14):
        lan.port(f"other{number}", number)
        states.append(lan.state)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: list(map(driver.ensure_network, states)))
        while not made.done():
            assert driver.plug(port.id) == plug
        made.result()
    lan.ports.clear()
    driver.ensure_network(lan.state)
    with pytest.raises(NetworkFailure, match="on no network"):
        driver.plug(port.id)


def test_a_later_driver_keeps_the_running_service(harness: BridgeHarness) -> None:
    lan = Lan()
    lan.port("one", 10)
    harness.driver().ensure_network(lan.state)
    (pid,) = dnsmasq(harness, "networks", lan.network.id)
    lan.port("two", 11)
    harness.driver().ensure_network(lan.state)
    assert dnsmasq(harness, "networks", lan.network.id) == [pid]


def test_a_tap_that_no_port_owns_is_closed(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    lan.group("all", rule("ingress"), rule("egress"))
    for last, name in enumerate(("a", "beacon"), 10):
        lan.port(name, last, "all")
    bench = Bench(driver, harness)
    a, beacon = bench.up(lan)
    namespace_of = driver.plug(a.port.id).namespace
    intruder = "tapintruder"

    def place(link: Netlink) -> None:
        link.add_tap(intruder)
        link.change(intruder, master="br", up=True)

    inside(namespace_of, place)
    card = TapCard(NicAttachment(port_id="none", device=intruder, namespace=namespace_of))
    call = frame.arp(a.mac, a.mac, a.ip, "10.0.0.200")
    a.card.send(call)
    assert bench.hears(beacon, lambda got: got == call) is not None
    assert card.receive(0.15) is None
    own = "fa:16:3e:77:77:77"
    card.send(frame.arp(own, own, "10.0.0.77", a.ip))
    assert bench.passes(beacon, beacon, a, beacon.udp(a, 1)) == [True]
    card.send(frame.arp(own, own, "10.0.0.77", a.ip))
    assert bench.hears(a, lambda got: got[6:12] == bytes.fromhex("fa163e777777"), 0.15) is None
    card.close()
    bench.close()


def test_a_stray_tap_goes_when_its_guest_has_let_go(harness: BridgeHarness) -> None:
    lan = Lan()
    stays, held, free = (lan.port(name, last) for last, name in enumerate(("stays", "held", "free"), 10))
    first = harness.driver()
    first.ensure_network(lan.state)
    plugs = {port.id: first.plug(port.id) for port in (stays, held, free)}
    card = TapCard(plugs[held.id])
    first.close()

    def taps() -> set[str]:
        found = inside(plugs[stays.id].namespace, lambda link: set(link.links()))
        return {name for name in found if name.startswith("tap")}

    del lan.ports["held"], lan.ports["free"]
    second = harness.driver()
    for _ in range(2):
        second.ensure_network(lan.state)
        assert taps() == {plugs[stays.id].device, plugs[held.id].device}
    with pytest.raises(NetworkFailure):
        second.plug(held.id)
    card.close()
    second.ensure_network(lan.state)
    assert taps() == {plugs[stays.id].device}


def test_rules_that_somebody_removed_come_back(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    port = lan.port("host", 10)
    driver.ensure_network(lan.state)
    name = driver.plug(port.id).namespace or ""
    before = netfilter.chains("bridge", "pileus", name)
    netfilter.load("flush ruleset\n", name)
    assert netfilter.chains("bridge", "pileus", name) == []
    driver.ensure_network(lan.state)
    assert netfilter.chains("bridge", "pileus", name) == before


def test_an_interface_that_somebody_removed_comes_back(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    port = lan.port("host", 10)
    driver.ensure_network(lan.state)
    plug = driver.plug(port.id)
    inside(plug.namespace, lambda link: link.delete(plug.device))
    driver.ensure_network(lan.state)
    assert inside(plug.namespace, lambda link: link.links()[plug.device].master) == "br"


def test_a_network_that_vanished_is_made_anew_with_its_router(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    port = lan.port("host", 10)
    router = RouterSpec(id=str(uuid.uuid4()), interfaces=(lan.leg(),))
    driver.ensure_network(lan.state)
    driver.ensure_router(router)
    name = driver.plug(port.id).namespace or ""
    # As after a reboot: no namespace, no process, but the files are still there.
    for pid in dnsmasq(harness, "networks", lan.network.id):
        _kill(pid)
    for space in namespace.names(f"{harness.prefix}-"):
        inside(space, lambda link: link.delete(*(one for one in link.links() if one != "lo")))
        namespace.remove(space)
    driver.ensure_network(lan.state)
    driver.ensure_router(router)
    links = inside(name, lambda link: link.links())
    assert sorted(one.name[:3] for one in links.values() if one.master == "br") == ["rtr", "tap"]


def test_connections_of_a_port_that_left_are_forgotten(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    lan.group("all", rule("ingress"), rule("egress"))
    for last, name in enumerate(("a", "b", "beacon"), 10):
        lan.port(name, last, "all")
    bench = Bench(driver, harness)
    a, b, beacon = bench.up(lan)
    assert bench.passes(beacon, a, b, a.udp(b, 7)) == [True]
    name = driver.plug(a.port.id).namespace or ""
    assert (a.ip, b.ip) in netfilter.connections(name)
    bench.close()
    del lan.ports["b"]
    driver.ensure_network(lan.state)
    assert (a.ip, b.ip) not in netfilter.connections(name)


def test_twenty_threads_at_once(harness: BridgeHarness) -> None:
    driver = harness.driver()
    lans = [Lan() for _ in range(20)]
    routers = []
    for lan in lans:
        lan.port("host", 10)
        routers.append(RouterSpec(id=str(uuid.uuid4()), interfaces=(lan.leg(),)))
    home = str(Path("/proc/thread-self/ns/net").readlink())

    def work(number: int) -> str:
        driver.ensure_network(lans[number].state)
        driver.ensure_router(routers[number])
        driver.ensure_network(lans[number].state)
        return str(Path("/proc/thread-self/ns/net").readlink())

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(work, range(20))) == {home}
    assert len(driver.networks()) == len(driver.routers()) == 20
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda router: driver.remove_router(router.id), routers))
        list(pool.map(lambda lan: driver.remove_network(lan.network.id), lans))
    assert harness.leftovers() == []


_KILLED = """
import sys, threading, os, time, signal, msgspec
from pathlib import Path
from pileus.contracts.hypervisor import NicAttachment
from pileus.contracts.network import NetworkState, RouterSpec
from pileus.drivers.network.bridge import BridgeNetwork
driver = BridgeNetwork(state=Path(sys.argv[1]), prefix=sys.argv[2], engine="br_netfilter")
states = msgspec.json.decode(sys.argv[3], type=list[NetworkState])
router = msgspec.json.decode(sys.argv[4], type=RouterSpec)
def kill():
    time.sleep(float(sys.argv[5]))
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill, daemon=True).start()
for state in states:
    driver.ensure_network(state)
driver.ensure_router(router)
driver.remove_router(router.id)
for state in states:
    driver.remove_network(state.network.id)
"""


@pytest.mark.parametrize("after", [0.005, 0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.32])
def test_killed_at_any_point_it_can_be_made_and_removed(harness: BridgeHarness, after: float) -> None:
    outer, lan = Lan(cidr="203.0.113.0/24", external=True, dhcp=False), Lan()
    lan.group("all", rule("ingress"), rule("egress"))
    for last in range(10, 14):
        lan.port(f"host{last}", last, "all")
    router = RouterSpec(
        id=str(uuid.uuid4()), interfaces=(lan.leg(),), gateway=outer.leg(9), gateway_nexthops=("203.0.113.1",)
    )
    states = msgspec.json.encode([outer.state, lan.state]).decode()
    spec = msgspec.json.encode(router).decode()
    subprocess.run(
        [sys.executable, "-c", _KILLED, str(harness.state), harness.prefix, states, spec, str(after)],
        check=False,
        env={**os.environ, "PYTHONPATH": "src"},
        cwd=Path(__file__).parents[2],
        timeout=30,
    )
    driver = harness.driver()
    driver.ensure_network(outer.state)
    driver.ensure_network(lan.state)
    driver.ensure_router(router)
    assert len(dnsmasq(harness, "networks", lan.network.id)) == 1
    name = f"{harness.prefix}-net-{lan.network.id}"
    links = inside(name, lambda link: link.links())
    assert len([one for one in links.values() if one.master == "br" and one.up]) == 5
    driver.teardown()
    assert harness.leftovers() == []


def test_ids_that_could_be_paths_or_rules_are_refused(harness: BridgeHarness) -> None:
    driver, lan = harness.driver(), Lan()
    for evil in ("../../etc", "a b", "x; flush ruleset", ""):
        lan.network = msgspec.structs.replace(lan.network, id=evil)
        with pytest.raises(NetworkFailure):
            driver.ensure_network(lan.state)
        with pytest.raises(NetworkFailure):
            driver.remove_network(evil)
    lan = Lan()
    lan.group("evil } flush ruleset", rule("ingress"))
    lan.port("host", 10, "evil } flush ruleset")
    with pytest.raises(NetworkFailure):
        driver.ensure_network(lan.state)
    driver.remove_network(lan.network.id)


def _kill(pid: int) -> None:
    child = Child.adopt(pid)
    assert child is not None
    child.kill()
    assert child.wait(5)


@pytest.mark.parametrize("options", [(), (DhcpOption(opt_name="66", opt_value="boot.example"),)])
def test_a_guest_has_its_lease_when_ports_come_and_go(harness: BridgeHarness, options: tuple[DhcpOption, ...]) -> None:
    """With a lease of a host that sets a tag, dnsmasq 2.90 does not outlive that its files are read again."""
    bench, lan = Bench(harness.open(), harness), Lan()
    lan.port("first", 5, dhcp_options=options)
    (first,) = bench.up(lan)
    assert lease(bench, first) is not None
    lan.port("second", 6)
    _, second = bench.up(lan)
    (pid,) = dnsmasq(harness, "networks", lan.network.id)
    assert lease(bench, second) is not None
    bench.drain(first)  # answers are broadcast: it has heard those to the other
    again = lease(bench, first)
    assert again is not None
    assert again[0] == first.ip
    assert again[1].get(66) == (b"boot.example\0" if options else None)
    assert dnsmasq(harness, "networks", lan.network.id) == [pid]
    bench.close()

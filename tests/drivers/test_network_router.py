"""Routers, floating IPs and uplinks of the Linux network driver, with whole guests on a scratch host."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Self

import msgspec
import pytest

from pileus.contracts.network import FloatingIPSpec, HostRoute, RouterSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Lan, rule
from pileus.contracts.suite.network_bench import link_local
from pileus.drivers.host import namespace, netfilter
from pileus.drivers.host.netlink import Netlink, Route, inside
from pileus.drivers.host.process import apart
from pileus.drivers.network.bridge import BridgeNetwork, border, uplink
from tests.drivers.network_host import BridgeHarness, Guest, TapCard, needs_host, scratch_host

pytestmark = needs_host

_OUTER = ("203.0.113.0/24", "198.51.100.0/24")


@pytest.fixture
def harness() -> Iterator[BridgeHarness]:
    with scratch_host():
        harness = BridgeHarness()
        yield harness
        harness.close()
        assert harness.leftovers() == []


class Site:
    """A project: an external network (shared), a network of its own, a router, and guests with whole stacks."""

    def __init__(self, driver: BridgeNetwork, outer: Lan, last: int, cidr: str = "10.0.0.0/24") -> None:
        self.driver = driver
        self.outer = outer
        self.lan = Lan(cidr=cidr)
        self.lan.group("all", *(rule(way, kind) for way in ("ingress", "egress") for kind in ("IPv4", "IPv6")))
        base = outer.subnet.cidr.rpartition(".")[0]
        self.outside = f"{base}.{last}"
        self.router = RouterSpec(
            id=str(uuid.uuid4()),
            interfaces=(self.lan.leg(),),
            gateway=outer.leg(last),
            gateway_nexthops=(f"{base}.1",),
        )
        self.guests: list[Guest] = []

    def up(self) -> None:
        self.driver.ensure_network(self.lan.state)
        self.driver.ensure_router(self.router)

    def guest(self, last: int, *groups: str) -> Guest:
        port = self.lan.port(f"host{last}", last, *(groups or ("all",)))
        self.up()
        guest = Guest(self.driver.plug(port.id), port.mac_address)
        self.guests.append(guest)
        base = self.lan.subnet.cidr.rpartition(".")[0]
        guest.configure(f"{base}.{last}/24", f"{base}.1")
        return guest

    def machine(self, last: int) -> Guest:
        """A machine outside: on the external network, where everything is let in."""
        self.outer.group("all", *(rule(way) for way in ("ingress", "egress")))
        port = self.outer.port(f"machine{last}", last, "all")
        self.driver.ensure_network(self.outer.state)
        machine = Guest(self.driver.plug(port.id), port.mac_address)
        self.guests.append(machine)
        machine.configure(f"203.0.113.{last}/24", "203.0.113.1")
        return machine

    def route(self, **more: object) -> None:
        self.router = msgspec.structs.replace(self.router, **more)
        self.driver.ensure_router(self.router)

    def floating(self, *pairs: tuple[str, str]) -> None:
        self.route(
            floating_ips=tuple(
                FloatingIPSpec(id=str(uuid.uuid4()), floating_ip_address=outer, fixed_ip_address=inner)
                for outer, inner in pairs
            )
        )


@pytest.fixture
def sites(harness: BridgeHarness) -> Iterator[Callable[..., Site]]:
    """Makes projects on one external network, 203.0.113.0/24, whose gateway the host holds."""
    driver = harness.driver()
    outer = Lan(cidr="203.0.113.0/24", external=True, dhcp=False)
    driver.ensure_network(outer.state)
    made: list[Site] = []

    def make(last: int, cidr: str = "10.0.0.0/24") -> Site:
        made.append(Site(driver, outer, last, cidr))
        return made[-1]

    yield make
    for site in made:
        for guest in site.guests:
            guest.close()
    driver.teardown()


def serve(guest: Guest, port: int) -> socket.socket:
    """A socket in the guest that answers each client with the client's address, until it is closed."""

    def listen() -> socket.socket:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

    listener = guest.does(listen)
    threading.Thread(target=_tell, args=(listener,), daemon=True).start()
    return listener


def _tell(listener: socket.socket) -> None:
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(peer[0].removeprefix("::ffff:").encode())


def ask(where: Guest | None, address: str, port: int, timeout: float = 3) -> str:
    """What the server there says, or the name of the error."""

    def connect() -> str:
        try:
            with socket.create_connection((address, port), timeout) as sock:
                return sock.recv(100).decode()
        except OSError as error:
            return type(error).__name__

    return where.does(connect) if where else connect()


class Sniffer:
    """Hears what arrives at the host's uplink."""

    def __init__(self, harness: BridgeHarness) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frame.IPV4))
        self._socket.bind((_uplink(harness), frame.IPV4))
        self._socket.settimeout(3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def until(self, port: int) -> list[frame.Datagram]:
        """All packets up to the one for that port."""
        heard: list[frame.Datagram] = []
        while not heard or heard[-1].dport != port:
            if (datagram := frame.read(self._socket.recv(2000))) is not None:
                heard.append(datagram)
        return heard


def _send(address: str, port: int, payload: bytes = b"hello") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(payload, (address, port))


def host_server(port: int) -> socket.socket:
    """A server in the host's own namespace, at all of its addresses, that says the client's address."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=_tell, args=(listener,), daemon=True).start()
    return listener


def stop(*listeners: socket.socket) -> None:
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_floating_ip_leads_to_its_guest_and_keeps_the_client(sites: Callable[..., Site]) -> None:
    site = sites(10)
    guest = site.guest(5)
    listener = serve(guest, 2222)
    assert ask(None, "203.0.113.50", 2222, 0.3) != "203.0.113.1"
    site.floating(("203.0.113.50", "10.0.0.5"))
    assert ask(None, "203.0.113.50", 2222) == "203.0.113.1"
    server = serve(site.machine(90), 8080)
    # Outward the guest is seen under its floating IP.
    assert ask(guest, "203.0.113.90", 8080) == "203.0.113.50"
    stop(listener, server)


def test_without_a_floating_ip_the_gateway_speaks_for_all(sites: Callable[..., Site], harness: BridgeHarness) -> None:
    site = sites(10)
    guest = site.guest(5)
    server = serve(site.machine(90), 8080)
    assert ask(guest, "203.0.113.90", 8080) == "203.0.113.10"
    stop(server)
    site.route(enable_snat=False)
    with Sniffer(harness) as sniffer:
        guest.does(lambda: _send("203.0.113.1", 9999))
        # What the router itself says ends the wait: it comes after what the guest said.
        site.floating(("203.0.113.50", "10.0.0.5"))
        guest.does(lambda: _send("203.0.113.1", 9998))
        heard = sniffer.until(9998)
    assert [one.source for one in heard if one.dport in {9999, 9998}] == ["203.0.113.50"], "an inner address got out"


def test_a_floating_ip_that_is_taken_away_ends_its_connections(sites: Callable[..., Site]) -> None:
    site = sites(10)
    guest = site.guest(5)
    site.floating(("203.0.113.50", "10.0.0.5"))
    server = guest.does(lambda: socket.create_server(("", 2222)))
    client = socket.create_connection(("203.0.113.50", 2222), 3)
    connection, _ = server.accept()
    with server, client, connection:
        client.settimeout(0.4)
        connection.sendall(b"one")
        assert client.recv(10) == b"one"
        site.floating()
        connection.sendall(b"two")
        with pytest.raises(TimeoutError):
            client.recv(10)


def test_a_floating_ip_that_moves_takes_no_connection_along(sites: Callable[..., Site], harness: BridgeHarness) -> None:
    site = sites(10)
    before, after = site.guest(5), site.guest(6)
    site.floating(("203.0.113.50", "10.0.0.5"))
    with (
        before.does(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as old,
        after.does(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as new,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for sock in (old, new):
            sock.bind(("", 4444))
            sock.settimeout(2)
        client.connect(("203.0.113.50", 4444))
        client.send(b"one")
        assert old.recv(100) == b"one"
        # A driver that does not know what was there before cannot forget its connections: the filter must end them.
        site.driver = harness.driver()
        site.driver.ensure_network(site.lan.state)
        site.floating(("203.0.113.50", "10.0.0.6"))
        client.send(b"two")
        _send("203.0.113.50", 4444, b"three")
        assert new.recv(100) == b"three"
        old.settimeout(0.1)
        with pytest.raises(TimeoutError):
            old.recv(100)


def test_floating_ips_of_one_router_reach_each_other(sites: Callable[..., Site]) -> None:
    site = sites(10)
    one, two, three = site.guest(5), site.guest(6), site.guest(7)
    site.floating(("203.0.113.50", "10.0.0.5"), ("203.0.113.60", "10.0.0.6"))
    listeners = [serve(one, 2222), serve(two, 2222)]
    assert ask(one, "203.0.113.60", 2222) == "203.0.113.50"
    assert ask(one, "203.0.113.50", 2222) == "203.0.113.50"
    assert ask(three, "203.0.113.50", 2222) == "203.0.113.10"
    assert ask(three, "10.0.0.5", 2222) == "10.0.0.7"
    stop(*listeners)


def test_projects_meet_by_floating_ips_only(sites: Callable[..., Site], harness: BridgeHarness) -> None:
    # The same CIDR in both: neither notices.
    left, right = sites(10), sites(11)
    mine, theirs = left.guest(5), right.guest(6)
    listener = serve(theirs, 2222)
    assert ask(mine, "10.0.0.6", 2222, 0.3) != "10.0.0.5"
    right.floating(("203.0.113.60", "10.0.0.6"))
    assert ask(mine, "203.0.113.60", 2222) == "203.0.113.10"
    # A route to the other's network by way of its gateway does not help.
    far = sites(12, "10.9.0.0/24")
    hidden = far.guest(7)
    other = serve(hidden, 2222)
    left.route(routes=(HostRoute(destination="10.9.0.0/24", nexthop="203.0.113.12"),))
    assert ask(mine, "10.9.0.7", 2222, 0.5) == "TimeoutError"
    inside(None, lambda link: link.add_route(Route("10.9.0.0/24", _uplink(harness), via="203.0.113.12")))
    assert ask(None, "10.9.0.7", 2222, 0.5) == "TimeoutError"
    # Not even a datagram that needs no answer.
    with hidden.does(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("", 4444))
        sock.settimeout(2)
        far.floating(("203.0.113.70", "10.9.0.7"))
        _send("10.9.0.7", 4444, b"by the inner address")
        _send("203.0.113.70", 4444, b"by the floating one")
        assert sock.recv(100) == b"by the floating one"
    stop(listener, other)


def test_a_router_joins_its_networks(sites: Callable[..., Site]) -> None:
    site = sites(10)
    guest = site.guest(5)
    second = Lan(cidr="10.0.1.0/24")
    second.groups = site.lan.groups
    second.subnet6 = msgspec.structs.replace(second.subnet6, cidr="2001:db8:2::/64")
    port = second.port("far", 5, "all")
    fixed = (port.fixed_ips[0], msgspec.structs.replace(port.fixed_ips[1], ip_address="2001:db8:2::5"))
    second.alter("far", fixed_ips=fixed)
    site.driver.ensure_network(second.state)
    legs = [site.router.interfaces[0], second.leg()]
    for number, leg in enumerate(legs, 1):
        legs[number - 1] = msgspec.structs.replace(leg, addresses=(*leg.addresses, f"2001:db8:{number}::1/64"))
    site.route(interfaces=tuple(legs))
    far = Guest(site.driver.plug(port.id), port.mac_address)
    site.guests.append(far)
    far.configure("10.0.1.5/24", "10.0.1.1")
    guest.configure("2001:db8:1::5/64", "2001:db8:1::1")
    far.configure("2001:db8:2::5/64", "2001:db8:2::1")
    listener = serve(far, 2222)
    assert ask(guest, "10.0.1.5", 2222) == "10.0.0.5"
    assert ask(guest, "2001:db8:2::5", 2222) == "2001:db8:1::5"
    site.route(admin_state_up=False)
    assert ask(guest, "10.0.1.5", 2222, 0.3) != "10.0.0.5"
    site.route(admin_state_up=True)
    assert ask(guest, "10.0.1.5", 2222) == "10.0.0.5"
    site.route(interfaces=site.router.interfaces[:1])
    assert ask(guest, "10.0.1.5", 2222, 0.3) != "10.0.0.5"
    stop(listener)


def test_metadata_works_through_the_router_too(sites: Callable[..., Site]) -> None:
    site = sites(10)
    # This subnet has no DHCP, so its guests know no other way than their default route.
    site.lan.resubnet(enable_dhcp=False, dhcp_address=None)
    guest = site.guest(5)
    listener = site.driver.listen(site.lan.network.id, "169.254.169.254", 80)

    def answer() -> None:
        connection, peer = listener.accept()
        with connection:
            connection.sendall(peer[0].encode())

    listener.settimeout(5)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    assert ask(guest, "169.254.169.254", 80) == "10.0.0.5"
    thread.join(5)
    listener.close()


def test_a_change_of_the_router_is_announced(sites: Callable[..., Site], harness: BridgeHarness) -> None:
    site = sites(10)
    site.guest(5)
    # The host learnt another owner of the address; the announcement corrects it before it would be asked again.
    with apart(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frame.ARP))) as sniffer:
        sniffer.bind((_uplink(harness), frame.ARP))
        sniffer.settimeout(2)
        site.floating(("203.0.113.50", "10.0.0.5"))
        heard, got = set[bytes](), b""
        while len(heard) < 2:
            got = sniffer.recv(2000)
            if got[28:32] == got[38:42] == socket.inet_aton("203.0.113.50"):
                heard.add(got[20:22])
        assert site.router.gateway is not None
        assert got[22:28] == bytes.fromhex(site.router.gateway.mac_address.replace(":", ""))


def test_the_outside_does_not_learn_what_is_inside(sites: Callable[..., Site], harness: BridgeHarness) -> None:
    site = sites(10)
    site.up()
    device = _uplink(harness)
    mac = inside(None, lambda link: link.links()[device].mac)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frame.ARP)) as sock:
        sock.bind((device, frame.ARP))
        sock.settimeout(3)
        # An inner address of the router, then its outer one: only the second is answered.
        for address in ("10.0.0.1", "203.0.113.10"):
            sock.send(frame.arp(mac, mac, "203.0.113.1", address))
        answers = []
        while "203.0.113.10" not in answers:
            got = sock.recv(2000)
            if got[20:22] == b"\x00\x02":
                answers.append(socket.inet_ntoa(got[28:32]))
    assert "10.0.0.1" not in answers


def test_the_host_is_not_there_for_guests(sites: Callable[..., Site], harness: BridgeHarness) -> None:
    site = sites(10)
    guest = site.guest(5)
    site.floating(("203.0.113.50", "10.0.0.5"))
    machine = site.machine(90)
    inside(None, lambda link: link.add_tap("other0"))
    inside(None, lambda link: _settle(link, "other0", "192.0.2.7/24"))
    # What a container engine does: a port of the host, whichever address is called, leads elsewhere.
    netfilter.load(
        "table ip engine {\nchain pre {\ntype nat hook prerouting priority -100\n"
        "fib daddr type local tcp dport 8088 dnat to 203.0.113.90:2222\n}\n}\n"
    )
    servers = [host_server(8080), serve(machine, 2222), serve(guest, 2222)]
    try:
        for who in (guest, machine):
            for address in ("203.0.113.1", "192.0.2.7"):
                assert ask(who, address, 8080, 0.3) == "TimeoutError", "a service of the host"
                assert ask(who, address, 8088, 0.3) == "TimeoutError", "what the host redirects"
            assert _echo(who, "203.0.113.1"), "a ping is answered"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("", 4444))
            listener.settimeout(0.2)
            guest.does(lambda: _send("203.0.113.1", 4444))
            with pytest.raises(TimeoutError):
                listener.recv(10)
            # Answers come, also to a datagram.
            listener.sendto(b"ask", ("203.0.113.90", 4445))
        assert ask(None, "203.0.113.50", 2222) == "203.0.113.1"
        assert ask(guest, "203.0.113.90", 2222) == "203.0.113.50"
    finally:
        stop(*servers)
        netfilter.load("delete table ip engine\n")
        inside(None, lambda link: link.delete("other0"))


def test_the_host_forwards_to_no_link_local_address(sites: Callable[..., Site]) -> None:
    machine = sites(10).machine(90)
    # As where the host is itself a guest of a cloud: that cloud's metadata is at its next hop.
    name = f"below-{uuid.uuid4().hex[:8]}"
    namespace.create(name)
    try:
        inside(None, lambda link: link.add_veth("up0", None, "down0", name))
        inside(None, lambda link: _settle(link, "up0", "192.0.2.1/24"))
        inside(name, lambda link: _settle(link, "down0", "192.0.2.2/24", "169.254.169.254/32"))
        inside(None, lambda link: link.add_route(Route("169.254.169.254/32", "up0")))
        server = apart(lambda: host_server(8080), name)
        assert ask(None, "169.254.169.254", 8080) == "192.0.2.1"
        assert ask(machine, "192.0.2.2", 8080) == "192.0.2.1", "it forwards, masqueraded"
        assert ask(machine, "169.254.169.254", 8080, 0.3) == "TimeoutError"
        stop(server)
    finally:
        inside(None, lambda link: link.delete("up0"))
        namespace.remove(name)


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
        inside(None, lambda link: _settle(link, "other0", "192.0.2.7/24"))
        for who, most in ((one, 4), (other, 4)):
            before = len(netfilter.connections())
            who.does(flood)
            assert 0 < len(netfilter.connections()) - before <= most
    finally:
        inside(None, lambda link: link.delete("other0"))


def _settle(link: Netlink, device: str, *addresses: str) -> None:
    link.change("lo", up=True)
    link.change(device, up=True)
    for address in addresses:
        link.assign(device, address)


def _echo(who: Guest, address: str) -> bool:
    """Whether an address answers a ping."""
    done = who.does(lambda: subprocess.run(["ping", "-c1", "-W2", address], capture_output=True, check=False))
    return done.returncode == 0


@pytest.mark.parametrize("mode", ["slaac", "dhcpv6-stateless", "dhcpv6-stateful"])
def test_the_router_advertises(sites: Callable[..., Site], mode: str) -> None:
    site = sites(10)
    subnet = msgspec.structs.replace(
        site.lan.subnet6,
        enable_dhcp=True,
        dhcp_address="2001:db8:1::2",
        ipv6_ra_mode=mode,
        ipv6_address_mode=mode,
        routed=True,
        dns_nameservers=("2001:db8::53",),
    )
    site.lan.network = msgspec.structs.replace(site.lan.network, subnets=(site.lan.subnet, subnet))
    leg = msgspec.structs.replace(
        site.router.interfaces[0], addresses=("10.0.0.1/24", "2001:db8:1::1/64"), advertise=(subnet,)
    )
    site.router = msgspec.structs.replace(site.router, interfaces=(leg,))
    port = site.lan.port("host", 5, "all")
    site.up()
    card = TapCard(site.driver.plug(port.id))
    link = link_local(port.mac_address)
    wanted, options = None, b""
    deadline = time.monotonic() + 5
    while wanted is None and time.monotonic() < deadline:
        solicitation = frame.icmp(133)
        card.send(frame.packet(link, port.mac_address, "33:33:00:00:00:02", "ff02::2", frame.ICMPV6, solicitation))
        while (got := card.receive(0.3)) is not None:
            datagram = frame.read(got)
            if datagram and datagram.kind == 134:
                wanted, options = datagram.payload, datagram.payload[16:]
    card.close()
    assert wanted is not None, "no advertisement"
    flags = wanted[5] & 0xC0
    assert flags == {"slaac": 0, "dhcpv6-stateless": 0x40, "dhcpv6-stateful": 0xC0}[mode]
    found = {}
    while options:
        found[options[0]] = options[: options[1] * 8]
        options = options[options[1] * 8 :]
    autonomous = bool(found[3][3] & 0x40)
    assert autonomous is (mode != "dhcpv6-stateful")
    assert found[3][16:32] == socket.inet_pton(socket.AF_INET6, "2001:db8:1::")
    assert int.from_bytes(found[5][4:8]) == 1450
    assert found[25][8:24] == socket.inet_pton(socket.AF_INET6, "2001:db8::53")


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


def _uplink(harness: BridgeHarness) -> str:
    (name,) = [one for one in inside(None, lambda link: link.links()) if one.startswith(f"{harness.prefix}-")]
    return name

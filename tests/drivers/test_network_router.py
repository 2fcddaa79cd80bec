"""Routers, floating IPs and uplinks of the Linux network driver, with whole guests on a scratch host."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Literal, Self

import msgspec
import pytest

from pileus.contracts.network import HostRoute, RouterSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Lan, rule
from pileus.contracts.suite.network_bench import link_local
from pileus.drivers.host.netlink import Route, inside
from pileus.drivers.host.process import apart
from tests.drivers.network_host import BridgeHarness, Guest, TapCard, needs_host, scratch_host
from tests.drivers.network_site import Site, ask, external, send, serve, stop, uplink

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


class Lodger:
    """A project with a router of its own in a network that it does not own, the site's, and a guest without port
    security behind that router."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lan = Lan(cidr="10.1.0.0/24")
        self.lan.subnet6 = msgspec.structs.replace(self.lan.subnet6, cidr="2001:db8:2::/64")
        self.port = self.lan.port("lodger", 5, port_security=False)
        legs = (
            self.lan.leg(addresses=("10.1.0.1/24", "2001:db8:2::1/64")),
            site.lan.leg(addresses=("10.0.0.77/24", "2001:db8:1::77/64")),
        )
        self.router = RouterSpec(id=str(uuid.uuid4()), interfaces=legs)
        site.driver.ensure_network(site.lan.state)
        site.driver.ensure_network(self.lan.state)
        self.route()

    def route(self, *routes: tuple[str, str]) -> None:
        found = tuple(HostRoute(destination=destination, nexthop=nexthop) for destination, nexthop in routes)
        self.router = msgspec.structs.replace(self.router, routes=found)
        self.site.driver.ensure_router(self.router)

    def guest(self) -> Guest:
        """The guest with a whole stack, at 10.1.0.5 and 2001:db8:2::5."""
        guest = Guest(self.site.driver.plug(self.port.id), self.port.mac_address)
        self.site.guests.append(guest)
        guest.configure("10.1.0.5/24", "10.1.0.1")
        guest.configure("2001:db8:2::5/64", "2001:db8:2::1")
        return guest

    def says(self, source: str, destination: str, payload: bytes) -> bytes:
        """A frame of the guest to its router: a datagram to port 4444."""
        body = frame.udp(4444, 4444, payload)
        leg = self.router.interfaces[0].mac_address
        return frame.packet(source, self.port.mac_address, leg, destination, frame.UDP, body)


class Sniffer:
    """Hears what arrives at the host's uplink."""

    def __init__(self, harness: BridgeHarness) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frame.IPV4))
        self._socket.bind((uplink(harness), frame.IPV4))
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
        guest.does(lambda: send("203.0.113.1", 9999))
        # What the router itself says ends the wait: it comes after what the guest said.
        site.floating(("203.0.113.50", "10.0.0.5"))
        guest.does(lambda: send("203.0.113.1", 9998))
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
        send("203.0.113.50", 4444, b"three")
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
    inside(None, lambda link: link.add_route(Route("10.9.0.0/24", uplink(harness), via="203.0.113.12")))
    assert ask(None, "10.9.0.7", 2222, 0.5) == "TimeoutError"
    # Not even a datagram that needs no answer.
    with hidden.does(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("", 4444))
        sock.settimeout(2)
        far.floating(("203.0.113.70", "10.9.0.7"))
        send("10.9.0.7", 4444, b"by the inner address")
        send("203.0.113.70", 4444, b"by the floating one")
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


def _listens(guest: Guest, kind: socket.AddressFamily) -> socket.socket:
    sock = guest.does(lambda: socket.socket(kind, socket.SOCK_DGRAM))
    sock.bind(("", 4444))
    sock.settimeout(3)
    return sock


@pytest.mark.parametrize("routed", [False, True], ids=["no route", "a route for one"])
@pytest.mark.parametrize("kind", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_nobody_speaks_as_a_neighbour_by_way_of_a_router(
    sites: Callable[..., Site], kind: socket.AddressFamily, *, routed: bool
) -> None:
    site = sites(10)
    six = kind == socket.AF_INET6
    peer, victim, honest, next_hop, elsewhere = (
        ("2001:db8:1::66", "2001:db8:1::5", "2001:db8:2::5", "2001:db8:2::5", "2001:db8:66::1")
        if six
        else ("10.0.0.66", "10.0.0.5", "10.1.0.5", "10.1.0.5", "192.0.2.66")
    )
    version: Literal["IPv4", "IPv6"] = "IPv6" if six else "IPv4"
    # Only members come in, and the lodger's own address, whose datagram ends the wait for what is not let in.
    let_in = (rule("ingress", version, group="club"), rule("ingress", version, prefix=honest))
    site.lan.group("club", rule("egress", version), *let_in, members=(peer, victim, elsewhere))
    guest = site.guest(5, "club")
    guest.configure("2001:db8:1::5/64", "2001:db8:1::1")
    lodger = Lodger(site)
    if routed:
        lodger.route((f"{peer}/{128 if six else 32}", next_hop))
    card = TapCard(site.driver.plug(lodger.port.id))
    with _listens(guest, kind) as sock:
        # The router learns where the guest is before it is asked to forward what must not arrive.
        card.send(lodger.says(honest, victim, b"first"))
        assert sock.recv(100) == b"first"
        for source, payload in ((peer, b"as a peer"), (elsewhere, b"as anybody"), (honest, b"last")):
            card.send(lodger.says(source, victim, payload))
        heard = []
        while b"last" not in heard:
            heard.append(sock.recv(100))
    card.close()
    assert heard == [b"last"]


def test_networks_behind_a_guest_are_reached_both_ways(sites: Callable[..., Site]) -> None:
    site = sites(10)
    client = site.guest(5)
    client.configure("2001:db8:1::5/64", "2001:db8:1::77")
    lodger = Lodger(site)
    far = lodger.guest()
    for address in ("192.168.50.5/32", "2001:db8:50::5/128"):
        far.configure(address)
    lodger.route(("192.168.0.0/16", "10.1.0.5"), ("192.168.50.0/24", "10.1.0.5"), ("2001:db8:50::/64", "2001:db8:2::5"))
    inside(client.name, lambda link: link.add_route(Route("192.168.0.0/16", "eth0", via="10.0.0.77")))
    inside(client.name, lambda link: link.add_route(Route("10.1.0.0/24", "eth0", via="10.0.0.77")))
    listeners = [serve(client, 2222), serve(far, 2222)]
    for mine, theirs in (("192.168.50.5", "10.0.0.5"), ("2001:db8:50::5", "2001:db8:1::5")):
        assert ask(client, mine, 2222) == theirs
        assert ask(far, theirs, 2222, source=mine) == mine
    stop(*listeners)


def test_a_guest_of_two_subnets_goes_by_the_leg_of_either(sites: Callable[..., Site]) -> None:
    site = sites(10)
    client = site.guest(5)
    more = msgspec.structs.replace(site.lan.ports["host5"].fixed_ips[1], ip_address="2001:db8:3::5")
    site.lan.alter("host5", fixed_ips=(*site.lan.ports["host5"].fixed_ips, more))
    lodger = Lodger(site)
    legs = (*lodger.router.interfaces, site.lan.leg(addresses=("2001:db8:3::77/64",)))
    lodger.router = msgspec.structs.replace(lodger.router, interfaces=legs)
    lodger.route()
    for address in ("2001:db8:1::5/64", "2001:db8:3::5/64"):
        client.configure(address)
    inside(client.name, lambda link: link.add_route(Route("2001:db8:2::/64", "eth0", via="2001:db8:3::77")))
    listener = serve(lodger.guest(), 2222)
    for source in ("2001:db8:3::5", "2001:db8:1::5"):
        assert ask(client, "2001:db8:2::5", 2222, source=source) == source
    stop(listener)


def test_a_network_behind_a_neighbour_is_reached_though_the_answers_pass_the_router_by(
    sites: Callable[..., Site],
) -> None:
    site = sites(10)
    client, far = site.guest(5), site.guest(6)
    site.lan.alter("host6", port_security=False, security_groups=())
    leg = msgspec.structs.replace(site.router.interfaces[0], addresses=("10.0.0.1/24", "2001:db8:1::1/64"))
    site.up()
    site.route(
        interfaces=(leg,),
        routes=(
            HostRoute(destination="192.168.50.0/24", nexthop="10.0.0.6"),
            HostRoute(destination="2001:db8:50::/64", nexthop="2001:db8:1::6"),
        ),
    )
    client.configure("2001:db8:1::5/64", "2001:db8:1::1")
    for address in ("2001:db8:1::6/64", "192.168.50.5/32", "2001:db8:50::5/128"):
        far.configure(address)
    listeners = [serve(client, 2222), serve(far, 2222)]
    for mine, theirs in (("192.168.50.5", "10.0.0.5"), ("2001:db8:50::5", "2001:db8:1::5")):
        assert ask(client, mine, 2222) == theirs
        assert ask(far, theirs, 2222, source=mine) == mine
    stop(*listeners)


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
        sniffer.bind((uplink(harness), frame.ARP))
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
    device = uplink(harness)
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

"""Tenants on one cloud: two networks of the same addresses, groups that let nothing in, and a guest that lies.

Three guests: `liar` and `neighbour` on one network of one project, whose group lets everything in, so that nothing but
the cloud itself protects the one from the other; and `stranger` in a project of its own, on a network of the same
range, with the very address of `neighbour`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network_bench import link_local
from pileus.drivers.host.process import apart
from tests.real.cloud import Cloud, run, until
from tests.real.tenant import SDK, Guest, Land, Tenant, administrator, furnish, let_in, settle, tenant
from tests.real.wire import Tap, Wire

if TYPE_CHECKING:
    from openstack.connection import Connection

pytestmark = [pytest.mark.slow, SDK]

RANGE, RANGE_6 = "10.9.0.0/24", "fd00:9::/64"
GATEWAY, GATEWAY_6, HOST = "10.9.0.1", "fd00:9::1", "172.24.4.1"
WORLD = "192.0.2.2"
"""A machine somewhere outside, to which the host forwards."""
METADATA = "169.254.169.254"
UNTRUE = "fa:16:3e:66:66:66"
NOBODY = "0.0.0.0"
ALL = "ff02::1"
PORT = 8099

CALL = f"""#!/bin/sh
until word=$(wget -q -O - http://{WORLD}:{PORT}/ask) && [ -n "$word" ]; do sleep 0.5; done
wget -q -O /dev/null http://{WORLD}:{PORT}/$word
"""
"""What `stranger` does on its first day: fetch a word from outside, and bring it back."""


@dataclass
class Town:
    """The tenants, their networks and their guests."""

    cloud: Cloud
    red: Tenant
    green: Tenant
    red_land: Land
    green_land: Land
    liar: Guest
    neighbour: Guest
    stranger: Guest
    asked: list[str]
    """What `stranger` asked for outside."""

    def namespace(self, land: Land) -> str:
        """The network namespace of a network."""
        names = self.cloud.inside("ip", "netns", "list").split()
        return next(name for name in names if name.endswith(f"net-{land.network}"))


@pytest.fixture(scope="module")
def town(cloud: Cloud, tiny: Path) -> Iterator[Town]:
    """The town, its guests booted."""
    cloud.pileus("up", "--detach", "--no-demo")
    admin = administrator(cloud)
    furnish(admin, tiny)
    red, green = tenant(admin, "red"), tenant(admin, "green")
    red_land, green_land = settle(red, RANGE, RANGE_6), settle(green, RANGE)
    group = open_group(red)
    with outside(cloud) as asked:
        stranger = Guest(green, green_land, "stranger", "10.9.0.11", user_data=CALL)
        liar = Guest(red, red_land, "liar", "10.9.0.10", group)
        neighbour = Guest(red, red_land, "neighbour", "10.9.0.11", group)
        for guest in (liar, neighbour, stranger):
            guest.booted()
        yield Town(cloud, red, green, red_land, green_land, liar, neighbour, stranger, asked)


def open_group(owner: Tenant) -> str:
    """The id of a group that lets everything in."""

    def make(session: Connection) -> str:
        group = session.network.create_security_group(name="open")
        for kind in ("IPv4", "IPv6"):
            session.network.create_security_group_rule(security_group_id=group.id, direction="ingress", ether_type=kind)
        return str(group.id)

    return owner.do(make)


@contextmanager
def outside(cloud: Cloud) -> Iterator[list[str]]:
    """A machine outside, with a web server that gives `xyzzy` to whoever asks; the paths asked for."""
    name = f"{cloud.namespace}w"
    run("ip", "netns", "add", name)
    try:
        cloud.inside("ip", "link", "add", "world", "type", "veth", "peer", "name", "eth0", "netns", name)
        for space, device, address in ((cloud.namespace, "world", "192.0.2.1/24"), (name, "eth0", f"{WORLD}/24")):
            run("ip", "-n", space, "address", "add", address, "dev", device)
            run("ip", "-n", space, "link", "set", device, "up")
        with serving(WORLD, name) as asked:
            yield asked
    finally:
        cloud.inside("ip", "link", "delete", "world", check=False)
        run("ip", "netns", "delete", name)


@contextmanager
def serving(address: str, namespace: str) -> Iterator[list[str]]:
    """A web server in a namespace, that gives `xyzzy`; the paths asked for."""
    listener = apart(lambda: socket.create_server((address, PORT)), namespace)
    asked: list[str] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                with caller, suppress(OSError):
                    words = caller.recv(4096).decode().split()
                    asked.extend(words[1:2])  # none from who connects and says nothing
                    caller.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nxyzzy")

    thread = Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def pings(cloud: Cloud, address: str) -> bool:
    """Whether an address answers the host."""
    return "1 received" in cloud.inside("ping", "-c", "1", "-W", "2", address, check=False)


def connects(cloud: Cloud, address: str, port: int = 22) -> bool:
    """Whether a TCP port of an address lets the host in."""

    def connect() -> bool:
        with suppress(OSError), socket.create_connection((address, port), timeout=3):
            return True
        return False

    return apart(connect, cloud.namespace)


def test_a_default_group_lets_nothing_in_and_answers_come_back(town: Town) -> None:
    stranger = town.stranger
    until(lambda: "/xyzzy" in town.asked, "what it asked for outside has come back to it", 30)
    assert not pings(town.cloud, stranger.floating)
    assert not connects(town.cloud, stranger.floating)
    assert "bytes from" not in town.liar.shell(f"ping -c 1 -W 2 {stranger.floating}", check=False)
    assert pings(town.cloud, town.liar.floating), "who may be let in is"

    for more in ({"protocol": "icmp"}, {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}):
        let_in(town.green, **more)
    until(lambda: pings(town.cloud, stranger.floating), "a ping is answered", 10)
    until(lambda: connects(town.cloud, stranger.floating), "SSH is let in", 10)
    assert not connects(town.cloud, stranger.floating, 23)
    assert stranger.shell("hostname").strip() == "stranger"


def test_the_same_address_on_two_networks_is_two_guests(town: Town) -> None:
    for guest in (town.neighbour, town.stranger):
        guest.shell(f"mkdir -p /tmp/www; echo {guest.name} >/tmp/www/name; httpd -p 8080 -h /tmp/www")
    assert town.liar.shell("wget -q -O - http://10.9.0.11:8080/name").strip() == "neighbour"
    assert town.stranger.shell("wget -q -O - http://10.9.0.11:8080/name").strip() == "stranger"
    for guest in (town.neighbour, town.stranger):
        assert town.cloud.inside("ping", "-c", "1", "-W", "2", guest.floating)
        assert guest.shell("hostname").strip() == guest.name
    # The liar's address is nobody's on the other network.
    assert "bytes from" not in town.stranger.shell("ping -c 2 -W 1 10.9.0.10", check=False)


def test_no_packet_of_one_tenant_is_seen_by_the_other(town: Town) -> None:
    liar, neighbour, stranger = town.liar, town.neighbour, town.stranger
    wires = {guest.name: Wire(guest.shell) for guest in (liar, neighbour, stranger)}
    said = frame.udp(40000, 5000, b"of red")
    sent = [
        frame.arp(liar.mac, liar.mac, liar.ip, stranger.ip),
        frame.arp(liar.mac, liar.mac, liar.ip, liar.ip, reply=True),
        frame.packet(liar.ip, liar.mac, stranger.mac, stranger.ip, frame.UDP, said),
        frame.packet(liar.ip, liar.mac, frame.BROADCAST, "255.255.255.255", frame.UDP, said),
        frame.packet(liar.ip, liar.mac, frame.BROADCAST, "10.9.0.255", frame.UDP, said),
        frame.packet(link_local(liar.mac), liar.mac, "33:33:00:00:00:01", ALL, frame.UDP, said),
    ]
    answer = frame.udp(40000, 5000, b"of green")
    back = frame.packet(stranger.ip, stranger.mac, frame.BROADCAST, "10.9.0.255", frame.UDP, answer)
    with (
        closing(Tap(town.namespace(town.red_land))) as red,
        closing(Tap(town.namespace(town.green_land))) as green,
        wires["neighbour"].listening(),
        wires["stranger"].listening(),
    ):
        liar.shell(f"ping -c 2 -W 1 {stranger.ip}; sudo arping -c 1 -w 1 -I eth0 {stranger.ip}", check=False)
        wires["liar"].send(*sent)
        wires["stranger"].send(back)
        there = wires["neighbour"].heard(sent[-1])
        elsewhere = wires["stranger"].heard(back)
        passed = {"red": red.heard(), "green": green.heard()}
    # What is broadcast reaches the network that it was sent on, so it would have been seen on the other.
    assert [one in there for one in sent] == [True, True, False, True, True, True]
    assert back in passed["green"]
    macs = {owner.name: addresses(owner, land) for owner, land in _lands(town)}
    assert not macs["red"] & macs["green"]
    for name, other in (("red", "green"), ("green", "red")):
        senders = {one[6:12] for one in passed[name]}
        assert senders & macs[name]
        assert not senders & macs[other]
    assert not {one[6:12] for one in elsewhere} & macs["red"]
    assert liar.mac not in stranger.shell("ip neigh")


def _lands(town: Town) -> list[tuple[Tenant, Land]]:
    return [(town.red, town.red_land), (town.green, town.green_land)]


def addresses(owner: Tenant, land: Land) -> set[bytes]:
    """The MAC addresses of all ports of a network."""
    ports = owner.do(lambda session: list(session.network.ports(network_id=land.network)))
    return {bytes.fromhex(str(port.mac_address).replace(":", "")) for port in ports}


def _gateway(town: Town, address: str) -> str:
    """The MAC address of red's router where it has this address."""
    ports = town.red.do(lambda session: list(session.network.ports(network_id=town.red_land.network)))
    return next(str(port.mac_address) for port in ports if address in [one["ip_address"] for one in port.fixed_ips])


def _untrue(liar: Guest, neighbour: Guest, gateway: str, router: str) -> dict[str, bytes]:
    """Frames that claim what is not so, by the lie. `gateway` and `router` are MAC addresses, for IPv4 and IPv6."""
    said, mine, six = frame.udp(40000, 5000, b"a lie"), liar.mac, link_local(liar.mac)
    gateway_6 = link_local(router)

    def packet(protocol: int, body: bytes, source: str = "", mac: str = "", to: str = "") -> bytes:
        target = ALL if ":" in source else to or neighbour.ip
        return frame.packet(source or liar.ip, mac or mine, neighbour.mac, target, protocol, body)

    offer = frame.dhcp_option(54, socket.inet_aton(liar.ip)) + frame.dhcp_option(3, socket.inet_aton(liar.ip))
    served = {
        kind: frame.udp(67, 68, frame.dhcp(neighbour.mac, number, reply=True, options=offer))
        for kind, number in (("offer", 2), ("ack", 5))
    }
    advertised = frame.router_advertisement("fd66::")
    hidden = bytes((frame.ICMPV6, 0, 0, 1, 0, 0, 0, 1)) + advertised  # the header of a fragment (RFC 8200, section 4.5)
    return {
        **{f"UDP from MAC {mac}": packet(frame.UDP, said, mac=mac) for mac in (UNTRUE, neighbour.mac, gateway)},
        **{
            f"UDP from {source}": packet(frame.UDP, said, source=source)
            for source in (GATEWAY, neighbour.ip, "10.9.0.99", "192.0.2.1", NOBODY, gateway_6, "fd00:9::99")
        },
        "UDP broadcast as gateway": frame.packet(GATEWAY, gateway, frame.BROADCAST, "10.9.0.255", frame.UDP, said),
        "echo as gateway": packet(frame.ICMP, frame.icmp(0), source=GATEWAY, mac=gateway),
        "ARP: gateway is here": frame.arp(mine, mine, GATEWAY, GATEWAY),
        "ARP: gateway is here, unasked": frame.arp(mine, mine, GATEWAY, neighbour.ip, reply=True),
        "ARP: neighbour is here": frame.arp(mine, mine, neighbour.ip, GATEWAY, reply=True),
        "ARP: I am elsewhere": frame.arp(mine, UNTRUE, liar.ip, neighbour.ip, reply=True),
        "ARP from another MAC": frame.arp(UNTRUE, UNTRUE, liar.ip, neighbour.ip),
        "ARP as gateway": frame.arp(gateway, gateway, GATEWAY, neighbour.ip, reply=True),
        **{f"DHCP {kind}": packet(frame.UDP, body) for kind, body in served.items()},
        "DHCP offer to all": packet(frame.UDP, served["offer"], to="255.255.255.255"),
        "DHCP offer as gateway": packet(frame.UDP, served["offer"], source=GATEWAY, mac=gateway),
        "DHCPv6 reply": packet(frame.UDP, frame.udp(547, 546, b"\x07abc"), source=six),
        "RA": packet(frame.ICMPV6, advertised, source=six),
        "RA as gateway": packet(frame.ICMPV6, advertised, source=gateway_6, mac=router),
        "RA as gateway, own MAC": packet(frame.ICMPV6, advertised, source=gateway_6),
        "RA in a fragment": packet(44, hidden, source=six),
        "NA: gateway is here": packet(frame.ICMPV6, frame.neighbour(136, gateway_6, mine), source=six),
        "NA: neighbour is here": packet(
            frame.ICMPV6, frame.neighbour(136, link_local(neighbour.mac), mine), source=six
        ),
        "redirect": packet(frame.ICMPV6, frame.icmp(137), source=six),
        "VLAN": frame.ethernet(
            neighbour.mac, mine, frame.VLAN, b"\0\x07\x08\0" + packet(frame.UDP, said, source=GATEWAY)[14:]
        ),
        **{
            f"EtherType {kind:04x}": frame.ethernet(frame.BROADCAST, mine, kind, bytes(46))
            for kind in (0x0026, 0x0842, 0x8035, 0x8863, 0x88CC)  # 802.3's length, wake-on-LAN, RARP, PPPoE, LLDP
        },
    }


def test_what_a_guest_forges_gets_nowhere(town: Town) -> None:
    liar, neighbour = town.liar, town.neighbour
    untrue = _untrue(liar, neighbour, _gateway(town, GATEWAY), _gateway(town, GATEWAY_6))
    true = [
        frame.arp(liar.mac, liar.mac, liar.ip, neighbour.ip),
        frame.packet(liar.ip, liar.mac, neighbour.mac, neighbour.ip, frame.UDP, frame.udp(40000, 5000, b"true")),
        frame.packet(link_local(liar.mac), liar.mac, neighbour.mac, ALL, frame.UDP, frame.udp(40000, 5000, b"true")),
        frame.packet(liar.ip, liar.mac, frame.BROADCAST, "10.9.0.255", frame.UDP, frame.udp(40000, 5000, b"true")),
    ]
    mouth, ear = Wire(liar.shell), Wire(neighbour.shell)
    with ear.listening():
        mouth.send(*untrue.values(), *true)
        heard = ear.heard(true[-1])
    assert [one in heard for one in true] == [True] * len(true)
    assert [lie for lie, one in untrue.items() if one in heard] == []
    assert not [one.hex() for one in heard if b"a lie" in one or UNTRUE.replace(":", "") == one[6:12].hex()]
    _believes(town, neighbour)


def _believes(town: Town, guest: Guest) -> None:
    """The guest knows the true gateways and no other, and can be reached."""
    found = guest.shell(f"ping -c 1 -W 2 {HOST} >/dev/null; ip neigh show {GATEWAY}")
    assert f"lladdr {_gateway(town, GATEWAY)}" in found
    (route,) = guest.shell("ip -6 route show default").splitlines()
    assert f"via {link_local(_gateway(town, GATEWAY_6))} " in route
    assert "fd66:" not in guest.shell("ip -6 address")
    assert pings(town.cloud, guest.floating)


def test_a_guest_that_takes_other_addresses_is_not_heard(town: Town) -> None:
    liar, neighbour = town.liar, town.neighbour
    assert "Received 2" in liar.shell(f"sudo arping -c 2 -I eth0 {neighbour.ip}"), "as itself it is heard"
    steps = f"""
        arping -U -c 2 -I eth0 -s {GATEWAY} {GATEWAY}
        ip address add {GATEWAY}/24 dev eth0
        arping -c 2 -I eth0 -s {GATEWAY} {neighbour.ip}
        ip address del {GATEWAY}/24 dev eth0
        ip link set eth0 down
        ip link set eth0 address {neighbour.mac}
        ip link set eth0 up
        arping -c 2 -I eth0 {GATEWAY}
        ip link set eth0 down
        ip link set eth0 address {liar.mac}
        ip link set eth0 up
        ip route add default via {GATEWAY}
        arping -c 2 -I eth0 {neighbour.ip}
        echo end
    """
    liar.shell(f"cat >/tmp/steps <<'END'\n{steps}\nEND\nsudo setsid sh /tmp/steps >/tmp/said 2>&1 </dev/null &")
    said = until(lambda: _ended(liar), "the liar is itself again", 60, 1)
    assert [int(line.split()[1]) for line in said.splitlines() if line.startswith("Received")] == [0, 0, 2]
    _believes(town, neighbour)


def _ended(guest: Guest) -> str:
    said = guest.shell("cat /tmp/said", check=False)
    return said if said.rstrip().endswith("end") else ""


def test_a_guest_that_serves_dhcp_is_not_heard(town: Town) -> None:
    liar, neighbour = town.liar, town.neighbour
    settings = f"start 10.9.0.200\nend 10.9.0.210\ninterface eth0\nlease_file /tmp/leases\noption router {liar.ip}\n"
    liar.shell(f"printf '{settings}' >/tmp/udhcpd; touch /tmp/leases")
    liar.shell("sudo setsid udhcpd -f /tmp/udhcpd >/tmp/served 2>&1 </dev/null &")
    until(lambda: "started" in liar.shell("cat /tmp/served"), "it serves", 10)
    said = neighbour.shell("sudo udhcpc -i eth0 -f -n -q -t 5 -T 2 -s /usr/bin/true 2>&1")
    assert f"lease of {neighbour.ip} obtained" in said
    assert liar.ip not in said
    until(lambda: "OFFER" in liar.shell("cat /tmp/served"), "it was asked, and answered", 10)
    liar.shell("sudo killall udhcpd")


def test_the_host_is_not_there(town: Town) -> None:
    liar = town.liar
    served = town.namespace(town.red_land)
    dhcp = next(
        line.split()[3].partition("/")[0]
        for line in run("ip", "-n", served, "-o", "-4", "address", "show", "dev", "br").splitlines()
        if "10.9.0." in line
    )
    with serving(NOBODY, town.cloud.namespace) as asked:  # as the services of a host do: at all of its addresses
        assert connects(town.cloud, HOST, PORT)
        asked.clear()
        listening = town.cloud.inside("ss", "-Hltn")
        ports = {line.split()[3].rpartition(":")[2] for line in listening.splitlines()} | {"22", "53", "5000"}
        assert {str(PORT), "5000"} <= ports
        places = [f"{one}:{port}" for one in (HOST, "192.0.2.1", METADATA, dhcp, GATEWAY) for port in ports]
        tries = "(nc -w 2 ${place%:*} ${place#*:} </dev/null >/dev/null 2>&1 && echo $place) &"
        beyond = f"{WORLD}:{PORT}"
        said = liar.shell(f"for place in {beyond} {' '.join(places)}; do {tries} done; wait")
        assert said.split() == [beyond], "what is beyond the host is there"
        assert asked == []
    assert "hostname" in liar.shell(f"wget -q -O - http://{METADATA}/openstack/latest/meta_data.json")


def test_another_tenants_things_are_not_there(town: Town) -> None:
    liar, land, green = town.liar, town.red_land, town.green
    theirs = {
        "compute/servers": liar.server,
        "network/ports": liar.port,
        "network/floatingips": liar.floating_id,
        "network/networks": land.network,
        "network/subnets": land.subnet,
        "network/routers": land.router,
    }
    for kind, identifier in theirs.items():
        assert town.red.status(kind, identifier) == 200, kind
        assert green.status(kind, identifier) == 404, kind
        assert identifier not in green.ids(kind), kind
        assert green.ids(kind), kind

"""A bench for the network suite: guests on the networks of a driver, and what they see of each other's frames.

So that "it never comes" needs no waiting, a third guest, the beacon, broadcasts an ARP request after what is tried,
which every port lets through: what has not come before the beacon's does not come.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable

from pileus.contracts.network import Network, PortSpec
from pileus.contracts.suite import network_frame as frame
from pileus.contracts.suite.network import Card, Lan, PacketHarness

PATIENCE = 2.0
"""Seconds in which what passes has passed."""
SILENCE = 0.15
"""Seconds without a frame after which nothing more comes, where no beacon can be heard."""
NOBODY = "0.0.0.0"  # noqa: S104 - who has no address yet
_SERIAL = itertools.count(1)


class Station:
    """A guest: its port, its card, and the frames it would send."""

    def __init__(self, port: PortSpec, card: Card) -> None:
        self.port = port
        self.card = card
        self.mac = port.mac_address
        self.ip = port.fixed_ips[0].ip_address
        self.ip6 = port.fixed_ips[1].ip_address

    def udp(self, other: Station, dport: int, sport: int = 40000, **untrue: str) -> bytes:
        return self.packet(other, frame.UDP, frame.udp(sport, dport, b"hello"), **untrue)

    def packet(self, other: Station, protocol: int, body: bytes, *, source: str = "", mac: str = "") -> bytes:
        """A frame to another guest; IPv6 when `source` is, or for ICMPv6."""
        six = ":" in source or protocol == frame.ICMPV6
        source = source or (self.ip6 if six else self.ip)
        return frame.packet(source, mac or self.mac, other.mac, other.ip6 if six else other.ip, protocol, body)


class Bench:
    """A driver with the networks of a test, and the guests on them."""

    def __init__(self, driver: Network, harness: PacketHarness) -> None:
        self.driver = driver
        self.harness = harness
        self.cards: dict[str, Card] = {}

    def up(self, lan: Lan, *names: str) -> list[Station]:
        """Ensure a network and give the named guests, plugged in; all of them without names."""
        self.driver.ensure_network(lan.state)
        return [self.station(lan, name) for name in names or lan.ports]

    def station(self, lan: Lan, name: str) -> Station:
        port = lan.ports[name]
        if port.id not in self.cards:
            self.cards[port.id] = self.harness.attach(self.driver.plug(port.id))
        return Station(port, self.cards[port.id])

    def passes(self, beacon: Station, sender: Station, receiver: Station, *sent: bytes) -> list[bool]:
        """Which of the frames reach the receiver unchanged."""
        seen = set(self.arrivals(beacon, sender, receiver, *sent))
        return [one in seen for one in sent]

    def arrivals(self, beacon: Station, sender: Station, receiver: Station, *sent: bytes) -> list[bytes]:
        """All that the receiver gets from when the frames are sent until the beacon's call."""
        mark = f"10.255.{(serial := next(_SERIAL)) >> 8}.{serial & 255}"
        call = frame.arp(beacon.mac, beacon.mac, beacon.ip, mark)
        for one in sent:
            sender.card.send(one)
        beacon.card.send(call)
        seen: list[bytes] = []
        while (got := receiver.card.receive(PATIENCE)) != call:
            assert got is not None, "the beacon was not heard"
            seen.append(got)
        return seen

    def hears(self, station: Station, wanted: Callable[[bytes], bool], timeout: float = PATIENCE) -> bytes | None:
        """The next frame of that kind which the guest gets, None when none comes."""
        while (got := station.card.receive(timeout)) is not None:
            if wanted(got):
                return got
        return None

    def drain(self, *stations: Station) -> None:
        for station in stations:
            while station.card.receive(0) is not None:
                pass

    def close(self) -> None:
        for card in self.cards.values():
            card.close()
        self.cards.clear()


def towards(protocol: int, port: int) -> Callable[[bytes], bool]:
    """Whether a frame is for that port of that protocol."""

    def is_it(got: bytes) -> bool:
        datagram = frame.read(got)
        return datagram is not None and (datagram.protocol, datagram.dport) == (protocol, port)

    return is_it


def lease(bench: Bench, station: Station) -> tuple[str, dict[int, bytes]] | None:
    """The DHCP exchange of a guest without an address: what it is given, None when nobody answers the discovery."""

    def ask(kind: int, options: bytes) -> tuple[str, dict[int, bytes]] | None:
        wants = frame.dhcp_option(55, bytes((1, 3, 6, 15, 26, 51, 66, 121)))
        body = frame.udp(68, 67, frame.dhcp(station.mac, kind, options=options + wants))
        station.card.send(frame.packet(NOBODY, station.mac, frame.BROADCAST, "255.255.255.255", frame.UDP, body))
        got = bench.hears(station, towards(frame.UDP, 68), SILENCE if kind == 1 else PATIENCE)
        datagram = frame.read(got) if got else None
        return frame.dhcp_read(datagram.payload) if datagram else None

    offer = None
    for _ in range(3):
        offer = offer or ask(1, b"")
    if offer is None:
        return None
    chosen = frame.dhcp_option(50, socket.inet_aton(offer[0])) + frame.dhcp_option(54, offer[1][54])
    return ask(3, chosen)


def link_local(mac: str) -> str:
    """The link-local address of a card (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    address = b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:]
    return socket.inet_ntop(socket.AF_INET6, bytes(address))

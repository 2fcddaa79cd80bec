"""Ethernet frames as bytes: what the network suite sends as a guest, and how it reads what it gets.

Only as much of ARP (RFC 826), IPv4 (RFC 791), IPv6 (RFC 8200), UDP, TCP, ICMP, neighbour discovery (RFC 4861) and
DHCP (RFC 2131, RFC 8415) as the suite needs.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

BROADCAST = "ff:ff:ff:ff:ff:ff"
ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04


class Datagram(NamedTuple):
    """An IP packet that was read from a frame; ports are 0 for protocols without; `kind` is the ICMP type, or -1."""

    source: str
    destination: str
    protocol: int
    sport: int
    dport: int
    kind: int
    payload: bytes


def ethernet(destination: str, source: str, kind: int, body: bytes) -> bytes:
    """A frame; `kind` is its EtherType."""
    return _mac(destination) + _mac(source) + struct.pack("!H", kind) + body


def arp(source: str, sender_mac: str, sender_ip: str, target_ip: str, *, reply: bool = False) -> bytes:
    """A broadcast ARP request, or an unasked reply, sent from the MAC address `source`."""
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, 2 if reply else 1)
    body += _mac(sender_mac) + _ip(sender_ip) + bytes(6) + _ip(target_ip)
    return ethernet(BROADCAST, source, ARP, body)


def ip(source: str, destination: str, protocol: int, body: bytes, *, hops: int = 64) -> bytes:
    """An IP packet of the version that the addresses have, with the checksum of its transport filled in."""
    ends = _ip(source) + _ip(destination)
    body = _summed(ends, protocol, body)
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, hops) + ends + body
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, hops, protocol, 0) + ends
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + body


def packet(source: str, mac: str, target_mac: str, destination: str, protocol: int, body: bytes) -> bytes:
    """A frame with an IP packet; `source` is the sender's address."""
    kind = IPV6 if ":" in source else IPV4
    hops = 255 if protocol == ICMPV6 else 64
    return ethernet(target_mac, mac, kind, ip(source, destination, protocol, body, hops=hops))


def udp(sport: int, dport: int, payload: bytes = b"") -> bytes:
    """A datagram, its checksum left to `ip`."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(sport: int, dport: int, flags: int, sequence: int = 1, acknowledged: int = 0, payload: bytes = b"") -> bytes:
    """A segment, its checksum left to `ip`."""
    return struct.pack("!HHIIBBHHH", sport, dport, sequence, acknowledged, 0x50, flags, 64000, 0, 0) + payload


def icmp(kind: int, code: int = 0, identifier: int = 7, payload: bytes = b"") -> bytes:
    """ICMP or ICMPv6 with the header of an echo."""
    return struct.pack("!BBHHH", kind, code, 0, identifier, 1) + payload


def neighbour(kind: int, target: str, mac: str) -> bytes:
    """Neighbour solicitation (135) or advertisement (136) with the sender's link-layer address."""
    flags = 0x20000000 if kind == 136 else 0
    option = (b"\x02" if kind == 136 else b"\x01") + b"\x01" + _mac(mac)
    return struct.pack("!BBHI", kind, 0, 0, flags) + _ip(target) + option


def router_advertisement(prefix: str) -> bytes:
    """An advertisement of a default router and of a prefix for SLAAC."""
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + _ip(prefix)
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option


def dhcp(mac: str, kind: int, *, reply: bool = False, options: bytes = b"", transaction: int = 0x5157) -> bytes:
    """A DHCP message as UDP payload: `kind` 1 discover, 2 offer, 3 request, 5 ack."""
    head = struct.pack("!BBBBIHH", 2 if reply else 1, 1, 6, 0, transaction, 0, 0) + bytes(16) + _mac(mac) + bytes(10)
    return head + bytes(192) + b"\x63\x82\x53\x63" + bytes((53, 1, kind)) + options + b"\xff"


def dhcp_option(number: int, value: bytes) -> bytes:
    """One option of a DHCP message."""
    return bytes((number, len(value))) + value


def dhcp_read(payload: bytes) -> tuple[str, dict[int, bytes]]:
    """The address that a DHCP message gives, and its options (RFC 2132)."""
    address = str(ipaddress.IPv4Address(payload[16:20]))
    options: dict[int, bytes] = {}
    rest = payload[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        options[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return address, options


def routes_read(value: bytes) -> dict[str, str]:
    """Classless static routes (RFC 3442): destination CIDR to next hop."""
    found = {}
    while value:
        width = value[0]
        octets = (width + 7) // 8
        target = ipaddress.IPv4Address(value[1 : 1 + octets] + bytes(4 - octets))
        found[f"{target}/{width}"] = str(ipaddress.IPv4Address(value[1 + octets : 5 + octets]))
        value = value[5 + octets :]
    return found


def question(name: str) -> bytes:
    """A DNS query for an A record (RFC 1035)."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def read(frame: bytes) -> Datagram | None:
    """The IP packet in an untagged frame, None when there is none."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == IPV4:
        size = (frame[14] & 15) * 4
        source, destination, protocol, body = frame[26:30], frame[30:34], frame[23], frame[14 + size :]
    elif kind == IPV6:
        source, destination, protocol, body = frame[22:38], frame[38:54], frame[20], frame[54:]
    else:
        return None
    ends = str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination))
    if protocol in {UDP, TCP}:
        sport, dport = struct.unpack_from("!HH", body)
        size = 8 if protocol == UDP else (body[12] >> 4) * 4
        return Datagram(*ends, protocol, sport, dport, -1, body[size:])
    return Datagram(*ends, protocol, 0, 0, body[0] if protocol in {ICMP, ICMPV6} else -1, body)


def tcp_numbers(frame: bytes) -> tuple[int, int, int]:
    """Sequence number, acknowledgement and flags of a TCP segment over IPv4."""
    start = 14 + (frame[14] & 15) * 4
    sequence, acknowledged, _, flags = struct.unpack_from("!IIBB", frame, start + 4)
    return int(sequence), int(acknowledged), int(flags)


def _summed(ends: bytes, protocol: int, body: bytes) -> bytes:
    offsets = {UDP: 6, TCP: 16, ICMP: 2, ICMPV6: 2}
    offset = offsets.get(protocol)
    if offset is None:
        return body
    pseudo = b"" if protocol == ICMP else ends + struct.pack("!IHBB", len(body), 0, 0, protocol)
    value: int = _checksum(pseudo + body) or 0xFFFF
    return body[:offset] + struct.pack("!H", value) + body[offset + 2 :]


def _checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed

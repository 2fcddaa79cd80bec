"""Security group rules: protocols, ports, ICMP types, and when two rules are the same.

Source: Network API v2.0, "Security group rules"; IANA, "Assigned Internet Protocol Numbers".
"""

from __future__ import annotations

from ipaddress import ip_network

from pileus.contracts.network import RuleSpec
from pileus.core.address import read_prefix
from pileus.services.network.rules.fault import InvalidInput

PROTOCOLS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
"""Names that the API knows, and their numbers."""

WITH_PORTS = (6, 17, 33, 132, 136)
"""Protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""

ICMP = (1, 58)

_IPV6_ONLY = ("icmpv6", "ipv6-encap", "ipv6-frag", "ipv6-icmp", "ipv6-nonxt", "ipv6-opts", "ipv6-route")


def protocol_number(protocol: str | None, ethertype: str) -> int | None:
    """The number of a protocol; None for any. `icmp` means ICMPv6 in a rule for IPv6. Raises InvalidInput."""
    if protocol is None or protocol.lower() in ("any", "0", "ip"):
        return None
    name = protocol.lower()
    if name.isdecimal():
        number = int(name)
        if number > 255:
            raise InvalidInput(f"protocol {protocol} is not a number from 0 to 255")
    elif name in PROTOCOLS:
        number = PROTOCOLS[name]
    else:
        raise InvalidInput(f"protocol {protocol} is not supported: it is one of {', '.join(PROTOCOLS)}, or a number")
    if ethertype == "IPv4" and name in _IPV6_ONLY:
        raise InvalidInput(f"ethertype {ethertype} does not go with protocol {protocol}")
    return 58 if ethertype == "IPv6" and name == "icmp" else number


def check_ports(number: int | None, first: int | None, last: int | None) -> None:
    """Raise InvalidInput for a port range, or an ICMP type and code, that cannot be."""
    if first is None and last is None:
        return
    if number is None:
        raise InvalidInput("a port range needs a protocol")
    if number in ICMP:
        if first is None:
            raise InvalidInput(f"ICMP type (port-range-min) is missing, but its code is {last}")
        for name, value in (("type", first), ("code", last)):
            if value is not None and not 0 <= value <= 255:
                raise InvalidInput(f"Invalid value for ICMP {name}: {value} is not a number from 0 to 255")
        return
    if number not in WITH_PORTS:
        raise InvalidInput(f"protocol {number} has no ports")
    for value in (first, last):
        if value is not None and not 1 <= value <= 65535:
            raise InvalidInput(f"Invalid value for port {value}: ports are from 1 to 65535")
    if first is None or last is None or first > last:
        raise InvalidInput("port_range_min must be <= port_range_max, and both be given")


def normal_prefix(text: str | None, ethertype: str) -> str | None:
    """A remote prefix in canonical form; an address means just itself. Raises InvalidInput."""
    if text is None:
        return None
    try:
        cidr = read_prefix(text.strip(), strict=False)
    except ValueError:
        raise InvalidInput(f"'{text}' is not a valid CIDR") from None
    if f"IPv{cidr.version}" != ethertype:
        raise InvalidInput(f"Conflicting value ethertype {ethertype}: the prefix {text} is of the other version")
    return str(cidr)


def fingerprint(spec: RuleSpec) -> str:
    """A text that is the same for rules that let the same through."""
    prefix = spec.remote_ip_prefix
    if prefix is not None and ip_network(prefix).prefixlen == 0:
        prefix = None
    ports = (spec.port_range_min, spec.port_range_max)
    if spec.protocol in WITH_PORTS and ports == (1, 65535):
        ports = (None, None)
    parts = (spec.direction, spec.ethertype, spec.protocol, *ports, prefix, spec.remote_group_id)
    return "|".join("" if part is None else str(part) for part in parts)

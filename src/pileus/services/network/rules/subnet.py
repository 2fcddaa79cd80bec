"""Subnets: what makes one valid, and what it is when the caller leaves things out.

Source: Network API v2.0, "Subnets"; RFC 3021 (31-bit prefixes), RFC 6164 (127-bit prefixes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from itertools import pairwise
from typing import NamedTuple

from pileus.core.address import Address, Prefix, read_prefix
from pileus.services.network.rules import address as addresses
from pileus.services.network.rules.address import Span
from pileus.services.network.rules.fault import (
    GatewayConflictWithAllocationPools,
    InvalidAllocationPool,
    InvalidInput,
    InvalidIpForSubnet,
    OutOfBoundsAllocationPool,
    OverlappingAllocationPools,
)

Cidr = Prefix

MAX_NAMESERVERS = 5
MAX_HOST_ROUTES = 20

AUTOMATIC = ("slaac", "dhcpv6-stateless")
"""IPv6 modes in which guests make their addresses themselves."""


class Pool(NamedTuple):
    """An allocation pool as texts."""

    start: str
    end: str

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


def parse_cidr(text: str, ip_version: int | None = None) -> Cidr:
    """A subnet's prefix. Host bits are dropped, as upstream does. Raises InvalidInput."""
    try:
        if "/" not in text:
            raise ValueError("the prefix length is missing")
        cidr = read_prefix(text.strip(), strict=False)
    except ValueError:
        raise InvalidInput(f"'{text}' is not a valid IP subnet") from None
    if ip_version is not None and cidr.version != ip_version:
        raise InvalidInput(f"cidr {text} is not of IP version {ip_version}")
    if cidr.prefixlen == 0 or cidr.is_multicast or cidr.is_loopback or cidr.is_link_local:
        raise InvalidInput(f"{text} cannot be the prefix of a subnet")
    return cidr


def parse_address(text: str, ip_version: int | None = None) -> Address:
    """An address. Raises InvalidInput."""
    try:
        found = addresses.parse(text)
    except ValueError:
        raise InvalidInput(f"'{text}' is not a valid IP address") from None
    if ip_version is not None and found.version != ip_version:
        raise InvalidInput(f"{text} is not an address of IP version {ip_version}")
    return found


def hosts(cidr: Cidr) -> Span:
    """Addresses that hosts may have."""
    first, last = int(cidr.network_address), int(cidr.broadcast_address)
    if last - first < 2:
        return Span(first, last)
    return Span(first + 1, last - 1 if cidr.version == 4 else last)


def default_gateway(cidr: Cidr) -> str | None:
    """The first address for hosts; None where there is only one address."""
    if cidr.num_addresses == 1:
        return None
    return str(cidr[hosts(cidr).first - int(cidr.network_address)])


def check_gateway(cidr: Cidr, gateway: str) -> None:
    """Raise InvalidInput or InvalidIpForSubnet for a gateway that guests could not use.

    A link-local IPv6 address is as good as one of the subnet.
    """
    found = parse_address(gateway, cidr.version)
    if found in cidr:
        span = hosts(cidr)
        if not span.first <= int(found) <= span.last and cidr.version == 4:
            raise InvalidIpForSubnet(gateway)
        return
    if found.version == 6 and found.is_link_local:
        return
    if found.is_multicast or found.is_unspecified:
        raise InvalidIpForSubnet(gateway)


def default_pools(cidr: Cidr, gateway: str | None) -> list[Pool]:
    """All addresses for hosts, without the gateway's."""
    span = hosts(cidr)
    parts = [span]
    if gateway is not None and (number := int(addresses.parse(gateway))) in range(span.first, span.last + 1):
        parts = [Span(span.first, number - 1), Span(number + 1, span.last)]
    base = int(cidr.network_address)
    return [Pool(str(cidr[a - base]), str(cidr[b - base])) for a, b in parts if a <= b]


def check_pools(cidr: Cidr, pools: Sequence[Mapping[str, str]], gateway: str | None) -> list[Pool]:
    """Pools that the caller gave, in canonical form. Raises what is wrong with them."""
    bounds = hosts(cidr)
    found: list[tuple[Span, Pool]] = []
    for one in pools:
        first, last = (parse_address(one[name], cidr.version) for name in ("start", "end"))
        pool = Pool(str(first), str(last))
        if int(first) > int(last):
            raise InvalidAllocationPool(str(pool))
        if int(first) < bounds.first or int(last) > bounds.last:
            raise OutOfBoundsAllocationPool(str(pool), str(cidr))
        found.append((Span(int(first), int(last)), pool))
    found.sort()
    for (one_span, one_pool), (next_span, next_pool) in pairwise(found):
        if next_span.first <= one_span.last:
            raise OverlappingAllocationPools(str(one_pool), str(next_pool), str(cidr))
    if gateway is not None:
        number = int(addresses.parse(gateway))
        for span, pool in found:
            if span.first <= number <= span.last and addresses.parse(gateway).version == cidr.version:
                raise GatewayConflictWithAllocationPools(gateway, str(pool))
    return [pool for _, pool in found]


def check_modes(cidr: Cidr, *, enable_dhcp: bool, ra_mode: str | None, address_mode: str | None) -> None:
    """Raise InvalidInput for IPv6 modes that do not go together (Network API, table of IPv6 modes)."""
    if ra_mode is None and address_mode is None:
        return
    if cidr.version == 4:
        raise InvalidInput("ipv6_ra_mode and ipv6_address_mode are for IPv6 subnets")
    if not enable_dhcp:
        raise InvalidInput("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is false")
    if ra_mode is not None and address_mode is not None and ra_mode != address_mode:
        raise InvalidInput(f"ipv6_ra_mode '{ra_mode}' does not go with ipv6_address_mode '{address_mode}'")
    if (ra_mode in AUTOMATIC or address_mode in AUTOMATIC) and cidr.prefixlen != 64:
        raise InvalidInput(f"{cidr} must have a prefix length of 64 for SLAAC")


def automatic(ra_mode: str | None, address_mode: str | None) -> bool:
    """Whether guests make their addresses on the subnet themselves, from the MAC address."""
    return ra_mode in AUTOMATIC or address_mode in AUTOMATIC


def check_nameservers(servers: Sequence[str]) -> list[str]:
    """Name servers in canonical form. Raises InvalidInput."""
    found = [str(parse_address(one)) for one in servers]
    if len(set(found)) != len(found):
        raise InvalidInput("a name server is given twice")
    if len(found) > MAX_NAMESERVERS:
        raise InvalidInput(f"a subnet has at most {MAX_NAMESERVERS} name servers")
    return found


def check_routes(routes: Sequence[Mapping[str, str]], ip_version: int | None, limit: int) -> list[dict[str, str]]:
    """Static routes in canonical form. Raises InvalidInput."""
    found = []
    for one in routes:
        nexthop = parse_address(one["nexthop"], ip_version)
        try:
            destination = read_prefix(one["destination"].strip())
        except ValueError:
            raise InvalidInput(f"'{one['destination']}' is not a valid CIDR") from None
        if destination.version != nexthop.version:
            raise InvalidInput(f"the route to {destination} cannot go by {nexthop}")
        found.append({"destination": str(destination), "nexthop": str(nexthop)})
    if len({tuple(one.values()) for one in found}) != len(found):
        raise InvalidInput("a route is given twice")
    if len(found) > limit:
        raise InvalidInput(f"there may be at most {limit} routes")
    return found


def overlapping(cidr: Cidr, others: Mapping[str, str]) -> str | None:
    """The id of one of `others` (prefix by id) that shares addresses with `cidr`."""
    for other_id, text in others.items():
        other = ip_network(text)
        if other.version == cidr.version and cidr.overlaps(other):
            return other_id
    return None

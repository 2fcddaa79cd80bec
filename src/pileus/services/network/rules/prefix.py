"""Prefixes of subnet pools: which are free, and which one a new subnet gets.

Source: Network API v2.0, "Subnet pools extension".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, collapse_addresses, ip_network, summarize_address_range

from pileus.core.address import read_prefix
from pileus.core.errors import BadRequest
from pileus.services.network.rules.fault import (
    IllegalSubnetPoolPrefixBounds,
    InvalidInput,
    SubnetAllocationError,
)
from pileus.services.network.rules.subnet import Cidr

DEFAULT_LEAST = {4: 8, 6: 64}
"""The shortest prefix length of subnets where a pool does not say, by IP version."""

LONGEST = {4: 32, 6: 128}

QUOTA_UNIT = {4: 32, 6: 64}
"""The prefix length of what a pool's quota counts."""


def parse(texts: Sequence[str]) -> list[Cidr]:
    """Prefixes in canonical form: in order, and merged where they touch. Raises BadRequest."""
    if not texts:
        raise BadRequest("Empty subnet pool prefix list.")
    try:
        found = [read_prefix(text.strip(), strict=False) for text in texts]
    except ValueError:
        raise InvalidInput(f"'{texts}' is not a list of valid IP subnets") from None
    if len({one.version for one in found}) > 1:
        raise BadRequest("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
    return merge(found)


def merge(prefixes: Iterable[Cidr]) -> list[Cidr]:
    """Prefixes of one IP version, merged where they touch or overlap."""
    version4 = [one for one in prefixes if one.version == 4]
    version6 = [one for one in prefixes if one.version == 6]
    return [*collapse_addresses(version4), *collapse_addresses(version6)]


def check_bounds(ip_version: int, least: int, default: int, most: int) -> None:
    """Raise IllegalSubnetPoolPrefixBounds unless the lengths go together."""
    if least > most:
        raise IllegalSubnetPoolPrefixBounds("min_prefixlen", least, "max_prefixlen", most)
    if most > LONGEST[ip_version]:
        raise IllegalSubnetPoolPrefixBounds("max_prefixlen", most, "ip_version_max", LONGEST[ip_version])
    if default < least:
        raise IllegalSubnetPoolPrefixBounds("default_prefixlen", default, "min_prefixlen", least)
    if default > most:
        raise IllegalSubnetPoolPrefixBounds("default_prefixlen", default, "max_prefixlen", most)


def free(prefixes: Sequence[Cidr], taken: Iterable[Cidr]) -> list[Cidr]:
    """What of the prefixes is not taken, as few blocks as possible."""
    held = sorted((int(one.network_address), int(one.broadcast_address)) for one in taken)
    found: list[Cidr] = []
    for prefix in prefixes:
        kind = IPv4Address if prefix.version == 4 else IPv6Address
        place, end = int(prefix.network_address), int(prefix.broadcast_address)
        for first, last in [*held, (end + 1, end + 1)]:
            if last < place:
                continue
            if first > place:
                stop = min(first - 1, end)
                found += summarize_address_range(kind(place), kind(stop))
            place = max(place, last + 1)
            if place > end:
                break
    return found


def choose(available: Iterable[Cidr], length: int) -> Cidr:
    """A subnet of a length, out of the smallest block that holds one. Raises SubnetAllocationError."""
    for block in sorted(available, key=lambda one: (-one.prefixlen, int(one.network_address))):
        if block.prefixlen <= length:
            return ip_network(f"{block.network_address}/{length}")
    raise SubnetAllocationError(f"insufficient prefix space to allocate subnet size /{length}")


def check_free(available: Iterable[Cidr], wanted: Cidr) -> None:
    """Raise SubnetAllocationError unless a subnet lies in one of the free blocks."""
    first, last = int(wanted.network_address), int(wanted.broadcast_address)
    for block in merge(available):
        if int(block.network_address) <= first and last <= int(block.broadcast_address):
            return
    raise SubnetAllocationError("cannot allocate requested subnet from the available set of prefixes")


def covered(prefixes: Sequence[Cidr], parts: Iterable[Cidr]) -> bool:
    """Whether all parts lie within the prefixes."""
    blocks = [(int(one.network_address), int(one.broadcast_address)) for one in merge(prefixes)]
    spans = [(int(one.network_address), int(one.broadcast_address)) for one in parts]
    return all(any(first <= one and two <= last for first, last in blocks) for one, two in spans)


def units(prefixes: Iterable[Cidr]) -> float:
    """What subnets count for against a pool's quota: IPv4 addresses, or IPv6 prefixes of 64 bits."""
    return sum(2.0 ** (QUOTA_UNIT[one.version] - one.prefixlen) for one in prefixes)

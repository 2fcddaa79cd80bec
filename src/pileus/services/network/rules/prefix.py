"""Prefixes of subnet pools: which are free, and which one a new subnet gets.

Source: Network API v2.0, "Subnet pools extension".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, collapse_addresses, ip_network, summarize_address_range
from itertools import islice
from operator import itemgetter

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

MOST = 256
"""How many prefixes a pool may have. Taking one address out of a wide prefix leaves more than a hundred."""

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


def _spans(prefixes: Iterable[Cidr], version: int) -> list[tuple[int, int]]:
    """First and last addresses of the prefixes of an IP version, in order, and merged where they touch or overlap."""
    found: list[tuple[int, int]] = []
    every = ((int(one.network_address), int(one.broadcast_address)) for one in prefixes if one.version == version)
    for first, last in sorted(every):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def free(prefixes: Sequence[Cidr], taken: Iterable[Cidr], most: int | None = None) -> list[Cidr]:
    """What of the prefixes is not taken, as few blocks as possible. Raises InvalidInput for more than `most`."""
    parts = list(taken)
    held = {version: _spans(parts, version) for version in (4, 6)}
    found = list(islice(_free(prefixes, held), None if most is None else most + 1))
    if most is not None and len(found) > most:
        raise InvalidInput(f"a subnet pool has at most {most} prefixes")
    return found


def _free(prefixes: Sequence[Cidr], held: Mapping[int, Sequence[tuple[int, int]]]) -> Iterator[Cidr]:
    for prefix in prefixes:
        kind: type[IPv4Address | IPv6Address] = IPv4Address if prefix.version == 4 else IPv6Address
        spans = held[prefix.version]
        place, end = int(prefix.network_address), int(prefix.broadcast_address)
        for number in range(bisect_left(spans, place, key=itemgetter(1)), len(spans)):
            first, last = spans[number]
            if first > end:
                break
            if first > place:
                yield from summarize_address_range(kind(place), kind(first - 1))
            place = last + 1
        if place <= end:
            yield from summarize_address_range(kind(place), kind(end))


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


def covered(prefixes: Sequence[Cidr], parts: Sequence[Cidr]) -> bool:
    """Whether all parts lie within the prefixes."""
    for version in (4, 6):
        blocks = _spans(prefixes, version)
        for first, last in _spans(parts, version):
            place = bisect_left(blocks, last, key=itemgetter(1))
            if place == len(blocks) or blocks[place][0] > first:
                return False
    return True


def overlap(some: Sequence[Cidr], others: Sequence[Cidr]) -> bool:
    """Whether an address lies in prefixes of both kinds."""
    for version in (4, 6):
        blocks = _spans(others, version)
        for first, last in _spans(some, version):
            place = bisect_left(blocks, first, key=itemgetter(1))
            if place < len(blocks) and blocks[place][0] <= last:
                return True
    return False


def units(prefixes: Iterable[Cidr]) -> float:
    """What subnets count for against a pool's quota: IPv4 addresses, or IPv6 prefixes of 64 bits."""
    return sum(2.0 ** (QUOTA_UNIT[one.version] - one.prefixlen) for one in prefixes)

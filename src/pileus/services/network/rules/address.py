"""Addresses: which one is next, which ones are of a subnet, and those that follow from a MAC address.

Pure functions on whole numbers; what is taken is asked of `fetch`.  Sources: RFC 4291 appendix A (modified EUI-64),
RFC 4862 (stateless autoconfiguration), Network API v2.0, "Ports".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import NamedTuple

from pileus.core.address import Address, read_address

BATCH = 64
"""How many taken addresses are looked at in one step."""

Fetch = Callable[[int, int, int], Sequence[int]]
"""Taken addresses from a first to a last one, ascending, at most so many."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Span(NamedTuple):
    """Addresses from `first` to `last`, both included."""

    first: int
    last: int


def spans_after(pools: Sequence[Span], cursor: int | None) -> list[Span]:
    """The pools in the order in which they are searched: from behind `cursor` to the end, then from the start."""
    ordered = sorted(pools)
    if cursor is None:
        return ordered
    behind = [Span(max(one.first, cursor + 1), one.last) for one in ordered if one.last > cursor]
    before = [Span(one.first, min(one.last, cursor)) for one in ordered if one.first <= cursor]
    return behind + before


def choose(spans: Sequence[Span], fetch: Fetch, count: int) -> list[int]:
    """The first `count` free addresses in the order of `spans`; fewer when there are no more.

    Costs one `fetch` for each BATCH of taken addresses that lie in the way: with a cursor behind the last address
    that was given, one.
    """
    chosen: list[int] = []
    for first, last in spans:
        place = first
        while place <= last and len(chosen) < count:
            taken = fetch(place, last, BATCH)
            for one in taken:
                more = min(one - place, count - len(chosen))
                chosen += range(place, place + more)
                place = one + 1
            if len(taken) < BATCH and len(chosen) < count:
                more = min(last - place + 1, count - len(chosen))
                chosen += range(place, place + max(more, 0))
                break
        if len(chosen) == count:
            break
    return chosen


def slaac(mac: str, cidr: str) -> IPv6Address:
    """The address that a host with this MAC address makes for itself (modified EUI-64)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    identifier = int.from_bytes(bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:]))
    return IPv6Network(cidr)[0] + identifier


def mac_address(bits: int) -> str:
    """A MAC address of upstream's default prefix `fa:16:3e` and 24 bits."""
    return ":".join(["fa:16:3e", *(f"{octet:02x}" for octet in (bits & 0xFFFFFF).to_bytes(3))])


def parse_mac(text: str) -> str:
    """A MAC address in lower case with colons. Raises ValueError."""
    plain = text.strip().lower().replace("-", ":")
    if "." in plain and len(plain) == 14:
        digits = plain.replace(".", "")
        plain = ":".join(digits[place : place + 2] for place in range(0, 12, 2))
    if not _MAC.fullmatch(plain) or plain == "00:00:00:00:00:00" or int(plain[:2], 16) & 1:
        raise ValueError(f"'{text}' is not a valid MAC address")
    return plain


def parse(text: str) -> Address:
    """An address of its text. Raises ValueError, for a zone too."""
    return read_address(text.strip())

"""Addresses and prefixes of their text: nowhere else does what somebody wrote become one.

`ipaddress` alone would not do.  It takes a zone behind an IPv6 address (RFC 4007, section 11), which may be any text,
line breaks and braces included, and writes it out again as it was.  Nothing that the cloud keeps or hands on has a
zone: it names an interface of one host.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface

ADDRESS = r"[0-9A-Fa-f:.]{2,45}"
"""All signs of an address, and as many as it can have."""

_ADDRESS = re.compile(ADDRESS)
_PREFIX = re.compile(rf"{ADDRESS}(/[0-9.]{{1,15}})?")


def read_address(text: str) -> Address:
    """An address. Raises ValueError, for a zone and for space around it too."""
    return ip_address(_checked(_ADDRESS, text))


def read_prefix(text: str, *, strict: bool = True) -> Prefix:
    """A prefix, of an address with a length or a mask, or without. Raises ValueError.

    So it does for bits behind the prefix, unless it is not `strict`: they are dropped then.
    """
    return ip_network(_checked(_PREFIX, text), strict=strict)


def read_interface(text: str) -> Interface:
    """An address with the prefix that it is in. Raises ValueError."""
    return ip_interface(_checked(_PREFIX, text))


def _checked(form: re.Pattern[str], text: str) -> str:
    if not form.fullmatch(text):
        raise ValueError(f"{text!r} is no address")
    return text

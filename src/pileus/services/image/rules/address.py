"""Which places on the web the cloud may fetch image data from on behalf of its users.

A user names a URL, and the control plane connects to it from inside the operator's network: without a filter, that is a
way to everything that this network trusts (server-side request forgery).  Schemes, hosts and ports are judged by the
URL's text; addresses are judged once more when the name is resolved, and the connection goes to the judged address and
no other, since a name may point elsewhere a moment later.

Sources: RFC 3986 for URLs; RFC 6890 and IANA's registries of special-purpose addresses and of the IPv6 address space,
written out here since what `ipaddress` knows of them differs from one Python to the next; RFC 6052, RFC 3056 and
RFC 4380 for IPv6 addresses that hold an IPv4 address; upstream's `import_filtering_opts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from urllib.parse import urlsplit

from pileus.core.address import Address, read_address, read_prefix
from pileus.core.address import Prefix as Network

PORTS = {"http": 80, "https": 443}

_NAT64 = IPv6Network("64:ff9b::/96")
"""Where a translator makes IPv4 of IPv6: as public as the address inside."""

_UNICAST = IPv6Network("2000::/3")
"""All that IANA has given out of the IPv6 address space for packets to one receiver on the net."""

_SPECIAL = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        ),
    )
)
"""IPv4 addresses that are of this host, of some private network, for protocols, for books, or for nobody."""

_SPECIAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""The same of `_UNICAST`: for protocols, Teredo among them; for books; 6to4, whose relays have gone (RFC 7526)."""


class Unreachable(ValueError):
    """A URL, or the address behind it, that data may not be fetched from. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFilter:
    """What is allowed and what is not. Where something is listed as allowed, all else of its kind is not."""

    allowed_schemes: tuple[str, ...] = ("http", "https")
    disallowed_schemes: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    disallowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = (80, 443)
    disallowed_ports: tuple[int, ...] = ()
    networks: tuple[Network, ...] = ()
    """Networks that may be reached although they are not public."""

    def check(self, url: str) -> tuple[str, str, int]:
        """Scheme, host and port of a URL that may be fetched, as far as its text tells. Raises Unreachable."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise Unreachable("it is not a URL") from None
        scheme = parts.scheme.lower()
        if scheme not in PORTS or not _passes(scheme, self.allowed_schemes, self.disallowed_schemes):
            raise Unreachable(f"the scheme {scheme!r} is not allowed")
        if any(ord(sign) <= 0x20 or ord(sign) >= 0x7F for sign in url):
            raise Unreachable("it holds spaces or other signs that a URL must not hold")
        if parts.username is not None or parts.password is not None:
            raise Unreachable("it names a user or a password")
        host = (host or "").rstrip(".").lower()
        if not host or "%" in host or not _passes(host, _lower(self.allowed_hosts), _lower(self.disallowed_hosts)):
            raise Unreachable(f"the host {host!r} is not allowed")
        number = PORTS[scheme] if port is None else port
        if not _passes(number, self.allowed_ports, self.disallowed_ports):
            raise Unreachable(f"the port {number} is not allowed")
        literal = _literal(host)
        if literal is not None:
            self.judge(literal)
        return scheme, host, number

    def judge(self, address: Address) -> None:
        """Raise Unreachable for an address that data may not be fetched from."""
        real = _embedded(address)
        if any(address in network or real in network for network in self.networks):
            return
        if not (_public(address) and _public(real)):
            raise Unreachable(f"the address {address} is not a public one")
        if not self.allowed_hosts and {str(address), str(real)} & set(self.disallowed_hosts):
            raise Unreachable(f"the address {address} is not allowed")


def networks(names: list[str]) -> tuple[Network, ...]:
    """Networks of their text, e.g. `10.1.0.0/16`. Raises ValueError."""
    return tuple(read_prefix(name) for name in names)


def _passes(word: str | int, allowed: Sequence[str | int], refused: Sequence[str | int]) -> bool:
    return word in allowed if allowed else word not in refused


def _lower(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


def _literal(host: str) -> Address | None:
    """The address that a host is written as; None for a name.

    Old forms of IPv4 addresses (`127.1`, `0x7f000001`) are names here, and refused when they are resolved.
    """
    try:
        return read_address(host)
    except ValueError:
        return None


def _public(address: Address) -> bool:
    """Whether an address is one of the net's at large."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL)
    return address in _NAT64 or (address in _UNICAST and not any(address in network for network in _SPECIAL_6))


def _embedded(address: Address) -> Address:
    """The address that a packet to an IPv6 address would end at, where it holds an IPv4 address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address

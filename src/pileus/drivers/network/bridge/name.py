"""Names of namespaces and interfaces, derived from ids alone, so that a driver without a memory finds everything.

An interface name has at most 15 characters (IFNAMSIZ less one).  The ids of a cloud are UUIDs; an interface is named
after the first eleven characters of one, e.g. `tap1b4e28ba-2f`, which an operator can find again.
"""

from __future__ import annotations

import hashlib
import re
import uuid

BRIDGE = "br"
"""The bridge of a network, and its own leg: DHCP and metadata are served at its addresses."""
TAP, LEG, GATEWAY, PEER, UPLINK = "tap", "leg", "gate", "rtr", "uplink"
"""Prefixes: a guest's port; a router's inner and outer interface; its other end on the bridge; the host's."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,5}")


def checked(identifier: str) -> str:
    """The id, when it can be part of file names and rules. Raises ValueError otherwise."""
    if not _ID.fullmatch(identifier):
        raise ValueError(f"not an id: {identifier!r}")
    return identifier


def mac_address(text: str) -> str:
    """A MAC address in lower case with colons. Raises ValueError when it is none."""
    octets = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(octets) != 6:
        raise ValueError(f"not a MAC address: {text!r}")
    return octets.hex(":")


def device(kind: str, identifier: str) -> str:
    """The interface of that kind for an id."""
    return kind + _short(identifier, min(11, 15 - len(kind)))


class Names:
    """The names of one cloud on this host; `prefix` keeps it apart from others: up to six letters and digits."""

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"a prefix is a lower-case letter and up to five letters or digits, not {prefix!r}")
        self.prefix = prefix
        self.network_start = f"{prefix}-net-"
        self.router_start = f"{prefix}-rtr-"
        self.table = f"{prefix}-uplink"
        """The nft table in the host's own namespace."""
        self.uplinks = f"{prefix}-"
        """What the names of the host's interfaces begin with."""

    def network(self, identifier: str) -> str:
        """The namespace of a network."""
        return self.network_start + checked(identifier)

    def router(self, identifier: str) -> str:
        """The namespace of a router."""
        return self.router_start + checked(identifier)

    def uplink(self, network_id: str) -> str:
        """The host's interface in an external network."""
        return self.uplinks + _short(network_id, 8)


def _short(identifier: str, length: int) -> str:
    try:
        return str(uuid.UUID(checked(identifier)))[:length]
    except ValueError:
        return hashlib.blake2b(checked(identifier).encode()).hexdigest()[:length]

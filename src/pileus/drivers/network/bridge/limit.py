"""How much one port may ask of what its neighbours and the host share: nft statements and the sets that they keep.

A rate is in packets a second, and a burst in packets, for each port; what goes to the network's own service by a router
counts for the router's leg.  They are far above what a sane guest does, and
below what keeps a service, a neighbour or the kernel busy.
"""

from __future__ import annotations

from collections.abc import Iterator

WHILE = "60s"
"""How long the pace of a port that is silent is remembered."""

RATES = {
    "metadata": (50, 200),
    "lease": (10, 50),
    "name": (200, 1000),
    "link": (200, 1000),
    "broadcast": (500, 2000),
    "multicast": (5000, 10000),
}
"""Rate and burst: connections for metadata, requests for a lease, questions for a name, everything else that the
network's own service hears (ARP, neighbour discovery, pings), and what is copied to every neighbour."""

PACES = tuple(f"pace-{what}" for what in RATES)
"""The sets that they are kept in, by interface."""

CONNECTIONS = 16384
"""How many connections are tracked for one port, in each direction."""

FREE = 65536
"""The same for all ports of a network without port security together, which may claim to be anybody."""

COUNTS = ("count-saddr", "count-daddr")
"""The sets that they are kept in, by MAC address."""


def pace(what: str) -> str:
    """Matches what comes faster than a port may."""
    rate, burst = RATES[what]
    return f"update @pace-{what} {{ iifname limit rate over {rate}/second burst {burst} packets }}"


def crowd() -> Iterator[str]:
    """What goes to everybody, from a port."""
    yield f"ether daddr ff:ff:ff:ff:ff:ff {pace('broadcast')} drop"
    yield f"ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 {pace('multicast')} drop"


def tracked(end: str, free: str | None) -> Iterator[str]:
    """Connections by the MAC address at one `end` (`saddr` or `daddr`); by none for those of the mark `free`."""
    if free is not None:
        yield f"meta mark {free} ct state new ct count over {FREE} drop"
        yield f"meta mark {free} accept"
    yield f"ct state new add @count-{end} {{ ether {end} ct count over {CONNECTIONS} }} drop"

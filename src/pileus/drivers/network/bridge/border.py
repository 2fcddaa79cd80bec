"""The packet filter at the host's end of the uplinks: what the outside of the cloud may be to the host itself.

To a guest the host is one more machine of the outside.  It forwards for guests, answers a ping and what neighbour
discovery asks, and takes the answers to what it asked itself; every service that listens on all of its addresses,
the cloud's own API among them, is not there.  A port that the host redirects elsewhere, as container engines do, is
such a service too.  Nor does it forward to link-local addresses: what answers there may be the metadata service of a
cloud below this one, with the host's own credentials.

The host tracks the connections that it forwards in the table that its own connections are in.  So what comes from
the uplinks may fill one half of that table, and a single source address an eighth of this half.
"""

from __future__ import annotations

from collections.abc import Iterator

SHARE = 8
"""How many source addresses it takes to use up what all guests together may track."""

LEAST = 1024
"""Connections of a single source, however small the host's table is."""


def render(table: str, uplinks: str, tracked: int) -> str:
    """nft commands that replace the table, in one transaction.

    `uplinks` is what the names of the uplinks begin with, `tracked` how many connections the host's table holds.
    """
    lines = [f"add table inet {table}", f"delete table inet {table}", f"table inet {table} {{"]
    for version in ("4", "6"):
        lines += [f"set shares{version} {{", f"type ipv{version}_addr", "size 65536", "flags dynamic", "}"]
    hooks = {
        "track": ("type filter hook prerouting priority -150; policy accept;", _track(tracked // 2)),
        "input": ("type filter hook input priority -10; policy accept;", _input()),
        "forward": ("type filter hook forward priority -10; policy accept;", _forward()),
    }
    for name, (hook, rules) in hooks.items():
        lines += [f"chain {name} {{", hook, f'iifname != "{uplinks}*" accept', *rules, "}"]
    return "\n".join((*lines, "}", ""))


def remove(table: str) -> str:
    """nft commands after which the table is not there."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def _track(most: int) -> Iterator[str]:
    each = max(most // SHARE, LEAST)
    yield f"ct state new add @shares4 {{ ip saddr ct count over {each} }} drop"
    yield f"ct state new add @shares6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: ct count over {each} }} drop"
    # Last: what a source has too many of must not count for all.
    yield f"ct state new ct count over {most} drop"


def _input() -> Iterator[str]:
    yield "ct state established ct direction reply accept"
    yield "ct state related accept"
    yield "icmp type echo-request accept"
    # Neighbour discovery is between neighbours: its hop limit proves it (RFC 4861, section 6.1 and 7.1).
    yield "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"
    yield "icmpv6 type echo-request accept"
    yield "drop"


def _forward() -> Iterator[str]:
    yield "ip daddr 169.254.0.0/16 drop"
    yield "ct status dnat ct direction original drop"

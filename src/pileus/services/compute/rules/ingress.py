"""Rules of security groups as Compute's API takes them, in Network's terms.

Source: Compute API, "Create security group rule": -1 stands for every ICMP type and code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pileus.core.errors import BadRequest

_RANGED = ("tcp", "udp")


class Range(NamedTuple):
    """A protocol, and its ports, or its ICMP type and code; None for all of them."""

    protocol: str | None
    first: int | None
    last: int | None


def ingress_range(protocol: Any, first: Any, last: Any, *, group: bool) -> Range:
    """What a rule lets in; `group`: from a group, and then everything may be left out. Raises BadRequest."""
    name = str(protocol).lower() if protocol else ""
    if group and first is None and last is None:
        first, last = {"icmp": (-1, -1), "tcp": (1, 65535), "udp": (1, 65535)}.get(name, (None, None))
    if not name or first is None or last is None:
        if not group:
            raise BadRequest("Not enough parameters to build a valid rule.")
        return Range(None, None, None)
    try:
        first, last = int(first), int(last)
    except (TypeError, ValueError):
        what = "Type and code" if name == "icmp" else "To and from ports"
        raise BadRequest(f"Invalid input received: {what} must be integers") from None
    if name not in (*_RANGED, "icmp"):
        raise BadRequest(f"Invalid IP protocol {protocol}.")
    _check(name, first, last)
    return Range(name, None if first == -1 else first, None if last == -1 else last)


def _check(name: str, first: int, last: int) -> None:
    if name in _RANGED and (first > last or first < 1 or last > 65535):
        raise BadRequest(f"Invalid port range {first}:{last}: {name.upper()} ports are from 1 to 65535, in order.")
    if name == "icmp" and not (-1 <= first <= 255 and -1 <= last <= 255):
        raise BadRequest(f"Invalid port range {first}:{last}: ICMP type and code are from -1 to 255.")

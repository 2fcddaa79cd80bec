"""Status is computed: from what is wanted and from what a host observed.

Source: Network API v2.0, `status` of ports, routers and floating IPs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ACTIVE", "BUILD", "DOWN", "ERROR"]


class Seen(NamedTuple):
    """What the host of an object said last. `current`: it is of the newest spec."""

    state: str
    current: bool
    permanent: bool = False


def port_status(*, admin_state_up: bool, bound: bool, seen: Seen | None) -> Status:
    """Of a port: ACTIVE once its host has made it ready, also while a change is under way."""
    if not admin_state_up or not bound:
        return "DOWN"
    if seen is None:
        return "BUILD"
    if seen.state == "failed":
        return "ERROR" if seen.permanent else "DOWN"
    return "ACTIVE" if seen.state == "ready" else "BUILD"


def router_status(*, admin_state_up: bool, legs: bool, seen: Seen | None) -> Status:
    """Of a router: one without legs needs nothing of a host, and so is ACTIVE."""
    if not admin_state_up:
        return "DOWN"
    if not legs:
        return "ACTIVE"
    if seen is None:
        return "BUILD"
    if seen.state == "failed":
        return "ERROR"
    return "ACTIVE" if seen.state == "ready" else "BUILD"


def floatingip_status(*, before: str, associated: bool, seen: Seen | None) -> Status:
    """Of a floating IP: ACTIVE once the router has been made ready with it."""
    if not associated:
        return "DOWN"
    if seen is None:
        return "DOWN"
    if seen.state == "failed":
        return "ERROR"
    if seen.state == "ready" and (seen.current or before == "ACTIVE"):
        return "ACTIVE"
    return "DOWN"

"""Rates of a device (tc(8), tc-tbf(8), tc-police(8)): what it sends is queued, what it receives is dropped beyond."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pileus.drivers.host.process import apart

_INGRESS = 0xFFFF0000
_ROOT = 0x10000
_INGRESS_PARENT, _ROOT_PARENT = 0xFFFFFFF1, 0xFFFFFFFF
"""TC_H_INGRESS and TC_H_ROOT."""
_ALL = 0x0003
"""ETH_P_ALL, as a filter's protocol."""
_KIB = 1024
_LATENCY = "50ms"
"""How long a frame may wait in the queue."""
_FRAME = 64 * 1024
"""Bytes of the largest frame that a tap with segmentation offload passes: a bucket below it passes none."""


class Rate(NamedTuple):
    """Kilobytes a second on an average, and kilobytes at once, which go as fast as they can; 0 for no limit."""

    average: int
    burst: int = 0


class TrafficFailure(Exception):
    """This kernel has no such limit, or there is no such device; the message says which."""


def shape(device: str, namespace: str | None, *, out: Rate, into: Rate) -> None:
    """Limit what the host sends through a device (`out`) and what it receives (`into`), instead of what was there.

    Raises TrafficFailure.
    """

    def act() -> None:
        with IPRoute() as route:
            _shape(route, device, out, into)

    try:
        apart(act, namespace)
    except FileNotFoundError as error:
        raise TrafficFailure(f"there is no namespace {namespace}") from error


def _shape(route: Any, device: str, out: Rate, into: Rate) -> None:
    try:
        index = socket.if_nametoindex(device)
    except OSError:
        raise TrafficFailure(f"there is no device {device}") from None
    _clear(route, index)
    try:
        if out.average:
            size = max(_FRAME, out.burst * _KIB)
            route.tc("add", "tbf", index, _ROOT, rate=out.average * _KIB, burst=size, latency=_LATENCY)
    except NetlinkError as error:
        raise TrafficFailure(f"this kernel does not limit what a device sends (tbf): {error}") from error
    if not into.average:
        return
    try:
        route.tc("add", "ingress", index, _INGRESS)
        size = max(_FRAME, into.burst * _KIB)
        route.tc(
            *("add-filter", "u32", index),
            parent=_INGRESS,
            action="drop",
            rate=into.average * _KIB,
            burst=size,
            limit=0,
            prio=1,
            protocol=_ALL,
            target=0x10000,
            keys=["0x0/0x0+0"],
        )
    except NetlinkError as error:
        _clear(route, index)
        raise TrafficFailure(f"this kernel does not limit what a device receives (police): {error}") from error


def _clear(route: Any, index: int) -> None:
    for parent in (_INGRESS_PARENT, _ROOT_PARENT):
        with contextlib.suppress(NetlinkError):
            route.tc("del", index=index, parent=parent)

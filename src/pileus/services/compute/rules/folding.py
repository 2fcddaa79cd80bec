"""What an observation of a guest changes about its server."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pileus.services.compute.rules.status import Task
from pileus.services.compute.rules.task import ENDS

NONE: Mapping[str, Any] = MappingProxyType({})


class Wanted(NamedTuple):
    """The server, as much of it as matters."""

    power: str
    launched: bool
    state: str
    reboot_done: int
    error: bool
    reboot_nonce: int = 0
    told: bool = True
    """Whether the host was told the newest revision."""
    task: Task | None = None
    acts: Mapping[str, int] = NONE
    acts_done: Mapping[str, int] = NONE


class Seen(NamedTuple):
    """What the host said."""

    state: str
    """One of `contracts.hypervisor.Observed`, or empty when nothing was said yet."""
    current: bool
    """Whether it is of the newest spec that the host was told."""
    detail: str
    permanent: bool
    reboot_nonce: int
    acts: Mapping[str, int] = NONE
    faults: Mapping[str, str] = NONE


class Fold(NamedTuple):
    """What becomes of it."""

    changes: Mapping[str, Any]
    """Columns of the server that change."""
    launched: bool
    """Whether the guest runs for the first time."""
    failed: str | None
    """Why the host cannot make it: the task that is under way has failed, or the server is in error from now on."""
    stopped_itself: bool
    """Whether the guest turned itself off, so that `stopped` is what is wanted now."""
    arrived: bool
    """Whether what the task waits for is there."""
    faults: Mapping[str, str]
    """Acts that the host has just come to and could not do, with the reason."""


_STATES = {"running": "running", "stopped": "stopped", "paused": "paused", "suspended": "suspended"} | {
    "shutdown": "stopped"
}
"""What is kept of what is seen."""


def fold(wanted: Wanted, seen: Seen) -> Fold:
    """Fold what was seen into a server that is not being deleted.

    A failure that may pass changes nothing: the host tries again.  A guest that turned itself off stays off, unless a
    newer spec, which the host has not seen yet, asks for something, or a boot was asked for that it has not had.
    """
    changes: dict[str, Any] = {}
    launched = stopped = False
    failed: str | None = None
    newest = seen.current and wanted.told
    state = _STATES.get(seen.state)
    if state is not None:
        if state != wanted.state:
            changes["state"] = state
        launched = not wanted.launched and seen.state != "stopped"
        booted = seen.reboot_nonce >= wanted.reboot_nonce
        stopped = seen.state == "shutdown" and seen.current and booted and wanted.power != "stopped"
    elif seen.state == "failed" and seen.permanent and newest and (wanted.task is not None or not wanted.error):
        failed = seen.detail or "The host could not make the guest."
    if seen.reboot_nonce > wanted.reboot_done:
        changes["reboot_done"] = seen.reboot_nonce
    fresh = {name: nonce for name, nonce in seen.acts.items() if nonce > wanted.acts_done.get(name, 0)}
    if fresh:
        changes["acts_done"] = {**wanted.acts_done, **fresh}
    faults = {name: seen.faults[name] for name in fresh if seen.faults.get(name)}
    arrived = newest and wanted.task is not None and _arrived(wanted, seen, state)
    return Fold(changes, launched, failed, stopped, arrived, faults)


def _arrived(wanted: Wanted, seen: Seen, state: str | None) -> bool:
    waits = "" if wanted.task is None else ENDS[wanted.task].waits
    if waits == "acts":
        return all(seen.acts.get(name, 0) >= nonce for name, nonce in wanted.acts.items())
    return waits == "guest" and state == wanted.power and seen.reboot_nonce >= wanted.reboot_nonce

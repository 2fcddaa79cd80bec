"""What an observation of a guest changes about its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Wanted(NamedTuple):
    """The server, as much of it as matters."""

    power: str
    launched: bool
    state: str
    reboot_done: int
    error: bool


class Seen(NamedTuple):
    """What the host said."""

    state: str
    """One of `contracts.hypervisor.Observed`, or empty when nothing was said yet."""
    current: bool
    """Whether it is of the newest spec."""
    detail: str
    permanent: bool
    reboot_nonce: int


class Fold(NamedTuple):
    """What becomes of it."""

    changes: Mapping[str, Any]
    """Columns of the server that change."""
    launched: bool
    """Whether the guest runs for the first time."""
    failed: str | None
    """Why the server is in error from now on."""
    stopped_itself: bool
    """Whether the guest turned itself off, so that `stopped` is what is wanted now."""


def fold(wanted: Wanted, seen: Seen) -> Fold:
    """Fold what was seen into a server that is not being deleted.

    A failure that may pass changes nothing: the host tries again.  A guest that turned itself off stays off, unless a
    newer spec, which the host has not seen yet, asks for something.
    """
    changes: dict[str, Any] = {}
    launched = stopped = False
    failed: str | None = None
    if seen.state in ("running", "stopped", "paused"):
        if seen.state != wanted.state:
            changes["state"] = seen.state
        launched = seen.state in ("running", "paused") and not wanted.launched
    elif seen.state == "shutdown":
        if wanted.state != "stopped":
            changes["state"] = "stopped"
        stopped = seen.current and wanted.power != "stopped"
        launched = not wanted.launched
    elif seen.state == "failed" and seen.permanent and seen.current and not wanted.error:
        failed = seen.detail or "The host could not make the guest."
    if seen.reboot_nonce > wanted.reboot_done:
        changes["reboot_done"] = seen.reboot_nonce
    return Fold(changes, launched, failed, stopped)

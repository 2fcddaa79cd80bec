"""Cards that come and go while a guest runs (docs/system/device-emulation and qapi/qdev.json of QEMU)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import msgspec

from pileus.contracts.hypervisor import GuestFailure, GuestPlan, NicSpec
from pileus.core.seams import reach
from pileus.drivers.hypervisor.qemu.device import CARD, Board, backend, board_type, card, disk_slots
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import MonitorFailure

_LET_GO = 15.0
"""Seconds that a guest has to let go of a card: Linux does within one, once it has started."""
_ASK_AGAIN = 3.0
"""Seconds between two requests: a guest that still starts does not see the first."""


def match(guest: Guest, plan: GuestPlan, open_tap: Callable[[Guest, GuestPlan, NicSpec], int]) -> None:
    """Give a guest whose process lives the cards of the plan, and no others.

    `open_tap` opens the tap of a port.  A guest whose processors stand still is asked to let go of a card, and does
    so later.  Raises GuestFailure.
    """
    plugged = guest.cards()
    wanted = {nic.port_id: nic for nic in plan.spec.nics}
    for port_id in sorted(plugged - wanted.keys()):
        _unplug(guest, port_id)
    for port_id, nic in wanted.items():
        if port_id not in plugged:
            _plug(guest, plan, nic, open_tap)
    _forget(guest)


def first_slots(plan: GuestPlan) -> dict[str, int]:
    """The slots of the cards that a guest starts with."""
    return {nic.port_id: disk_slots(plan) + place for place, nic in enumerate(plan.spec.nics)}


def _plug(guest: Guest, plan: GuestPlan, nic: NicSpec, open_tap: Callable[[Guest, GuestPlan, NicSpec], int]) -> None:
    kept = guest.directory.applied()
    if kept is None or kept.plan is None:
        raise GuestFailure("what the guest was started with cannot be read: it takes new cards when it starts anew")
    board = Board(board_type(kept.plan.spec.machine), kept.slots)
    taken = set(kept.cards.values()) | set(range(disk_slots(kept.plan)))
    free = [slot for slot in range(kept.slots) if slot not in taken]
    if nic.port_id in kept.cards:
        free = [kept.cards[nic.port_id]]
    if not free:
        raise GuestFailure("the guest has no slot free for another card until it starts anew")
    others = tuple(one for one in kept.plan.spec.nics if one.port_id != nic.port_id)
    spec = msgspec.structs.replace(kept.plan.spec, nics=(*others, nic))
    nics = {**kept.plan.nics, nic.port_id: plan.nics[nic.port_id]} if nic.port_id in plan.nics else kept.plan.nics
    # An agent that was killed may have left the tap with QEMU, by one name or the other.
    for command, name in (("netdev_del", "id"), ("closefd", "fdname")):
        with contextlib.suppress(MonitorFailure):
            guest.execute(command, {name: backend(nic.port_id)})
    tap = open_tap(guest, plan, nic)
    try:
        # Recorded before it is done: a suspension has to know in which slot the card is.
        guest.note(
            plan=msgspec.structs.replace(kept.plan, spec=spec, nics=nics),
            cards={**kept.cards, nic.port_id: free[0]},
        )
        guest.hand(tap, backend(nic.port_id))
        link = {"type": "tap", "id": backend(nic.port_id), "fd": backend(nic.port_id), "vhost": False}
        guest.execute("netdev_add", link)
        reach("qemu.card.backed")
        try:
            guest.execute("device_add", card(nic, board.slot(free[0])))
        except MonitorFailure:
            guest.execute("netdev_del", {"id": backend(nic.port_id)})
            raise
    finally:
        os.close(tap)


def _unplug(guest: Guest, port_id: str) -> None:
    deadline = time.monotonic() + _LET_GO
    asked = -_ASK_AGAIN
    while port_id in guest.cards():
        now = time.monotonic()
        if now - asked >= _ASK_AGAIN:
            asked = now
            with contextlib.suppress(MonitorFailure):
                # QEMU refuses while an earlier request is pending.
                guest.execute("device_del", {"id": f"{CARD}{port_id}"})
        if guest.status() != "running":
            # The tap is given back at once: a card without a backend has no carrier.
            _release(guest, port_id)
            return
        if now > deadline or guest.hurry.is_set():
            raise GuestFailure(f"the guest does not let go of the card of port {port_id}")
        guest.rest(0.1)


def _release(guest: Guest, port_id: str) -> None:
    """Take the tap of a card that goes or has gone from QEMU."""
    reach("qemu.card.unplugged")
    with contextlib.suppress(MonitorFailure):
        guest.execute("netdev_del", {"id": backend(port_id)})


def _forget(guest: Guest) -> None:
    """Cards that the guest has no more leave the record, and their taps QEMU.

    It may have let go of one when nobody waited any more.
    """
    kept, plugged = guest.directory.applied(), guest.cards()
    if kept is None or kept.plan is None:
        return
    for port_id in sorted(kept.cards.keys() - plugged):
        _release(guest, port_id)
    nics = tuple(nic for nic in kept.plan.spec.nics if nic.port_id in plugged)
    attached = {port: where for port, where in kept.plan.nics.items() if port in plugged}
    spec = msgspec.structs.replace(kept.plan.spec, nics=nics)
    guest.note(
        plan=msgspec.structs.replace(kept.plan, spec=spec, nics=attached),
        cards={port: slot for port, slot in kept.cards.items() if port in plugged},
    )

"""Cards of a guest whose answers a test gives; those of a real process are in test_qemu_kill.py and the contract."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pileus.contracts.hypervisor import GuestFailure, GuestPlan, GuestSpec, NicSpec
from pileus.drivers.hypervisor.qemu import card
from pileus.drivers.hypervisor.qemu.device import backend
from pileus.drivers.hypervisor.qemu.directory import Applied
from pileus.drivers.hypervisor.qemu.guest import Guest

ID = "0a000000-0000-4000-8000-000000000001"


def plan(*ports: str) -> GuestPlan:
    """A plan with a card for each port."""
    nics = [NicSpec(port_id=port, mac_address=f"fa:16:3e:00:00:0{place}", mtu=1450) for place, port in enumerate(ports)]
    spec = GuestSpec(id=ID, name="g", vcpus=1, memory_mib=64, power="running", disks=(), nics=tuple(nics))
    return GuestPlan(spec=spec, disks={}, nics={})


class Slow:
    """A guest that lets go of a card when nobody waits any more; it is its own record."""

    def __init__(self, *ports: str) -> None:
        self.plugged = set(ports)
        self.backends = {backend(port) for port in ports}
        self.asked: list[str] = []
        self.kept = Applied(plan=plan(*ports), reboot_nonce=0, cards={port: place for place, port in enumerate(ports)})
        self.directory = self.hurry = self

    def applied(self) -> Applied:
        return self.kept

    def note(self, **changes: Any) -> None:
        self.kept = Applied(**{name: getattr(self.kept, name) for name in Applied.__struct_fields__} | changes)

    def is_set(self) -> bool:
        return bool(self.asked)

    def cards(self) -> set[str]:
        return set(self.plugged)

    def status(self) -> str:
        return "running"

    def execute(self, command: str, arguments: dict[str, str]) -> None:
        if command == "device_del":
            self.asked.append(arguments["id"])
        elif command == "netdev_del":
            self.backends.discard(arguments["id"])


def test_a_card_that_went_when_nobody_waited_leaves_no_tap() -> None:
    slow = Slow("a", "b")
    guest = cast(Guest, slow)

    def no_tap(*_: object) -> int:
        raise AssertionError("no card comes")

    with pytest.raises(GuestFailure, match="does not let go"):
        card.match(guest, plan("a"), no_tap)
    assert slow.backends == {backend("a"), backend("b")}
    slow.plugged.discard("b")
    card.match(guest, plan("a"), no_tap)
    assert slow.backends == {backend("a")}
    assert slow.kept.cards == {"a": 0}

"""Disks that are made anew, copied and given up, and the acts and cards of guests, through the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pileus.contracts.hypervisor import DiskSpec, GuestObserved, GuestPlan, GuestSpec, MachineSpec
from pileus.services.fleet import interface as fleet
from tests.agent.control import Control, Machine, hold, play
from tests.agent.spec import guest, network, port


def _root(**more: Any) -> DiskSpec:
    return DiskSpec(id="root", image_id="image", size_gib=1, boot_index=0, **more)


def _files(machine: Machine) -> list[str]:
    return sorted(path.name for path in (machine.directory / "disks" / "g").iterdir())


def test_a_rebuild_replaces_the_disk_and_restarts(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g", disks=(_root(),)))
        await control.settles()
        assert _files(machine) == ["root.disk"]
        control.assign(guest("g", disks=(_root(incarnation=2),), reboot_nonce=1))
        await control.settles()
        assert _files(machine) == ["root.2.disk"]
        assert machine.hypervisor.boots("g") == 2

    play(scenario, database_url, tmp_path)


def test_a_guest_rests_while_its_disk_is_copied(database_url: str, tmp_path: Path) -> None:
    plans: list[tuple[str, list[str], int]] = []

    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g", disks=(_root(),)))
        await control.settles()
        before = machine.hypervisor.ensure

        def noted(plan: GuestPlan) -> GuestObserved:
            names = [path.name for path in plan.disks.values()]
            plans.append((plan.spec.power, names, plan.spec.reboot_nonce))
            return before(plan)

        machine.hypervisor.ensure = noted  # type: ignore[method-assign] # for this test alone
        larger = DiskSpec(id="root", size_gib=3, incarnation=2, copy_of=1, keep=(1,))
        control.assign(guest("g", disks=(larger,), reboot_nonce=1))
        await control.settles()
        assert plans[:2] == [("stopped", ["root.disk"], 0), ("running", ["root.2.disk"], 1)]
        assert _files(machine) == ["root.2.disk", "root.disk"]
        control.assign(guest("g", disks=(msgspec.structs.replace(larger, keep=()),), reboot_nonce=1))
        await control.settles()
        assert _files(machine) == ["root.2.disk"]

    play(scenario, database_url, tmp_path)


def test_a_guest_that_does_not_answer_is_ended_before_its_disk_is_copied(database_url: str, tmp_path: Path) -> None:
    plans: list[tuple[str, list[str]]] = []

    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g", disks=(_root(),)))
        await control.settles()
        ensure, observe = machine.hypervisor.ensure, machine.hypervisor.observe

        def noted(plan: GuestPlan) -> GuestObserved:
            plans.append((plan.spec.power, [path.name for path in plan.disks.values()]))
            return ensure(plan)

        def hung(guest_id: str) -> GuestObserved:
            seen = observe(guest_id)
            return seen if plans else msgspec.structs.replace(seen, state="failed", detail="no answer on QMP")

        machine.hypervisor.ensure = noted  # type: ignore[method-assign] # for this test alone
        machine.hypervisor.observe = hung  # type: ignore[method-assign] # likewise
        larger = DiskSpec(id="root", size_gib=3, incarnation=2, copy_of=1, keep=(1,))
        control.assign(guest("g", disks=(larger,), reboot_nonce=1))
        await control.settles()
        assert plans[:2] == [("stopped", ["root.disk"]), ("running", ["root.2.disk"])]

    play(scenario, database_url, tmp_path)


def test_going_back_needs_no_image(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g", disks=(_root(),)))
        await control.settles()
        control.assign(guest("g", disks=(_root(incarnation=2, copy_of=1, keep=(1,)),), reboot_nonce=1))
        await control.settles()
        control.assign(guest("g", disks=(_root(),), reboot_nonce=2))
        await control.settles()
        assert _files(machine) == ["root.disk"]
        assert machine.hypervisor.boots("g") == 3

    play(scenario, database_url, tmp_path)


def test_a_rescue_disk_comes_and_goes(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g", disks=(_root(),)))
        await control.settles()
        rescue = DiskSpec(id="rescue", image_id="rescue", size_gib=1, boot_index=0)
        behind = msgspec.structs.replace(_root(), boot_index=1)
        control.assign(guest("g", disks=(rescue, behind), reboot_nonce=1))
        await control.settles()
        assert _files(machine) == ["rescue.disk", "root.disk"]
        control.assign(guest("g", disks=(_root(),), retired=("rescue",), reboot_nonce=2))
        await control.settles()
        assert _files(machine) == ["root.disk"]

    play(scenario, database_url, tmp_path)


def test_nothing_goes_before_the_guest_is_as_wanted(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g", disks=(_root(),)))
        await control.settles()
        machine.failing["g"] = ValueError("the driver is broken")
        control.assign(guest("g", disks=(_root(incarnation=2),), reboot_nonce=1))
        await control.reaches("guest/g", "failed")
        assert _files(machine) == ["root.2.disk", "root.disk"]
        del machine.failing["g"]
        await control.settles()
        assert _files(machine) == ["root.2.disk"]

    play(scenario, database_url, tmp_path)


def test_acts_faults_and_cards_are_told(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        control.assign(network("n"), port("p2", "n", "s", guest_id="g1"))
        spec: GuestSpec = guest("g1", "p1", "p2", acts={"nmi": 1, "password": 1}, password="secret")
        control.assign(spec)
        await control.settles()
        seen = control.store.read_here(lambda tx: fleet.observed(tx, "guest", ["g1"]))["g1"][0]
        assert seen.acts == {"nmi": 1, "password": 1}
        assert seen.faults == {"password": "the guest has no channel for its agent"}
        assert list(seen.nics) == ["p1", "p2"]
        with_agent = msgspec.structs.replace(
            spec, acts={"nmi": 1, "password": 2}, nics=spec.nics[:1], machine=MachineSpec(guest_agent=True)
        )
        control.assign(with_agent)
        await control.settles()
        seen = control.store.read_here(lambda tx: fleet.observed(tx, "guest", ["g1"]))["g1"][0]
        assert (seen.acts, seen.faults, list(seen.nics)) == ({"nmi": 1, "password": 2}, {}, ["p1"])

    play(scenario, database_url, tmp_path)

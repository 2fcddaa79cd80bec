"""The simulated hypervisor: it keeps the contract, is the same for the same seed, and is cheap."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from pileus.contracts.hypervisor import GuestFailure, GuestPlan, GuestSpec, MachineSpec, NicSpec, Power
from pileus.contracts.suite.hypervisor import HypervisorContract, HypervisorHarness
from pileus.drivers.hypervisor.fake import FACTS, FakeGuest, FakeHypervisor


def plan(guest_id: str, power: Power, nonce: int = 0, kind: Literal["SOFT", "HARD"] = "HARD") -> GuestPlan:
    spec = GuestSpec(
        id=guest_id,
        name="test",
        vcpus=1,
        memory_mib=64,
        disks=(),
        nics=(),
        power=power,
        reboot_nonce=nonce,
        reboot_kind=kind,
    )
    return GuestPlan(spec=spec, disks={}, nics={})


class FakeHarness:
    patience = 0.05

    def __init__(self, state: Path) -> None:
        self._state = state
        self._driver: FakeHypervisor | None = None

    def open(self) -> FakeHypervisor:
        self._driver = FakeHypervisor(state=self._state)
        return self._driver

    def plan(self, guest_id: str, power: Power, nonce: int = 0, kind: Literal["SOFT", "HARD"] = "HARD") -> GuestPlan:
        return plan(guest_id, power, nonce, kind)

    def with_cards(self, plan: GuestPlan, count: int) -> GuestPlan:
        nics = tuple(
            NicSpec(port_id=f"port{number}", mac_address=f"02:00:00:00:00:0{number}", mtu=1400)
            for number in range(count)
        )
        return msgspec.structs.replace(plan, spec=msgspec.structs.replace(plan.spec, nics=nics))

    def disk(self, guest_id: str) -> Path:
        path = self._state.with_name(f"{guest_id}.disk")
        path.touch()
        return path

    def boots(self, guest_id: str) -> int:
        assert self._driver is not None
        return self._driver.boots(guest_id)

    def power_off(self, guest_id: str) -> None:
        assert self._driver is not None
        self._driver.power_off(guest_id)

    def kill(self, guest_id: str) -> None:
        assert self._driver is not None
        if self._driver.closed:
            with self._state.open("ab") as file:
                file.write(msgspec.json.encode(FakeGuest(id=guest_id, state="stopped", boots=1)) + b"\n")
        else:
            self._driver.crash(guest_id)

    def leftovers(self, guest_id: str) -> list[str]:
        assert self._driver is not None
        return [name for name in self._driver.guests() if name == guest_id]


class TestFakeHypervisor(HypervisorContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> HypervisorHarness:
        return FakeHarness(tmp_path / "guests.jsonl")


def run(seed: int, failures: float, count: int = 50) -> list[str]:
    """What became of some guests whose workers run at once."""
    driver = FakeHypervisor(seed=seed, failures=failures)
    ids = [str(uuid.UUID(int=number)) for number in range(count)]

    def drive(guest_id: str) -> str:
        story: list[str] = []
        powers: list[Power] = ["running", "stopped", "running"]
        for power in powers:
            try:
                story.append(driver.ensure(plan(guest_id, power)).state)
            except GuestFailure as error:
                story.append(str(error))
        return " ".join(story)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(drive, ids))


def test_the_same_seed_fails_in_the_same_places() -> None:
    assert run(1, 0.3) == run(1, 0.3)
    assert run(1, 0.3) != run(2, 0.3)


def test_failures_are_as_frequent_as_asked() -> None:
    assert "simulated" not in " ".join(run(1, 0.0))
    assert all(story.count("simulated") >= 2 for story in run(1, 1.0))
    failed = sum("simulated" in story for story in run(7, 0.2, 400))
    assert 0.25 < failed / 400 < 0.75


def test_a_failed_guest_succeeds_later() -> None:
    driver = FakeHypervisor(failures=0.5, seed=3)
    guest = str(uuid.UUID(int=1))
    states = set()
    for _ in range(20):
        try:
            states.add(driver.ensure(plan(guest, "running")).state)
        except GuestFailure:
            states.add(driver.observe(guest).state)
    assert "running" in states
    assert driver.boots(guest) == 1


@pytest.mark.parametrize(
    "machine",
    [
        MachineSpec(firmware="uefi"),
        MachineSpec(firmware="uefi", secure_boot=True),
        MachineSpec(tpm="2.0"),
        MachineSpec(page_kib=2048),
        MachineSpec(type="microvm"),
    ],
)
def test_what_the_facts_do_not_say_is_refused_for_good(machine: MachineSpec) -> None:
    driver = FakeHypervisor(facts=msgspec.structs.replace(FACTS, firmwares=("bios",), tpm=(), page_kib=()))
    wanted = plan(str(uuid.uuid4()), "running")
    wanted = msgspec.structs.replace(wanted, spec=msgspec.structs.replace(wanted.spec, machine=machine))
    with pytest.raises(GuestFailure, match="this host has") as failure:
        driver.ensure(wanted)
    assert failure.value.permanent
    assert driver.observe(wanted.spec.id).state == "stopped"
    if machine.type != "microvm":
        assert FakeHypervisor().ensure(wanted).state == "running"


def test_a_transition_takes_its_time() -> None:
    slept: list[float] = []
    driver = FakeHypervisor(delay=2.5, sleep=slept.append, clock=lambda: 1000.0)
    guest = str(uuid.uuid4())
    assert driver.ensure(plan(guest, "running")).started_at == 1000.0
    driver.ensure(plan(guest, "running"))
    assert slept == [2.5]
    driver.ensure(plan(guest, "running", 1))
    driver.ensure(plan(guest, "stopped", 1))
    assert slept == [2.5] * 4


def test_a_thousand_guests_are_cheap() -> None:
    threads = threading.active_count()
    driver = FakeHypervisor()
    ids = [str(uuid.uuid4()) for _ in range(1000)]
    begin = time.process_time()
    for guest in ids:
        driver.ensure(plan(guest, "running"))
    assert time.process_time() - begin < 1.0
    assert threading.active_count() == threads
    assert driver.guests() == sorted(ids)


def test_a_line_that_was_cut_by_a_crash_is_skipped(tmp_path: Path) -> None:
    state = tmp_path / "guests.jsonl"
    driver = FakeHypervisor(state=state)
    guest = str(uuid.uuid4())
    driver.ensure(plan(guest, "running"))
    driver.close()
    with state.open("ab") as file:
        file.write(b'{"id": "x", "sta')
    assert FakeHypervisor(state=state).guests() == [guest]


def test_ensuring_again_writes_nothing(tmp_path: Path) -> None:
    state = tmp_path / "guests.jsonl"
    driver = FakeHypervisor(state=state)
    guest = str(uuid.uuid4())
    driver.ensure(plan(guest, "running"))
    size = state.stat().st_size
    for _ in range(5):
        driver.ensure(plan(guest, "running"))
    assert state.stat().st_size == size

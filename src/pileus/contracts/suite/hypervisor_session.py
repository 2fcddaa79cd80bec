"""The host around a hypervisor driver under test, and what every part of its contract starts from."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import pytest

from pileus.contracts.hypervisor import GuestObserved, GuestPlan, Hypervisor, Observed, Power, SnapshotSpec


class HypervisorHarness(Protocol):
    """The host around a driver under test."""

    patience: float
    """Seconds in which a guest of this harness has surely started, and turned itself off when asked to."""

    def open(self) -> Hypervisor:
        """A driver on this host's state: the first one, or the next after the one before was closed."""

    def plan(self, guest_id: str, power: Power, nonce: int = 0, kind: Literal["SOFT", "HARD"] = "HARD") -> GuestPlan:
        """A plan for a small guest that starts without help.  The same guest has the same disks."""

    def with_cards(self, plan: GuestPlan, count: int) -> GuestPlan:
        """The plan with so many cards, up to three, whose ports are always the same and called `port0` and so on."""

    def disk(self, guest_id: str) -> Path:
        """The file of the guest's first disk."""

    def boots(self, guest_id: str) -> int:
        """How often the guest has started so far, as the guest itself tells."""

    def power_off(self, guest_id: str) -> None:
        """The running guest turns itself off."""

    def kill(self, guest_id: str) -> None:
        """What runs the guest dies, whether or not a driver is open."""

    def leftovers(self, guest_id: str) -> list[str]:
        """What is on the host because of this guest, besides its disks."""


class News:
    """Collects what a driver tells its watcher."""

    def __init__(self, driver: Hypervisor) -> None:
        self._condition = threading.Condition()
        self._heard: list[str] = []
        driver.watch(self._hear)

    def forget(self) -> None:
        """Start anew."""
        with self._condition:
            self._heard.clear()

    def wait(self, guest_id: str, timeout: float) -> bool:
        """Whether the guest was named since the last `forget`, within `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: guest_id in self._heard, timeout)

    def _hear(self, guest_id: str) -> None:
        with self._condition:
            self._heard.append(guest_id)
            self._condition.notify_all()


def eventually(holds: Callable[[], bool], timeout: float) -> bool:
    """Whether something holds within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Session:
    """One guest and the driver that is open now."""

    def __init__(self, harness: HypervisorHarness) -> None:
        self.harness = harness
        self.driver = harness.open()
        self.guest = str(uuid.uuid4())

    def reopen(self) -> None:
        """The agent restarts."""
        self.driver.close()
        self.driver = self.harness.open()

    def ensure(
        self,
        power: Power,
        nonce: int = 0,
        kind: Literal["SOFT", "HARD"] = "HARD",
        expect: Observed | None = None,
        guest: str = "",
        cards: int = 0,
        **changes: Any,
    ) -> GuestObserved:
        """Ensure the guest, and check that it is what was wanted, or `expect`. `changes` are of the spec."""
        plan = self.harness.with_cards(self.harness.plan(guest or self.guest, power, nonce, kind), cards)
        plan = msgspec.structs.replace(plan, spec=msgspec.structs.replace(plan.spec, **changes))
        observed = self.driver.ensure(plan)
        assert observed.state == (expect or power), observed
        return observed

    def booted(self, times: int) -> None:
        """Wait until the guest has started as many times."""
        assert eventually(lambda: self.harness.boots(self.guest) >= times, self.harness.patience)
        assert self.harness.boots(self.guest) == times

    def stays_at(self, times: int) -> None:
        """The guest has started as many times and does not start again soon."""
        time.sleep(min(0.5, self.harness.patience))
        assert self.harness.boots(self.guest) == times

    def snapshot(self, target: Path, disk: Path | None = None, **changes: Any) -> None:
        """Take a snapshot of the guest's disk, or of what is said to be."""
        plan = self.harness.plan(self.guest, "running")
        disk_id = next((one.id for one in plan.spec.disks), "root")
        spec = SnapshotSpec(id="00000000-0000-4000-8000-00000000000a", guest_id=self.guest, disk_id=disk_id, **changes)
        self.driver.snapshot(spec, disk or self.harness.disk(self.guest), target)

    def end(self) -> None:
        """Remove every guest."""
        for guest in self.driver.guests():
            self.driver.remove(guest)
        self.driver.close()


class HypervisorFixture:
    """What all parts of the contract start from."""

    @pytest.fixture
    def session(self, harness: HypervisorHarness) -> Iterator[Session]:
        """The driver that is open now; every guest is removed at the end."""
        session = Session(harness)
        yield session
        session.end()

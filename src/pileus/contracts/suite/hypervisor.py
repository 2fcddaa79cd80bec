"""What every hypervisor driver must do: `pileus.contracts.hypervisor`, as tests."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import pytest

from pileus.contracts.hypervisor import GuestObserved, GuestPlan, Hypervisor, Observed, Power


class HypervisorHarness(Protocol):
    """The host around a driver under test."""

    patience: float
    """Seconds in which a guest of this harness has surely started, and turned itself off when asked to."""

    def open(self) -> Hypervisor:
        """A driver on this host's state: the first one, or the next after the one before was closed."""

    def plan(self, guest_id: str, power: Power, nonce: int = 0, kind: Literal["SOFT", "HARD"] = "HARD") -> GuestPlan:
        """A plan for a small guest that starts without help.  The same guest has the same disks."""

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


class HypervisorContract:
    """Subclass it and give it a fixture `harness`."""

    NOTICE = 1.0
    """Seconds within which a death must have been told."""

    @pytest.fixture
    def session(self, harness: HypervisorHarness) -> Iterator[Session]:
        """The driver that is open now; every guest is removed at the end."""
        session = Session(harness)
        yield session
        session.end()

    def test_facts_describe_a_host(self, session: Session) -> None:
        facts = session.driver.facts()
        assert facts.vcpus > 0
        assert facts.memory_mib > 0
        assert facts.disk_gib > 0
        assert facts.version >= 1_000_000
        assert facts.type in ("QEMU", "KVM")
        assert facts == session.driver.facts()

    def test_an_absent_guest_is_fine(self, session: Session) -> None:
        guest = str(uuid.uuid4())
        assert session.driver.observe(guest) == GuestObserved(id=guest, state="absent")
        assert guest not in session.driver.guests()
        assert session.driver.console_log(guest, None) == ""
        session.driver.remove(guest)
        assert session.driver.observe(guest).state == "absent"
        assert session.harness.leftovers(guest) == []

    def test_a_guest_starts_once_however_often_it_is_ensured(self, session: Session) -> None:
        first = session.ensure("running")
        session.booted(1)
        assert first.started_at is not None
        assert abs(first.started_at - time.time()) < 60
        for _ in range(3):
            assert session.ensure("running") == first
        assert session.driver.observe(session.guest) == first
        assert session.driver.guests() == [session.guest]
        session.stays_at(1)

    def test_a_guest_may_be_wanted_stopped_from_the_start(self, session: Session) -> None:
        assert session.ensure("stopped") == GuestObserved(id=session.guest, state="stopped")
        assert session.driver.guests() == [session.guest]
        assert session.harness.boots(session.guest) == 0

    def test_stop_and_start(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        stopped = session.ensure("stopped")
        assert stopped.started_at is None
        assert session.ensure("stopped") == stopped
        assert session.driver.observe(session.guest) == stopped
        session.ensure("running")
        session.booted(2)

    def test_pause_and_unpause(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        paused = session.ensure("paused")
        assert session.ensure("paused") == paused
        assert session.driver.observe(session.guest).state == "paused"
        session.ensure("running")
        session.stays_at(1)

    def test_a_paused_guest_stops(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.ensure("paused")
        session.ensure("stopped")
        session.ensure("running")
        session.booted(2)

    def test_a_guest_may_start_paused(self, session: Session) -> None:
        session.ensure("paused")
        session.ensure("running")
        session.booted(1)

    def test_the_next_driver_adopts_a_running_guest(self, session: Session) -> None:
        before = session.ensure("running")
        session.booted(1)
        session.reopen()
        assert session.driver.guests() == [session.guest]
        assert session.driver.observe(session.guest) == before
        assert session.ensure("running") == before
        session.stays_at(1)
        session.ensure("paused")
        session.ensure("running")
        session.ensure("stopped")

    def test_the_next_driver_knows_stopped_and_paused_guests(self, session: Session) -> None:
        session.ensure("stopped")
        session.reopen()
        assert session.driver.observe(session.guest).state == "stopped"
        session.ensure("paused")
        session.reopen()
        assert session.driver.observe(session.guest).state == "paused"

    def test_a_death_is_told_and_mended(self, session: Session) -> None:
        news = News(session.driver)
        session.ensure("running")
        session.booted(1)
        news.forget()
        session.harness.kill(session.guest)
        assert news.wait(session.guest, self.NOTICE)
        assert eventually(lambda: session.driver.observe(session.guest).state == "stopped", self.NOTICE)
        assert session.driver.observe(session.guest).started_at is None
        session.ensure("running")
        session.booted(2)

    def test_the_death_of_an_adopted_guest_is_told(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.reopen()
        news = News(session.driver)
        session.harness.kill(session.guest)
        assert news.wait(session.guest, self.NOTICE)
        assert eventually(lambda: session.driver.observe(session.guest).state == "stopped", self.NOTICE)

    def test_a_death_while_no_driver_was_there_is_mended(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.driver.close()
        session.harness.kill(session.guest)
        session.driver = session.harness.open()
        assert session.driver.observe(session.guest).state == "stopped"
        session.ensure("running")
        session.booted(2)

    def test_a_guest_that_turned_itself_off_is_left_alone(self, session: Session) -> None:
        news = News(session.driver)
        session.ensure("running")
        session.booted(1)
        news.forget()
        session.harness.power_off(session.guest)
        assert news.wait(session.guest, session.harness.patience)
        assert eventually(lambda: session.driver.observe(session.guest).state == "shutdown", session.harness.patience)
        session.ensure("running", expect="shutdown")
        session.reopen()
        session.ensure("running", expect="shutdown")
        session.stays_at(1)
        session.ensure("stopped")
        session.ensure("running")
        session.booted(2)

    @pytest.mark.parametrize("kind", ["SOFT", "HARD"])
    def test_a_reboot_is_applied_once(self, session: Session, kind: Literal["SOFT", "HARD"]) -> None:
        session.ensure("running", nonce=3)
        session.booted(1)
        after = session.ensure("running", nonce=4, kind=kind)
        assert after.reboot_nonce == 4
        session.booted(2)
        assert session.ensure("running", nonce=4, kind=kind) == after
        session.reopen()
        assert session.driver.observe(session.guest).reboot_nonce == 4
        session.ensure("running", nonce=4, kind=kind)
        session.stays_at(2)

    def test_an_older_nonce_is_no_reboot(self, session: Session) -> None:
        session.ensure("running", nonce=3)
        session.booted(1)
        assert session.ensure("running", nonce=2).reboot_nonce == 3
        session.stays_at(1)

    def test_the_first_nonce_is_no_reboot(self, session: Session) -> None:
        assert session.ensure("running", nonce=5).reboot_nonce == 5
        session.booted(1)
        session.ensure("running", nonce=5)
        session.stays_at(1)

    def test_a_reboot_of_a_stopped_guest_is_used_up_by_its_start(self, session: Session) -> None:
        session.ensure("stopped", nonce=1)
        assert session.ensure("stopped", nonce=2).reboot_nonce == 2
        session.ensure("running", nonce=3)
        session.booted(1)
        session.ensure("running", nonce=3)
        session.stays_at(1)

    def test_a_reboot_starts_a_guest_that_turned_itself_off(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.harness.power_off(session.guest)
        assert eventually(lambda: session.driver.observe(session.guest).state == "shutdown", session.harness.patience)
        session.ensure("running", nonce=1, kind="SOFT")
        session.booted(2)

    @pytest.mark.parametrize("power", ["running", "paused", "stopped"])
    def test_removal_leaves_nothing(self, session: Session, power: Power) -> None:
        session.ensure(power)
        assert session.harness.leftovers(session.guest) != []
        session.driver.remove(session.guest)
        assert session.harness.leftovers(session.guest) == []
        assert session.driver.observe(session.guest) == GuestObserved(id=session.guest, state="absent")
        assert session.driver.guests() == []
        session.driver.remove(session.guest)

    def test_the_next_driver_removes_too(self, session: Session) -> None:
        session.ensure("running")
        session.reopen()
        session.driver.remove(session.guest)
        assert session.harness.leftovers(session.guest) == []

    def test_a_removed_guest_may_come_back(self, session: Session) -> None:
        session.ensure("running", nonce=2)
        session.driver.remove(session.guest)
        session.ensure("running", nonce=1)
        session.booted(1)

    def test_the_console_is_kept_and_cut_to_lines(self, session: Session) -> None:
        session.ensure("running")
        session.booted(1)
        session.ensure("running", nonce=1)
        session.booted(2)
        whole = session.driver.console_log(session.guest, None)
        rows = whole.splitlines(keepends=True)
        assert len(rows) >= 2
        assert session.driver.console_log(session.guest, 1) == rows[-1]
        assert session.driver.console_log(session.guest, 10_000) == whole
        assert session.driver.console_log(session.guest, 0) == ""
        session.ensure("stopped", nonce=1)
        assert session.driver.console_log(session.guest, None).startswith(whole)

    def test_guests_are_independent(self, session: Session) -> None:
        other = str(uuid.uuid4())
        session.ensure("running")
        assert session.ensure("running", guest=other).state == "running"
        session.booted(1)
        session.driver.remove(other)
        assert session.driver.guests() == [session.guest]
        assert session.driver.observe(session.guest).state == "running"
        session.stays_at(1)


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
    ) -> GuestObserved:
        """Ensure the guest, and check that it is what was wanted, or `expect`."""
        observed = self.driver.ensure(self.harness.plan(guest or self.guest, power, nonce, kind))
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

    def end(self) -> None:
        """Remove every guest."""
        for guest in self.driver.guests():
            self.driver.remove(guest)
        self.driver.close()

"""What every hypervisor driver must do: `pileus.contracts.hypervisor`, as tests."""

from __future__ import annotations

import time
import uuid
from typing import Literal

import pytest

from pileus.contracts.hypervisor import GuestObserved, Power
from pileus.contracts.suite.hypervisor_life import (
    ActContract,
    CardContract,
    ConsoleContract,
    SnapshotContract,
    SuspensionContract,
)
from pileus.contracts.suite.hypervisor_session import HypervisorFixture, HypervisorHarness, News, Session, eventually

__all__ = ["HypervisorContract", "HypervisorHarness", "News", "Session", "eventually"]


class PowerContract(HypervisorFixture):
    """Guests that start, stop, die and come back."""

    NOTICE = 1.0
    """Seconds within which a death must have been told."""

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
        begin = time.monotonic()
        session.harness.power_off(session.guest)
        assert news.wait(session.guest, session.harness.patience)
        assert time.monotonic() - begin < 2.0
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

    @pytest.mark.parametrize("power", ["running", "paused", "stopped", "suspended"])
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


class HypervisorContract(
    PowerContract, SuspensionContract, CardContract, ActContract, ConsoleContract, SnapshotContract
):
    """Subclass it and give it a fixture `harness`."""

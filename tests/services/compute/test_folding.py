"""What becomes of an observation."""

from __future__ import annotations

import pytest

from pileus.services.compute.rules.folding import Seen, Wanted, fold

RUNNING = Wanted(power="running", launched=True, state="running", reboot_done=0, error=False)
NEW = RUNNING._replace(launched=False, state="")


def seen(state: str, **changes: object) -> Seen:
    return Seen(state, True, "", False, 0)._replace(**changes)  # type: ignore[arg-type] # each test names fields


def test_first_launch() -> None:
    found = fold(NEW, seen("running"))
    assert found.launched
    assert found.changes == {"state": "running"}
    assert found.failed is None


def test_the_same_again_changes_nothing() -> None:
    found = fold(RUNNING, seen("running"))
    assert not found.changes
    assert not found.launched


def test_a_guest_that_turned_itself_off_stays_off() -> None:
    found = fold(RUNNING, seen("shutdown"))
    assert found.stopped_itself
    assert found.changes == {"state": "stopped"}


def test_a_newer_wish_outlives_an_older_shutdown() -> None:
    assert not fold(RUNNING, seen("shutdown", current=False)).stopped_itself


def test_a_stop_that_was_asked_for_is_no_shutdown() -> None:
    assert not fold(RUNNING._replace(power="stopped"), seen("shutdown")).stopped_itself


@pytest.mark.parametrize(
    ("permanent", "current", "expected"),
    [(False, True, None), (True, False, None), (True, True, "no room"), (False, False, None)],
)
def test_only_a_failure_that_stays_is_an_error(permanent: bool, current: bool, expected: str | None) -> None:
    found = fold(NEW, seen("failed", permanent=permanent, current=current, detail="no room"))
    assert found.failed == expected
    assert not found.launched
    assert "state" not in found.changes


def test_an_error_is_told_once() -> None:
    assert fold(NEW._replace(error=True), seen("failed", permanent=True)).failed is None


def test_a_guest_that_turned_itself_off_before_a_boot_that_was_asked_for_is_not_off() -> None:
    started = RUNNING._replace(state="stopped", reboot_nonce=1, told=False)
    assert not fold(started, seen("shutdown")).stopped_itself
    assert fold(started, seen("shutdown", reboot_nonce=1)).stopped_itself


def test_reboots_count_upwards() -> None:
    assert fold(RUNNING, seen("running", reboot_nonce=2)).changes == {"reboot_done": 2}
    assert not fold(RUNNING._replace(reboot_done=3), seen("running", reboot_nonce=2)).changes


def test_what_says_nothing_changes_nothing() -> None:
    for state in ("", "absent"):
        found = fold(RUNNING, seen(state))
        assert (dict(found.changes), found.launched, found.failed, found.stopped_itself) == ({}, False, None, False)

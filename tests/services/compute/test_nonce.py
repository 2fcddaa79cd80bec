"""Nonces of reboots and acts go on above what the host did already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pileus.services.compute.resources.server.table import next_act, next_reboot


def row(**values: Any) -> Any:
    return SimpleNamespace(**{"reboot_nonce": 3, "reboot_done": 3, "acts": {}, "acts_done": {}} | values)


def test_one_more_reboot() -> None:
    assert next_reboot(row()) == 4
    assert next_reboot(row(reboot_nonce=5)) == 6


def test_a_host_that_did_more_than_a_restored_store_knows_of_is_not_taken_at_its_word() -> None:
    assert next_reboot(row(reboot_done=9)) == 10
    assert next_act(row(acts={"nmi": 1, "password": 2}, acts_done={"nmi": 7}), "nmi") == {"nmi": 8, "password": 2}


def test_the_first_act() -> None:
    assert next_act(row(), "nmi") == {"nmi": 1}

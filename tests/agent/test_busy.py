"""The agent against the real link: guests that take their time, or end as they start, and who waits for them."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from pileus.contracts.hypervisor import GuestBusy, GuestFailure, GuestObserved, GuestPlan
from tests.agent.control import Control, Machine, hold, play, until
from tests.agent.spec import group, guest, network


def test_guests_that_take_their_time_hold_up_no_network(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        ensure, ready = machine.hypervisor.ensure, threading.Event()
        waiting: set[str] = set()

        def slow(plan: GuestPlan) -> GuestObserved:
            waiting.add(plan.spec.id)
            ready.wait(20)
            return ensure(plan)

        machine.hypervisor.ensure = slow  # type: ignore[method-assign] # for this test alone
        try:
            control.assign(*(guest(f"slow{number}") for number in range(20)))
            await until(lambda: len(waiting) == 16, "all workers of guests are busy")
            control.assign(group("s", "10.0.0.0/8"), network("m"))
            control.tombstone("router/r")
            await until(lambda: machine.network.networks["n"].groups["s"] == group("s", "10.0.0.0/8"), seconds=2)
            await until(lambda: "m" in machine.network.networks and not machine.network.routers, seconds=2)
        finally:
            ready.set()
        await control.settles()

    play(scenario, database_url, tmp_path)


def test_what_a_deletion_waits_for_is_cut_short(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        began, hurried = threading.Event(), threading.Event()
        told: list[tuple[str, bool]] = []

        def slow(plan: GuestPlan) -> GuestObserved:
            began.set()
            assert hurried.wait(20)
            raise GuestFailure("it is to be removed")

        def hurry(guest_id: str, *, on: bool) -> None:
            told.append((guest_id, on))
            if on:
                hurried.set()

        machine.hypervisor.ensure = slow  # type: ignore[method-assign] # for this test alone
        machine.hypervisor.hurry = hurry  # type: ignore[method-assign]
        control.assign(guest("g1", "p1", power="stopped"))
        await until(began.is_set)
        control.tombstone("guest/g1")
        await until(lambda: machine.guests == {}, "the guest is removed", 2)
        await control.reaches("guest/g1", "gone")
        assert told == [("g1", False), ("g1", True)]

    play(scenario, database_url, tmp_path)


def test_a_guest_that_is_busy_is_neither_failed_nor_forgotten(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pileus.agent.agent.BUSY", 0.05)

    async def scenario(control: Control, machine: Machine) -> None:
        machine.failing["g"] = GuestBusy("its disk is copied")
        control.assign(guest("g"))
        await until(lambda: machine.attempts.get("g", 0) > 3)
        assert control.state("guest/g") == ""
        machine.failing.clear()
        await control.settles()

    play(scenario, database_url, tmp_path)


def test_a_guest_that_ends_as_it_is_started_is_started_ever_more_seldom(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        ensure = machine.hypervisor.ensure
        starts: list[float] = []

        def dies(plan: GuestPlan) -> GuestObserved:
            if plan.spec.name != "mended":
                starts.append(time.monotonic())
                asyncio.run_coroutine_threadsafe(tell(), loop)
                time.sleep(0.01)
                raise GuestFailure("QEMU did not start")
            return ensure(plan)

        async def tell() -> None:
            assert machine.agent is not None
            machine.agent._guest_changed("g")

        loop = asyncio.get_running_loop()
        machine.hypervisor.ensure = dies  # type: ignore[method-assign] # for this test alone
        control.assign(guest("g"))
        await control.reaches("guest/g", "failed")
        await asyncio.sleep(2.5)
        assert len(starts) <= 5
        await until(lambda: len(starts) == 5, "it is tried after 3 s")
        control.assign(guest("g", name="mended"))
        await until(lambda: machine.guests == {"g": "running"}, "a change acts at once", 1.0)

    play(scenario, database_url, tmp_path)

"""The agent against the real link: what one host does with what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pileus.contracts.hypervisor import GuestFailure
from pileus.core.errors import Unavailable
from pileus.core.store import Tx
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources.assignment import assignment
from tests.agent.control import Control, Machine, failure, hold, index, play, until
from tests.agent.spec import group, guest, network, port, router


def test_a_guest_runs_with_all_that_it_needs(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        assert machine.guests == {"g1": "running"}
        assert machine.ports == {"p1"}
        assert set(machine.network.routers) == {"r"}
        rows = control.rows()
        assert {key: row.state for key, row in rows.items()} == {
            "guest/g1": "running",
            "network/n": "ready",
            "port/p1": "ready",
            "router/r": "ready",
            "security_group/s": "ready",
        }
        assert rows["guest/g1"].started_at is not None

    play(scenario, database_url, tmp_path)


def test_tombstones_empty_the_host_in_the_opposite_order(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control, 3)
        machine.calls.clear()
        control.tombstone(*control.rows())
        await control.empties()
        assert machine.left() == []
        down = index(machine.calls, ("remove network", "n"))
        for before in [("remove guest", "g1"), ("remove guest", "g3"), ("remove router", "r")]:
            assert index(machine.calls, before) < down
        assert ("ensure network", "n") not in machine.calls

    play(scenario, database_url, tmp_path)


def test_a_port_goes_after_its_guest(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control, 2)
        machine.failing["g1"] = failure()
        control.tombstone("port/p1", "guest/g1")
        await control.reaches("guest/g1", "failed")
        await asyncio.sleep(0.2)
        assert machine.ports == {"p1", "p2"}, "the guest that cannot be removed keeps its filter"
        assert "port/p1" in control.rows()
        machine.failing.clear()
        await control.reaches("port/p1", "gone")
        assert machine.ports == {"p2"}
        assert machine.guests == {"g2": "running"}

    play(scenario, database_url, tmp_path)


def test_a_guest_waits_for_the_groups_of_its_ports(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(network("n"), port("p", "n", "s", "t"), guest("g", "p"))
        await control.reaches("network/n", "ready")
        control.assign(group("s"))
        await control.reaches("security_group/s", "ready")
        await asyncio.sleep(0.1)
        assert machine.guests == {}
        assert control.state("port/p") == ""
        control.assign(group("t"))
        await control.reaches("guest/g", "running")

    play(scenario, database_url, tmp_path)


def test_a_group_that_comes_while_its_network_is_made_is_waited_for(database_url: str, tmp_path: Path) -> None:
    """What the driver was handed counts, not what is known when it is done."""

    async def scenario(control: Control, machine: Machine) -> None:
        assert machine.agent is not None
        driver = machine.agent.host.network
        ensure: Callable[..., None] = driver.ensure_network

        def slow(state: Any) -> None:
            if not state.groups:
                ensure(state)
            time.sleep(0.1)
            ensure(state)

        driver.ensure_network = slow  # type: ignore[method-assign] # a driver that takes its time
        control.assign(network("n"), port("p", "n", "s"), guest("g", "p"))
        await until(lambda: "n" in machine.network.networks)
        control.assign(group("s"))
        await control.reaches("guest/g", "running")

    play(scenario, database_url, tmp_path)


def test_a_change_of_a_group_reaches_the_filters(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        control.assign(group("s", "10.0.0.0/8"))
        await until(lambda: machine.network.networks["n"].groups["s"] == group("s", "10.0.0.0/8"))
        assert machine.attempts["g1"] == 1, "its guests are left in peace"

    play(scenario, database_url, tmp_path)


def test_a_host_that_lost_its_hypervisor_says_why_and_goes_on_when_it_is_back(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        await machine.kill()
        kind = type(machine.hypervisor)
        whole = kind.facts

        def refuse(self: Any) -> Any:
            raise GuestFailure("the emulator is not installed")

        monkeypatch.setattr(kind, "facts", refuse)
        machine.boot()
        await until(lambda: "this host cannot hold guests: the emulator is not installed" in caplog.text)
        assert machine.failed() is None
        assert machine.guests == {"g1": "running"}
        control.assign(network("m"))
        await asyncio.sleep(0.2)
        assert control.state("network/m") == ""
        monkeypatch.setattr(kind, "facts", whole)
        await control.reaches("network/m", "ready")

    play(scenario, database_url, tmp_path)


def test_a_port_whose_tombstone_alone_is_seen_is_gone_when_its_network_is_made(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control, 2)
        await machine.kill()
        control.tombstone("port/p1", "guest/g1")
        machine.failing["n"] = failure()
        machine.boot()
        await control.reaches("network/n", "failed")
        await asyncio.sleep(0.1)
        assert "port/p1" in control.rows(), "it is still plugged in"
        machine.failing.clear()
        await control.reaches("port/p1", "gone")
        assert machine.ports == {"p2"}
        await control.settles()

    play(scenario, database_url, tmp_path)


# -- absence ---------------------------------------------------------------------------------------------------------


def lose(control: Control, *keys: str) -> None:
    """Rows vanish, as no service would let them."""
    for key in keys:
        kind, _, object_id = key.partition("/")
        statement = sa.delete(assignment).where(assignment.c.kind == kind, assignment.c.id == object_id)
        control.write(partial(Tx.execute, statement=statement))


def test_absence_deletes_nothing(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control, 2)
        lose(control, "guest/g1", "router/r")
        watches = control.requests.count(("POST", "/hello"))
        control.cut()
        await until(lambda: control.requests.count(("POST", "/hello")) > watches)
        await until(lambda: control.unknown() == {"guest/g1", "router/r"}, control.unknown)
        assert machine.guests == {"g1": "running", "g2": "running"}
        assert set(machine.network.routers) == {"r"}

    play(scenario, database_url, tmp_path)


def test_a_new_agent_leaves_alone_what_it_does_not_know(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(network("n"), port("p", "n"), guest("g", "p"), network("m"), router("r", "m"), guest("h"))
        await control.settles()
        await machine.kill()
        lose(control, "guest/h", "network/m", "router/r")
        calls = len(machine.calls)
        machine.boot()
        await until(lambda: control.unknown() == {"guest/h", "network/m", "router/r"}, control.unknown)
        assert machine.guests == {"g": "running", "h": "running"}
        assert set(machine.network.networks) == {"m", "n"}
        assert not [call for call in machine.calls[calls:] if call[1] in ("h", "m", "r")]

    play(scenario, database_url, tmp_path)


def test_nothing_is_unknown_before_the_agent_has_heard_everything(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        await machine.kill()
        seen: list[set[str]] = []
        beat = control.fleet.beat

        def note(host_id: str, heartbeat: Any) -> None:
            seen.append({one.id for one in heartbeat.unknown})
            beat(host_id, heartbeat)

        monkeypatch.setattr(control.fleet, "beat", note)
        machine.boot()
        await until(lambda: len(seen) >= 2)
        assert seen == [set()] * len(seen)

    play(scenario, database_url, tmp_path)


# -- failures --------------------------------------------------------------------------------------------------------


def test_a_permanent_failure_is_reported_and_not_tried_again(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        machine.failing["g"] = failure(permanent=True)
        control.assign(guest("g"))
        await control.reaches("guest/g", "failed")
        row = control.rows()["guest/g"]
        assert (row.detail, row.permanent) == ("the driver cannot", True)
        machine.failing.clear()
        await asyncio.sleep(0.5)
        assert machine.attempts == {"g": 1}
        control.assign(guest("g", memory_mib=128))
        await control.reaches("guest/g", "running")
        assert not control.rows()["guest/g"].permanent
        assert control.rows()["guest/g"].detail == ""

    play(scenario, database_url, tmp_path)


def test_a_failure_that_may_pass_is_tried_again(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        machine.failing["g"] = failure()
        control.assign(guest("g"))
        await control.reaches("guest/g", "failed")
        assert not control.rows()["guest/g"].permanent
        await until(lambda: machine.attempts["g"] >= 2)
        machine.failing.clear()
        await control.reaches("guest/g", "running")

    play(scenario, database_url, tmp_path)


def test_an_exception_that_no_driver_should_raise_is_a_failure(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        machine.failing["g"] = ZeroDivisionError("of some driver")
        control.assign(guest("g"), guest("h"))
        await control.reaches("guest/g", "failed")
        await control.reaches("guest/h", "running")
        machine.failing.clear()
        await control.reaches("guest/g", "running")

    play(scenario, database_url, tmp_path)


def test_a_failure_is_of_the_spec_that_failed(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        assert machine.agent is not None
        driver = machine.agent.host.hypervisor
        ensure: Callable[..., Any] = driver.ensure

        def slow(plan: Any) -> Any:
            if plan.spec.memory_mib == 64:
                time.sleep(0.3)
                raise failure(permanent=True)
            if plan.spec.memory_mib == 128:
                time.sleep(0.3)
            return ensure(plan)

        driver.ensure = slow  # type: ignore[method-assign] # a driver that takes its time
        control.assign(guest("g"))
        await asyncio.sleep(0.1)
        newest = control.assign(guest("g", memory_mib=128))["g"]
        seen: set[tuple[int, str]] = set()
        deadline = time.monotonic() + 5
        while (newest, "running") not in seen and time.monotonic() < deadline:
            row = control.rows()["guest/g"]
            seen.add((row.observed_generation, row.state))
            await asyncio.sleep(0.01)
        assert (newest, "running") in seen
        assert (newest, "failed") not in seen

    play(scenario, database_url, tmp_path)


def test_a_spec_that_cannot_be_read_fails_alone(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        strange = {"spec": b'{"id": "g1"}', "generation": assignment.c.generation + 1}
        key = (assignment.c.kind == "guest", assignment.c.id == "g1")

        def work(tx: Any) -> None:
            tx.execute(sa.update(assignment).where(*key).values(**strange))
            tx.changed(f"host.{control.host_id()}", "guest/g1")

        control.write(work)
        await control.reaches("guest/g1", "failed")
        row = control.rows()["guest/g1"]
        assert row.permanent
        assert "name" in row.detail
        control.assign(guest("h"))
        await control.reaches("guest/h", "running")
        assert machine.guests == {"g1": "running", "h": "running"}

    play(scenario, database_url, tmp_path)


# -- guests live -----------------------------------------------------------------------------------------------------


def test_a_guest_that_turns_itself_off_is_left_off(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        machine.hypervisor.power_off("g1")
        await control.reaches("guest/g1", "shutdown")
        assert machine.hypervisor.boots("g1") == 1
        control.assign(guest("g1", "p1", power="stopped"))
        await control.reaches("guest/g1", "stopped")
        control.assign(guest("g1", "p1"))
        await control.reaches("guest/g1", "running")
        assert machine.hypervisor.boots("g1") == 2

    play(scenario, database_url, tmp_path)


def test_a_guest_whose_process_dies_is_started_again(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        before = control.rows()["guest/g1"].started_at
        machine.hypervisor.crash("g1")
        await until(lambda: control.rows()["guest/g1"].started_at > before)
        assert control.state("guest/g1") == "running"
        assert machine.hypervisor.boots("g1") == 2

    play(scenario, database_url, tmp_path)


def test_a_network_whose_service_died_is_looked_at_once_and_soon(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        machine.calls.clear()
        machine.ailing.append(("network", "n"))
        await until(lambda: ("ensure network", "n") in machine.calls)
        await asyncio.sleep(0.1)
        assert machine.calls.count(("ensure network", "n")) == 1
        machine.ailing.clear()
        await asyncio.sleep(0.1)
        machine.ailing.append(("network", "n"))
        await until(lambda: machine.calls.count(("ensure network", "n")) == 2)

    play(scenario, database_url, tmp_path)


def test_a_reboot_is_applied_once_and_remembered_by_the_host(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        control.assign(guest("g1", "p1", reboot_nonce=1))
        await until(lambda: control.rows()["guest/g1"].reboot_nonce == 1)
        await control.settles()
        assert machine.hypervisor.boots("g1") == 2
        await machine.kill()
        machine.boot()
        await until(lambda: machine.attempts["g1"] >= 3)
        assert machine.hypervisor.boots("g1") == 2

    play(scenario, database_url, tmp_path)


@pytest.mark.parametrize("power", ["paused", "stopped"])
def test_power_follows_the_spec(database_url: str, tmp_path: Path, power: Any) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        control.assign(guest("g1", "p1", power=power))
        await control.reaches("guest/g1", power)
        control.assign(guest("g1", "p1"))
        await control.reaches("guest/g1", "running")

    play(scenario, database_url, tmp_path)


def test_the_console_of_a_guest_can_be_asked_for(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        machine.hypervisor.power_off("g1")
        ask = fleet.ask(control.request(), control.host_id(), "console_log", "g1", {"lines": None})
        log = await ask
        assert log.splitlines() == ["boot 1 of name-g1: 1 vcpus, 64 MiB", "reboot: Power down"]
        last = await fleet.ask(control.request(), control.host_id(), "console_log", "g1", {"lines": 1})
        assert last == "reboot: Power down\n"
        many = await asyncio.gather(
            *(fleet.ask(control.request(), control.host_id(), "console_log", "g1", {"lines": 1}) for _ in range(20))
        )
        assert set(many) == {last}

    play(scenario, database_url, tmp_path)


def test_a_console_that_cannot_be_read_is_said_to_be(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        def broken(guest_id: str, lines: int | None) -> str:
            raise OSError("no such console")

        machine.hypervisor.console_log = broken  # type: ignore[method-assign] # a driver that cannot
        with pytest.raises(Unavailable, match="no such console"):
            await fleet.ask(control.request(), control.host_id(), "console_log", "g", {})
        await machine.kill()
        with pytest.raises(Unavailable, match="in time"):
            await fleet.ask(control.request(), control.host_id(), "console_log", "g", {}, seconds=0.2)

    play(scenario, database_url, tmp_path)

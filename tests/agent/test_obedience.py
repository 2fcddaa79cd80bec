"""The agent against the real link: whom a host obeys, and what is lost on the way."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from pileus.agent import agent as agent_module
from pileus.agent.identity import Identity, IdentityFile
from pileus.core.store import Tx, change
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import store as runs
from tests.agent.control import Control, Machine, hold, play, until
from tests.agent.spec import group, guest, network, port

# -- whom a host obeys -----------------------------------------------------------------------------------------------


def contents(control: Control) -> Any:
    """A copy of all that the store holds."""
    tables = [table for table in assignment.metadata.sorted_tables if table.name.startswith(("fleet_", "core_"))]
    return control.store.read_here(
        lambda tx: {table: [dict(row._mapping) for row in tx.all(sa.select(table))] for table in tables}
    )


def restore(control: Control, copy: Any) -> None:
    """Put a copy back."""

    def work(tx: Any) -> int:
        for table in reversed(list(copy)):
            tx.execute(sa.delete(table))
        for table, rows in copy.items():
            if rows:
                tx.execute(sa.insert(table), rows)
        return 0

    control.write(work)


async def refused(control: Control, machine: Machine) -> None:
    """The host has said hello in vain, and does nothing."""
    calls, hellos = list(machine.calls), control.requests.count(("POST", "/hello"))
    await until(lambda: control.requests.count(("POST", "/hello")) > hellos)
    await asyncio.sleep(0.3)
    assert machine.calls == calls
    assert not {("GET", "/watch"), ("POST", "/report")} & set(control.requests)
    assert machine.guests == {"g1": "running"}


@pytest.mark.parametrize("reboot", [False, True], ids=["reconnected", "rebooted"])
def test_an_older_copy_of_the_store_is_refused(database_url: str, tmp_path: Path, reboot: bool) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g1", power="stopped"))
        await control.settles()
        copy = contents(control)
        control.tombstone("guest/g1")
        await control.empties()
        control.assign(guest("g1"))
        await control.settles()
        assert machine.agent is not None
        heard = machine.agent.identity.position
        await until(lambda: Identity(**_identity(machine)).position >= heard, "the identity is written")
        control.requests.clear()
        await control.stop()
        if reboot:
            await machine.kill()
        restore(control, copy)
        await control.start()
        if reboot:
            machine.boot()
        control.requests.clear()
        await refused(control, machine)
        assert _identity(machine)["position"] >= heard

    play(scenario, database_url, tmp_path)


def _identity(machine: Machine) -> Any:
    return msgspec.json.decode((machine.directory / "identity.json").read_bytes())


@pytest.mark.parametrize("reboot", [False, True], ids=["reconnected", "rebooted"])
def test_another_store_is_refused(database_url: str, tmp_path: Path, reboot: bool) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g1"))
        await control.settles()
        await control.stop()
        if reboot:
            await machine.kill()
        control.write(lambda tx: tx.execute(sa.update(runs).values(store_id="another")).rowcount)
        control.write(lambda tx: tx.execute(sa.update(assignment).values(tombstone=True, spec=None)).rowcount)
        await control.start()
        if reboot:
            machine.boot()
        control.requests.clear()
        await refused(control, machine)

    play(scenario, database_url, tmp_path)


def test_a_silent_swap_of_the_store_is_noticed(database_url: str, tmp_path: Path) -> None:
    """The older store answers on the same socket at once, so that no connect fails in between."""

    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g1"))
        await control.settles()
        copy = contents(control)
        control.assign(guest("g1", name="new"))
        await control.settles()
        control.cut()
        restore(control, copy)
        control.write(fleet.begin)
        control.tombstone("guest/g1")
        control.requests.clear()
        await refused(control, machine)

    play(scenario, database_url, tmp_path)


def test_hello_does_not_forget_how_far_the_host_has_heard(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        assert machine.agent is not None
        heard = machine.agent.identity.position
        assert heard > 0
        await until(lambda: _identity(machine)["position"] >= heard, "the identity is written")
        await machine.kill()
        written = _identity(machine)["position"]
        machine.boot(lost=lambda path: path.startswith("/watch"))
        await until(lambda: machine.link.host_id != "", "hello is answered")
        await asyncio.sleep(0.1)
        assert _identity(machine)["position"] == written

    play(scenario, database_url, tmp_path)


def _full(self: IdentityFile, identity: Identity) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_no_host_from_making_room(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g1"))
        await control.settles()
        await control.stop()
        with monkeypatch.context() as full:
            full.setattr(IdentityFile, "write", _full)
            await control.start()
            control.tombstone("guest/g1")
            await control.empties()
            assert machine.failed() is None
        assert machine.agent is not None
        known = machine.agent.identity
        await until(lambda: Identity(**_identity(machine)).incarnation == known.incarnation, "it is written later")

    play(scenario, database_url, tmp_path)


def test_a_store_that_cannot_be_written_down_is_not_obeyed_for_the_first_time(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g1"))
        await control.settles()
        await machine.kill()
        (machine.directory / "identity.json").unlink()
        with monkeypatch.context() as full:
            full.setattr(IdentityFile, "write", _full)
            control.tombstone("guest/g1")
            control.requests.clear()
            machine.boot()
            await until(lambda: control.requests.count(("POST", "/hello")) > 2)
            assert ("GET", "/watch") not in control.requests
            assert machine.failed() is None
            assert machine.guests == {"g1": "running"}
        await control.empties()

    play(scenario, database_url, tmp_path)


def test_a_change_log_that_was_trimmed_means_the_full_list(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        control.cut()  # away, while entries come and go
        control.assign(guest("h"))
        newest = control.store.read_here(lambda tx: tx.scalar(sa.select(sa.func.max(change.c.seq))))
        control.write(lambda tx: tx.execute(sa.delete(change).where(change.c.seq < newest)).rowcount)
        await control.reaches("guest/h", "running")
        await control.settles()

    play(scenario, database_url, tmp_path)


# -- the link breaks -------------------------------------------------------------------------------------------------


def test_lost_reports_are_sent_again(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        machine.link.lost = lambda path: path == "/report"
        control.assign(network("n"), port("p", "n"), guest("g", "p"))
        await until(lambda: machine.guests == {"g": "running"})
        await asyncio.sleep(0.1)
        assert {row.state for row in control.rows().values()} == {""}
        machine.link.lost = lambda path: False
        await control.settles()

    play(scenario, database_url, tmp_path)


def test_a_report_that_died_with_the_control_plane_is_sent_to_the_next(database_url: str, tmp_path: Path) -> None:
    """The agent had its answer, but the store has not: restored to just before, within what it may forget."""

    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control)
        fields = {"observed_generation": 0, "state": ""}
        control.write(lambda tx: tx.execute(sa.update(assignment).values(**fields)).rowcount)
        await control.stop()
        await control.start()
        await control.settles()
        assert machine.attempts["g1"] <= 2

    play(scenario, database_url, tmp_path)


def test_an_answer_that_was_lost_does_no_harm(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        machine.link.unanswered = lambda path: path == "/report"
        await hold(control)
        control.tombstone(*control.rows())
        await control.empties()
        machine.link.unanswered = lambda path: False
        await hold(control)
        assert machine.guests == {"g1": "running"}

    play(scenario, database_url, tmp_path)


def test_the_control_plane_may_be_away_while_much_happens(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        await hold(control, 2)
        await control.stop()
        control.assign(guest("g1", "p1", power="stopped"), guest("h"))
        control.tombstone("guest/g2")
        machine.hypervisor.crash("g1")
        await until(lambda: machine.guests["g1"] == "running", "the agent works on alone")
        await control.start()
        await until(lambda: machine.guests == {"g1": "stopped", "h": "running"}, lambda: machine.guests)
        await control.settles()
        assert control.hosts()[0].up

    play(scenario, database_url, tmp_path)


def test_what_comes_back_to_a_host_is_not_taken_for_what_it_was(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        seen: set[int] = set()
        for _ in range(3):
            generation = control.assign(network("n"))["n"]
            generation = control.assign(network("n", mtu=9000))["n"]
            assert generation not in seen
            assert not seen or generation > max(seen)
            seen.add(generation)
            await control.settles()
            control.tombstone("network/n")
            seen.add(control.rows()["network/n"].generation)
            await control.empties()
        # A tombstone of an earlier life, told once more, must not hide the new one.
        assert machine.agent is not None
        generation = control.assign(network("n"))["n"]
        assert generation > max(seen)
        await control.settles()

    play(scenario, database_url, tmp_path)


def test_a_host_that_was_forgotten_comes_back_as_a_new_one(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pileus.agent.agent.REFUSED", 0.05)

    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g1"))
        await control.settles()
        control.tombstone("guest/g1")
        await control.empties()

        def ids(tx: Tx) -> list[str]:
            return [one.id for one in fleet.hosts(tx, control.fleet)]

        def forget(tx: Tx) -> None:
            fleet.update_host(tx, first, forced_down=True)
            fleet.remove_host(tx, control.fleet, first)

        [first] = await control.store.read(ids)
        await control.store.write(forget)
        await until(lambda: control.store.write_here(ids) not in ([], [first]), "the host is there again")

    play(scenario, database_url, tmp_path)


def test_a_long_report_is_sent_in_parts(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "REPORT", 7)

    async def scenario(control: Control, machine: Machine) -> None:
        machine.link.lost = lambda path: path == "/report"
        control.assign(*(group(f"s{number}") for number in range(50)))
        await asyncio.sleep(0.3)
        machine.link.lost = lambda path: False
        await control.settles()
        assert control.requests.count(("POST", "/report")) >= 8

    play(scenario, database_url, tmp_path)

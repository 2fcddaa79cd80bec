"""Consoles and measurements of guests, asked for by the control plane, answered by the host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import Diagnostics
from pileus.core.errors import Unavailable
from pileus.services.fleet import interface as fleet
from tests.agent.control import Control, Machine, play, until
from tests.agent.spec import guest


async def _running(control: Control, *names: str) -> str:
    control.assign(*map(guest, names))
    await control.settles()
    return control.host_id()


def test_a_guest_is_measured(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        host = await _running(control, "g")
        text = await fleet.ask(control.request(), host, "diagnostics", "g", {})
        found = msgspec.json.decode(text, type=Diagnostics)
        assert (found.state, found.memory_mib, [disk.id for disk in found.disks]) == ("running", 64, ["root"])
        with pytest.raises(Unavailable, match="does not run"):
            await fleet.ask(control.request(), host, "diagnostics", "nobody", {})

    play(scenario, database_url, tmp_path)


def test_what_is_typed_comes_back(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        host = await _running(control, "g")
        async with fleet.console(control.fleet, control.store, host, "g", "serial") as channel:
            for word in (b"one", b"two"):
                await channel.write(word)
                assert await channel.read() == word
        await until(lambda: not machine.agent or not machine.agent._calls.tasks, "the host hangs up")

    play(scenario, database_url, tmp_path)


def test_two_look_at_once_and_neither_hears_the_other(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        host = await _running(control, "g")
        open_console = fleet.console
        async with (
            open_console(control.fleet, control.store, host, "g", "serial") as one,
            open_console(control.fleet, control.store, host, "g", "vnc") as other,
        ):
            assert await other.read() == b"RFB 003.008\n"
            await one.write(b"typed")
            assert await one.read() == b"typed"

    play(scenario, database_url, tmp_path)


def test_much_that_is_not_read_waits_at_its_source(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        host = await _running(control, "g")
        size, sent = 64 << 20, 0
        async with fleet.console(control.fleet, control.store, host, "g", "serial") as channel:

            async def pour() -> None:
                nonlocal sent
                while sent < size:
                    await channel.write(b"x" * 65536)
                    sent += 65536

            pouring = asyncio.create_task(pour())
            before = -1
            while sent != before:  # until nobody takes any more
                before = sent
                await asyncio.sleep(0.3)
            assert sent < 8 << 20
            back = 0
            while back < sent:
                back += len(await channel.read())
            assert sent > before  # it goes on as soon as it is read
            pouring.cancel()

    play(scenario, database_url, tmp_path)


def test_a_guest_that_ends_ends_its_console(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        host = await _running(control, "g")
        async with fleet.console(control.fleet, control.store, host, "g", "serial") as channel:
            machine.hypervisor.crash("g")
            async with asyncio.timeout(5):
                assert await channel.read() == b""

    play(scenario, database_url, tmp_path)


def test_an_agent_that_dies_ends_its_consoles(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        host = await _running(control, "g")
        async with fleet.console(control.fleet, control.store, host, "g", "serial") as channel:
            await machine.kill()
            async with asyncio.timeout(5):
                assert await channel.read() == b""
        machine.boot()

    play(scenario, database_url, tmp_path)


def test_a_guest_that_does_not_run_has_none(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        host = await _running(control, "g")
        with pytest.raises(Unavailable, match="does not run"):
            async with fleet.console(control.fleet, control.store, host, "nobody", "vnc"):
                pass
        control.assign(guest("g", power="stopped"))
        await control.settles()
        with pytest.raises(Unavailable, match="does not run"):
            async with fleet.console(control.fleet, control.store, host, "g", "vnc"):
                pass

    play(scenario, database_url, tmp_path)


def test_a_host_opens_only_what_it_was_asked_for(database_url: str, tmp_path: Path) -> None:
    async def scenario(control: Control, machine: Machine, other: Machine) -> None:
        await until(lambda: bool(machine.link.host_id and other.link.host_id))
        channel = control.fleet.streams.expect("name", control.host_id("host-1"))
        for host, name in ((other, "name"), (machine, "another")):
            with pytest.raises(Exception, match="No such stream"):
                await host.link.channel(f"/streams/{name}")
        (await machine.link.channel("/streams/name")).close()
        with pytest.raises(Exception, match="No such stream"):
            await machine.link.channel("/streams/name")
        assert channel.arrived.is_set()

    play(scenario, database_url, tmp_path, hosts=2)

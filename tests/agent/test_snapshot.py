"""Snapshots through the agent: taken once, sent until the control plane has all of it, gone by their tombstone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pileus.contracts.hypervisor import GuestFailure, SnapshotSpec
from pileus.core.api import Resource
from pileus.core.context import Request
from pileus.core.errors import NotFound, TooLarge, Unavailable
from pileus.drivers.storage.fake import FakeStorage
from tests.agent.control import Control, Machine, play, until
from tests.agent.spec import guest, snapshot


class Taker:
    """What the control plane does with a snapshot's data."""

    def __init__(self) -> None:
        self.resource = Resource("snapshot", "snapshots")
        self.resource.put("/snapshots/{image_id}/data", status=204)(self.take)
        self.taken: dict[str, list[bytes]] = {}
        self.refusals: list[Exception] = []
        self.hang_up: list[int] = []
        """After how many bytes the connection breaks, attempt by attempt."""
        self.finished: set[str] = set()

    async def take(self, ctx: Request, image_id: str, stream: AsyncIterator[bytes]) -> None:
        if image_id in self.finished:
            return
        if self.refusals:
            raise self.refusals.pop(0)
        data = bytearray()
        most = self.hang_up.pop(0) if self.hang_up else None
        async for chunk in stream:
            data += chunk
            if most is not None and len(data) >= most:
                raise Unavailable("the store is full for now")
        self.taken.setdefault(image_id, []).append(bytes(data))


@pytest.fixture
def taker(monkeypatch: pytest.MonkeyPatch) -> Taker:
    taker = Taker()
    started = Control.__init__

    def with_taker(self: Control, url: str, directory: Path) -> None:
        started(self, url, directory, taker.resource)

    monkeypatch.setattr(Control, "__init__", with_taker)
    return taker


def _kept(machine: Machine) -> list[str]:
    return FakeStorage(root=machine.directory / "disks").snapshots()


def test_a_snapshot_is_taken_sent_and_given_up(database_url: str, tmp_path: Path, taker: Taker) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g"))
        await control.settles()
        control.assign(snapshot("i", "g"))
        await control.reaches("snapshot/i", "ready")
        (data,) = taker.taken["i"]
        assert data.startswith(b"QFI\xfb")
        assert _kept(machine) == ["i"]
        control.tombstone("snapshot/i")
        await until(lambda: "snapshot/i" not in control.rows())
        assert _kept(machine) == []

    play(scenario, database_url, tmp_path)


@pytest.mark.parametrize("lost", [0, 100])
def test_what_breaks_off_is_sent_again_from_its_start(
    database_url: str, tmp_path: Path, taker: Taker, lost: int
) -> None:
    taker.hang_up += [lost, lost]

    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g"), snapshot("i", "g", format="raw"))
        await control.reaches("snapshot/i", "ready")
        assert [len(data) for data in taker.taken["i"]] == [1 << 20]

    play(scenario, database_url, tmp_path)


def test_a_cut_connection_is_tried_again(database_url: str, tmp_path: Path, taker: Taker) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g"))
        await control.settles()
        lost = iter([True, True])
        machine.link.lost = lambda path: False
        upload = machine.link.upload

        async def breaking(path: str, file: object, size: int) -> None:
            if next(lost, False):
                control.cut()
            await upload(path, file, size)  # type: ignore[arg-type] # what the agent opened

        machine.link.upload = breaking  # type: ignore[method-assign] # for this test alone
        control.assign(snapshot("i", "g"))
        await control.reaches("snapshot/i", "ready")

    play(scenario, database_url, tmp_path)


def test_a_new_agent_sends_what_the_last_one_took(database_url: str, tmp_path: Path, taker: Taker) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g"))
        await control.settles()
        control.assign(snapshot("i", "g"))
        await control.reaches("snapshot/i", "ready")
        await machine.kill()
        taker.finished.add("i")  # and the control plane wants no more of it
        machine.boot()
        await until(lambda: control.requests.count(("PUT", "/snapshots/i/data")) > 1)
        await control.reaches("snapshot/i", "ready")
        assert len(taker.taken["i"]) == 1

    play(scenario, database_url, tmp_path)


@pytest.mark.parametrize("refusal", [NotFound("nobody asked"), TooLarge("no room")])
def test_a_refusal_is_the_end(database_url: str, tmp_path: Path, taker: Taker, refusal: Exception) -> None:
    taker.refusals.append(refusal)

    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g"))
        await control.settles()
        control.assign(snapshot("i", "g"))
        await control.reaches("snapshot/i", "failed")
        row = control.rows()["snapshot/i"]
        assert row.permanent
        assert str(refusal) in row.detail
        control.tombstone("snapshot/i")
        await until(lambda: "snapshot/i" not in control.rows())
        assert _kept(machine) == []

    play(scenario, database_url, tmp_path)


def test_a_guest_without_a_disk_fails_for_good(database_url: str, tmp_path: Path, taker: Taker) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(snapshot("i", "nobody"))
        await control.reaches("snapshot/i", "failed")
        row = control.rows()["snapshot/i"]
        assert row.permanent
        assert "has no disk root" in row.detail

    play(scenario, database_url, tmp_path)


def test_what_fails_again_and_again_fails_for_good(
    database_url: str, tmp_path: Path, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pileus.agent.snapshot.ATTEMPTS", 2)
    tried: list[str] = []

    async def scenario(control: Control, machine: Machine) -> None:
        control.assign(guest("g"))
        await control.settles()

        def fail(spec: SnapshotSpec, disk: Path, target: Path) -> None:
            tried.append(spec.id)
            raise GuestFailure("the disk is full")

        machine.hypervisor.snapshot = fail  # type: ignore[method-assign] # for this test alone
        control.assign(snapshot("i", "g"))
        await until(lambda: bool(control.rows()["snapshot/i"].permanent))
        assert tried == ["i", "i"]

    play(scenario, database_url, tmp_path)


def test_files_that_nobody_asked_for_are_unknown(database_url: str, tmp_path: Path, taker: Taker) -> None:
    async def scenario(control: Control, machine: Machine) -> None:
        FakeStorage(root=machine.directory / "disks").snapshot("stray").write_bytes(b"?")
        await until(lambda: control.unknown() == {"snapshot/stray"})
        await asyncio.sleep(0.1)
        assert _kept(machine) == ["stray"]

    play(scenario, database_url, tmp_path)

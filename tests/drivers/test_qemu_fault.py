"""What the driver of QEMU does when its host fails it, with programs that only pass for QEMU."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import GuestBusy, GuestFailure, GuestPlan
from pileus.drivers.hypervisor.qemu import QemuHypervisor, accelerator, console
from pileus.drivers.hypervisor.qemu import driver as driver_module
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import Loop
from tests.agent.control import until
from tests.drivers.qemu_host import GUEST


def test_a_full_disk_makes_no_host_forget_what_runs_its_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def probe(timeout: float, *, binary: str) -> tuple[str, str]:
        asked.append(binary)
        return "tcg", "it was tried"

    monkeypatch.setattr(accelerator, "probe_accelerator", probe)
    monkeypatch.setattr(accelerator, "version", lambda binary: 8_000_000)
    cache = tmp_path / "none" / "accelerator.json"
    found = accelerator.remembered(cache, "true", 1.0)
    assert found.name == "tcg"
    assert accelerator.remembered(cache, "true", 1.0) == found
    assert asked == ["true"]


@pytest.fixture
def news() -> list[str]:
    return []


@pytest.fixture
def guest(tmp_path: Path, news: list[str]) -> Iterator[Guest]:
    """A guest without a QEMU; what is told of it is in `news`."""
    loop = Loop()
    found = Guest(str(uuid.uuid4()), tmp_path / "guest", loop, news.append)
    found.directory.create()
    yield found
    found.end(0)
    loop.close()


def test_the_end_of_what_is_started_just_now_is_no_news(guest: Guest, news: list[str]) -> None:
    guest.start(["sh", "-c", "echo no such thing >&2; exit 1"], [], None)
    with pytest.raises(GuestFailure, match="no such thing"):
        guest.greet(5)
    guest.grown()
    guest.start(["sleep", "60"], [], None)
    assert news == []
    guest.grown()
    child = guest._child
    assert child is not None
    child.kill()
    asyncio.run(until(lambda: news == [guest.id], "what ends later is told of", 2))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("echo unknown device >&2; exit 1", "unknown device"),
        ("echo starting >&2; kill -9 $$", ""),
        ("exit 1", ""),
        ("echo terminating on signal 15 >&2; exit 0", ""),
        ("exec sleep 60", ""),
    ],
)
def test_who_is_killed_has_refused_nothing(guest: Guest, program: str, said: str) -> None:
    guest.start(["sh", "-c", program], [], None)
    assert guest.refusal(0.5) == said


def test_logs_are_bounded_again_after_a_disk_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    threads: set[str] = set()

    def bound(log: Path) -> None:
        asked.append(log)
        threads.add(threading.current_thread().name)
        if log.parent.name == first or len(asked) < 5:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(console, "bound", bound)
    monkeypatch.setattr(driver_module, "_LOG_CHECK", 0.01)
    first, second = (str(uuid.uuid4()) for _ in range(2))
    for name in (first, second):
        (tmp_path / "guests" / name).mkdir(parents=True)
    driver = QemuHypervisor(state=tmp_path, accelerator="tcg")
    try:
        asyncio.run(until(lambda: {log.parent.name for log in asked[8:]} == {first, second}))
    finally:
        driver.close()
    assert "qmp" not in threads, "a disk that hangs keeps no monitor waiting"


def test_what_is_done_again_and_again_is_done_after_it_failed() -> None:
    loop, turns = Loop(), iter(range(100))
    done = threading.Event()

    def act() -> None:
        if next(turns) < 3:
            raise RuntimeError("not this time")
        done.set()

    loop.every(0.01, act)
    try:
        assert done.wait(5)
    finally:
        loop.close()


def test_a_guest_that_is_busy_holds_up_nobody_for_long(tmp_path: Path) -> None:
    """Its disk is copied, or it is asked to power off; whoever wants it gone has that cut short."""
    driver = QemuHypervisor(state=tmp_path, accelerator="tcg")
    name = str(uuid.uuid4())
    plan = GuestPlan(spec=msgspec.structs.replace(GUEST, id=name, power="stopped"), disks={}, nics={})
    held, hurried = threading.Event(), threading.Event()

    def hold() -> None:
        guest = driver._guests[name]
        with guest.lock:
            held.set()
            if guest.hurry.wait(20):
                hurried.set()

    try:
        assert driver.ensure(plan).state == "stopped"
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(5)
        began = time.monotonic()
        with pytest.raises(GuestBusy):
            driver.ensure(plan)
        assert time.monotonic() - began < 3
        driver.hurry(name, on=True)
        driver.hurry(str(uuid.uuid4()), on=True)
        holder.join(5)
        assert hurried.is_set()
        driver.hurry(name, on=False)
        assert not driver._guests[name].hurry.is_set()
        assert driver.ensure(plan).state == "stopped"
        driver.remove(name)
    finally:
        driver.close()

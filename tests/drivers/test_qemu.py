"""The QEMU driver keeps its contract, over crashes of the agent, of guests and of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import GuestFailure, GuestPlan
from pileus.contracts.suite.hypervisor import HypervisorContract, HypervisorHarness, News, eventually
from pileus.drivers.hypervisor.qemu import QemuHypervisor
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import MonitorFailure
from tests.drivers.qemu_host import GUEST, QemuHarness, driver, guest, harness, needs_qemu, processes

__all__ = ["driver", "guest", "harness"]

pytestmark = [pytest.mark.real, needs_qemu]


class TestQemuHypervisor(HypervisorContract):
    NOTICE = 1.0

    @pytest.fixture
    def harness(self, harness: QemuHarness) -> HypervisorHarness:
        return harness


CRASHING_AGENT = """
import sys, time, msgspec
from pathlib import Path
from pileus.contracts.hypervisor import GuestPlan
from pileus.drivers.hypervisor.qemu import QemuHypervisor
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import MonitorFailure
from tests.drivers.qemu_host import QemuHarness
harness = QemuHarness.__new__(QemuHarness)
harness.root = Path(sys.argv[1])
harness.state = harness.root / "state"
driver = harness.open()
driver.ensure(harness.plan(sys.argv[2], "running", 1))
print("up", flush=True)
time.sleep(60)
"""


def test_a_guest_outlives_an_agent_that_is_killed(harness: QemuHarness, guest: str) -> None:
    argv = [sys.executable, "-c", CRASHING_AGENT, str(harness.root), guest]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"up\n"
        pid = harness.pid(guest)
        agent.kill()
    driver = harness.open()
    try:
        news = News(driver)
        assert driver.observe(guest).state == "running"
        assert driver.ensure(harness.plan(guest, "running", 1)).reboot_nonce == 1
        assert harness.pid(guest) == pid
        assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
        news.forget()
        harness.kill(guest)
        assert news.wait(guest, 1.0)
        assert driver.observe(guest).state == "stopped"
    finally:
        driver.remove(guest)
        driver.close()
    assert harness.leftovers(guest) == []


def test_one_state_has_one_driver(harness: QemuHarness, driver: QemuHypervisor) -> None:
    with pytest.raises(GuestFailure, match="another agent"):
        harness.open()


def test_a_stale_pidfile_is_no_guest(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    driver.ensure(harness.plan(guest, "running"))
    harness.kill(guest)
    (harness.directory(guest) / "pid").write_text(f"{os.getpid()}\n")
    assert driver.observe(guest).state == "stopped"
    driver.ensure(harness.plan(guest, "running"))
    assert harness.pid(guest) != os.getpid()


def test_a_death_leaves_no_zombie_and_is_told_at_once(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    news = News(driver)
    driver.ensure(harness.plan(guest, "running"))
    pid = harness.pid(guest)
    news.forget()
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    assert news.wait(guest, 1.0)
    assert time.monotonic() - begin < 0.5
    assert eventually(lambda: not Path(f"/proc/{pid}").exists(), 1.0)
    assert "-9" in driver.observe(guest).detail


def test_a_watcher_may_call_the_driver(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    seen: list[str] = []
    driver.watch(lambda guest_id: seen.append(driver.observe(guest_id).state))
    driver.ensure(harness.plan(guest, "running"))
    harness.kill(guest)
    assert eventually(lambda: "stopped" in seen, 5)


def test_a_guest_that_resets_itself_keeps_its_process(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    before = driver.ensure(harness.plan(guest, "running"))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    harness.type(guest, b"r")
    assert eventually(lambda: harness.boots(guest) == 2, harness.patience)
    assert driver.observe(guest) == before


def test_a_guest_that_ignores_the_button_is_ended_after_its_grace(harness: QemuHarness, guest: str) -> None:
    driver = harness.open(grace=1.0)
    try:
        harness.disk(guest, b"")
        driver.ensure(harness.plan(guest, "running"))
        begin = time.monotonic()
        assert driver.ensure(harness.plan(guest, "stopped")).state == "stopped"
        assert 1.0 <= time.monotonic() - begin < 5.0
    finally:
        driver.remove(guest)
        driver.close()


def test_an_answer_that_is_late_does_not_cut_a_stop_short(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, end = Guest.status, Guest.end
    late, ended = [MonitorFailure("no answer on QMP within 5 s")], []

    def slow(self: Guest) -> str:
        if late:
            raise late.pop()
        return status(self)

    def noted(self: Guest, grace: float = 0) -> None:
        if self.alive():
            ended.append(status(self))
        end(self, grace)

    driver.ensure(harness.plan(guest, "running"))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    monkeypatch.setattr(Guest, "status", slow)
    monkeypatch.setattr(Guest, "end", noted)
    assert driver.ensure(harness.plan(guest, "stopped")).state == "stopped"
    assert ended == ["shutdown"], "it turned itself off, and was not killed as it ran"


def test_a_guest_whose_process_hangs_is_ended(harness: QemuHarness, guest: str) -> None:
    """Whoever is to read its disks waits for that."""
    driver = harness.open(grace=1.0)
    try:
        driver.ensure(harness.plan(guest, "running"))
        os.kill(harness.pid(guest), signal.SIGSTOP)
        assert driver.observe(guest).state == "failed"
        assert driver.ensure(harness.plan(guest, "stopped")).state == "stopped"
        assert processes(guest) == []
    finally:
        driver.remove(guest)
        driver.close()


def test_removal_and_observation_do_not_wait_for_the_grace(harness: QemuHarness, guest: str) -> None:
    driver = harness.open(grace=60.0)
    try:
        harness.disk(guest, b"")
        driver.ensure(harness.plan(guest, "running"))
        stopping = threading.Thread(target=driver.ensure, args=(harness.plan(guest, "stopped"),))
        stopping.start()
        time.sleep(0.3)
        begin = time.monotonic()
        assert driver.observe(guest).state == "running"
        driver.remove(guest)
        stopping.join()
        assert time.monotonic() - begin < 10
        assert harness.leftovers(guest) == []
    finally:
        driver.close()


@pytest.mark.parametrize("after", ["end", "write"])
def test_a_crash_amid_a_reboot_reboots_once(
    harness: QemuHarness, guest: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent dies when the old process has ended, or when the nonce is recorded but nothing started yet."""
    driver = harness.open()
    driver.ensure(harness.plan(guest, "running"))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if after == "end":
            patch.setattr("pileus.drivers.hypervisor.qemu.guest.Guest.note", crash)
        else:
            patch.setattr("pileus.drivers.hypervisor.qemu.launch.Launch.start", crash)
        with pytest.raises(KeyboardInterrupt):
            driver.ensure(harness.plan(guest, "running", 1))
    driver.close()
    driver = harness.open()
    try:
        for _ in range(2):
            assert driver.ensure(harness.plan(guest, "running", 1)).reboot_nonce == 1
        assert eventually(lambda: harness.boots(guest) == 2, harness.patience)
        time.sleep(0.5)
        assert harness.boots(guest) == 2
    finally:
        driver.remove(guest)
        driver.close()


@pytest.mark.parametrize("kept", [b"", b'{"plan": ', b'{"reboot_nonce": "one"}'])
def test_a_guest_whose_record_cannot_be_read_is_taken_as_it_runs(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, kept: bytes
) -> None:
    driver.ensure(harness.plan(guest, "running"))
    pid = harness.pid(guest)
    (harness.directory(guest) / "applied.json").write_bytes(kept)
    for power in ("running", "paused", "running"):
        seen = driver.ensure(harness.plan(guest, power, 2))
        assert (seen.state, seen.reboot_nonce, harness.pid(guest)) == (power, 2, pid)
    assert driver.ensure(harness.plan(guest, "running", 3)).reboot_nonce == 3
    assert harness.pid(guest) != pid, "the next reboot that is asked for is done"


def test_a_record_of_another_version_still_says_which_reboots_were_done(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    driver.ensure(harness.plan(guest, "running"))
    pid = harness.pid(guest)
    (harness.directory(guest) / "applied.json").write_bytes(b'{"reboot_nonce": 4, "plan": {"form": "later"}}')
    assert driver.ensure(harness.plan(guest, "running", 4)).reboot_nonce == 4
    assert harness.pid(guest) == pid
    assert driver.ensure(harness.plan(guest, "running", 5)).reboot_nonce == 5
    assert harness.pid(guest) != pid


def test_a_start_that_fails_says_why_and_leaves_no_process(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    plan = harness.plan(guest, "running")
    good = harness.disk(guest)
    bad = good.with_name("bad.qcow2")
    bad.write_bytes(b"no qcow2 file")
    for path, words in ((bad, "qcow2"), (good.with_name("absent.qcow2"), "missing")):
        with pytest.raises(GuestFailure, match=words):
            driver.ensure(msgspec.structs.replace(plan, disks={plan.spec.disks[0].id: path}))
        assert processes(guest) == []
        assert driver.observe(guest).state == "stopped"
        assert driver.guests() == [guest]
    assert driver.ensure(plan).state == "running"


def test_what_is_no_server_id_is_refused(harness: QemuHarness, driver: QemuHypervisor) -> None:
    for name in ("../x", "", "x", str(uuid.uuid4()).upper()):
        with pytest.raises(GuestFailure) as failure:
            driver.ensure(GuestPlan(spec=msgspec.structs.replace(GUEST, id=name), disks={}, nics={}))
        assert failure.value.permanent
        assert driver.observe(name).state == "absent"
        driver.remove(name)

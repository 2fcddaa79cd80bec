"""The QEMU driver, with real guests of 512 bytes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from pileus.contracts.hypervisor import DiskSpec, GuestFailure, GuestPlan, GuestSpec, NicAttachment, NicSpec, Power
from pileus.contracts.suite.hypervisor import HypervisorContract, HypervisorHarness, News, eventually
from pileus.drivers.host.process import lock_holder
from pileus.drivers.hypervisor.qemu import QemuHypervisor, probe_accelerator
from pileus.drivers.hypervisor.qemu.driver import FIRST_UID, UID_COUNT

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives guests an id, a control group or a tap")

GREETING = b"guest is up\r\n"

BOOT_SECTOR = (
    bytes.fromhex(
        "31c0 8ed8"  # start: xor ax,ax; mov ds,ax
        "ba0206 b80001 ef"  # mov dx,0x602; mov ax,0x0100; out dx,ax: the power button is reported
        "be507c"  # mov si,greeting
        "ac 84c0 7405 e83500 ebf6"  # print: lodsb; test al,al; jz wait; call put; jmp print
        "fb f4"  # wait: sti; hlt
        "ba0006 ed f6c401 7519"  # mov dx,0x600; in ax,dx; test ah,1; jnz off: the power button was pressed
        "bafd03 ec a801 74ed"  # mov dx,0x3fd; in al,dx; test al,1; jz wait: nothing was typed
        "baf803 ec"  # mov dx,0x3f8; in al,dx
        "3c70 7409 3c72 740e"  # cmp al,'p'; je off; cmp al,'r'; je reset
        "e81100 ebdc"  # call put; jmp wait
        "ba0406 b80020 ef ebd3"  # off: mov dx,0x604; mov ax,0x2000; out dx,ax; jmp wait
        "b0fe e664 ebcd"  # reset: mov al,0xfe; out 0x64,al; jmp wait
        "baf803 ee c3"  # put: mov dx,0x3f8; out dx,al; ret
    )
    + GREETING.ljust(430, b"\0")
    + b"\x55\xaa"
)
"""Greets on the serial line, then obeys the ACPI power button and two keys: p turns it off, r resets it."""

GUEST = GuestSpec(
    id="",
    name="test",
    vcpus=1,
    memory_mib=32,
    disks=(DiskSpec(id="root-disk-with-a-long-name", size_gib=0, boot_index=0),),
    nics=(),
    power="running",
    documents={"openstack/latest/user_data": b"top secret"},
)


class QemuHarness:
    patience = 15.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        (root / "disks").mkdir(mode=0o711)

    def open(self, grace: float = 15.0) -> QemuHypervisor:
        return QemuHypervisor(state=self.state, accelerator="tcg", grace=grace)

    def disk(self, guest_id: str, content: bytes = BOOT_SECTOR) -> Path:
        path = self.root / "disks" / f"{guest_id}.qcow2"
        if not path.exists():
            raw = path.with_suffix(".raw")
            raw.write_bytes(content.ljust(1 << 20, b"\0"))
            subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)], check=True)
            raw.unlink()
        return path

    def plan(self, guest_id: str, power: Power, nonce: int = 0, kind: Literal["SOFT", "HARD"] = "HARD") -> GuestPlan:
        spec = msgspec.structs.replace(GUEST, id=guest_id, power=power, reboot_nonce=nonce, reboot_kind=kind)
        return GuestPlan(spec=spec, disks={spec.disks[0].id: self.disk(guest_id)}, nics={})

    def directory(self, guest_id: str) -> Path:
        return self.state / "guests" / guest_id

    def pid(self, guest_id: str) -> int:
        pid = lock_holder(self.directory(guest_id) / "pid")
        assert pid is not None
        return pid

    def boots(self, guest_id: str) -> int:
        try:
            return (self.directory(guest_id) / "console.log").read_bytes().count(GREETING)
        except FileNotFoundError:
            return 0

    def type(self, guest_id: str, keys: bytes) -> None:
        """Type on the guest's serial line."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.directory(guest_id) / "serial.sock"))
            line.sendall(keys)
            time.sleep(0.5)

    def power_off(self, guest_id: str) -> None:
        self.type(guest_id, b"p")

    def kill(self, guest_id: str) -> None:
        pidfile = self.directory(guest_id) / "pid"
        os.kill(self.pid(guest_id), signal.SIGKILL)
        assert eventually(lambda: lock_holder(pidfile) is None, 5)

    def leftovers(self, guest_id: str) -> list[str]:
        files = [str(path) for path in self.state.rglob("*") if guest_id in str(path)]
        groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{guest_id}")]
        return files + groups + [f"process {pid}" for pid in processes(guest_id)]


def processes(guest_id: str) -> list[int]:
    """Live processes that have the guest's id among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"guest=pileus-{guest_id}".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def status(pid: int) -> dict[str, str]:
    """What /proc says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture
def harness() -> Iterator[QemuHarness]:
    # Guests have ids of their own, and pytest's directories let only their owner pass.
    root = Path(tempfile.mkdtemp(prefix="pileus-qemu-"))
    root.chmod(0o711)
    yield QemuHarness(root)
    shutil.rmtree(root)


class TestQemuHypervisor(HypervisorContract):
    NOTICE = 1.0

    @pytest.fixture
    def harness(self, harness: QemuHarness) -> HypervisorHarness:
        return harness


@pytest.fixture
def driver(harness: QemuHarness) -> Iterator[QemuHypervisor]:
    driver = harness.open()
    yield driver
    for guest in driver.guests():
        driver.remove(guest)
    driver.close()


@pytest.fixture
def guest() -> str:
    return str(uuid.uuid4())


@needs_root
def test_each_guest_is_confined(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    other = str(uuid.uuid4())
    seen = []
    for one in (guest, other):
        driver.ensure(harness.plan(one, "running"))
        facts = status(harness.pid(one))
        uids, gids = set(facts["Uid"].split()), set(facts["Gid"].split())
        assert len(uids) == 1
        assert uids == gids
        assert facts["Groups"] == ""
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
        uid = int(uids.pop())
        assert FIRST_UID <= uid < FIRST_UID + UID_COUNT
        disk = harness.disk(one).stat()
        assert (disk.st_uid, disk.st_gid, stat.S_IMODE(disk.st_mode)) == (uid, uid, 0o600)
        seen.append(uid)
    assert seen[0] != seen[1]


@needs_root
def test_the_agents_files_are_out_of_the_guests_reach(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    driver.ensure(harness.plan(guest, "running"))
    folder = harness.directory(guest)
    uid = int(status(harness.pid(guest))["Uid"].split()[0])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    assert (folder.stat().st_uid, folder.stat().st_gid) == (0, uid)
    own = {path.name for path in folder.iterdir() if path.stat().st_uid == uid}
    assert own == {"pid", "vnc"}
    applied = folder / "applied.json"
    assert stat.S_IMODE(applied.stat().st_mode) == 0o600
    assert b"secret" not in applied.read_bytes()
    assert (folder / "vnc" / "vnc.sock").is_socket()


@needs_root
def test_a_process_gets_only_the_descriptors_it_needs(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    with (harness.root / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        driver.ensure(harness.plan(guest, "running"))
        pid = harness.pid(guest)
        links = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(harness.root / "open") not in links
    files = {link for link in links if link.startswith("/") and not link.startswith("/dev/")}
    folder = harness.directory(guest)
    expected = {folder / "console.log", folder / "stderr.log", folder / "pid", harness.disk(guest)}
    assert {file for file in files if not file.startswith("/memfd")} == {str(path) for path in expected}
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert os.getsid(pid) == pid


@needs_root
def test_a_guest_is_in_a_control_group_with_limits(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    if driver.cgroups.kind == "none":
        pytest.skip(driver.cgroups.reason)
    driver.ensure(harness.plan(guest, "running"))
    assert driver.cgroups.pids(guest) == [harness.pid(guest)]
    assert f"/{guest}" in Path(f"/proc/{harness.pid(guest)}/cgroup").read_text()
    name = "memory.limit_in_bytes" if driver.cgroups.kind == "v1" else "memory.max"
    limits = [int(path.read_text()) for path in Path("/sys/fs/cgroup").glob(f"**/{guest}/{name}")]
    if driver.cgroups.kind == "v1":
        assert limits == [(32 + 512) << 20]


@needs_root
def test_ids_are_never_shared(harness: QemuHarness, guest: str) -> None:
    driver = QemuHypervisor(state=harness.state, accelerator="tcg", uid_count=1, grace=15)
    other = str(uuid.uuid4())
    try:
        driver.ensure(harness.plan(guest, "paused"))
        with pytest.raises(GuestFailure, match="all ids"):
            driver.ensure(harness.plan(other, "paused"))
        assert driver.observe(other).state == "stopped"
        driver.remove(guest)
        assert driver.ensure(harness.plan(other, "paused")).state == "paused"
    finally:
        for one in driver.guests():
            driver.remove(one)
        driver.close()


CRASHING_AGENT = """
import sys, time, msgspec
from pathlib import Path
from pileus.contracts.hypervisor import GuestPlan
from pileus.drivers.hypervisor.qemu import QemuHypervisor
from tests.drivers.test_qemu import QemuHarness
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

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if after == "end":
            patch.setattr("pileus.drivers.hypervisor.qemu.guest.Guest.write", crash)
        else:
            patch.setattr(driver, "_start", crash)
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


@needs_root
def test_a_disk_behind_a_closed_door_is_named(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    plan = harness.plan(guest, "running")
    door = harness.root / "disks"
    door.chmod(0o700)
    with pytest.raises(GuestFailure, match=f"guests cannot pass through {re.escape(str(door))}"):
        driver.ensure(plan)
    door.chmod(0o711)
    assert driver.ensure(plan).state == "running"


def test_what_is_no_server_id_is_refused(harness: QemuHarness, driver: QemuHypervisor) -> None:
    for name in ("../x", "", "x", str(uuid.uuid4()).upper()):
        with pytest.raises(GuestFailure) as failure:
            driver.ensure(GuestPlan(spec=msgspec.structs.replace(GUEST, id=name), disks={}, nics={}))
        assert failure.value.permanent
        assert driver.observe(name).state == "absent"
        driver.remove(name)


def test_every_device_of_a_plan_is_there(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    disks = (
        *GUEST.disks,
        *(DiskSpec(id=f"data{number}", size_gib=0, bus="sata") for number in range(3)),
        *(DiskSpec(id=f"more{number}", size_gib=0) for number in range(12)),
    )
    spec = msgspec.structs.replace(GUEST, id=guest, disks=disks, vcpus=2, config_drive=True)
    paths = {disk.id: harness.disk(f"{guest}-{disk.id}") for disk in disks}
    drive = harness.root / "disks" / "config.iso"
    drive.write_bytes(b"\0" * 65536)
    driver.ensure(GuestPlan(spec=spec, disks=paths, nics={}, config_drive=drive))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    arguments = Path(f"/proc/{harness.pid(guest)}/cmdline").read_bytes().decode().split("\0")
    assert sum('"driver": "virtio-blk-pci"' in part for part in arguments) == 14
    assert sum('"driver": "ide-hd"' in part for part in arguments) == 3
    assert sum(part.startswith("pcie-root-port") for part in arguments) == 14 + 8
    assert any('"serial": "root-disk-with-a-lon"' in part for part in arguments)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with a persistent tap named `tap0`."""
    name = f"pileus-qemu-{uuid.uuid4().hex[:8]}"
    if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    subprocess.run(["ip", "-n", name, "tuntap", "add", "dev", "tap0", "mode", "tap", "vnet_hdr"], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "tap0", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def carrier(namespace: str) -> bool:
    command = ["ip", "-n", namespace, "-o", "link", "show", "tap0"]
    return "NO-CARRIER" not in subprocess.run(command, check=True, capture_output=True, text=True).stdout


@needs_root
def test_a_port_is_opened_where_it_surfaces(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, namespace: str
) -> None:
    nic = NicSpec(port_id="port", mac_address="02:00:00:00:00:01", mtu=1400)
    plan = harness.plan(guest, "running")
    plan = msgspec.structs.replace(plan, spec=msgspec.structs.replace(plan.spec, nics=(nic,)))
    with pytest.raises(GuestFailure, match="not plugged in"):
        driver.ensure(plan)
    for device in ("tap1", "a-name-that-is-too-long"):
        wrong = NicAttachment(port_id="port", device=device, namespace=namespace)
        with pytest.raises(GuestFailure, match=device):
            driver.ensure(msgspec.structs.replace(plan, nics={"port": wrong}))
    assert processes(guest) == []
    right = NicAttachment(port_id="port", device="tap0", namespace=namespace)
    plan = msgspec.structs.replace(plan, nics={"port": right})
    assert not carrier(namespace)
    driver.ensure(plan)
    assert carrier(namespace)
    own = Path("/proc/self/ns/net").readlink()
    assert Path(f"/proc/{harness.pid(guest)}/ns/net").readlink() == own
    driver.remove(guest)
    assert not carrier(namespace)


def test_the_accelerator_is_found_by_trying() -> None:
    name, reason = probe_accelerator(2.0)
    assert name in ("kvm", "tcg")
    assert "KVM" in reason or "/dev/kvm" in reason


def test_an_accelerator_that_hangs_is_given_up(harness: QemuHarness) -> None:
    if not Path("/dev/kvm").exists():
        pytest.skip("there is no /dev/kvm to hang on")
    binary = harness.root / "qemu"
    binary.write_text('#!/bin/sh\ncase "$*" in *kvm*) exec sleep 60;; esac\nexec qemu-system-x86_64 "$@"\n')
    binary.chmod(0o755)
    begin = time.monotonic()
    name, reason = probe_accelerator(0.5, binary=str(binary))
    assert (name, reason) == ("tcg", "KVM does not work: guest code did not run within 0.5 s")
    assert time.monotonic() - begin < 5


def test_a_broken_qemu_is_no_accelerator() -> None:
    with pytest.raises(GuestFailure, match="cannot run a guest"):
        probe_accelerator(1.0, binary="/bin/false")


def test_facts_are_remembered_until_the_next_boot(harness: QemuHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = QemuHypervisor(state=harness.state)
    try:
        first = driver.facts()
        assert first.version >= 7_002_000
        assert (first.type, first.accelerator) in (("QEMU", "tcg"), ("KVM", "kvm"))
        monkeypatch.setattr("pileus.drivers.hypervisor.qemu.accelerator.probe_accelerator", None)
        assert driver.facts() == first
    finally:
        driver.close()

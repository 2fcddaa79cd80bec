"""Machines, buses and limits of guests: what the host gives them, and what it refuses with its reason."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from pileus.contracts.hypervisor import (
    DiskLimit,
    DiskSpec,
    GuestFailure,
    GuestPlan,
    MachineSpec,
    NicLimit,
    SnapshotSpec,
)
from pileus.contracts.suite.hypervisor import eventually
from pileus.drivers.host.process import ENVIRONMENT
from pileus.drivers.hypervisor.qemu import QemuHypervisor
from pileus.drivers.hypervisor.qemu.directory import RunDirectory
from pileus.drivers.hypervisor.qemu.machine import VIDEO
from tests.drivers.qemu_host import (
    BOOT_SECTOR,
    GREETING,
    GUEST,
    QemuHarness,
    driver,
    guest,
    harness,
    needs_qemu,
    needs_root,
    status,
)

__all__ = ["driver", "guest", "harness"]

pytestmark = [pytest.mark.real, needs_qemu]

needs_uefi = pytest.mark.skipif(not Path("/usr/share/OVMF/OVMF_CODE_4M.fd").exists(), reason="ovmf is not installed")
needs_tpm = pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")


def plan(harness: QemuHarness, guest: str, cards: int = 0, **changes: Any) -> GuestPlan:
    """A plan whose machine, or whose spec where it has such a field, is changed."""
    found = harness.with_cards(harness.plan(guest, "running"), cards)
    fields = {name: value for name, value in changes.items() if name in GUEST.__struct_fields__}
    machine = MachineSpec(**{name: value for name, value in changes.items() if name not in fields})
    return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, machine=machine, **fields))


def words(harness: QemuHarness, guest: str) -> list[str]:
    """The arguments of the guest's process."""
    return Path(f"/proc/{harness.pid(guest)}/cmdline").read_bytes().decode().split("\0")


@pytest.mark.parametrize("bus", ["virtio", "sata", "scsi", "usb"])
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_a_guest_starts_from_every_bus(
    harness: QemuHarness,
    driver: QemuHypervisor,
    guest: str,
    bus: Literal["virtio", "sata", "scsi", "usb"],
    machine: str,
) -> None:
    disk = msgspec.structs.replace(GUEST.disks[0], bus=bus)
    driver.ensure(plan(harness, guest, type=machine, disks=(disk,)))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)


def test_a_rescue_disk_is_started_from_and_the_root_is_behind_it(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    root, rescue = harness.disk(guest), harness.disk(f"{guest}-rescue", BOOT_SECTOR.replace(b"up", b"RE"))
    disks = (
        DiskSpec(id="rescue", size_gib=0, boot_index=0),
        DiskSpec(id="root", size_gib=0, boot_index=0),
        DiskSpec(id="tools", size_gib=0, device="cdrom", bus="virtio"),
        DiskSpec(id="more", size_gib=0, device="cdrom", bus="scsi"),
        DiskSpec(id="even-more", size_gib=0, device="cdrom", bus="usb"),
    )
    paths = {"rescue": rescue, "root": root} | {disk.id: harness.disk(f"{guest}-{disk.id}", b"") for disk in disks[2:]}
    spec = msgspec.structs.replace(GUEST, id=guest, disks=disks)
    driver.ensure(GuestPlan(spec=spec, disks=paths, nics={}))
    log = harness.directory(guest) / "console.log"
    assert eventually(lambda: b"guest is RE" in log.read_bytes(), harness.patience)
    assert GREETING not in log.read_bytes()
    assert [disk.id for disk in driver.diagnostics(guest).disks] == [disk.id for disk in disks]
    assert driver.diagnostics(guest).disks[0].read_bytes >= 512


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_every_model_of_card_is_taken(harness: QemuHarness, driver: QemuHypervisor, guest: str, machine: str) -> None:
    found = plan(harness, guest, type=machine, cards=3)
    models = ("e1000", "e1000e", "rtl8139")
    nics = tuple(msgspec.structs.replace(nic, model=model) for nic, model in zip(found.spec.nics, models, strict=True))
    found = msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, nics=nics))
    assert driver.ensure(found).nics == ("port0", "port1", "port2")


@pytest.mark.parametrize("video", ["vga", "virtio", "qxl", "cirrus", "bochs", "none"])
def test_every_model_of_screen_is_taken(harness: QemuHarness, driver: QemuHypervisor, guest: str, video: str) -> None:
    if video == "qxl" and "qxl-vga" not in offered():
        pytest.skip("QEMU comes without qxl-vga")
    driver.ensure(plan(harness, guest, video=video, video_mib=32 if video in ("vga", "qxl") else 0))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    if video == "none":
        with pytest.raises(GuestFailure, match="no screen"):
            driver.open_console(guest, "vnc")
    else:
        driver.open_console(guest, "vnc").close()


def offered() -> str:
    """The devices that QEMU has."""
    argv = ["qemu-system-x86_64", "-device", "help"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_a_device_that_qemu_comes_without_is_refused_for_good(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VIDEO, "qxl", "qxl-of-old")
    with pytest.raises(GuestFailure, match="'qxl-of-old' is not a valid device") as failure:
        driver.ensure(plan(harness, guest, video="qxl"))
    assert failure.value.permanent


def test_small_parts_of_a_machine(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    driver.ensure(
        plan(
            harness,
            guest,
            vcpus=4,
            sockets=1,
            threads=2,
            watchdog="poweroff",
            rng_bytes=2048,
            rng_period=500,
            serial_ports=3,
            hide_hypervisor=True,
        )
    )
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    found = words(harness, guest)
    assert "4,sockets=1,cores=2,threads=2" in found
    assert found[found.index("-action") + 1] == "watchdog=poweroff"
    assert found.count("-serial") == 3
    rng = next(json.loads(word) for word in found if "virtio-rng-pci" in word)
    assert (rng["max-bytes"], rng["period"]) == (2048, 500)
    assert len(driver.diagnostics(guest).cpu_time) == 4


def test_a_guest_may_be_without_rng_serial_port_and_screen(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    driver.ensure(plan(harness, guest, rng=False, serial_ports=0, video="none"))
    with pytest.raises(GuestFailure, match="no serial port"):
        driver.open_console(guest, "serial")
    assert not any("virtio-rng" in word for word in words(harness, guest))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"type": "microvm"}, "microvm"),
        ({"secure_boot": True}, "needs UEFI"),
        ({"firmware": "uefi", "secure_boot": True, "type": "pc"}, "q35"),
        ({"tpm": "1.2", "tpm_model": "tpm-crb"}, "TPM|tpm"),
        ({"page_kib": 12345}, "12345 KiB"),
        ({"pinned": True, "vcpus": 4096}, "4096 processors"),
        ({"vcpus": 3, "cores": 2}, "are not 3 processors"),
        ({"kernel_id": "x"}, "kernel image"),
        ({"serial_ports": 9}, "serial ports"),
    ],
)
def test_what_a_host_cannot_give_is_refused_for_good(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(GuestFailure, match=why) as failure:
        driver.ensure(plan(harness, guest, **changes))
    assert failure.value.permanent
    assert driver.observe(guest).state == "stopped"


def test_what_is_not_installed_is_refused_for_good(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pileus.drivers.hypervisor.qemu.machine._FIRMWARES", {})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert driver.facts().firmwares == ("bios",)
    assert driver.facts().tpm == ()
    wanted: list[tuple[dict[str, Any], str]] = [({"firmware": "uefi"}, "ovmf"), ({"tpm": "2.0"}, "swtpm")]
    for changes, why in wanted:
        with pytest.raises(GuestFailure, match=why) as failure:
            driver.ensure(plan(harness, guest, **changes))
        assert failure.value.permanent


@needs_uefi
@needs_root
@pytest.mark.parametrize("secure", [False, True])
def test_uefi_keeps_its_variables_over_restarts(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, secure: bool
) -> None:
    assert ("uefi-secure" if secure else "uefi") in driver.facts().firmwares
    found = plan(harness, guest, firmware="uefi", secure_boot=secure, memory_mib=256)
    driver.ensure(found)
    log = harness.directory(guest) / "console.log"
    assert eventually(lambda: b"BdsDxe" in log.read_bytes(), 60)
    nvram = harness.directory(guest) / ("nvram-uefi-secure.fd" if secure else "nvram-uefi.fd")
    uid = int(status(harness.pid(guest))["Uid"].split()[0])
    assert (nvram.stat().st_uid, nvram.stat().st_mode & 0o777) == (uid, 0o600)
    written, inode = nvram.read_bytes(), nvram.stat().st_ino
    driver.ensure(msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, power="suspended")))
    driver.ensure(msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, power="paused")))
    driver.ensure(msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, reboot_nonce=1)))
    assert nvram.stat().st_ino == inode
    assert len(nvram.read_bytes()) == len(written)
    driver.remove(guest)
    assert harness.leftovers(guest) == []


@needs_tpm
@needs_root
@pytest.mark.parametrize(("version", "model"), [("2.0", "tpm-crb"), ("1.2", "tpm-tis")])
def test_a_tpm_is_a_process_without_privilege_that_ends_with_the_guest(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, version: str, model: str
) -> None:
    found = plan(harness, guest, tpm=version, tpm_model=model)
    driver.ensure(found)
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    uid = status(harness.pid(guest))["Uid"]
    (child,) = tpm_processes(harness, guest)
    assert (status(child)["Uid"], status(child)["NoNewPrivs"]) == (uid, "1")
    driver.ensure(msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, power="suspended")))
    assert eventually(lambda: not tpm_processes(harness, guest), 5)
    driver.ensure(found)
    assert driver.observe(guest).state == "running"
    harness.kill(guest)
    assert eventually(lambda: not tpm_processes(harness, guest), 5)
    driver.ensure(found)
    assert eventually(lambda: harness.boots(guest) == 2, harness.patience)
    driver.remove(guest)
    assert tpm_processes(harness, guest) == []
    assert harness.leftovers(guest) == []


def tpm_processes(harness: QemuHarness, guest: str) -> list[int]:
    """Live processes that play the guest's TPM: their directory is the guest's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"swtpm\0"):
                found += [int(entry.name)] if (entry / "cwd").readlink() == harness.directory(guest) else []
        except OSError:
            continue
    return found


@needs_root
def test_shares_and_quotas_of_processors_are_the_control_groups(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    if driver.cgroups.kind != "v1":
        pytest.skip(f"control groups are {driver.cgroups.kind}")
    driver.ensure(plan(harness, guest, cpu_shares=2048))
    (group,) = Path("/sys/fs/cgroup/cpu").glob(f"{driver.cgroups.parent}/{guest}")
    assert (group / "cpu.shares").read_text().strip() == "2048"
    assert str(harness.pid(guest)) in (group / "cgroup.procs").read_text().split()
    quota = group / "cpu.cfs_quota_us"
    can = quota.exists()
    asked = plan(harness, guest, vcpus=2, cpu_quota=50_000, cpu_period=100_000, reboot_nonce=1)
    if can:
        driver.ensure(asked)
        assert quota.read_text().strip() == "100000"
    else:
        with pytest.raises(GuestFailure, match=r"cpu\.cfs_quota_us") as failure:
            driver.ensure(asked)
        assert failure.value.permanent


@needs_root
def test_pinned_processors_are_a_guests_alone(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    total = len(os.sched_getaffinity(0))
    other = str(uuid.uuid4())
    driver.ensure(plan(harness, guest, pinned=True, vcpus=total))
    pinned = [
        os.sched_getaffinity(int(entry.name))
        for entry in Path(f"/proc/{harness.pid(guest)}/task").iterdir()
        if (entry / "comm").read_text().startswith("CPU ")
    ]
    assert sorted(pinned, key=min) == [{number} for number in sorted(os.sched_getaffinity(0))]
    with pytest.raises(GuestFailure, match="0 that are free") as failure:
        driver.ensure(plan(harness, other, pinned=True))
    assert not failure.value.permanent
    driver.ensure(plan(harness, guest, pinned=True, vcpus=total, reboot_nonce=1))
    driver.ensure(harness.plan(guest, "stopped", 1))
    assert driver.ensure(plan(harness, other, pinned=True)).state == "running"
    driver.ensure(plan(harness, other, reboot_nonce=1))
    assert driver.ensure(plan(harness, guest, pinned=True, vcpus=total, reboot_nonce=1)).state == "running"


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Pages of 2 MiB for one guest."""
    file = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    before = file.read_text() if file.exists() else ""
    try:
        file.write_text(str(int(before) + 16))
    except (OSError, ValueError):
        pytest.skip("huge pages cannot be set aside here")
    yield
    file.write_text(before)


@needs_root
def test_memory_of_huge_pages(harness: QemuHarness, driver: QemuHypervisor, guest: str, huge_pages: None) -> None:
    free = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    before = int(free.read_text())
    assert 2048 in driver.facts().page_kib
    driver.ensure(plan(harness, guest, page_kib=2048))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    assert before - int(free.read_text()) == 16
    with pytest.raises(GuestFailure, match="pages of 2048 KiB are needed") as failure:
        driver.ensure(plan(harness, str(uuid.uuid4()), page_kib=2048, memory_mib=4096))
    assert not failure.value.permanent
    driver.remove(guest)


def test_a_disk_is_slowed_down(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    limit = DiskLimit(read_iops=10, total_bytes=1 << 20)
    driver.ensure(plan(harness, guest, disks=(msgspec.structs.replace(GUEST.disks[0], limit=limit),)))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    group = next(json.loads(word) for word in words(harness, guest) if "throttle-group" in word and "qom-type" in word)
    assert group["limits"] == {"iops-read": 10, "bps-total": 1 << 20}
    spec = SnapshotSpec(id=str(uuid.uuid4()), guest_id=guest, disk_id=GUEST.disks[0].id, format="raw")
    driver.snapshot(spec, harness.disk(guest), harness.root / "snapshot")
    assert (harness.root / "snapshot").read_bytes() == BOOT_SECTOR.ljust(1 << 20, b"\0")
    driver.ensure(harness.plan(guest, "suspended"))
    driver.ensure(harness.plan(guest, "running"))
    assert any('"iops-read"' in word for word in words(harness, guest)), "what it was suspended with"


@needs_root
def test_a_card_is_slowed_down_as_the_kernel_can(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    found = plan(harness, guest, cards=1)

    def limited(limit: NicLimit) -> GuestPlan:
        nics = (msgspec.structs.replace(found.spec.nics[0], limit=limit),)
        return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, nics=nics))

    def queues() -> str:
        argv = ["tc", "-n", harness.namespace, "qdisc", "show", "dev", "tap0"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    driver.ensure(limited(NicLimit(in_average=1000, in_burst=128)))
    assert "tbf" in queues()
    assert "rate 8192Kbit burst 128Kb" in queues()
    driver.ensure(harness.plan(guest, "stopped"))
    driver.ensure(found)
    assert "tbf" not in queues()
    driver.remove(guest)
    tc = ["tc", "-n", harness.namespace]
    subprocess.run([*tc, "qdisc", "add", "dev", "tap0", "ingress"], check=False, capture_output=True)
    police = ["matchall", "action", "police", "rate", "1mbit", "burst", "64k", "conform-exceed", "drop"]
    tried = subprocess.run([*tc, "filter", "add", "dev", "tap0", "ingress", *police], check=False, capture_output=True)
    if tried.returncode == 0:
        driver.ensure(limited(NicLimit(out_average=1000)))
        assert "ingress" in queues()
    else:
        with pytest.raises(GuestFailure, match="police") as failure:
            driver.ensure(limited(NicLimit(out_average=1000)))
        assert failure.value.permanent
        assert driver.observe(guest).state == "stopped"


@needs_root
def test_a_memory_that_is_torn_counts_as_none(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    driver.ensure(harness.plan(guest, "running"))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    torn = harness.directory(guest) / "memory.new"
    torn.write_bytes(b"half of it")
    harness.kill(guest)
    assert driver.observe(guest).state == "stopped"
    driver.ensure(harness.plan(guest, "running"))
    assert eventually(lambda: harness.boots(guest) == 2, harness.patience)
    assert not torn.exists()


def test_a_memory_that_qemu_does_not_take_is_kept_and_told(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    driver.ensure(harness.plan(guest, "running"))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    driver.ensure(harness.plan(guest, "suspended"))
    memory = harness.directory(guest) / "memory"
    kept = RunDirectory(harness.directory(guest)).applied()
    assert kept is not None
    assert re.fullmatch(r"pc-q35-\d+\.\d+", kept.board)
    assert memory.stat().st_mode & 0o777 == 0o600
    whole = memory.read_bytes()
    memory.write_bytes(b"\0" * 100)
    with pytest.raises(GuestFailure, match="cannot be taken in") as failure:
        driver.ensure(harness.plan(guest, "running"))
    assert failure.value.permanent
    assert driver.observe(guest).state == "suspended"
    memory.write_bytes(whole)
    driver.ensure(harness.plan(guest, "running"))
    assert f"{kept.board},vmport=off,smm=off" in words(harness, guest)
    time.sleep(0.5)
    assert harness.boots(guest) == 1


def test_an_agent_that_does_not_answer_is_told_in_time(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    driver.ensure(plan(harness, guest, guest_agent=True))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    begin = time.monotonic()
    seen = driver.ensure(plan(harness, guest, guest_agent=True, acts={"password": 1}, password=GUEST.name))
    assert seen.faults == {"password": "the guest's agent does not answer"}
    assert time.monotonic() - begin < 8
    spec = SnapshotSpec(id=str(uuid.uuid4()), guest_id=guest, disk_id=GUEST.disks[0].id, quiesce=True)
    with pytest.raises(GuestFailure, match="file systems cannot be held"):
        driver.snapshot(spec, harness.disk(guest), harness.root / "snapshot")
    assert not list(harness.root.glob("snapshot*"))
    assert driver.observe(guest).state == "running"


def test_a_host_without_room_does_not_suspend(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.ensure(harness.plan(guest, "running"))
    assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    with monkeypatch.context() as patch:
        patch.setattr("pileus.drivers.hypervisor.qemu.memory.free_bytes", lambda folder: 1 << 20)
        with pytest.raises(GuestFailure, match="room for 1 MiB"):
            driver.ensure(harness.plan(guest, "suspended"))
    assert driver.observe(guest).state == "running"
    harness.type(guest, b"x")
    assert driver.console_log(guest, None).endswith("x")


def test_removal_does_not_wait_for_a_snapshot(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = harness.root / "bin"
    slow.mkdir()
    (slow / "prlimit").write_text("#!/bin/sh\nexec sleep 60\n")
    (slow / "prlimit").chmod(0o755)
    slow.chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{slow}:{ENVIRONMENT['PATH']}")
    driver.ensure(harness.plan(guest, "stopped"))
    spec = SnapshotSpec(id=str(uuid.uuid4()), guest_id=guest, disk_id=GUEST.disks[0].id)
    target = harness.root / "snapshot"
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(driver.snapshot, spec, harness.disk(guest), target)
        assert eventually(lambda: target.with_name("snapshot.new").exists(), 5)
        begin = time.monotonic()
        driver.remove(guest)
        assert time.monotonic() - begin < 5
        with pytest.raises(GuestFailure, match="given up"):
            taking.result()
    assert not list(harness.root.glob("snapshot*"))

"""What a QEMU guest is given of its host, and what it is not; and what the host says of itself."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import DiskSpec, GuestFailure, GuestPlan, NicAttachment, NicSpec, SnapshotSpec
from pileus.contracts.suite.hypervisor import eventually
from pileus.drivers.hypervisor.qemu import QemuHypervisor, probe_accelerator
from pileus.drivers.hypervisor.qemu.driver import FIRST_UID, UID_COUNT
from tests.drivers.qemu_host import (
    GUEST,
    QemuHarness,
    driver,
    guest,
    harness,
    needs_qemu,
    needs_root,
    processes,
    status,
)

__all__ = ["driver", "guest", "harness"]

pytestmark = [pytest.mark.real, needs_qemu]


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
def test_an_image_beside_a_disk_is_out_of_reach_of_other_guests(
    harness: QemuHarness, driver: QemuHypervisor, guest: str
) -> None:
    other = str(uuid.uuid4())
    bases = {}
    for one in (guest, other):
        folder = harness.root / "disks" / one
        folder.mkdir()
        folder.chmod(0o710)
        base, disk = folder / "root.base.qcow2", folder / "root.qcow2"
        base.write_bytes(harness.disk(one).read_bytes())
        base.chmod(0o644)
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", base.name, str(disk), "1M"],
            check=True,
        )
        plan = harness.plan(one, "running")
        driver.ensure(msgspec.structs.replace(plan, disks=dict.fromkeys(plan.disks, disk)))
        uid = int(status(harness.pid(one))["Uid"].split()[0])
        assert (folder.stat().st_uid, folder.stat().st_gid, stat.S_IMODE(folder.stat().st_mode)) == (0, uid, 0o710)
        bases[uid] = base
    for uid in bases:
        for whose, base in bases.items():
            command = ["head", "-c1", str(base)]
            found = subprocess.run(command, user=uid, group=uid, extra_groups=[], capture_output=True, check=False)
            assert (found.returncode == 0) == (uid == whose)
    driver.remove(other)


@needs_root
@needs_root
@pytest.mark.parametrize("started", [False, True])
def test_a_snapshot_at_rest_is_of_a_disk_that_was_made_since(
    harness: QemuHarness, driver: QemuHypervisor, guest: str, started: bool
) -> None:
    """A disk is root's until the guest starts on it: one that was made stopped, or rebuilt since, has not."""
    if started:
        driver.ensure(harness.plan(guest, "running"))
        assert eventually(lambda: harness.boots(guest) == 1, harness.patience)
    driver.ensure(harness.plan(guest, "stopped"))
    folder = harness.root / "disks" / guest
    folder.mkdir(mode=0o710)
    disk = folder / "root.2.qcow2"
    harness.disk(guest).rename(disk)
    os.chown(disk, 0, 0)
    disk.chmod(0o600)
    target = harness.root / "snapshot"
    driver.snapshot(SnapshotSpec(id=guest, guest_id=guest, disk_id=GUEST.disks[0].id), disk, target)
    subprocess.run(["qemu-img", "compare", "-q", disk, target], check=True)
    assert disk.stat().st_uid == harness.directory(guest).stat().st_gid != 0


def test_the_agents_files_are_out_of_the_guests_reach(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    driver.ensure(harness.plan(guest, "running"))
    folder = harness.directory(guest)
    uid = int(status(harness.pid(guest))["Uid"].split()[0])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    assert (folder.stat().st_uid, folder.stat().st_gid) == (0, uid)
    own = {path.name for path in folder.iterdir() if path.stat().st_uid == uid}
    assert own == {"pid"}
    applied = folder / "applied.json"
    assert stat.S_IMODE(applied.stat().st_mode) == 0o600
    assert b"secret" not in applied.read_bytes()


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
    expected = {folder / "process", folder / "console.log", folder / "stderr.log", folder / "pid", harness.disk(guest)}
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


@needs_root
def test_a_disk_behind_a_closed_door_is_named(harness: QemuHarness, driver: QemuHypervisor, guest: str) -> None:
    plan = harness.plan(guest, "running")
    door = harness.root / "disks"
    door.chmod(0o700)
    with pytest.raises(GuestFailure, match=f"guests cannot pass through {re.escape(str(door))}"):
        driver.ensure(plan)
    door.chmod(0o711)
    assert driver.ensure(plan).state == "running"


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

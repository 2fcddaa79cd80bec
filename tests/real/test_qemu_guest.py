"""One guest with Linux in it, under the QEMU driver: what a real system does when its machine changes below it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pileus.contracts.hypervisor import (
    DiskSpec,
    GuestObserved,
    GuestPlan,
    GuestSpec,
    MachineSpec,
    NicAttachment,
    NicSpec,
    SnapshotSpec,
)
from pileus.contracts.suite.hypervisor import News, eventually
from pileus.drivers.hypervisor.qemu import QemuHypervisor
from pileus.drivers.storage.file import FileStorage

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64"),
]

PATIENCE = 90.0
PASSWORD = "5ecret-Pa55"
AGENT = """#!/bin/sh
# What a guest's agent does, as far as this test asks for it; and a word on the console each second.
answer() {
    port=$(ls /dev/vport*p1 2>/dev/null | head -n 1)
    while :; do
        while read -r line; do
            case "$line" in
            *guest-sync-delimited*)
                printf '\\377{"return": %s}\\n' "$(echo "$line" | sed 's/.*"id": *\\([0-9]*\\).*/\\1/')" >&3 ;;
            *guest-set-user-password*)
                word=$(echo "$line" | sed 's/.*"password": *"\\([^"]*\\)".*/\\1/')
                echo "AGENT password $(echo "$word" | base64 -d | md5sum)" >/dev/console
                echo '{"return": {}}' >&3 ;;
            *guest-fsfreeze-freeze*) echo "AGENT freeze" >/dev/console; echo '{"return": 1}' >&3 ;;
            *guest-fsfreeze-thaw*) echo "AGENT thaw" >/dev/console; echo '{"return": 1}' >&3 ;;
            *) echo '{"error": {"class": "CommandNotFound", "desc": "unknown"}}' >&3 ;;
            esac
        done <&3
        sleep 0.2
    done 3<>"$port"
}
beat() {
    count=0
    while :; do
        count=$((count + 1))
        echo "BEAT $count cards $(cat /sys/class/net/eth*/address 2>/dev/null | tr '\\n' ' ')" >/dev/console
        echo "$count" >/beat
        sync
        sleep 1
    done
}
echo 8 >/proc/sys/kernel/printk
answer </dev/null >/dev/null 2>&1 &
beat </dev/null >/dev/null 2>&1 &
echo "AGENT is up"
"""


class Linux:
    """The guest, its host and its driver."""

    def __init__(self, root: Path, tiny: Path) -> None:
        self.id = str(uuid.uuid4())
        self.root = root
        self.namespace = f"pileus-linux-{uuid.uuid4().hex[:8]}"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        for number in range(3):
            tap = f"tap{number}"
            subprocess.run(
                ["ip", "-n", self.namespace, "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"], check=True
            )
            subprocess.run(["ip", "-n", self.namespace, "link", "set", tap, "up"], check=True)
        image = root / "image.qcow2"
        shutil.copy(tiny, image)
        image.chmod(0o644)
        storage = FileStorage(root=root / "disks")
        self.disk = storage.ensure_disk(self.id, DiskSpec(id="root", image_id="tiny", size_gib=1, boot_index=0), image)
        meta = json.dumps({"uuid": self.id, "name": "linux", "hostname": "linux"}).encode()
        documents = {"openstack/latest/meta_data.json": meta, "openstack/latest/user_data": AGENT.encode()}
        self.drive = storage.ensure_config_drive(self.id, documents)
        self.driver = QemuHypervisor(state=root / "state", accelerator="tcg", grace=30)
        self.news = News(self.driver)

    def close(self) -> None:
        self.driver.remove(self.id)
        self.driver.close()
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)

    def plan(self, cards: int, changes: dict[str, Any]) -> GuestPlan:
        nics = tuple(
            NicSpec(port_id=str(uuid.UUID(int=n)), mac_address=f"02:00:00:00:00:0{n}", mtu=1400) for n in range(cards)
        )
        spec = GuestSpec(
            id=self.id,
            name="linux",
            vcpus=1,
            memory_mib=192,
            disks=(DiskSpec(id="root", image_id="tiny", size_gib=1, boot_index=0),),
            nics=nics,
            power="running",
            machine=MachineSpec(guest_agent=True),
        )
        attached = {
            nic.port_id: NicAttachment(port_id=nic.port_id, device=f"tap{n}", namespace=self.namespace)
            for n, nic in enumerate(nics)
        }
        spec = msgspec.structs.replace(spec, **changes)
        return GuestPlan(spec=spec, disks={"root": self.disk}, nics=attached, config_drive=self.drive)

    def ensure(self, cards: int = 1, **changes: Any) -> GuestObserved:
        return self.driver.ensure(self.plan(cards, changes))

    def log(self) -> str:
        return self.driver.console_log(self.id, None)

    def says(self, pattern: str, after: int = 0) -> bool:
        """Whether the console comes to say it, beyond so many characters. Raises AssertionError with what it says."""
        if not eventually(lambda: re.search(pattern, self.log()[after:]) is not None, PATIENCE):
            raise AssertionError(f"{pattern!r} is not in {self.log()[after:][-3000:]}")
        return True

    def beat(self) -> int:
        """The last number that the guest counted to."""
        return int(re.findall(r"BEAT (\d+)", self.log())[-1])


@pytest.fixture(scope="module")
def linux(tiny: Path) -> Iterator[Linux]:
    root = Path(tempfile.mkdtemp(prefix="pileus-linux-"))
    root.chmod(0o711)
    found = Linux(root, tiny)
    try:
        found.ensure()
        assert found.says("AGENT is up")
        assert found.says(r"BEAT 2 cards 02:00:00:00:00:00")
        yield found
    finally:
        found.close()
        shutil.rmtree(root)


def test_cards_come_and_go_in_a_running_system(linux: Linux) -> None:
    assert len(linux.ensure(3).nics) == 3
    assert linux.says(r"cards 02:00:00:00:00:00 02:00:00:00:00:01 02:00:00:00:00:02")
    begin, mark = time.monotonic(), len(linux.log())
    assert len(linux.ensure(1).nics) == 1
    assert time.monotonic() - begin < 15
    assert linux.says(r"cards 02:00:00:00:00:00 \r?\n", mark)
    linux.ensure(2)
    assert linux.says(r"cards 02:00:00:00:00:00 02:00:00:00:00:01 \r?\n", mark)
    linux.ensure(1)


def test_a_system_goes_on_where_it_was_suspended(linux: Linux) -> None:
    before = linux.beat()
    linux.ensure(power="suspended")
    assert linux.driver.observe(linux.id).started_at is None
    linux.ensure(2)
    mark = len(linux.log())
    assert linux.says(rf"BEAT {linux.beat() + 2} cards 02:00:00:00:00:00 02:00:00:00:00:01", mark - 200)
    assert linux.beat() >= before
    assert linux.log().count("AGENT is up") == 1
    linux.ensure(1)


def test_the_agent_sets_a_password(linux: Linux) -> None:
    seen = linux.ensure(acts={"password": 1}, password=PASSWORD)
    assert (seen.acts, seen.faults) == ({"password": 1}, {})
    assert linux.says("AGENT password [0-9a-f]{32}")
    (told,) = re.findall("AGENT password ([0-9a-f]{32})", linux.log())
    expected = subprocess.run(["md5sum"], input=PASSWORD.encode(), check=True, capture_output=True).stdout.decode()
    assert told == expected.split()[0]
    kept = [path for path in (linux.root / "state").rglob("*") if path.is_file()]
    assert not any(PASSWORD.encode() in path.read_bytes() for path in kept)


def test_a_crash_dump_is_triggered(linux: Linux) -> None:
    seen = linux.ensure(acts={"password": 1, "nmi": 1})
    assert seen.faults == {}
    assert linux.says("NMI")


def test_a_snapshot_of_a_system_that_goes_on(linux: Linux) -> None:
    target = linux.root / "snapshot.qcow2"
    spec = SnapshotSpec(id=str(uuid.uuid4()), guest_id=linux.id, quiesce=True)
    before = linux.beat()
    linux.driver.snapshot(spec, linux.disk, target)
    assert linux.says("AGENT freeze")
    assert linux.says("AGENT thaw")
    assert linux.says(f"BEAT {before + 2}")
    told = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", target], check=True, capture_output=True).stdout
    )
    assert (told["format"], told["virtual-size"], "backing-filename" in told) == ("qcow2", 1 << 30, False)
    subprocess.run(["qemu-img", "check", "-q", target], check=True)
    target.unlink()


def test_counters_of_a_system(linux: Linux) -> None:
    assert eventually(lambda: linux.driver.diagnostics(linux.id).disks[0].write_requests > 0, PATIENCE), (
        "since it was resumed"
    )
    seen = linux.driver.diagnostics(linux.id)
    assert sum(seen.cpu_time) > 10**8  # a tenth of a second
    assert seen.memory_used_mib > 20
    assert seen.nics[0].mac_address == "02:00:00:00:00:00"
    assert seen.nics[0].tx_packets > 0, "it asked for an address"


def test_a_system_obeys_the_power_button(linux: Linux) -> None:
    """The last test: the guest is off after it."""
    linux.driver.ensure(linux.plan(1, {"power": "stopped"}))
    assert linux.driver.observe(linux.id).state == "stopped"
    assert "Power down" in linux.log()

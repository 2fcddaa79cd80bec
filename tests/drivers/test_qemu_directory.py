"""What is kept of a guest is whole, whatever becomes of the disk."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from pileus.contracts.hypervisor import GuestPlan, GuestSpec
from pileus.drivers.hypervisor.qemu import console
from pileus.drivers.hypervisor.qemu.directory import Applied, RunDirectory

GUEST = "00000000-0000-4000-8000-000000000001"


def applied(nonce: int) -> Applied:
    spec = GuestSpec(
        id=GUEST,
        name="x",
        vcpus=1,
        memory_mib=64,
        disks=(),
        nics=(),
        power="running",
        reboot_nonce=nonce,
        reboot_kind="HARD",
        config_drive=False,
        documents={"secret": b"s3cret"},
        password="s3cret",
    )
    return Applied(plan=GuestPlan(spec=spec, disks={}, nics={}, config_drive=None), reboot_nonce=nonce)


def test_a_disk_that_gets_full_leaves_what_was_kept_before(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.write(applied(3))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))  # write(2) takes 50 bytes, and then no more
    try:
        with pytest.raises(OSError, match="File too large"):
            directory.write(applied(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    kept = directory.applied()
    assert kept is not None
    assert kept.reboot_nonce == 3
    assert not any(b"s3cret" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_guest_that_has_qemu_complain_without_end_costs_nothing(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    with directory.errors.open("wb") as file:
        file.truncate(1 << 40)  # what is left of a log whose beginning was given back again and again
        file.seek(0, 2)
        file.write(b"first\nlast words\n")
    assert directory.complaint() == "last words"
    console.bound(directory.errors)
    assert directory.errors.stat().st_blocks * 512 < 8 << 20

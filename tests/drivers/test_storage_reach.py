"""Who may pass where disks lie: a guest to its own and to their image, children without privilege where they work."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pileus.contracts.hypervisor import GuestPlan
from pileus.drivers.hypervisor.qemu.confinement import hand_over
from pileus.drivers.storage.file import FileStorage
from tests.drivers.test_storage import make_image, qemu_img
from tests.drivers.test_storage_crash import COPY, FIRST, SWAP, spec

pytestmark = [
    pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

CHILD, GUEST, OTHER = 64732, 70001, 70002
"""Ids of the children that read what was a guest's, of a guest, and of another guest."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every id may pass through."""
    found = Path("/var/tmp") / f"pileus-storage-{os.getpid()}"
    found.mkdir(mode=0o711)
    try:
        yield found
    finally:
        shutil.rmtree(found)


def reads(path: Path, uid: int) -> bool:
    """Whether an id without further groups may read a file by its name."""
    command = ["head", "-c1", str(path)]
    found = subprocess.run(command, user=uid, group=uid, extra_groups=[], capture_output=True, check=False)
    return found.returncode == 0


def test_children_without_privilege_copy_and_format(place: Path) -> None:
    image = make_image(place / "image.qcow2")
    storage = FileStorage(root=place / "disks", uid=CHILD)
    first = storage.ensure_disk("guest", FIRST, image)
    copies = iter((COPY, msgspec.structs.replace(COPY, incarnation=3, copy_of=2, size_gib=2)))
    swaps = iter((SWAP, msgspec.structs.replace(SWAP, id="swap2")))
    # Before the hypervisor has given the directory to a guest, and then.
    for group in (CHILD, GUEST):
        os.chown(first.parent, -1, group)
        for path in (storage.ensure_disk("guest", next(copies), None), storage.ensure_disk("guest", next(swaps), None)):
            assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)
            qemu_img("check", "-q", str(path))
        found = first.parent.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, group, 0o710)


def test_an_image_is_read_by_the_guests_that_start_from_it_and_nobody_else(place: Path) -> None:
    image = make_image(place / "image.qcow2")
    storage = FileStorage(root=place / "disks", uid=CHILD)
    bases = {}
    for name, uid in (("mine", GUEST), ("theirs", OTHER)):
        disk = storage.ensure_disk(name, FIRST, image)
        hand_over(GuestPlan(spec=spec(FIRST), disks={"root": disk}, nics={}), uid)
        drive = storage.ensure_config_drive(name, {"a": b"b"})
        storage.ensure_config_drive(name, {"a": b"c"})
        bases[name] = disk.with_suffix(".base.qcow2")
        assert drive.stat().st_mode & 0o777 == 0o600
        found = disk.parent.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, uid, 0o710)
    assert bases["mine"].stat().st_ino == bases["theirs"].stat().st_ino
    assert [reads(bases["mine"], uid) for uid in (GUEST, OTHER, CHILD, 65534)] == [True, False, False, False]
    assert [reads(bases["theirs"], uid) for uid in (GUEST, OTHER, CHILD, 65534)] == [False, True, False, False]


def test_directories_of_an_earlier_release_are_closed(place: Path) -> None:
    image = make_image(place / "image.qcow2")
    storage = FileStorage(root=place / "disks", uid=CHILD)
    held, fresh = storage.ensure_disk("held", FIRST, image), storage.ensure_disk("fresh", FIRST, image)
    os.chown(held, GUEST, GUEST)
    for folder in (held.parent, fresh.parent):
        os.chown(folder, 0, 0)
        folder.chmod(0o711)
    again = FileStorage(root=place / "disks", uid=CHILD)
    for folder, group in ((held.parent, GUEST), (fresh.parent, CHILD)):
        assert (folder.stat().st_gid, folder.stat().st_mode & 0o777) == (group, 0o710)
    base = held.with_suffix(".base.qcow2")
    assert [reads(base, uid) for uid in (GUEST, OTHER, 65534)] == [True, False, False]
    qemu_img("check", "-q", str(again.ensure_disk("held", COPY, None)))
    hand_over(GuestPlan(spec=spec(FIRST), disks={"root": fresh}, nics={}), OTHER)
    assert reads(fresh.with_suffix(".base.qcow2"), OTHER)

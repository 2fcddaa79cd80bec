"""What every storage driver must do: `pileus.contracts.storage`, as tests."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from pileus.contracts.hypervisor import DiskSpec
from pileus.contracts.storage import Storage, StorageFailure

DOCUMENTS = {
    "openstack/latest/meta_data.json": b'{"uuid": "x"}',
    "openstack/latest/user_data": b"\x00\xff binary \n" * 500,
    "openstack/2018-08-27/network_data.json": b"{}",
    "ec2/latest/meta-data.json": b"",
}


class StorageHarness(Protocol):
    """The host around a driver under test."""

    def open(self) -> Storage:
        """A driver on this host's disks: the first one, or the next after a restart."""

    def image(self) -> Path:
        """A clean qcow2 image of at most 1 GiB in the host's cache."""

    def size_gib(self, disk: Path) -> int:
        """What the disk's guest takes for its size."""

    def documents(self, drive: Path) -> dict[str, bytes]:
        """What a guest finds on a config drive, by its label."""

    def use(self, disk: Path) -> bytes:
        """A guest writes to its disk; gives the file's content afterwards."""

    def leftovers(self, guest_id: str) -> list[str]:
        """What is on the host because of this guest."""


def _disk(size_gib: int = 2, image_id: str | None = "image") -> DiskSpec:
    return DiskSpec(id="root", image_id=image_id, size_gib=size_gib, boot_index=0)


class StorageContract:
    """Subclass it and give it a fixture `harness`."""

    @pytest.fixture
    def storage(self, harness: StorageHarness) -> Iterator[Storage]:
        """A driver, whose guests are removed at the end."""
        storage = harness.open()
        yield storage
        for guest in storage.guests():
            storage.remove_guest(guest)

    @pytest.fixture
    def guest(self) -> str:
        return str(uuid.uuid4())

    def test_a_disk_has_the_size_asked_for(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        disk = storage.ensure_disk(guest, _disk(2), harness.image())
        assert disk.is_file()
        assert harness.size_gib(disk) == 2
        assert storage.guests() == [guest]

    def test_an_empty_disk(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        disk = storage.ensure_disk(guest, _disk(3, image_id=None), None)
        assert harness.size_gib(disk) == 3

    def test_a_disk_is_made_once(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        disk = storage.ensure_disk(guest, _disk(2), harness.image())
        used = harness.use(disk)
        for again in (_disk(2), _disk(1), _disk(4)):
            assert storage.ensure_disk(guest, again, harness.image()) == disk
        assert harness.open().ensure_disk(guest, _disk(2), None) == disk
        assert disk.read_bytes() == used

    def test_disks_are_private(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        disk = storage.ensure_disk(guest, _disk(), harness.image())
        assert stat.S_IMODE(disk.stat().st_mode) == 0o600

    def test_a_disk_without_its_image_is_refused(self, storage: Storage, guest: str) -> None:
        with pytest.raises(StorageFailure) as failure:
            storage.ensure_disk(guest, _disk(), None)
        assert not failure.value.permanent

    def test_a_disk_of_no_size_is_refused(self, storage: Storage, guest: str) -> None:
        with pytest.raises(StorageFailure) as failure:
            storage.ensure_disk(guest, _disk(0, image_id=None), None)
        assert failure.value.permanent

    def test_names_stay_inside(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        for name in ("../escape", "", ".", "a/b"):
            with pytest.raises(StorageFailure):
                storage.ensure_disk(name, _disk(), harness.image())
            with pytest.raises(StorageFailure):
                storage.ensure_disk(guest, DiskSpec(id=name, size_gib=1), None)
            with pytest.raises(StorageFailure):
                storage.remove_guest(name)

    def test_a_config_drive_holds_the_documents(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        drive = storage.ensure_config_drive(guest, DOCUMENTS)
        assert harness.documents(drive) == DOCUMENTS
        assert stat.S_IMODE(drive.stat().st_mode) == 0o600
        assert storage.guests() == [guest]

    def test_a_config_drive_changes_with_its_documents(
        self, harness: StorageHarness, storage: Storage, guest: str
    ) -> None:
        drive = storage.ensure_config_drive(guest, DOCUMENTS)
        before = drive.stat()
        assert storage.ensure_config_drive(guest, dict(DOCUMENTS)) == drive
        assert (drive.stat().st_ino, drive.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        changed = {**DOCUMENTS, "openstack/latest/meta_data.json": b'{"uuid": "y"}'}
        assert storage.ensure_config_drive(guest, changed) == drive
        assert harness.documents(drive) == changed

    def test_removal_leaves_nothing(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        other = str(uuid.uuid4())
        kept = storage.ensure_disk(other, _disk(), harness.image())
        storage.ensure_disk(guest, _disk(), harness.image())
        storage.ensure_config_drive(guest, DOCUMENTS)
        assert harness.leftovers(guest) != []
        storage.remove_guest(guest)
        assert harness.leftovers(guest) == []
        assert storage.guests() == [other]
        assert kept.exists()
        storage.remove_guest(guest)

    def test_the_next_driver_knows_the_guests(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        storage.ensure_disk(guest, _disk(), harness.image())
        following = harness.open()
        assert following.guests() == [guest]
        following.remove_guest(guest)
        assert harness.leftovers(guest) == []

    def test_free_space_is_told(self, storage: Storage) -> None:
        assert storage.free_gib() >= 0

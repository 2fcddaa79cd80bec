"""What every storage driver must do: `pileus.contracts.storage`, as tests."""

from __future__ import annotations

import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import pytest

from pileus.contracts.hypervisor import DiskSpec, GuestSpec
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

    def used(self, disk: Path) -> bool:
        """Whether a guest finds on a disk what `use` wrote, to this incarnation or to one that it is a copy of."""

    def file_system(self, disk: Path) -> tuple[str, str]:
        """Kind and label of the file system that a guest finds on a disk, empty for none."""

    def leftovers(self, guest_id: str) -> list[str]:
        """What is on the host because of this guest."""


def _disk(
    size_gib: int = 2,
    image_id: str | None = "image",
    *,
    incarnation: int = 1,
    copy_of: int | None = None,
    keep: tuple[int, ...] = (),
) -> DiskSpec:
    return DiskSpec(
        id="root",
        image_id=image_id,
        size_gib=size_gib,
        boot_index=0,
        incarnation=incarnation,
        copy_of=copy_of,
        keep=keep,
    )


def _guest(guest: str, *disks: DiskSpec, retired: tuple[str, ...] = ()) -> GuestSpec:
    return GuestSpec(
        id=guest, name="vm", vcpus=1, memory_mib=64, disks=disks, retired=retired, nics=(), power="running"
    )


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

    def test_an_incarnation_is_made_anew(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        first = storage.ensure_disk(guest, _disk(), harness.image())
        content = harness.use(first)
        second = storage.ensure_disk(guest, _disk(incarnation=2), harness.image())
        assert second != first
        assert not harness.used(second)
        assert first.read_bytes() == content
        assert storage.ensure_disk(guest, _disk(incarnation=2), None) == second
        assert storage.disk(guest, "root") == second
        assert storage.disk(guest, "root", 1) == first
        assert storage.disk(guest, "root", 3) is None

    def test_what_is_not_there_has_no_file(self, storage: Storage, guest: str) -> None:
        assert storage.disk(guest, "root") is None

    @pytest.mark.parametrize("image_id", ["image", None])
    def test_a_copy_is_grown(self, harness: StorageHarness, storage: Storage, guest: str, image_id: str | None) -> None:
        image = harness.image() if image_id else None
        first = storage.ensure_disk(guest, _disk(2, image_id), image)
        harness.use(first)
        content = first.read_bytes()
        copy = storage.ensure_disk(guest, _disk(3, image_id, incarnation=2, copy_of=1, keep=(1,)), None)
        assert harness.used(copy)
        assert harness.size_gib(copy) == 3
        assert (first.read_bytes(), harness.size_gib(first)) == (content, 2)
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    def test_a_copy_never_shrinks(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        storage.ensure_disk(guest, _disk(2), harness.image())
        copy = storage.ensure_disk(guest, _disk(1, incarnation=2, copy_of=1), None)
        assert harness.size_gib(copy) == 2

    def test_a_copy_of_nothing_is_refused(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        with pytest.raises(StorageFailure) as failure:
            storage.ensure_disk(guest, _disk(incarnation=2, copy_of=1), harness.image())
        assert failure.value.permanent

    def test_a_copy_stands_when_the_first_is_gone(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        harness.use(storage.ensure_disk(guest, _disk(2), harness.image()))
        wanted = _disk(3, incarnation=2, copy_of=1)
        copy = storage.ensure_disk(guest, wanted, None)
        storage.settle(guest, _guest(guest, wanted))
        assert storage.disk(guest, "root", 1) is None
        assert storage.ensure_disk(guest, wanted, None) == copy
        assert harness.used(copy)
        third = storage.ensure_disk(guest, _disk(3, incarnation=3, copy_of=2), None)
        assert harness.used(third)

    def test_kept_incarnations_stay(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        first = storage.ensure_disk(guest, _disk(), harness.image())
        harness.use(first)
        wanted = _disk(3, incarnation=2, copy_of=1, keep=(1,))
        second = storage.ensure_disk(guest, wanted, None)
        storage.settle(guest, _guest(guest, wanted))
        assert first.exists()
        assert second.exists()
        storage.settle(guest, _guest(guest, _disk()))
        assert first.exists()
        assert not second.exists()
        assert harness.used(first)
        assert storage.disk(guest, "root") == first

    def test_nothing_goes_before_the_next_is_there(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        first = storage.ensure_disk(guest, _disk(), harness.image())
        storage.settle(guest, _guest(guest, _disk(incarnation=2)))
        assert first.exists()

    def test_an_older_store_makes_no_disk_anew(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        storage.ensure_disk(guest, _disk(), harness.image())
        second = storage.ensure_disk(guest, _disk(incarnation=2), harness.image())
        storage.settle(guest, _guest(guest, _disk(incarnation=2)))
        with pytest.raises(StorageFailure) as failure:
            storage.ensure_disk(guest, _disk(), harness.image())
        assert failure.value.permanent
        storage.settle(guest, _guest(guest, _disk()))
        assert storage.disk(guest, "root") == second

    def test_retired_disks_go(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        root = storage.ensure_disk(guest, _disk(), harness.image())
        for number in (1, 2):
            rescue = DiskSpec(id="rescue", image_id="image", size_gib=1, incarnation=number)
            storage.ensure_disk(guest, rescue, harness.image())
        other = storage.ensure_disk(guest, DiskSpec(id="swap", size_gib=1), None)
        storage.settle(guest, _guest(guest, _disk(), retired=("rescue",)))
        assert storage.disk(guest, "rescue") is None
        assert root.exists()
        assert other.exists()  # nobody said that it should go
        storage.settle(guest, _guest(guest, _disk(), retired=("rescue",)))

    def test_settling_what_is_not_there(self, storage: Storage, guest: str) -> None:
        storage.settle(guest, _guest(guest, _disk(), retired=("rescue",)))
        assert storage.guests() == []

    @pytest.mark.parametrize(("kind", "label"), [("ext4", "ephemeral0"), ("vfat", "EPHEMERAL0"), ("swap", "")])
    def test_an_empty_disk_may_hold_a_file_system(
        self, harness: StorageHarness, storage: Storage, guest: str, kind: Literal["swap", "ext4", "vfat"], label: str
    ) -> None:
        disk = DiskSpec(id="ephemeral0", size_gib=1, filesystem=kind, label=label)
        path = storage.ensure_disk(guest, disk, None)
        assert harness.file_system(path) == (kind, label)
        assert harness.size_gib(path) == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert storage.disk(guest, "ephemeral0") == path

    def test_snapshots_have_a_place(self, harness: StorageHarness, storage: Storage, guest: str) -> None:
        assert storage.snapshots() == []
        snapshot = str(uuid.uuid4())
        path = storage.snapshot(snapshot)
        assert not path.exists()
        path.write_bytes(b"taken")
        assert storage.snapshot(snapshot).read_bytes() == b"taken"
        assert harness.open().snapshots() == [snapshot]
        assert storage.guests() == []
        storage.remove_snapshot(snapshot)
        storage.remove_snapshot(snapshot)
        assert storage.snapshots() == []
        assert not path.exists()
        for name in ("../escape", "", ".", "a/b"):
            with pytest.raises(StorageFailure):
                storage.snapshot(name)
            with pytest.raises(StorageFailure):
                storage.remove_snapshot(name)

    def test_free_space_is_told(self, storage: Storage) -> None:
        assert storage.free_gib() >= 0

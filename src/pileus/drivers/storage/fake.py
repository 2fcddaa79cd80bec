"""A storage driver without disks: each disk is a small file that says what it would be.

It keeps the whole contract but the qcow2 content, so the same control plane runs over thousands of simulated hosts.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pileus.contracts.hypervisor import DiskSpec, GuestSpec
from pileus.contracts.storage import StorageFailure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class FakeDisk(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a fake disk's file."""

    id: str
    size_gib: int
    image_id: str | None
    filesystem: str = ""
    label: str = ""
    lineage: tuple[int, ...] = (1,)
    """The incarnations that it was copied of, oldest first, and its own."""


class FakeConfigDrive(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a fake config drive's file."""

    documents: dict[str, bytes]


class FakeStorage:
    """Disks of a simulated host: small files below `root`.  `capacity_gib` is what the host says that it has.

    An image is neither read nor needed; a disk of size 0 counts as one GiB.
    """

    def __init__(self, *, root: Path, capacity_gib: int = 1000) -> None:
        self._root = root
        self._snapshots = root / ".snapshots"
        self._lock = threading.Lock()
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._free = capacity_gib - sum(map(_taken, root.glob("*/*.disk")))

    def ensure_disk(self, guest_id: str, disk: DiskSpec, image: Path | None) -> Path:
        """The disk's file, made when it is missing. Raises StorageFailure as a real driver does."""
        path = self._place(guest_id, disk.id, disk.incarnation)
        if path.exists():
            return path
        newest = self.disk(guest_id, disk.id)
        if newest is not None and (number := _name(newest)[1]) > disk.incarnation:
            raise StorageFailure(f"disk {disk.id} was made anew since, as incarnation {number}", permanent=True)
        made = self._copied(guest_id, disk) if disk.copy_of is not None else _fresh(disk, image)
        with self._lock:
            if self._free < _charge(made.size_gib):
                raise StorageFailure(f"no space is left for disk {disk.id}")
            self._free -= _charge(made.size_gib)
        _write(path, made)
        return path

    def _copied(self, guest_id: str, disk: DiskSpec) -> FakeDisk:
        source = self.disk(guest_id, disk.id, disk.copy_of)
        if source is None:
            why = f"disk {disk.id} is to be a copy of its incarnation {disk.copy_of}, which is not on this host"
            raise StorageFailure(why, permanent=True)
        found = _read(source)
        size = max(found.size_gib, disk.size_gib)
        return msgspec.structs.replace(found, size_gib=size, lineage=(*found.lineage, disk.incarnation))

    def settle(self, guest_id: str, spec: GuestSpec) -> None:
        """Delete incarnations that are neither current nor kept, and retired disks; their space is free again."""
        current = {disk.id: {disk.incarnation, *disk.keep} for disk in spec.disks}
        gone = {name: set[int]() for name in spec.retired if name not in current}
        gone |= {disk.id: current[disk.id] for disk in spec.disks if self.disk(guest_id, disk.id, disk.incarnation)}
        self._delete(
            path
            for path in (self._root / _safe(guest_id)).glob("*.disk")
            if (name := _name(path))[0] in gone and name[1] not in gone[name[0]]
        )

    def disk(self, guest_id: str, disk_id: str, incarnation: int | None = None) -> Path | None:
        """The file of an incarnation, or of the newest; None when it is not there."""
        if incarnation is not None:
            path = self._place(guest_id, disk_id, incarnation)
            return path if path.exists() else None
        found = [path for path in (self._root / _safe(guest_id)).glob("*.disk") if _name(path)[0] == _safe(disk_id)]
        return max(found, key=_name, default=None)

    def snapshot(self, snapshot_id: str) -> Path:
        """Where the file of a snapshot is, or is to be written."""
        folder = self._snapshots / _safe(snapshot_id)
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        return folder / "data"

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Delete the file of a snapshot. Absent is fine."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._snapshots / _safe(snapshot_id))

    def snapshots(self) -> list[str]:
        """Ids of the snapshots of which there is something here, finished or not."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in self._snapshots.iterdir())
        return []

    def ensure_config_drive(self, guest_id: str, documents: dict[str, bytes]) -> Path:
        """The config drive's file, mode 0600."""
        path = self._root / _safe(guest_id) / "config-2.json"
        content = FakeConfigDrive(documents=documents)
        if not path.exists() or path.read_bytes() != msgspec.json.encode(content):
            _write(path, content)
        return path

    def remove_guest(self, guest_id: str) -> None:
        """Delete the guest's files and give their space back. Absent is fine."""
        folder = self._root / _safe(guest_id)
        if not folder.is_dir():
            return
        freed = sum(map(_taken, folder.glob("*.disk")))
        shutil.rmtree(folder)
        with self._lock:
            self._free += freed

    def guests(self) -> list[str]:
        """Ids of the guests that have files."""
        return sorted(entry.name for entry in self._root.iterdir() if _NAME.fullmatch(entry.name))

    def free_gib(self) -> int:
        """The capacity less the sizes of all disks."""
        return self._free

    def _place(self, guest_id: str, disk_id: str, incarnation: int) -> Path:
        number = "" if incarnation == 1 else f".{int(incarnation)}"
        return self._root / _safe(guest_id) / f"{_safe(disk_id)}{number}.disk"

    def _delete(self, paths: Iterable[Path]) -> None:
        for path in paths:
            freed = _taken(path)
            path.unlink()
            with self._lock:
                self._free += freed


def _fresh(disk: DiskSpec, image: Path | None) -> FakeDisk:
    if disk.image_id is not None and image is None:
        raise StorageFailure(f"image {disk.image_id} of disk {disk.id} is not on this host")
    if image is None and disk.size_gib <= 0:
        raise StorageFailure(f"disk {disk.id} has neither a size nor an image", permanent=True)
    return FakeDisk(
        id=disk.id,
        size_gib=disk.size_gib,
        image_id=disk.image_id,
        filesystem="" if disk.image_id is not None else disk.filesystem,
        label=disk.label,
        lineage=(disk.incarnation,),
    )


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StorageFailure(f"not an id: {name!r}", permanent=True)
    return name


def _name(path: Path) -> tuple[str, int]:
    """Disk and incarnation of a file."""
    disk, _, number = path.name.removesuffix(".disk").partition(".")
    return disk, int(number or 1)


def _read(path: Path) -> FakeDisk:
    return msgspec.json.decode(path.read_bytes(), type=FakeDisk)


def _taken(path: Path) -> int:
    return _charge(_read(path).size_gib)


def _charge(size_gib: int) -> int:
    return max(1, size_gib)


def _write(path: Path, content: FakeDisk | FakeConfigDrive) -> None:
    path.parent.mkdir(mode=0o711, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(msgspec.json.encode(content))
    new.replace(path)

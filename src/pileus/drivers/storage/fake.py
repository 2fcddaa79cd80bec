"""A storage driver without disks: each disk is a small file that says what it would be.

It keeps the whole contract but the qcow2 content, so the same control plane runs over thousands of simulated hosts.
"""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import msgspec

from pileus.contracts.hypervisor import DiskSpec
from pileus.contracts.storage import StorageFailure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class FakeDisk(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a fake disk's file."""

    id: str
    size_gib: int
    image_id: str | None


class FakeConfigDrive(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a fake config drive's file."""

    documents: dict[str, bytes]


class FakeStorage:
    """Disks of a simulated host: small files below `root`.  `capacity_gib` is what the host says that it has.

    An image is neither read nor needed; a disk of size 0 counts as one GiB.
    """

    def __init__(self, *, root: Path, capacity_gib: int = 1000) -> None:
        self._root = root
        self._lock = threading.Lock()
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._free = capacity_gib
        for path in root.glob("*/*.disk"):
            self._free -= _charge(msgspec.json.decode(path.read_bytes(), type=FakeDisk).size_gib)

    def ensure_disk(self, guest_id: str, disk: DiskSpec, image: Path | None) -> Path:
        """The disk's file, made when it is missing. Raises StorageFailure as a real driver does."""
        path = self._root / _safe(guest_id) / f"{_safe(disk.id)}.disk"
        if path.exists():
            return path
        if disk.image_id is not None and image is None:
            raise StorageFailure(f"image {disk.image_id} of disk {disk.id} is not on this host")
        if image is None and disk.size_gib <= 0:
            raise StorageFailure(f"disk {disk.id} has neither a size nor an image", permanent=True)
        with self._lock:
            if self._free < _charge(disk.size_gib):
                raise StorageFailure(f"no space is left for disk {disk.id}")
            self._free -= _charge(disk.size_gib)
        _write(path, FakeDisk(id=disk.id, size_gib=disk.size_gib, image_id=disk.image_id))
        return path

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
        freed = 0
        for path in folder.glob("*.disk"):
            freed += _charge(msgspec.json.decode(path.read_bytes(), type=FakeDisk).size_gib)
        shutil.rmtree(folder)
        with self._lock:
            self._free += freed

    def guests(self) -> list[str]:
        """Ids of the guests that have files."""
        return sorted(entry.name for entry in self._root.iterdir())

    def free_gib(self) -> int:
        """The capacity less the sizes of all disks."""
        return self._free


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StorageFailure(f"not an id: {name!r}", permanent=True)
    return name


def _charge(size_gib: int) -> int:
    return max(1, size_gib)


def _write(path: Path, content: FakeDisk | FakeConfigDrive) -> None:
    path.parent.mkdir(mode=0o711, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(msgspec.json.encode(content))
    new.replace(path)

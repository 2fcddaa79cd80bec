"""Disks as qcow2 files in a directory.

    <root>/<guest>/<disk>.qcow2        the guest's disk: an overlay, or empty
    <root>/<guest>/<disk>.base.qcow2   the image that it overlays: a hard link to the cached file
    <root>/<guest>/config-2.iso        the config drive

A disk is an overlay on its image and not a copy: it is there in milliseconds and takes no space until it is written
to.  An overlay is worth nothing without its image, so it holds the image by a hard link of its own: the cache may
drop the image whenever it likes, and the file system counts who still needs it.  Where a link cannot be made (the
cache is on another file system) the image is copied.  The overlay names its base relative to itself, so the whole
directory can be moved.  In return nobody may ever write into a cached image; the cache replaces by rename.

Every file is written beside its place, synced and renamed, and the directory is synced: a crash leaves a whole file
or none (fsync(2)).  Directories can be passed by all and listed by none but the owner (0711), because each guest's
process runs under an id of its own and must reach its own disks; images are readable by all who know their name,
disks and config drives by nobody until the hypervisor hands them to the guest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import struct
from pathlib import Path, PurePosixPath

import pycdlib

from pileus.contracts.hypervisor import DiskSpec
from pileus.contracts.storage import StorageFailure
from pileus.drivers.host.process import ChildFailure, run

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_GIB = 1 << 30

_HEADER = struct.Struct(">4sIQIIQ")
"""Magic, version, backing file offset and length, cluster bits, virtual size (QEMU's docs/interop/qcow2)."""
_FEATURES = struct.Struct(">72xQ")
_EXTERNAL_DATA = 1 << 2

_LABEL = "config-2"
"""By which guests find the drive (Compute API guide, config drive)."""
_APPLICATION = slice(16 * 2048 + 574, 16 * 2048 + 702)
"""Application identifier in the primary volume descriptor (ECMA-119, 8.4.20): it holds the documents' digest."""


class FileStorage:
    """Disks of this host's guests, below `root`, which is made if it is missing.

    The directories above `root` must let others pass.  `binary` is qemu-img.
    """

    def __init__(self, *, root: Path, binary: str = "qemu-img") -> None:
        self._root = root.resolve()
        self._binary = binary
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._root.chmod(0o711)
        for leftover in self._root.glob(".gone-*"):
            shutil.rmtree(leftover)

    def ensure_disk(self, guest_id: str, disk: DiskSpec, image: Path | None) -> Path:
        """The disk's file, made when it is missing; see the contract.

        `image` must be a qcow2 file without a backing or data file of its own.  Raises StorageFailure, permanent when
        the disk cannot exist as it is asked for: smaller than its image, or of no size.
        """
        path = self._folder(guest_id) / f"{_safe(disk.id)}.qcow2"
        if path.exists():
            return path
        if disk.image_id is not None and image is None:
            raise StorageFailure(f"image {disk.image_id} of disk {disk.id} is not on this host")
        size = disk.size_gib * _GIB
        try:
            if image is not None:
                size = _size_above(disk, image)
            if size <= 0:
                raise StorageFailure(f"disk {disk.id} has neither a size nor an image", permanent=True)
            path.parent.mkdir(mode=0o711, exist_ok=True)
            path.parent.chmod(0o711)
            options: list[str] = []
            if image is not None:
                # -u: the image was looked at above; qemu-img shall not parse what tenants sent.
                options = ["-u", "-F", "qcow2", "-b", _hold(image, path).name]
            new = _beside(path)
            run([self._binary, "create", "-q", "-f", "qcow2", *options, str(new), str(size)])
            new.chmod(0o600)
            _settle(new, path)
        except ChildFailure as error:
            raise StorageFailure(f"disk {disk.id} cannot be made: {error}") from error
        except OSError as error:
            raise StorageFailure(f"disk {disk.id} cannot be made: {error.strerror}") from error
        return path

    def ensure_config_drive(self, guest_id: str, documents: dict[str, bytes]) -> Path:
        """The config drive's file, mode 0600; rewritten only when the documents have changed.

        A running guest keeps the file that it has open; it sees the new one at its next start.
        """
        path = self._folder(guest_id) / f"{_LABEL}.iso"
        digest = _digest(documents)
        try:
            if _application(path) == digest:
                return path
            path.parent.mkdir(mode=0o711, exist_ok=True)
            path.parent.chmod(0o711)
            new = _beside(path)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(_iso(documents, digest))
            _settle(new, path)
        except OSError as error:
            raise StorageFailure(f"the config drive cannot be made: {error.strerror}") from error
        return path

    def remove_guest(self, guest_id: str) -> None:
        """Delete the guest's directory: in one step it is gone for us, then its files are deleted."""
        folder = self._folder(guest_id)
        gone = self._root / f".gone-{guest_id}"
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(gone)
            with contextlib.suppress(FileNotFoundError):
                folder.rename(gone)
                shutil.rmtree(gone)
        except OSError as error:
            raise StorageFailure(f"disks of {guest_id} cannot be deleted: {error.strerror}") from error

    def guests(self) -> list[str]:
        """Ids of the guests that have a directory here."""
        return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name))

    def free_gib(self) -> int:
        """Space left for disks in GiB, as the file system counts it; overlays that may still grow are not in it."""
        return shutil.disk_usage(self._root).free // _GIB

    def _folder(self, guest_id: str) -> Path:
        return self._root / _safe(guest_id)


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StorageFailure(f"not an id: {name!r}", permanent=True)
    return name


def _size_above(disk: DiskSpec, image: Path) -> int:
    """Bytes of a disk over this image; also refuses an image that would read another file of the host's."""
    with image.open("rb") as file:
        header = file.read(_FEATURES.size)
    if len(header) < _FEATURES.size or not header.startswith(b"QFI\xfb"):
        raise StorageFailure(f"image {disk.image_id} is no qcow2 file", permanent=True)
    _, version, backing, _, _, virtual = _HEADER.unpack_from(header)
    features = _FEATURES.unpack(header)[0] if version >= 3 else 0
    if backing or features & _EXTERNAL_DATA:
        raise StorageFailure(f"image {disk.image_id} needs another file", permanent=True)
    if disk.size_gib == 0:
        return int(virtual)
    if disk.size_gib * _GIB < virtual:
        raise StorageFailure(
            f"disk {disk.id} of {disk.size_gib} GiB is smaller than its image of {virtual} bytes", permanent=True
        )
    return disk.size_gib * _GIB


def _hold(image: Path, disk: Path) -> Path:
    """A name of our own for the image, which keeps it for as long as the disk is there."""
    base = disk.with_suffix(".base.qcow2")
    new = _beside(base)
    try:
        os.link(image.resolve(), new)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(image, new)
    if new.stat().st_mode & 0o777 != 0o644:
        new.chmod(0o644)
    _settle(new, base)
    return base


def _beside(path: Path) -> Path:
    """Where a file is written before it is renamed; what a crash left there is gone."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    return new


def _settle(new: Path, path: Path) -> None:
    """Make a written file durable and give it its name."""
    for durable in (new, path.parent):
        if durable is not new:
            new.replace(path)
        fd = os.open(durable, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _digest(documents: dict[str, bytes]) -> str:
    state = hashlib.sha256()
    for name, content in sorted(documents.items()):
        state.update(struct.pack(">QQ", len(name.encode()), len(content)) + name.encode() + content)
    return state.hexdigest().upper()


def _application(path: Path) -> str:
    """What a config drive says of its content; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(_APPLICATION.start)
            return file.read(_APPLICATION.stop - _APPLICATION.start).decode("ascii", "replace").rstrip()
    except FileNotFoundError:
        return ""


def _iso(documents: dict[str, bytes], digest: str) -> bytes:
    """ISO 9660 with Rock Ridge and Joliet names, so that every guest reads the paths as they are."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident=_LABEL, app_ident_str=digest, joliet=3, rock_ridge="1.09")
    plain: dict[PurePosixPath, str] = {PurePosixPath("/"): ""}
    for number, (name, content) in enumerate(sorted(documents.items())):
        path = PurePosixPath("/") / name
        if ".." in path.parts:
            raise StorageFailure(f"not a document's path: {name!r}", permanent=True)
        for folder in reversed(path.parents):
            if folder not in plain:
                plain[folder] = f"{plain[folder.parent]}/D{len(plain)}"
                iso.add_directory(plain[folder], rr_name=folder.name, joliet_path=str(folder))
        where = f"{plain[path.parent]}/F{number}.;1"
        iso.add_fp(io.BytesIO(content), len(content), where, rr_name=path.name, joliet_path=str(path))
    written = io.BytesIO()
    iso.write_fp(written)
    iso.close()
    return written.getvalue()

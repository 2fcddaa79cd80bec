"""Disks as qcow2 files in a directory.

    <root>/<guest>/<disk>.qcow2          the first incarnation of a guest's disk: an overlay, or empty
    <root>/<guest>/<disk>.base.qcow2     the image that it overlays: a hard link to the cached file
    <root>/<guest>/<disk>.2.qcow2        the second incarnation, and so on,
    <root>/<guest>/<disk>.2.base.qcow2   with an image of its own, or another link to the first one's
    <root>/<guest>/config-2.iso          the config drive
    <root>/.snapshots/<snapshot>/data    what a snapshot took, until the control plane has it

A disk is an overlay on its image and not a copy: it is there in milliseconds and takes no space until it is written
to.  An overlay is worth nothing without its image, so it holds the image by a hard link of its own: the cache may
drop the image whenever it likes, and the file system counts who still needs it.  Where a link cannot be made (the
cache is on another file system) the image is copied.  The overlay names its base relative to itself, so the whole
directory can be moved.  In return nobody may ever write into a cached image; the cache replaces by rename.

Every file is written beside its place, synced and renamed, and the directory is synced: a crash leaves a whole file
or none (fsync(2)).  A base is there before its disk and goes after it.

Each guest's process runs under an id of its own, and opens its disks and their bases by name.  A base has one owner
and one mode for all guests that share it (0644), so it is the guest's directory that keeps others from it: root's, and
open for passing through to its group alone (0710), which is the guest's id from the first time that it is started,
and until then that of the children below.  Disks and config drives are nobody's until the hypervisor hands them over.

What has been a guest's is read by children without privilege only, after its header was found to name no file but its
own base: the guest's process, had its guest broken into it, could have written anything there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from pathlib import Path

from pileus.contracts.hypervisor import DiskSpec, GuestSpec
from pileus.contracts.storage import StorageFailure
from pileus.core.seams import reach
from pileus.drivers.host.process import ChildFailure, Identity, run
from pileus.drivers.storage.file import config_drive
from pileus.drivers.storage.file.format import SECONDS, limits, make_file_system, patience
from pileus.drivers.storage.file.qcow2 import header
from pileus.drivers.storage.file.use import in_use

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DISK = re.compile(r"(?P<id>[A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:\.(?P<number>[0-9]+))?(?P<base>\.base)?\.qcow2")
_GIB = 1 << 30
_KEPT_FREE = _GIB
"""Bytes that a copy leaves free for what guests write."""
_FICLONE = 0x40049409


class FileStorage:
    """Disks of this host's guests, below `root`, which is made if it is missing.

    The directories above `root` must let others pass.  `binary` is qemu-img.  `uid` is user and group of the children
    that read what has been a guest's; None: those of this process.
    """

    def __init__(self, *, root: Path, binary: str = "qemu-img", uid: int | None = None) -> None:
        self._root = root.resolve()
        self._binary = binary
        self._identity = Identity(uid, uid) if uid is not None and os.geteuid() == 0 else None
        self._snapshots = self._root / ".snapshots"
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._root.chmod(0o711)
        for leftover in self._root.glob(".gone-*"):
            shutil.rmtree(leftover)
        for guest_id in self.guests():
            self._close(self._folder(guest_id))

    def ensure_disk(self, guest_id: str, disk: DiskSpec, image: Path | None) -> Path:
        """The disk's file, made when it is missing; see the contract.

        `image` must be a qcow2 file without a backing or data file of its own.  No process may write to the
        incarnation that this one is a copy of.  Raises StorageFailure, permanent when the disk cannot exist as it is
        asked for: smaller than its image, of no size, a copy of what is not there, or older than what is there.
        """
        path = self._place(guest_id, disk.id, disk.incarnation)
        if path.exists():
            return path
        newest = max((one.number for one in _files(self._folder(guest_id)) if one.id == disk.id), default=0)
        if newest > disk.incarnation:
            raise StorageFailure(
                f"incarnation {disk.incarnation} of disk {disk.id} is wanted, and {newest} is here: the store is older "
                "than the disk, which is left as it is",
                permanent=True,
            )
        try:
            if disk.copy_of is not None:
                self._copy(disk, self._place(guest_id, disk.id, disk.copy_of), path)
            elif disk.filesystem and disk.image_id is None:
                self._format(disk, path)
            else:
                self._create(disk, image, path)
        except ChildFailure as error:
            raise StorageFailure(f"disk {disk.id} cannot be made: {error}") from error
        except OSError as error:
            raise StorageFailure(f"disk {disk.id} cannot be made: {error.strerror}") from error
        finally:
            for one in (path, _base(path)):
                with contextlib.suppress(OSError):
                    _new(one).unlink(missing_ok=True)
        return path

    def settle(self, guest_id: str, spec: GuestSpec) -> None:
        """Delete incarnations that are neither current nor kept, retired disks, and what a crash left unfinished; see
        the contract.

        What a process has open stays until it is closed: an older store may want another disk than the guest runs on.
        """
        folder = self._folder(guest_id)
        current = {disk.id: {disk.incarnation, *disk.keep} for disk in spec.disks}
        gone = {name: set[int]() for name in spec.retired if name not in current}
        for disk in spec.disks:
            if self._place(guest_id, disk.id, disk.incarnation).exists():
                gone[disk.id] = current[disk.id]
        try:
            found = sorted(_files(folder), key=lambda one: one.base)  # a base goes after its disk
            for one in found:
                if one.id not in gone or one.number in gone[one.id]:
                    continue
                # A base is one of many links to its image, which others have open: its own disk is what needs it.
                needed = self._place(guest_id, one.id, one.number).exists() if one.base else in_use(one.path)
                if not needed:
                    one.path.unlink(missing_ok=True)
                    reach("storage.settle.unlinked")
            for unfinished in folder.glob(".*.new"):
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise StorageFailure(f"old disks of {guest_id} cannot be deleted: {error.strerror}") from error

    def disk(self, guest_id: str, disk_id: str, incarnation: int | None = None) -> Path | None:
        """The file of an incarnation, or of the newest; None when it is not there."""
        if incarnation is not None:
            path = self._place(guest_id, disk_id, incarnation)
            return path if path.exists() else None
        found = [one for one in _files(self._folder(guest_id)) if one.id == _safe(disk_id) and not one.base]
        return max(found, key=lambda one: one.number).path if found else None

    def snapshot(self, snapshot_id: str) -> Path:
        """Where the file of a snapshot is to be; whoever makes it may have more files beside it meanwhile."""
        folder = self._snapshots / _safe(snapshot_id)
        try:
            for one in (self._snapshots, folder):
                one.mkdir(mode=0o711, exist_ok=True)
                one.chmod(0o711)
        except OSError as error:
            raise StorageFailure(f"snapshot {snapshot_id} cannot be kept: {error.strerror}") from error
        return folder / "data"

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Delete all that there is of a snapshot. Absent is fine."""
        self._discard(self._snapshots / _safe(snapshot_id), f"snapshot {snapshot_id}")

    def snapshots(self) -> list[str]:
        """Ids of the snapshots of which there is something here, finished or not."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in self._snapshots.iterdir())
        return []

    def ensure_config_drive(self, guest_id: str, documents: dict[str, bytes]) -> Path:
        """The config drive's file, mode 0600; rewritten only when the documents have changed.

        A running guest keeps the file that it has open; it sees the new one at its next start.
        """
        path = self._folder(guest_id) / f"{config_drive.LABEL}.iso"
        try:
            if config_drive.held(path) == config_drive.digest(documents):
                return path
            self._prepare(path.parent)
            new = _beside(path)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(config_drive.iso(documents))
            _settle(new, path)
        except OSError as error:
            raise StorageFailure(f"the config drive cannot be made: {error.strerror}") from error
        return path

    def remove_guest(self, guest_id: str) -> None:
        """Delete the guest's directory: in one step it is gone for us, then its files are deleted."""
        self._discard(self._folder(guest_id), f"disks of {guest_id}")

    def guests(self) -> list[str]:
        """Ids of the guests that have a directory here."""
        return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name))

    def free_gib(self) -> int:
        """Space left for disks in GiB, as the file system counts it; overlays that may still grow are not in it."""
        return shutil.disk_usage(self._root).free // _GIB

    # -- making disks --------------------------------------------------------------------------------------------

    def _create(self, disk: DiskSpec, image: Path | None, path: Path) -> None:
        """An overlay on an image, or an empty disk."""
        if disk.image_id is not None and image is None:
            raise StorageFailure(f"image {disk.image_id} of disk {disk.id} is not on this host")
        size = disk.size_gib * _GIB if image is None else _size_above(disk, image)
        _must_have_size(disk, size)
        self._prepare(path.parent)
        options: list[str] = []
        if image is not None:
            # -u: the image was looked at above; qemu-img shall not parse what tenants sent.
            options = ["-u", "-F", "qcow2", "-b", _hold(image, path).name]
            reach("storage.disk.held")
        new = _beside(path)
        run([self._binary, "create", "-q", "-f", "qcow2", *options, str(new), str(size)])
        self._publish(new, path)

    def _format(self, disk: DiskSpec, path: Path) -> None:
        """A disk with nothing but a file system on it."""
        if not disk.filesystem:
            return
        size = disk.size_gib * _GIB
        _must_have_size(disk, size)
        self._prepare(path.parent)
        raw = _beside(path.with_suffix(".raw"))
        new = _beside(path)
        try:
            who = self._who(path.parent)
            make_file_system(raw, size, disk.filesystem, disk.label, who)
            reach("storage.disk.formatted")
            self._give(new, make=True)
            argv = [self._binary, "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(new)]
            run(argv, identity=who, timeout=patience(size), limits=limits(2 * size))
        finally:
            raw.unlink(missing_ok=True)
        self._publish(new, path)

    def _copy(self, disk: DiskSpec, source: Path, path: Path) -> None:
        """A copy of another incarnation, with a link of its own to the image, and as large as asked for."""
        if not source.exists():
            why = f"disk {disk.id} is to be a copy of its incarnation {disk.copy_of}, which is not on this host"
            raise StorageFailure(why, permanent=True)
        if in_use(source):
            raise StorageFailure(f"disk {disk.id} cannot be copied yet: it is in use")
        found, base = header(source), _base(source)
        if found is None or found.external or found.backing not in (b"", base.name.encode()):
            raise StorageFailure(f"disk {disk.id} cannot be copied: it is not as it was made", permanent=True)
        own = _hold(base, path) if found.backing else None
        reach("storage.copy.held")
        new = _beside(path)
        self._duplicate(disk, source, new)
        reach("storage.copy.written")
        self._give(new)
        most = 2 * max(found.size, disk.size_gib * _GIB)
        if own is not None:
            self._change(
                path.parent, most, "rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", own.name, str(new)
            )
        if found.size < disk.size_gib * _GIB:
            self._change(path.parent, most, "resize", "-q", "-f", "qcow2", str(new), str(disk.size_gib * _GIB))
        self._publish(new, path)

    def _duplicate(self, disk: DiskSpec, source: Path, new: Path) -> None:
        """The same file once more.

        Raises StorageFailure, permanent when there is no room for it, or is none any more: other guests write to the
        same file system, and one that finds it full is stopped.
        """
        if _clone(source, new):
            return
        needed = source.stat().st_blocks * 512
        if self._free() < needed + _KEPT_FREE:
            raise _no_room(disk, needed)
        try:
            run(
                ["cp", "--reflink=auto", "--sparse=auto", str(source), str(new)],
                timeout=patience(needed),
                given_up=lambda: self._free() < _KEPT_FREE,
            )
        except ChildFailure as error:
            if self._free() < _KEPT_FREE:
                raise _no_room(disk, needed) from error
            raise

    def _free(self) -> int:
        return shutil.disk_usage(self._root).free

    def _change(self, folder: Path, most: int, *arguments: str) -> None:
        """Change a disk that a guest wrote, whose file may have so many bytes."""
        run([self._binary, *arguments], identity=self._who(folder), timeout=SECONDS, limits=limits(most))

    def _who(self, folder: Path) -> Identity | None:
        """The children without privilege, as they may pass through a guest's directory, whoever's it is by now."""
        if self._identity is None:
            return None
        group = folder.stat().st_gid
        groups = () if group in (0, os.getegid(), self._identity.gid) else (group,)
        return Identity(self._identity.uid, self._identity.gid, groups)

    def _give(self, path: Path, *, make: bool = False) -> None:
        """Let the children without privilege write a file."""
        if make:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        if self._identity is not None:
            os.chown(path, self._identity.uid, self._identity.gid)

    def _publish(self, new: Path, path: Path) -> None:
        """A finished disk gets its name; it is nobody's but root's until the hypervisor hands it to the guest."""
        new.chmod(0o600)
        if self._identity is not None:
            os.chown(new, 0, 0)
        reach("storage.disk.written")
        _settle(new, path)

    def _prepare(self, folder: Path) -> None:
        """A guest's directory is there, and nobody else passes through it."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self._close(folder)

    def _close(self, folder: Path) -> None:
        """Let none pass through a guest's directory but its group: the guest, which has some file there by now, or is
        to get it when the hypervisor hands that over."""
        if self._identity is not None and folder.stat().st_gid in (0, os.getegid()):
            owners = {path.lstat().st_uid for path in folder.iterdir()} - {0, self._identity.uid}
            os.chown(folder, -1, owners.pop() if len(owners) == 1 else self._identity.gid)
        folder.chmod(0o710 if os.geteuid() == 0 else 0o700)

    # -- places --------------------------------------------------------------------------------------------------

    def _folder(self, guest_id: str) -> Path:
        return self._root / _safe(guest_id)

    def _place(self, guest_id: str, disk_id: str, incarnation: int) -> Path:
        number = "" if incarnation == 1 else f".{int(incarnation)}"
        return self._folder(guest_id) / f"{_safe(disk_id)}{number}.qcow2"

    def _discard(self, folder: Path, what: str) -> None:
        """Delete a directory: in one step it is gone for us, then its files are deleted."""
        gone = self._root / f".gone-{folder.name}"
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(gone)
            with contextlib.suppress(FileNotFoundError):
                folder.rename(gone)
                shutil.rmtree(gone)
        except OSError as error:
            raise StorageFailure(f"{what} cannot be deleted: {error.strerror}") from error


class _File:
    """A file of a disk in a guest's directory: an incarnation, or the base of one."""

    __slots__ = ("base", "id", "number", "path")

    def __init__(self, path: Path, match: re.Match[str]) -> None:
        self.path = path
        self.id = match["id"]
        self.number = int(match["number"] or 1)
        self.base = match["base"] is not None


def _files(folder: Path) -> list[_File]:
    """The files of a guest's disks."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    return [_File(path, match) for path in paths if (match := _DISK.fullmatch(path.name))]


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StorageFailure(f"not an id: {name!r}", permanent=True)
    return name


def _must_have_size(disk: DiskSpec, size: int) -> None:
    if size <= 0:
        raise StorageFailure(f"disk {disk.id} has neither a size nor an image", permanent=True)


def _size_above(disk: DiskSpec, image: Path) -> int:
    """Bytes of a disk over this image; also refuses an image that would read another file of the host's."""
    found = header(image)
    if found is None:
        raise StorageFailure(f"image {disk.image_id} is no qcow2 file", permanent=True)
    if found.backing or found.external:
        raise StorageFailure(f"image {disk.image_id} needs another file", permanent=True)
    if disk.size_gib == 0:
        return found.size
    if disk.size_gib * _GIB < found.size:
        raise StorageFailure(
            f"disk {disk.id} of {disk.size_gib} GiB is smaller than its image of {found.size} bytes", permanent=True
        )
    return disk.size_gib * _GIB


def _base(disk: Path) -> Path:
    """Where the image of a disk is held."""
    return disk.with_suffix(".base.qcow2")


def _hold(image: Path, disk: Path) -> Path:
    """A name of our own for the image, which keeps it for as long as the disk is there."""
    base = _base(disk)
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


def _clone(source: Path, new: Path) -> bool:
    """Whether a file could be made that shares all blocks of another (ioctl_ficlone(2))."""
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as file, os.fdopen(descriptor, "wb") as copy:
        try:
            fcntl.ioctl(copy, _FICLONE, file.fileno())
        except OSError:
            return False
    return True


def _no_room(disk: DiskSpec, needed: int) -> StorageFailure:
    why = f"disk {disk.id} cannot be copied: the host has no room for {needed / _GIB:.1f} GiB more"
    return StorageFailure(why, permanent=True)


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _beside(path: Path) -> Path:
    """Where a file is written before it is renamed; what a crash left there is gone."""
    new = _new(path)
    new.unlink(missing_ok=True)
    return new


def _settle(new: Path, path: Path) -> None:
    """Make a written file durable and give it its name."""
    for durable in (new, path.parent):
        if durable is not new:
            new.replace(path)
            new.unlink(missing_ok=True)  # rename(2) does nothing when both are links to one file already
        fd = os.open(durable, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

"""Images on a host: fetched once over the link, checked, and kept as clean qcow2 files that disks start from.

The data comes from tenants.  Its hash must be the one that the control plane inspected; what is not qcow2 already is
converted by a child without privilege, under limits.  Nothing here looks into the data.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from pileus.agent.link import Link, LinkRefused
from pileus.contracts.hypervisor import DiskSpec
from pileus.contracts.storage import StorageFailure

log = logging.getLogger(__name__)

_RESERVE = 1 << 30
"""Bytes that stay free on the cache's file system."""
_ROOM = 10 << 30
"""Bytes free from which on no image is given up, however large the file system is."""
_LOOK = 64 << 20
"""Bytes after which the room that is left is looked at again."""
_UNKNOWN_HOST = frozenset({401, 403})
"""Refusals that are of the host and not of what it asked for: once it is known again it is answered."""

Convert = Callable[[Path, str, Path], None]
"""Makes a qcow2 file (third) of a file (first) of a format (second), without privilege. Raises StorageFailure."""


class ImageCache(Protocol):
    """Where disks find the data that they start from."""

    async def fetch(self, disk: DiskSpec, link: Link) -> None:
        """Have the disk's image here. Raises StorageFailure, LinkDown or LinkRefused."""

    def path(self, disk: DiskSpec) -> Path | None:
        """The image's qcow2 file; None for a disk that starts empty."""

    async def make_room(self, wanted: Callable[[], Iterable[DiskSpec]]) -> None:
        """Give up images that nothing needs when there is little room; `wanted` gives the disks of the guests here."""


class FileImageCache:
    """A directory of images.

    Disks hold them by links of their own, so nobody but root opens anything here by name, and the child that converts
    them: its group, `reader`, may pass through (0710).  The files are readable by all, as each is for several guests.
    """

    def __init__(self, root: Path, convert: Convert, *, reader: int | None = None) -> None:
        self.root = root
        self._convert = convert
        self._locks: dict[str, asyncio.Lock] = {}
        self._sound: dict[str, tuple[int, ...]] = {}
        """Files that held what they should when they were last read, by name: which inode that was, and as of when."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if reader is None or os.geteuid() != 0:
            root.chmod(0o700)
        else:
            os.chown(root, -1, reader)
            root.chmod(0o710)
        for leftover in root.glob("*.partial*"):
            leftover.unlink(missing_ok=True)

    def path(self, disk: DiskSpec) -> Path | None:
        """The image's qcow2 file; None for a disk that starts empty."""
        if disk.image_id is None:
            return None
        return self.root / f"{disk.image_id}.{(disk.image_sha512 or 'unhashed')[:32]}.qcow2"

    async def fetch(self, disk: DiskSpec, link: Link) -> None:
        """Have the disk's image here; several guests that want it wait for one download.

        A file that another life of this agent left, or that was changed, is read before it is used: disks read it for
        years.  One that is damaged is fetched again; guests that run go on with what they have open.
        """
        final = self.path(disk)
        if final is None or self._known(final):
            return
        async with self._locks.setdefault(final.name, asyncio.Lock()):
            if self._known(final):
                return
            if final.exists():
                seen = _version(final)
                if await asyncio.to_thread(_whole, final, disk):
                    self._sound[final.name] = seen
                    return
                log.warning("image %s: this host's copy %s is damaged; it is fetched again", disk.image_id, final)
            await self._download(disk, final, link)
            self._sound[final.name] = _version(final)

    async def make_room(self, wanted: Callable[[], Iterable[DiskSpec]]) -> None:
        """Delete images, the one first whose last disk came or went the longest ago, until there is room again.

        Kept is what a disk holds by a link, what a wanted disk starts from, and what is being fetched.
        """
        if not await asyncio.to_thread(self._short):
            return
        for final in await asyncio.to_thread(self._unheld):
            needed = {path.name for disk in wanted() if (path := self.path(disk)) is not None}
            if final.name in needed or ((lock := self._locks.get(final.name)) is not None and lock.locked()):
                continue
            # Gone by its name in the same turn in which nobody wanted it; its blocks may take long.
            going = final.with_suffix(".partial.gone")
            final.replace(going)
            _sum(final).unlink(missing_ok=True)
            self._sound.pop(final.name, None)
            await asyncio.to_thread(going.unlink)
            log.info("image %s: nothing here needs it, and there is little room: it is deleted", final.stem)
            if not await asyncio.to_thread(self._short):
                return

    def _short(self) -> bool:
        """Whether there is little room on the cache's file system."""
        found = shutil.disk_usage(self.root)
        return found.free < min(_RESERVE + found.total // 5, _ROOM)

    def _unheld(self) -> list[Path]:
        """The images that no disk holds, the one first that has been left alone the longest."""
        found: list[tuple[int, Path]] = []
        for path in self.root.glob("*.qcow2"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if status.st_nlink == 1 and ".partial" not in path.name:
                    found.append((status.st_ctime_ns, path))
        return [path for _, path in sorted(found)]

    def _known(self, final: Path) -> bool:
        """Whether a file is the one that was found to be sound."""
        return final.exists() and self._sound.get(final.name) == _version(final)

    async def _download(self, disk: DiskSpec, final: Path, link: Link) -> None:
        partial, made = final.with_suffix(".partial"), final.with_suffix(".partial.qcow2")
        began, digest = time.monotonic(), hashlib.sha512()
        try:
            await self._receive(disk, partial, digest, link)
            if disk.image_sha512 is not None and digest.hexdigest() != disk.image_sha512:
                raise StorageFailure(
                    f"image {disk.image_id} does not hash to what it should: the image store's copy is damaged, or was "
                    "on its way; upload the image anew when this stays"
                )
            if disk.image_format == "qcow2":
                await asyncio.to_thread(_publish, partial, final)
            else:
                await asyncio.to_thread(self._convert, partial, disk.image_format, made)
                await asyncio.to_thread(_publish_converted, made, final)
        finally:
            partial.unlink(missing_ok=True)
            made.unlink(missing_ok=True)
        log.info("image %s is here after %.1f s", disk.image_id, time.monotonic() - began)

    async def _receive(self, disk: DiskSpec, partial: Path, digest: hashlib._Hash, link: Link) -> None:
        """Write an image's data to a file. Raises StorageFailure, LinkDown or LinkRefused."""
        left = 0

        def sink(chunk: bytes) -> None:
            nonlocal left
            left -= len(chunk)
            if left < 0:
                left = _LOOK
                if shutil.disk_usage(self.root).free < _RESERVE + _LOOK:
                    raise StorageFailure(
                        f"image {disk.image_id} is not fetched: it would leave less than {_RESERVE >> 30} GiB free on "
                        "the disk of the host"
                    )
            digest.update(chunk)
            try:
                file.write(chunk)
            except OSError as error:  # which the link would take for its own
                raise StorageFailure(f"image {disk.image_id} cannot be kept: {error.strerror}") from error

        with partial.open("wb") as file:
            try:
                await link.download(f"/images/{disk.image_id}/data", sink)
            except LinkRefused as error:
                if not error.lasting or error.status in _UNKNOWN_HOST:
                    raise
                why = f"image {disk.image_id} cannot be fetched: {error}"
                raise StorageFailure(why, permanent=True) from error


def _publish(made: Path, final: Path) -> None:
    """Give a whole file its name: what is there by that name is never looked at again, so it must outlast the power."""
    made.chmod(0o644)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(final)


def _publish_converted(made: Path, final: Path) -> None:
    """`_publish` for a file whose hash nobody else knows: it is kept beside it."""
    _sum(final).write_text(_digest(made))
    _publish(made, final)


def _sum(final: Path) -> Path:
    return final.with_suffix(".sha512")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha512").hexdigest()


def _version(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _whole(final: Path, disk: DiskSpec) -> bool:
    """Whether a file holds what was once put there."""
    if disk.image_format == "qcow2":
        return disk.image_sha512 is None or _digest(final) == disk.image_sha512
    try:
        return _digest(final) == _sum(final).read_text()
    except FileNotFoundError:
        return False


class NoImages:
    """For simulated hosts: disks hold nothing, so no image is needed."""

    async def fetch(self, disk: DiskSpec, link: Link) -> None:
        """Nothing to have."""

    async def make_room(self, wanted: Callable[[], Iterable[DiskSpec]]) -> None:
        """Nothing takes any."""

    def path(self, disk: DiskSpec) -> Path | None:
        """A name; nobody opens it."""
        return None if disk.image_id is None else Path(disk.image_id)

"""Images on a host: fetched once over the link, checked, and kept as clean qcow2 files that disks start from.

The data comes from tenants.  Its hash must be the one that the control plane inspected; what is not qcow2 already is
converted by a child without privilege, under limits.  Nothing here looks into the data.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pileus.agent.link import Link
from pileus.contracts.hypervisor import DiskSpec
from pileus.contracts.storage import StorageFailure

log = logging.getLogger(__name__)

Convert = Callable[[Path, str, Path], None]
"""Makes a qcow2 file (third) of a file (first) of a format (second), without privilege. Raises StorageFailure."""


class ImageCache(Protocol):
    """Where disks find the data that they start from."""

    async def fetch(self, disk: DiskSpec, link: Link) -> None:
        """Have the disk's image here. Raises StorageFailure, LinkDown or LinkRefused."""

    def path(self, disk: DiskSpec) -> Path | None:
        """The image's qcow2 file; None for a disk that starts empty."""


class FileImageCache:
    """A directory of images."""

    def __init__(self, root: Path, convert: Convert) -> None:
        self.root = root
        self._convert = convert
        self._locks: dict[str, asyncio.Lock] = {}
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for leftover in root.glob("*.partial*"):
            leftover.unlink(missing_ok=True)

    def path(self, disk: DiskSpec) -> Path | None:
        """The image's qcow2 file; None for a disk that starts empty."""
        if disk.image_id is None:
            return None
        return self.root / f"{disk.image_id}.{(disk.image_sha512 or 'unhashed')[:32]}.qcow2"

    async def fetch(self, disk: DiskSpec, link: Link) -> None:
        """Have the disk's image here; several guests that want it wait for one download."""
        final = self.path(disk)
        if final is None or final.exists():
            return
        async with self._locks.setdefault(final.name, asyncio.Lock()):
            if not final.exists():
                await self._download(disk, final, link)

    async def _download(self, disk: DiskSpec, final: Path, link: Link) -> None:
        partial, made = final.with_suffix(".partial"), final.with_suffix(".partial.qcow2")
        began, digest = time.monotonic(), hashlib.sha512()
        try:
            with partial.open("wb") as file:

                def sink(chunk: bytes) -> None:
                    digest.update(chunk)
                    file.write(chunk)

                await link.download(f"/images/{disk.image_id}/data", sink)
            if disk.image_sha512 is not None and digest.hexdigest() != disk.image_sha512:
                raise StorageFailure(f"image {disk.image_id} does not hash to what it should")
            if disk.image_format == "qcow2":
                await asyncio.to_thread(_publish, partial, final)
            else:
                await asyncio.to_thread(self._convert, partial, disk.image_format, made)
                await asyncio.to_thread(_publish, made, final)
        finally:
            partial.unlink(missing_ok=True)
            made.unlink(missing_ok=True)
        log.info("image %s is here after %.1f s", disk.image_id, time.monotonic() - began)


def _publish(made: Path, final: Path) -> None:
    """Give a whole file its name: what is there by that name is never looked at again, so it must outlast the power."""
    made.chmod(0o644)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(final)


class NoImages:
    """For simulated hosts: disks hold nothing, so no image is needed."""

    async def fetch(self, disk: DiskSpec, link: Link) -> None:
        """Nothing to have."""

    def path(self, disk: DiskSpec) -> Path | None:
        """A name; nobody opens it."""
        return None if disk.image_id is None else Path(disk.image_id)

"""Disks in other formats, made by a child without privilege.

What tenants sent is parsed here, so the child is confined to the two files, with limits on memory, time and the size
of what it writes (QEMU's manual, qemu-img).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pileus.contracts.images import ConversionFailure
from pileus.contracts.storage import StorageFailure
from pileus.drivers.host.confinement import Limits, confined
from pileus.drivers.host.process import ChildFailure, Identity

_MEMORY = 2 << 30
"""Bytes of address space, of which the heaps of the child's threads take much and use little."""
_SECONDS = 600
_KEPT_FREE = 1 << 30
"""Bytes that stay free on the target's file system."""

_NAMES = {"vhd": "vpc", "iso": "raw", "ami": "raw", "ari": "raw", "aki": "raw"}
"""QEMU's names of formats that Image calls otherwise; the bytes of a disc, or of a plain file system, are a disk."""


def convert(source: Path, form: str, target: Path, *, uid: int, most: int | None = None) -> None:
    """Make the qcow2 file `target` of `source`; the child runs as user and group `uid`.

    `form` is the format as Image calls it (Image API, `disk_format`).  The file gets `most` bytes at most (None: what
    is free where it is written, less a reserve): a few bytes of compressed data may stand for a disk of any size.

    Post-condition: `target` is whole and root's, or StorageFailure was raised and it is not there.  It is permanent
    when QEMU refused the data, or they were too many: fetching them again would not make them better.
    """
    identity = Identity(uid, uid) if os.geteuid() == 0 else None
    room = _room(target)
    limit = room if most is None else min(room, most)
    try:
        _convert(source, form, target, "qcow2", identity, limit)
    except (ChildFailure, OSError) as error:
        full = limit == room and _too_much(error)
        refused = isinstance(error, ChildFailure) and error.status == 1 and "No space left" not in error.output
        message = f"an image of format {form} cannot be converted: {error}"
        raise StorageFailure(message, permanent=refused or (_too_much(error) and not full)) from error


def convert_image(source: Path, form: str, target: Path, output: str) -> None:
    """An `ImageConverter`: the child is the same user as this process, and sees nothing of what that may read.

    Raises ConversionFailure, and then `target` is not there.
    """
    try:
        _convert(source, form, target, output, None, _room(target))
    except (ChildFailure, OSError) as error:
        why = "it would be too large" if _too_much(error) else str(error)
        raise ConversionFailure(f"The image of format {form} cannot be converted to {output}: {why}") from error


def _convert(source: Path, form: str, target: Path, output: str, identity: Identity | None, most: int) -> None:
    target.unlink(missing_ok=True)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(descriptor)
        if identity is not None:
            os.chown(target, identity.uid, identity.gid)
            os.chown(source, identity.uid, identity.gid)
        argv = ["qemu-img", "convert", "-f", _NAMES.get(form, form), "-O", output, "-q", str(source), str(target)]
        limits = Limits(seconds=_SECONDS, wait=2 * _SECONDS, memory=_MEMORY, file=most)
        confined(argv, identity=identity, limits=limits, reads=[source], writes=[target])
        if identity is not None:
            os.chown(target, 0, 0)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _room(target: Path) -> int:
    return max(0, shutil.disk_usage(target.parent).free - _KEPT_FREE)


def _too_much(error: Exception) -> bool:
    """Whether a child wrote more than it may: it gets a signal (SIGXFSZ), or EFBIG where it does not take that."""
    if not isinstance(error, ChildFailure):
        return False
    return error.status == -25 or "File too large" in error.output

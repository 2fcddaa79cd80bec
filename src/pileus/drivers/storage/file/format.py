"""Empty disks with a file system on them, made by children without privilege.

Nothing of a tenant's is read here but a label; the tools still get no more than one file and limits (mke2fs(8),
mkfs.vfat(8), mkswap(8); getrlimit(2)).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Literal

from pileus.drivers.host.process import Identity, run

SECONDS = 600.0
"""How long a child may take for one disk, whatever its size."""
_SLOWEST = 16 << 20
"""Bytes that a busy host writes in a second, at the least."""

_MEMORY = 2 << 30
_LABEL = {"swap": 15, "ext4": 16, "vfat": 11}
"""Bytes that a label may have."""


def patience(size: int) -> float:
    """How long a child may take to write so many bytes, in seconds."""
    return SECONDS + size / _SLOWEST


def limits(size: int) -> dict[int, int]:
    """Limits of a child that writes a file of this many bytes at most."""
    return {
        resource.RLIMIT_AS: _MEMORY,
        resource.RLIMIT_CPU: int(patience(size)),
        resource.RLIMIT_FSIZE: size,
        resource.RLIMIT_CORE: 0,
    }


def make_file_system(
    path: Path, size: int, kind: Literal["swap", "ext4", "vfat"], label: str, identity: Identity | None
) -> None:
    """Make the raw file `path` of `size` bytes with a file system on it; it belongs to `identity` afterwards.

    A label that is too long for the file system is cut.  Raises ChildFailure and OSError, and then the file may be
    there, half made.
    """
    name = label.encode()[: _LABEL[kind]].decode(errors="ignore")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
        if identity is not None:
            os.fchown(descriptor, identity.uid, identity.gid)
    finally:
        os.close(descriptor)
    run([*_command(kind, name), str(path)], identity=identity, timeout=patience(size), limits=limits(size))


def _command(kind: str, label: str) -> list[str]:
    if kind == "swap":
        return ["mkswap", *(["-L", label] if label else [])]
    if kind == "vfat":
        return ["mkfs.vfat", *(["-n", label] if label else [])]
    # What is written lazily is written by the guest, and not now: a large disk stays a small file.
    lazy = ["-E", "lazy_itable_init=1,lazy_journal_init=1"]
    return ["mke2fs", "-q", "-F", "-t", "ext4", *lazy, *(["-L", label] if label else [])]

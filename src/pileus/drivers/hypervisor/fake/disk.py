"""The disk that snapshots of simulated guests are of: empty, and in a true format."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Literal

_SIZE = 1 << 20
"""Bytes that the disk says it has."""
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS


def write_empty(target: Path, form: Literal["qcow2", "raw"]) -> None:
    """Write the disk, mode 0600, durably and whole. Raises OSError, and then nothing is there."""
    new = target.with_name(target.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        if form == "raw":
            file.truncate(_SIZE)
        else:
            file.write(_qcow2())
        file.flush()
        os.fsync(file.fileno())
    new.replace(target)


def _qcow2() -> bytes:
    """Header, refcount table, refcount block and first table, a cluster each (docs/interop/qcow2.txt of QEMU)."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, _CLUSTER_BITS, _SIZE, 0, 1, 3 * _CLUSTER, _CLUSTER, 1, 0, 0),
        *(0, 0, 0, 4, 104),
    )
    table = struct.pack(">Q", 2 * _CLUSTER)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    return b"".join(part.ljust(_CLUSTER, b"\0") for part in (header, table, counts, b""))

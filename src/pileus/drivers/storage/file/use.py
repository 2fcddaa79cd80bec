"""Whether a process has an image open: QEMU holds locks on those that it has (docs/system/qemu-block-drivers of QEMU,
"Disk image file locking"; fcntl(2), "Open file description locks")."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_FLOCK = struct.Struct("hhlli4x")
"""struct flock: type, whence, start, length (0: to the end), process."""


def in_use(path: Path) -> bool:
    """Whether somebody holds a lock on any byte of a file. A file that is not there is not used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)

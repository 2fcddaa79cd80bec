"""The serial console's log: its end for people, its length bounded."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_LIMIT = 100 * 1024
"""Bytes of a console log that the contract gives at most."""
_BOUND = 4 * 1024 * 1024
"""Bytes on disk from which a log is cut."""
_KEPT = 1024 * 1024
"""Bytes that are kept when it is cut."""

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def read_console(log: Path, lines: int | None) -> str:
    """The last `lines` lines (None: all) of a log, at most 100 KiB; bytes that are no UTF-8 are replaced."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LIMIT))
            text = file.read(_LIMIT).decode(errors="replace")
    except FileNotFoundError:
        return ""
    if lines is not None:
        rows = text.split("\n")
        ending = rows.pop() if rows[-1] == "" else None
        rows = rows[max(0, len(rows) - lines) :]
        text = "\n".join(rows if ending is None or not rows else [*rows, ending])
    return text.encode()[-_LIMIT:].decode(errors="ignore")


def bound(log: Path) -> None:
    """Give the disk blocks of a log's beginning back to the host when it is longer than 4 MiB.

    QEMU goes on writing meanwhile, so the file is neither moved nor truncated: a hole is punched
    (fallocate(2)), and not a byte of the kept end is lost.  Where the file system cannot, the log is emptied.
    """
    with contextlib.suppress(FileNotFoundError), log.open("r+b") as file:
        fd = file.fileno()
        found = os.fstat(fd)
        if found.st_blocks * 512 <= _BOUND:
            return
        if _LIBC.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, 0, max(1, found.st_size - _KEPT)):
            os.ftruncate(fd, 0)


def restart(log: Path) -> None:
    """Before a new process appends: drop all but the last MiB, so that a hole does not grow for ever."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _KEPT:
                return
            file.seek(size - _KEPT)
            kept = file.read()
    except FileNotFoundError:
        return
    new = log.with_suffix(".new")
    new.write_bytes(kept)
    new.replace(log)

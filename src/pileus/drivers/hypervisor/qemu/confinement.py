"""What keeps guests apart: an id for each, files that it alone may touch, and processors of its own."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path

from pileus.contracts.hypervisor import GuestFailure, GuestPlan

_CLOSED = 0o710
"""The mode of a directory through which its group alone may pass."""


def choose_uid(guest_id: str, uids: range, folder: Path) -> int:
    """An id that no guest with a directory in `folder` has.

    It is looked for from a place that the guest's UUID gives, so that the id of a guest that was removed is not soon
    another's, and files of the one are not the other's.  Raises GuestFailure when all are taken.
    """
    taken = {entry.stat().st_gid for entry in folder.iterdir()}
    first = zlib.crc32(guest_id.encode())
    for step in range(len(uids)):
        uid = uids[(first + step) % len(uids)]
        if uid not in taken:
            return uid
    raise GuestFailure("all ids for guests on this host are in use")


def choose_processors(count: int, taken: Iterable[int]) -> list[int]:
    """As many of the host's processors that are not taken. Raises GuestFailure when there are too few."""
    free = sorted(os.sched_getaffinity(0) - set(taken))
    if len(free) < count:
        raise GuestFailure(f"{count} processors are to be pinned, and this host has {len(free)} that are free")
    return free[:count]


def hand_over(plan: GuestPlan, uid: int | None) -> None:
    """Let the guest's id read and write its disks, and nobody else.

    Raises GuestFailure when a disk is missing or the guest cannot pass through a directory above it.
    """
    drives = [] if plan.config_drive is None else [plan.config_drive]
    for disk in plan.spec.disks:
        if disk.id not in plan.disks:
            raise GuestFailure(f"the plan has no file for disk {disk.id}")
        drives.append(plan.disks[disk.id])
    for path in drives:
        admit(path, uid)


def admit(path: Path, uid: int | None) -> None:
    """Let the guest's id read and write a disk, which is nobody's until then. Raises GuestFailure."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise GuestFailure(f"{path} is not a file")
        if uid is not None:
            _let_pass(path.parent, uid)
            passable(path, uid)
            os.chown(path, uid, uid, follow_symlinks=False)
            path.chmod(0o600)
    except FileNotFoundError:
        raise GuestFailure(f"{path} is missing") from None


def _let_pass(folder: Path, uid: int) -> None:
    """Let the guest's id through a directory that is open to its group alone, as one of its own disks is."""
    found = folder.stat()
    if stat.S_IMODE(found.st_mode) == _CLOSED and found.st_gid != uid:
        os.chown(folder, -1, uid)


def passable(path: Path, uid: int) -> None:
    """Whether an id without further groups may pass through every directory above; GuestFailure names the first."""
    for folder in path.resolve().parents:
        found = folder.stat()
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == uid else stat.S_IXOTH
        if not found.st_mode & bit:
            raise GuestFailure(f"guests cannot pass through {folder}: chmod o+x {folder}")

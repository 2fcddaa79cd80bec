"""A guest's memory in a file, and back (docs/devel/migration.rst of QEMU).

Where the file `memory` is, it is the guest, and has been since before its process ended; it is deleted before the
processors of the process that took it in run.  So a process that is found beside it is not the guest, and whenever the
agent is killed there is either the one or the other.
"""

from __future__ import annotations

import os
import time

from pileus.contracts.hypervisor import GuestFailure
from pileus.core.seams import reach
from pileus.drivers.hypervisor.qemu.directory import free_bytes
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import MonitorFailure

_RATE = 1 << 40
"""Bytes a second: as fast as the disk is."""
_LAST_WORDS = 5.0
"""Seconds that a process has to end after it hung up; it takes a tenth."""
_SECONDS = 900.0
"""Within which memory is written or read."""
_KEPT_FREE = 256 << 20
"""Bytes that stay free on the host's disk."""
_LOOK = 0.1
"""Seconds between two looks at how far QEMU is."""


def suspend(guest: Guest) -> None:
    """Write the guest's memory to its file, and end the process.

    Raises GuestFailure when it cannot be written, and then the guest goes on as it was.
    """
    before = guest.status()
    if before == "postmigrate":
        # An agent was killed before it kept the file; until the processors run again QEMU does not hold the disks.
        guest.execute("cont")
        before = "running"
    if before == "running":
        guest.execute("stop")
    directory = guest.directory
    model = str(guest.execute("qom-get", {"path": "/machine", "property": "type"}))
    guest.note(board=model.removesuffix("-machine"))
    size = int(guest.execute("query-memory-size-summary")["base-memory"])
    if (room := free_bytes(directory.path)) < size + _KEPT_FREE:
        if before == "running":
            guest.execute("cont")
        raise GuestFailure(f"the guest's memory has {size >> 20} MiB, and its host room for {room >> 20} MiB")
    new = directory.memory.with_suffix(".new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _write(guest, fd)
            reach("qemu.memory.written")
            os.fsync(fd)
        finally:
            os.close(fd)
    except (MonitorFailure, OSError) as error:
        new.unlink(missing_ok=True)
        if before == "running" and guest.alive():
            guest.execute("cont")
        raise GuestFailure(f"the guest's memory cannot be kept: {error}") from error
    new.replace(directory.memory)
    directory.sync()
    reach("qemu.memory.kept")
    guest.end()


def take_in(guest: Guest) -> None:
    """Give a process that waits for it the memory of the suspended guest, and delete the file.

    The processors are halted then.  Raises GuestFailure, and then the file is still there and no process is.
    """
    fd = os.open(guest.directory.memory, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        guest.hand(fd, "memory")
        guest.execute("migrate-incoming", {"uri": "fd:memory"})
        _await(guest)
    except MonitorFailure as error:
        # QEMU says why, hangs up and ends, in this order and not at once.
        refused = guest.refusal(_LAST_WORDS)
        guest.end(0)
        # What QEMU does not take today it does not take tomorrow; a reboot gives the memory up. Who killed it, for
        # want of memory perhaps, may not be there tomorrow.
        why = f"the guest's memory cannot be taken in: {refused or error}"
        raise GuestFailure(why, permanent=bool(refused)) from error
    finally:
        os.close(fd)
    reach("qemu.memory.taken")
    guest.directory.drop_memory()
    reach("qemu.memory.dropped")


def _write(guest: Guest, fd: int) -> None:
    guest.execute("migrate-set-parameters", {"max-bandwidth": _RATE})
    guest.hand(fd, "memory")
    guest.execute("migrate", {"uri": "fd:memory"})
    try:
        _await(guest)
    except MonitorFailure:
        if guest.alive():
            guest.execute("migrate_cancel")
            _settle(guest)
        raise


def _await(guest: Guest) -> None:
    """Wait until all of the memory has gone over. Raises MonitorFailure when it has not."""
    deadline = time.monotonic() + _SECONDS
    while True:
        found = guest.execute("query-migrate")
        status = found.get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise MonitorFailure(str(found.get("error-desc", status)))
        if time.monotonic() > deadline:
            raise MonitorFailure(f"it took longer than {_SECONDS:g} s")
        if guest.hurry.is_set():
            raise MonitorFailure("the guest is to be removed")
        guest.rest(_LOOK)


def _settle(guest: Guest) -> None:
    """Wait until a migration that was cancelled has ended: before that the processors do not start again."""
    deadline = time.monotonic() + 10
    while guest.execute("query-migrate").get("status") == "cancelling" and time.monotonic() < deadline:
        guest.rest(_LOOK)

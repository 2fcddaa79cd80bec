"""A disk's content at one moment, as a file that stands alone (qapi/block-core.json, blockdev-backup; qemu-img(1))."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from pileus.contracts.hypervisor import GuestFailure, SnapshotSpec
from pileus.core.seams import reach
from pileus.drivers.host.process import ChildFailure, Identity, run
from pileus.drivers.hypervisor.qemu.agent_channel import AgentFailure, AgentSilent, frozen
from pileus.drivers.hypervisor.qemu.confinement import admit
from pileus.drivers.hypervisor.qemu.device import node
from pileus.drivers.hypervisor.qemu.directory import free_bytes
from pileus.drivers.hypervisor.qemu.guest import Guest
from pileus.drivers.hypervisor.qemu.monitor import MonitorFailure

_MEMORY = 2 << 30
"""Bytes of address space of a child that reads a disk."""
_SECONDS = 3600.0
"""Within which a disk is copied."""
_NAME = 20
"""Characters of a snapshot's id in the name of a block node, which has 31 at most."""
_LOOK = 0.2
"""Seconds between two looks at how far a copy is."""
_KEPT_FREE = 1 << 30
"""Bytes that stay free on the target's file system."""


def take_live(guest: Guest, spec: SnapshotSpec, target: Path) -> None:
    """Copy a disk of a guest whose process lives, as it is when the copy begins, while the guest runs on.

    Raises GuestFailure; what was written is deleted then.
    """
    kept = guest.directory.applied()
    disks = [] if kept is None or kept.plan is None else [disk.id for disk in kept.plan.spec.disks]
    if spec.disk_id not in disks:
        raise GuestFailure(f"guest {guest.id} runs without a disk {spec.disk_id}", permanent=True)
    source = node(disks.index(spec.disk_id))
    name = f"backup-{spec.id.replace('-', '')[:_NAME]}"
    with _new(target, None) as (new, fd):
        try:
            with contextlib.suppress(MonitorFailure):
                # What an agent that was killed left behind.
                _discard(guest, name)
            size = _size(guest, source)
            _create(new, spec.format, size)
            number = guest.hand_set(fd)
            try:
                _copy(guest, spec, source, name, number, target.parent)
            finally:
                _discard(guest, name)
                guest.execute("remove-fd", {"fdset-id": number})
        except (MonitorFailure, ChildFailure, OSError) as error:
            raise GuestFailure(f"the disk cannot be copied: {error}") from error


def take_resting(guest: Guest, spec: SnapshotSpec, disk: Path, target: Path, uid: int | None) -> None:
    """Copy a disk that no process has, by a child without privilege, which dies with us.  The guest's lock is held.

    Raises GuestFailure; what was written is deleted then.
    """
    with _new(target, uid) as (_, fd):
        admit(disk, uid)
        argv = ["qemu-img", "convert", "-q", "-f", "qcow2", "-O", spec.format, str(disk), f"/proc/self/fd/{fd}"]
        limits = {
            resource.RLIMIT_AS: _MEMORY,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_FSIZE: max(0, free_bytes(target.parent) - _KEPT_FREE),
        }
        try:
            run(
                argv,
                identity=None if uid is None else Identity(uid, uid),
                limits=limits,
                pass_fds=[fd],
                timeout=_SECONDS,
                given_up=guest.hurry.is_set,
            )
        except ChildFailure as error:
            if error.status is None:
                raise GuestFailure("the copy of the disk was given up") from error
            raise GuestFailure(f"the disk cannot be copied: {error}") from error


@contextlib.contextmanager
def _new(target: Path, uid: int | None) -> Iterator[tuple[Path, int]]:
    """An empty file that becomes `target`, durably, when the block ends well, and is deleted when it does not."""
    new = target.with_name(target.name + ".new")
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if uid is not None:
            os.fchown(fd, uid, uid)
        yield new, fd
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fsync(fd)
        reach("qemu.backup.written")
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _copy(guest: Guest, spec: SnapshotSpec, source: str, name: str, number: int, folder: Path) -> None:
    file = {"driver": "file", "filename": f"/dev/fdset/{number}", "locking": "off"}
    guest.execute("blockdev-add", {"driver": spec.format, "node-name": name, "file": file})
    # The agent of a guest whose processors stand still does not answer, and nothing writes.
    with _frozen(guest) if spec.quiesce and guest.status() == "running" else contextlib.nullcontext():
        backup = {"job-id": name, "device": source, "target": name, "sync": "full", "auto-dismiss": False}
        guest.execute("blockdev-backup", backup)
    reach("qemu.backup.begun")
    deadline = time.monotonic() + _SECONDS
    while True:
        job = _job(guest, name)
        if job is None or job["status"] in ("concluded", "null"):
            break
        if guest.hurry.is_set() or time.monotonic() > deadline:
            raise MonitorFailure("it was given up")
        if free_bytes(folder) < _KEPT_FREE:
            raise MonitorFailure("no space is left for it")
        guest.rest(_LOOK)
    if job is None or job.get("error"):
        raise MonitorFailure(str(job["error"]) if job else "it was lost")


def _discard(guest: Guest, name: str) -> None:
    """End the job if it still runs, and let go of its target.  A guest that died has neither."""
    with contextlib.suppress(MonitorFailure):
        job = _job(guest, name)
        if job is not None and job["status"] not in ("concluded", "null"):
            guest.execute("job-cancel", {"id": name})
            deadline = time.monotonic() + 30
            while (job := _job(guest, name)) is not None and job["status"] != "concluded":
                if time.monotonic() > deadline:
                    break
                guest.rest(_LOOK)
        if job is not None:
            guest.execute("job-dismiss", {"id": name})
    with contextlib.suppress(MonitorFailure):
        guest.execute("blockdev-del", {"node-name": name})


def _job(guest: Guest, name: str) -> dict[str, str] | None:
    return next((one for one in guest.execute("query-jobs") if one["id"] == name), None)


def _size(guest: Guest, source: str) -> int:
    """Bytes of the disk, as the guest sees it."""
    for one in guest.execute("query-named-block-nodes", {"flat": True}):
        if one["node-name"] == source:
            return int(one["image"]["virtual-size"])
    raise MonitorFailure(f"there is no block node {source}")


def _create(new: Path, form: str, size: int) -> None:
    """Give an empty file its format and size."""
    if form == "raw":
        os.truncate(new, size)
        return
    # The file is ours and empty, and a size is all that is parsed.
    run(["qemu-img", "create", "-q", "-f", form, str(new), str(size)], timeout=30)


@contextlib.contextmanager
def _frozen(guest: Guest) -> Iterator[None]:
    """The guest's file systems stand still, as its agent holds them."""
    try:
        with frozen(guest.directory):
            yield
    except AgentFailure as error:
        why = f"the guest's file systems cannot be held: {error}"
        raise GuestFailure(why, permanent=not isinstance(error, AgentSilent)) from error

"""Children that read what tenants wrote: as little as a kernel can leave a process.

Such a child has no privilege and can gain none, a network without interfaces where the caller is root, limits on
processor time, memory, files and duration, a low priority, and sees no file but programs, libraries and those
that it is given (Landlock, landlock(7), from Linux 5.13).  So a hole in what it runs gives away the file that it is in,
and neither the caller's secrets, although it may have the caller's uid, nor another tenant's data.

Like `no_new_privs` these are attributes of a thread, and inherited by the threads and processes that it starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pileus.drivers.host.process import Identity, apart, run

PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
"""What a program needs to be started at all."""

NICER = 10
"""By how much the child is nicer than the caller (nice(2))."""

_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls, the same on every architecture."""
_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE, _READ, _READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""What each version of Landlock can forbid, from files: later ones forbid the same."""
_TCP = 0b11
"""Binding and connecting, from version 4 on."""
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Limits:
    """What one child may use; in seconds and bytes."""

    seconds: int
    """Of processor time."""
    wait: int
    """Seconds until its end, whatever it does."""
    memory: int
    file: int
    """The longest file that it may write."""

    def resources(self) -> dict[int, int]:
        """As getrlimit(2) has them."""
        return {
            resource.RLIMIT_CPU: self.seconds,
            resource.RLIMIT_AS: self.memory,
            resource.RLIMIT_FSIZE: self.file,
            resource.RLIMIT_NOFILE: 64,
            resource.RLIMIT_CORE: 0,
        }


def confined(
    argv: Sequence[str],
    *,
    identity: Identity | None,
    limits: Limits,
    reads: Iterable[Path] = (),
    writes: Iterable[Path] = (),
) -> bytes:
    """Run a program to its end, as `identity` (None: the caller's own), and give its output.

    `reads` are the files that it may read, `writes` those that it may also write; they exist.  Raises ChildFailure
    and OSError as `process.run`.
    """
    allowed = [(path, _READ) for path in reads] + [(path, _READ | _WRITE | _TRUNCATE) for path in writes]

    def act() -> bytes:
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICER))
        if os.geteuid() == 0:
            _check(_LIBC.unshare(_CLONE_NEWNET), "unshare network namespace")
        _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl no_new_privs")
        _restrict(allowed)
        return run(argv, identity=identity, timeout=limits.wait, limits=limits.resources())

    return apart(act)


def version() -> int:
    """The version of Landlock that the kernel has; 0 for none, or where it is switched off.

    Raises OSError where something else forbids it, as a filter of system calls does: then nothing is confined unseen.
    """
    found = int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)))
    if found < 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EOPNOTSUPP):
        _check(found, "landlock_create_ruleset")
    return max(0, found)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _restrict(allowed: Iterable[tuple[Path, int]]) -> None:
    """Leave the calling thread, and all that it starts, these files and the programs; nothing where there is none."""
    found = version()
    if not found:
        return
    handled = _HANDLED[min(found, max(_HANDLED))]
    wanted = _Ruleset(handled, _TCP if found >= 4 else 0)
    size = ctypes.sizeof(wanted) if found >= 4 else 8
    ruleset = _LIBC.syscall(_CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(size), ctypes.c_uint32(0))
    _check(min(ruleset, 0), "landlock_create_ruleset")
    try:
        for place in PROGRAMS:
            _allow(ruleset, Path(place), handled & (_EXECUTE | _READ | _READ_DIRECTORY))
        _allow(ruleset, Path("/dev/null"), handled & (_READ | _WRITE))
        _allow(ruleset, Path("/dev/urandom"), handled & _READ)
        for path, access in allowed:
            _allow(ruleset, path, handled & access)
        _check(_LIBC.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, place: Path, access: int) -> None:
    try:
        parent = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not place.is_dir():
            access &= ~_READ_DIRECTORY
        rule = _Beneath(access, parent)
        _check(
            _LIBC.syscall(_ADD_RULE, ruleset, ctypes.c_uint32(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)),
            "landlock_add_rule",
        )
    finally:
        os.close(parent)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

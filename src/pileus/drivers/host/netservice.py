"""Network daemons in a namespace, run as an unprivileged user with no more than the capabilities they insist on.

Capabilities that are to survive the change of user and the exec must be ambient (capabilities(7)).  Like the
namespace they belong to a thread and are inherited by the threads and processes it starts; so a thread that lives for
this alone takes them on, and starts the daemon.
"""

from __future__ import annotations

import ctypes
import io
import os
import select
import signal
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from pileus.drivers.host.process import Child, ChildFailure, Identity, apart, spawn

NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 10, 12, 13

_READY = 10.0
"""Seconds."""

_VERSION_3 = 0x20080522
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def daemon(argv: Sequence[str], *, namespace: str, identity: Identity, capabilities: Collection[int]) -> Child:
    """Start a program that stays in the foreground and closes its standard error when it is ready, as dnsmasq does.

    It runs as `identity` with exactly `capabilities`, which reach no further than its namespace.  Raises ChildFailure
    with what it said when it ended instead, or was not ready within ten seconds.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def start() -> Child:
        _take_on(capabilities)
        return spawn(argv, identity=identity, namespace=namespace, stderr=writing)

    with os.fdopen(reading, "rb", buffering=0) as said:
        try:
            child = apart(start)
        finally:
            os.close(writing)
        text = _all(said, time.monotonic() + _READY)
        # What it says before it is ready is a warning when it lives on, and the reason when it does not.
        if text is None or (text.strip() and child.wait(1)) or not child.alive():
            child.end(1)
            raise ChildFailure(argv[0], child.status, (text or b"").decode(errors="replace").strip())
    return child


def _all(stream: io.RawIOBase, deadline: float) -> bytes | None:
    """Everything up to the end of the stream; None when that does not come in time."""
    text = b""
    while True:
        if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        part = stream.read(4096)
        if not part:
            return text[-2000:]
        text += part


def find(argument: str) -> list[Child]:
    """The processes, of this life or an earlier one, that were started with exactly this argument."""
    wanted = argument.encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            arguments = Path(entry.path, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in arguments and (child := Child.adopt(int(entry.name))):
            found.append(child)
    return found


def reload(child: Child) -> None:
    """Have a daemon read its files again (SIGHUP)."""
    child.kill(signal.SIGHUP)


def _take_on(capabilities: Collection[int]) -> None:
    """Make the calling thread's children keep `capabilities`, and no other, across setuid and exec."""
    mask = sum(1 << number for number in capabilities)
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    _check(_LIBC.capget(ctypes.byref(header), data), "capget")
    data[0].inheritable, data[1].inheritable = mask, 0
    _check(_LIBC.capset(ctypes.byref(header), data), "capset")
    _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    for number in capabilities:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def _prctl(option: int, first: int, second: int = 0) -> None:
    arguments = (ctypes.c_ulong(value) for value in (first, second, 0, 0))
    _check(_LIBC.prctl(ctypes.c_int(option), *arguments), f"prctl {option}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

"""Named network namespaces, as iproute2 keeps them: a file below /run/netns with the namespace mounted on it.

No thread of the caller ever changes its namespace: work inside one is done by `process.apart`, in a thread that ends
with the work (setns(2), network_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pileus.drivers.host.process import NAMESPACES, apart

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SHARED = 0x100000
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_MAKING = threading.Lock()

T = TypeVar("T")


def names(start: str) -> list[str]:
    """The names of all namespaces that begin with `start`, also of those that a crash left half made."""
    try:
        return sorted(entry.name for entry in os.scandir(NAMESPACES) if entry.name.startswith(start))
    except FileNotFoundError:
        return []


def exists(name: str) -> bool:
    """Whether a live namespace has that name. A file without a namespace on it, which a crash leaves, has none."""
    try:
        return (NAMESPACES / name).stat().st_dev != NAMESPACES.stat().st_dev
    except FileNotFoundError:
        return False


def create(name: str) -> bool:
    """Make a namespace with its loopback down. True when it was made, False when it was there."""
    with _MAKING:
        if exists(name):
            return False
        _share()
        path = NAMESPACES / name
        path.touch(mode=0o444)
        apart(lambda: _mount_new(path))
        return True


def remove(name: str) -> None:
    """Take the name away; the namespace ends with its last process, socket and descriptor. Absent is fine."""
    path = NAMESPACES / name
    with _MAKING:
        while exists(name):
            _check(_LIBC.umount2(os.fsencode(path), _MNT_DETACH), f"umount {path}")
        path.unlink(missing_ok=True)


def scratch(act: Callable[[], T]) -> T:
    """Run `act` in a new namespace without a name, which ends with it."""

    def body() -> T:
        _check(_LIBC.unshare(_CLONE_NEWNET), "unshare network namespace")
        return act()

    return apart(body)


def indices(devices: list[str]) -> list[int]:
    """The interface indices of `devices` in the calling thread's namespace, 0 for one that is absent."""
    found = []
    for device in devices:
        try:
            found.append(socket.if_nametoindex(device))
        except OSError:
            found.append(0)
    return found


def set_kernel(settings: dict[str, str]) -> None:
    """Write settings below /proc/sys/net, as the calling thread's namespace sees it (proc_sys_net(5)).

    Raises OSError when the kernel refuses one.
    """
    for key, value in settings.items():
        (Path("/proc/sys/net") / key).write_text(value)


def get_kernel(key: str) -> str:
    """One setting below /proc/sys/net, as the calling thread's namespace sees it; empty when there is none."""
    with contextlib.suppress(FileNotFoundError):
        return (Path("/proc/sys/net") / key).read_text().strip()
    return ""


def _mount_new(path: Path) -> None:
    _check(_LIBC.unshare(_CLONE_NEWNET), "unshare network namespace")
    source = b"/proc/thread-self/ns/net"
    _check(_LIBC.mount(source, os.fsencode(path), b"none", _MS_BIND, None), f"mount {path}")


def _share() -> None:
    """Make /run/netns a shared mount, as ip-netns(8) does, so that other mount namespaces see names come and go."""
    NAMESPACES.mkdir(parents=True, exist_ok=True)
    where = os.fsencode(NAMESPACES)
    if _LIBC.mount(b"", where, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        _check(-1, f"mount {NAMESPACES}")
    _check(_LIBC.mount(where, where, b"none", _MS_BIND | _MS_REC, None), f"mount {NAMESPACES}")
    _check(_LIBC.mount(b"", where, b"none", _MS_SHARED | _MS_REC, None), f"mount {NAMESPACES}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

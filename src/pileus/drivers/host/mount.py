"""The host's own view of its mounts.

`ip netns exec` gives a command mounts of its own: named namespaces that it makes are seen by nobody else, and control
groups are hidden behind a new /sys.  A later command could then neither adopt nor remove what an earlier one made, so
an agent that was started that way goes back to the mounts of the host (ip-netns(8), mount_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CLONE_NEWNS = 0x20000
_LIBC = ctypes.CDLL(None, use_errno=True)


def join_host(state: Path) -> bool:
    """Join the mounts of whoever ran `ip netns exec`, when they hold the same root and `state`; whether it did.

    That is the farthest ancestor in another network namespace and with other mounts, process 1 where it may be looked
    at.  Only for a process that has one thread.  The network namespace stays as it is.
    """
    return any(_is_host(pid, state) and _join(pid) for pid in [1, *reversed(_ancestors())])


def _ancestors() -> list[int]:
    """The parent, its parent, and so on, as far as they may be seen."""
    found: list[int] = []
    pid = os.getppid()
    while pid > 1:
        found.append(pid)
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            break
        pid = int(status.partition("\nPPid:")[2].split()[0])
    return found


def _is_host(pid: int, state: Path) -> bool:
    """Whether a process has mounts and network of its own, but the same root and state directory."""
    process, ours = Path(f"/proc/{pid}"), Path("/proc/self")
    try:
        if any((process / f"ns/{kind}").readlink() == (ours / f"ns/{kind}").readlink() for kind in ("mnt", "net")):
            return False
        places = (Path("/"), state)
        return all(
            os.path.samestat(place.stat(), (process / "root" / place.relative_to("/")).stat()) for place in places
        )
    except OSError:
        return False


def _join(pid: int) -> bool:
    try:
        directory = Path.cwd()
        descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        joined = bool(_LIBC.setns(descriptor, _CLONE_NEWNS) == 0)
    finally:
        os.close(descriptor)
    if joined:
        os.chdir(directory)
    return joined

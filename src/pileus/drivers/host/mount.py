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
    """Join the mounts of process 1, when they hold the same root and the same `state` directory; whether it did.

    Only for a process that has one thread.  Where process 1 lives on other file systems, as in a container that shares
    its host's processes, nothing is changed.  The network namespace stays as it is.
    """
    theirs, ours = Path("/proc/1/ns/mnt"), Path("/proc/self/ns/mnt")
    try:
        if theirs.readlink() == ours.readlink():
            return False
        root = Path("/proc/1/root")
        for place in (Path("/"), state):
            if not os.path.samestat(place.stat(), (root / place.relative_to("/")).stat()):
                return False
        directory = Path.cwd()
        descriptor = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        joined = bool(_LIBC.setns(descriptor, _CLONE_NEWNS) == 0)
    finally:
        os.close(descriptor)
    if joined:
        os.chdir(directory)
    return joined

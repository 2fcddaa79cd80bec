"""What the host lets one process have."""

from __future__ import annotations

import contextlib
import resource

MANY = 1 << 16
"""Files and sockets that are enough for ten thousand hosts, each of which may have two connections and a file."""


def allow_files() -> None:
    """Let this process have as many files and sockets open as it may, and MANY if it may say so itself.

    The usual limit is for programs that wait by select(2) (getrlimit(2), RLIMIT_NOFILE); a thousand hosts are as many
    connections.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < MANY:
        with contextlib.suppress(ValueError, OSError):  # who is not root, or when even root may not
            resource.setrlimit(resource.RLIMIT_NOFILE, (MANY, MANY))

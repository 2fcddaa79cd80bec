"""What the host lets one process have."""

from __future__ import annotations

import resource


def allow_files() -> None:
    """Let this process have as many files and sockets open as it may.

    The usual limit is for programs that wait by select(2) (getrlimit(2), RLIMIT_NOFILE); a thousand hosts are as many
    connections.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

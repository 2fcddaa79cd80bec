"""Telling the service manager how a process is: sd_notify(3), over a plain datagram socket."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(*words: str) -> bool:
    """Send assignments such as `READY=1` or `STATUS=…`; False where nobody listens, as without systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(words).encode(), address.replace("@", "\0", 1))
    except OSError as error:
        logger.warning("the service manager is not told %s: %s", words[0], error)
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often the service manager wants to hear of this process; None when it does not watch it.

    That is half of what it waits, as sd_watchdog_enabled(3) recommends.
    """
    given, of = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not given.isdecimal() or int(given) == 0 or (of and of != str(os.getpid())):
        return None
    return int(given) / 2e6

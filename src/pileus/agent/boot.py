"""When this machine was started.

Source: clock_gettime(2), CLOCK_BOOTTIME (Linux); FreeBSD calls the same clock CLOCK_UPTIME.
"""

from __future__ import annotations

import time


def booted_at() -> int | None:
    """The moment in seconds since 1970, None where the system has no such clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_UPTIME", None))
    return None if clock is None else round(time.time() - time.clock_gettime(clock))

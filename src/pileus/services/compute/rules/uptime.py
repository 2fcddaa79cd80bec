"""How long a host has been up, in the words of uptime(1), in which the API shows it."""

from __future__ import annotations

from datetime import datetime


def uptime(now: datetime, booted_at: int) -> str:
    """E.g. ` 08:32:11 up 93 days, 18:25`; `booted_at` in seconds since 1970."""
    minutes = max(0, int(now.timestamp()) - booted_at) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    since = f"{hours:2}:{minutes:02}" if hours else f"{minutes} min"
    if days:
        since = f"{days} day{'s' if days > 1 else ''}, {since}"
    return f" {now:%H:%M:%S} up {since}"

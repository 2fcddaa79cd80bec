"""How long servers ran within a period, what they used in it, and which audit period ended last.

Source: Compute API, "Usage reports" and "Server usage audit log".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

_FORMS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f")


class Period(NamedTuple):
    """A span of time, its end not included."""

    start: datetime
    stop: datetime

    def hours(self, launched_at: datetime, ended_at: datetime | None) -> float:
        """For how many hours of the period something was there."""
        stop = min(self.stop, ended_at) if ended_at is not None else self.stop
        return max(0.0, (stop - max(self.start, launched_at)).total_seconds() / 3600.0)


def moment(text: str) -> datetime:
    """A time as reports take it, in UTC. Raises ValueError."""
    for form in _FORMS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not of the form 2026-01-31T12:00:00")


def last_month(now: datetime) -> Period:
    """The last calendar month that was over at a moment: the audit period by default."""
    end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if end >= now:
        end = _month_before(end)
    return Period(_month_before(end), end)


def _month_before(first: datetime) -> datetime:
    if first.month == 1:
        return first.replace(year=first.year - 1, month=12)
    return first.replace(month=first.month - 1)

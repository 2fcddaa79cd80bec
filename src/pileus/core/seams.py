"""Where the outside enters: clock, ids, randomness, and sudden death.

Tests replace these with seeded ones, so that every run of every loop can be repeated from a printed seed.
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Time as the program sees it."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class SystemClock:
    """The host's clock."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to; starts at a fixed instant."""

    def __init__(self, start: datetime | None = None) -> None:
        self._start = self._now = start or datetime(2030, 1, 1, tzinfo=UTC)
        self._jumped = timedelta()

    def now(self) -> datetime:
        """The instant that the clock was last moved to."""
        return self._now + self._jumped

    def monotonic(self) -> float:
        """Seconds since the clock's start."""
        return (self._now - self._start).total_seconds()

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += timedelta(seconds=seconds)

    def jump(self, seconds: float) -> None:
        """Set the clock, forward or back, as somebody would; `monotonic` does not notice."""
        self._jumped += timedelta(seconds=seconds)


class Seams:
    """Clock, ids and randomness of one process."""

    def __init__(self, clock: Clock | None = None, seed: int | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - a seed is for tests
        self._seeded = seed is not None

    def uuid(self) -> str:
        """A new random id in UUID form, with dashes."""
        if self._seeded:
            return str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        return str(uuid.uuid4())

    def hex(self) -> str:
        """A new random id of 32 hexadecimal digits, as the Identity API uses them."""
        return self.uuid().replace("-", "")


_ARMED = os.environ.get("PILEUS_FAILPOINTS")


def reach(point: str) -> None:
    """A named place in the work at which a test may let the process die, as by SIGKILL or power loss.

    It does when PILEUS_FAILPOINTS names a directory that holds a file of that name; the file is taken away, so that the
    next life gets further.
    """
    if _ARMED is None:
        return
    with suppress(FileNotFoundError):
        (Path(_ARMED) / point).unlink()
        os.kill(os.getpid(), signal.SIGKILL)

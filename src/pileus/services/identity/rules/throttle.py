"""Failed logins make the next ones wait, longer each time.

What is counted is a user as it was named, whether or not there is such a one, from one address: so nobody learns by it
who exists, and nobody is locked out by failures that come from elsewhere.  The counts are this process's own, bounded
in number, and forgotten an hour after the last failure.  Of a name only a hash is kept, as anybody may send a long one.

Source: OWASP Authentication Cheat Sheet, "Login Throttling".
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from pileus.core.errors import TooManyRequests

LONGEST = 300.0
"""The most seconds to wait."""

FORGOTTEN = 3600.0
"""Seconds after the last failure."""

SIZE = 20_000
"""How many are counted at once; the oldest are forgotten first."""

Key = tuple[str, str]
"""A hash of how a user was named, and an address."""


class _Count(NamedTuple):
    failures: int
    at: float


class Throttle:
    """Counts failed logins; after `free` ones the next has to wait a second, then two, four, … (0: nobody waits).

    Times are of a clock that never goes back, in seconds. Safe from several threads.
    """

    def __init__(self, free: int = 10, *, size: int = SIZE) -> None:
        self.free = free
        self._size = size
        self._counts: dict[Key, _Count] = {}
        self._lock = threading.Lock()

    def check(self, key: Key, now: float) -> None:
        """Raise TooManyRequests while there is a wait.

        Ask before the password is compared and again after: so those who try many at once learn nothing by it.
        """
        count = self._counts.get(key)
        left = 0.0 if count is None else count.at + self._wait(count.failures) - now
        if left > 0:
            seconds = int(left) + 1
            raise TooManyRequests(
                f"Too many logins have failed: try again in {seconds} seconds.", headers={"retry-after": str(seconds)}
            )

    def fail(self, key: Key, now: float) -> int:
        """Note a failure; how many there were in a row."""
        with self._lock:
            count = self._counts.pop(key, None)
            failures = 1 if count is None or now - count.at > FORGOTTEN else count.failures + 1
            self._counts[key] = _Count(failures, now)
            while len(self._counts) > self._size:
                del self._counts[next(iter(self._counts))]
        return failures

    def succeed(self, key: Key) -> None:
        """Forget the failures of one who has logged in."""
        if key in self._counts:
            with self._lock:
                self._counts.pop(key, None)

    def _wait(self, failures: int) -> float:
        beyond = failures - self.free
        if not self.free or beyond < 0:
            return 0.0
        return min(2.0**beyond, LONGEST) if beyond < 16 else LONGEST

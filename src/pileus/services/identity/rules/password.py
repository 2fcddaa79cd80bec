"""Passwords under argon2id, at the strength that RFC 9106 section 4 recommends second (t=3, m=64 MiB, p=4).

A hash costs about 50 ms of CPU and its memory: these functions run outside transactions, a few at a time.
"""

from __future__ import annotations

import base64

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

LONGEST = 4096
"""The most characters of a password."""

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


def _nobody() -> str:
    """A hash that no password has, and that costs as much to compare with as a real one."""
    salt = base64.b64encode(bytes(_hasher.salt_len)).rstrip(b"=").decode()
    digest = base64.b64encode(bytes(_hasher.hash_len)).rstrip(b"=").decode()
    cost = f"m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"


_NOBODY = _nobody()


def digest(password: str) -> str:
    """The hash of a password, with its salt and parameters."""
    return _hasher.hash(password)


def matches(hashed: str | None, password: str | None) -> bool:
    """Whether a password has this hash.

    It takes as long for a user who is not there or has no password (None), so that nobody can tell by the clock.
    """
    try:
        _hasher.verify(hashed or _NOBODY, (password or "")[: LONGEST + 1])
    except (VerificationError, InvalidHashError):
        return False
    return hashed is not None and password is not None


def stale(hashed: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(hashed)

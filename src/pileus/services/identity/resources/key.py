"""The keys of tokens: files named by number in a directory that nobody else may read.

The highest number is the primary key, which seals; 0 is staged, to become the primary with the next rotation; those
between were primaries and still open.  A process that has not yet seen a rotation can therefore read what others seal.

Source: Keystone administration guide, "Fernet - Frequently Asked Questions", for the tokens of
https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet

from pileus.services.identity.rules.token import Keyring

STAGED = 0


class Keys:
    """The keys in a directory. They are read again when the directory has changed, e.g. by a rotation."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seen = -1
        self._ring: Keyring | None = None

    @property
    def ring(self) -> Keyring:
        """The keyring. Raises FileNotFoundError before `prepare`."""
        changed = self.directory.stat().st_mtime_ns
        ring = self._ring
        if ring is None or changed != self._seen:
            # Descending numbers: the primary first, the staged key last.
            ring = Keyring([self._path(number).read_bytes() for number in sorted(self._numbers(), reverse=True)])
            self._ring, self._seen = ring, changed
        return ring

    def prepare(self) -> None:
        """Make the directory and its first keys where they are missing."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        if not any(number != STAGED for number in self._numbers()):
            self._write(1)
        self._write(STAGED)

    def rotate(self, keep: int = 3) -> None:
        """Make the staged key the primary, stage a new one, and forget all but the `keep` newest.

        Tokens that a forgotten key sealed are void: rotate no more often than `keep` - 2 times in a token's lifetime.
        """
        newest = max(self._numbers(), default=STAGED) + 1
        self._path(STAGED).rename(self._path(newest))
        self._write(STAGED)
        for number in sorted(self._numbers() - {STAGED})[: -max(keep - 1, 1)]:
            self._path(number).unlink(missing_ok=True)

    def _numbers(self) -> set[int]:
        return {int(path.name) for path in self.directory.iterdir() if path.name.isdecimal()}

    def _path(self, number: int) -> Path:
        return self.directory / str(number)

    def _write(self, number: int) -> None:
        """Put a new key in place whole, unless one is there: another process may be doing the same."""
        draft = self.directory / f".{number}.{os.getpid()}"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
        try:
            self._path(number).hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

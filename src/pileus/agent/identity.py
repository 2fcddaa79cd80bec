"""Whom a host obeys, kept across restarts, so that it refuses another store, or an older copy of its own."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """The store that a host obeys, the last run of it that the host heard, and how far."""

    store_id: str | None = None
    incarnation: str | None = None
    position: int = 0


class IdentityFile:
    """The identity in a directory; None for a simulated host that remembers nothing.

    `durable`: it outlives the loss of power.
    """

    def __init__(self, directory: Path | None, *, durable: bool = True) -> None:
        self._durable = durable
        self._path = None if directory is None else directory / "identity.json"
        self._written = Identity()
        self._lock = threading.Lock()
        if self._path is not None and self._path.exists():
            self._written = msgspec.json.decode(self._path.read_bytes(), type=Identity)

    def read(self) -> Identity:
        """What was written last."""
        return self._written

    def write(self, identity: Identity) -> None:
        """Keep it whole, and durably if it is to be; costs nothing when it is what was written last. Raises OSError."""
        with self._lock:
            if identity == self._written:
                return
            if self._path is not None:
                partial = self._path.with_suffix(".new")
                with partial.open("wb") as new:
                    new.write(msgspec.json.encode(identity))
                    new.flush()
                    if self._durable:
                        os.fsync(new.fileno())
                partial.replace(self._path)
            self._written = identity

"""Image data in memory, for tests of what stands on a store: it fails when it is told to."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pileus.contracts.images import StoreFailure, checked_key


class _Incoming(io.BytesIO):
    """What is being written; refuses more than there is room for."""

    def __init__(self, store: FakeImageStore) -> None:
        super().__init__()
        self._store = store

    def write(self, block: Any) -> int:
        if self._store.room is not None and self.tell() + len(block) > self._store.room:
            raise OSError(errno.ENOSPC, "no space")
        return super().write(block)

    def close(self) -> None:
        """Stay readable: what was written is wanted after this."""


class FakeImageStore:
    """An `ImageStore` in memory."""

    kind: ClassVar[str] = "fake"
    read_only: ClassVar[bool] = False

    def __init__(self) -> None:
        self.incoming: dict[str, _Incoming] = {}
        self.data: dict[str, bytes] = {}
        self.room: int | None = None
        """The most bytes that one image may have; None: all that come."""
        self.broken = False
        """Whether commits fail."""

    def open_new(self, image_id: str) -> BinaryIO:
        """A file to write into. Raises StoreFailure for an id that is not a plain name or is committed already."""
        if checked_key(image_id) in self.data:
            raise StoreFailure(f"There is data of the name {image_id} already.")
        self.incoming[image_id] = _Incoming(self)
        return self.incoming[image_id]

    def commit(self, image_id: str) -> str:
        """Keep what was written. Raises StoreFailure when there is nothing, or when the store is broken."""
        if self.broken:
            raise StoreFailure("The store is broken.")
        written = self.incoming.pop(checked_key(image_id), None)
        if written is not None:
            self.data[image_id] = written.getvalue()
        elif image_id not in self.data:
            raise StoreFailure(f"Nothing was written under the name {image_id}.")
        return image_id

    def abort(self, image_id: str) -> None:
        """Forget what was written and not committed. Absent is fine."""
        self.incoming.pop(checked_key(image_id), None)

    def open(self, location: str, start: int = 0) -> BinaryIO:
        """Read committed data from a byte on. Raises StoreFailure when it is gone."""
        file = io.BytesIO(self._find(location))
        file.seek(start)
        return file

    def size(self, location: str) -> int | None:
        """Bytes of committed data. Raises StoreFailure when it is gone."""
        return len(self._find(location))

    def remove(self, location: str) -> None:
        """Delete committed data. Absent is fine."""
        self.data.pop(checked_key(location), None)

    def locations(self) -> Iterator[str]:
        """Every committed location."""
        return iter(list(self.data))

    def url(self, location: str) -> str:
        """A name that nobody can resolve."""
        return f"fake:///{checked_key(location)}"

    def path(self, location: str) -> Path | None:
        """There is no local file."""
        return None

    def properties(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    def _find(self, location: str) -> bytes:
        if checked_key(location) not in self.data:
            raise StoreFailure(f"The data {location} is gone.")
        return self.data[location]

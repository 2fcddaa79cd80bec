"""Image data as plain files in one directory.

::

    root/incoming/KEY   what is being written
    root/data/KEY       what was committed, never written again

A location is the key itself, so that the directory may be moved.  Data is on the disk, and so is its name, when
`commit` returns (rename(2), fsync(2)).  A crash leaves at most a file in `incoming`, which `abort` removes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pileus.contracts.images import StoreFailure, checked_key

_HOLE = 4096
"""Bytes of zeros that are worth a hole."""


class FileImageStore:
    """An `ImageStore` below the directory `root`, which is made when it is missing.

    Files are readable by their owner only.  Several processes may use one directory.
    """

    kind: ClassVar[str] = "file"
    read_only: ClassVar[bool] = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.data = root / "data"
        for directory in (self.incoming, self.data):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open_new(self, image_id: str) -> BinaryIO:
        """A file to write into, whose `name` is its path. What an earlier call for the same id wrote is forgotten.

        Raises StoreFailure for an id that is not a plain name or that is committed already, and OSError.
        """
        path = self.incoming / checked_key(image_id)
        if (self.data / image_id).exists():
            raise StoreFailure(f"There is data of the name {image_id} already.")
        path.unlink(missing_ok=True)
        path.touch(0o600, exist_ok=False)
        return _Sparse(path, "wb")

    def commit(self, image_id: str) -> str:
        """Make durable what was written, and give its location; again for the same id gives it again.

        Raises StoreFailure when nothing was written.
        """
        source, target = self.incoming / checked_key(image_id), self.data / image_id
        try:
            _settle(source)
            source.rename(target)
        except FileNotFoundError:
            if not target.exists():
                raise StoreFailure(f"Nothing was written under the name {image_id}.") from None
        _settle(self.data)
        return image_id

    def abort(self, image_id: str) -> None:
        """Forget what was written and not committed. Absent is fine."""
        (self.incoming / checked_key(image_id)).unlink(missing_ok=True)

    def open(self, location: str, start: int = 0) -> BinaryIO:
        """Read committed data from a byte on. Raises StoreFailure when it is gone."""
        try:
            file = (self.data / checked_key(location)).open("rb")
        except FileNotFoundError:
            raise StoreFailure(f"The data {location} is gone.") from None
        file.seek(start)
        return file

    def size(self, location: str) -> int | None:
        """Bytes of committed data. Raises StoreFailure when it is gone."""
        try:
            return (self.data / checked_key(location)).stat().st_size
        except FileNotFoundError:
            raise StoreFailure(f"The data {location} is gone.") from None

    def remove(self, location: str) -> None:
        """Delete committed data. Absent is fine."""
        (self.data / checked_key(location)).unlink(missing_ok=True)

    def locations(self) -> Iterator[str]:
        """Every committed location."""
        with os.scandir(self.data) as entries:
            for entry in entries:
                yield entry.name

    def url(self, location: str) -> str:
        """The file's name within the store: where that is on the host is the operator's matter."""
        return f"file:///{checked_key(location)}"

    def path(self, location: str) -> Path | None:
        """The file itself."""
        return self.data / checked_key(location)

    def properties(self) -> dict[str, Any]:
        """The directory."""
        return {"data_dir": str(self.data)}


class _Sparse(io.FileIO):
    """A file in which blocks of zeros are holes that take no space (lseek(2))."""

    def write(self, block: Any) -> int:
        """Write all of a block, or leave a hole of its size."""
        length = len(block)
        if length >= _HOLE and not block[0] and block == bytes(length):
            self.seek(length, io.SEEK_CUR)
            return length
        rest = memoryview(block)
        while rest:
            rest = rest[super().write(rest) :]
        return length

    def close(self) -> None:
        """Close the file, after it got its length if it ends with a hole."""
        if not self.closed:
            self.truncate(self.tell())
        super().close()


def _settle(path: Path) -> None:
    """Bring a file's data, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

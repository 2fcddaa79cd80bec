"""The contract of image stores, of image inspection and of image conversion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import msgspec


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an inspector that trusts nothing found in an image file."""

    format: str
    """`raw`, `qcow2`, …: what the content is, whatever its uploader said."""
    virtual_size: int
    """Bytes that a guest would see."""
    unsafe: tuple[str, ...] = ()
    """Reasons to refuse the file: `backing file`, `data file`, `unknown feature`, …"""


class StoreFailure(Exception):
    """The store could not keep or give the data; the message is for people, and holds no secret."""


_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")


def checked_key(name: str) -> str:
    """A name that data may be written under: it cannot lead out of a directory. Raises StoreFailure."""
    if not _KEY.fullmatch(name):
        raise StoreFailure(f"{name!r} cannot be the name of image data.")
    return name


class ImageStore(Protocol):
    """A place that keeps image data.  Blocking calls, from any thread; constant memory at any size.

    Data is written once under a key (`checked_key`), and found by the location that `commit` gives.  All calls raise
    StoreFailure for what the store cannot do; `open_new` and writing raise OSError with ENOSPC or EDQUOT where there is
    no space.
    """

    kind: ClassVar[str]
    """`file`, `http`, `s3`, `rbd`, …, as the Image API names kinds of stores."""
    read_only: ClassVar[bool]
    """Whether the data is somebody else's: `open_new`, `commit` and `abort` fail, and `remove` does nothing."""

    def open_new(self, image_id: str) -> BinaryIO:
        """A file to write the data of a key into. It becomes visible only with `commit`.

        What an earlier call for the same key wrote is forgotten.  Raises StoreFailure when it is committed already.
        """

    def commit(self, image_id: str) -> str:
        """Make durable what was written under a key, and give its location; again for the same key gives it again."""

    def abort(self, image_id: str) -> None:
        """Forget what was written under a key and not committed. Absent is fine."""

    def open(self, location: str, start: int = 0) -> BinaryIO:
        """Read committed data from the byte `start` on. Raises StoreFailure when it is gone.

        A read may give less than it was asked for, but nothing only at the end; it may raise StoreFailure, too.
        """

    def size(self, location: str) -> int | None:
        """Bytes of committed data; None when the store cannot tell. Raises StoreFailure when it is gone."""

    def remove(self, location: str) -> None:
        """Delete committed data. Absent is fine."""

    def locations(self) -> Iterator[str]:
        """Every committed location, for the collector of what no image owns."""

    def url(self, location: str) -> str:
        """What consumers of the cloud are told of where data is: a URL, signed for a while where the store does so."""

    def path(self, location: str) -> Path | None:
        """A local file that holds the data as it is, for programs that must seek in it; None where there is none."""

    def properties(self) -> dict[str, Any]:
        """What operators are told of the store, without secrets."""


class ConversionFailure(Exception):
    """Data could not be converted; the message is for people."""


class ImageConverter(Protocol):
    """Changes the format of a disk, without privilege and under limits."""

    def __call__(self, source: Path, form: str, target: Path, output: str) -> None:
        """Make the file `target` in the format `output` (`raw` or `qcow2`) of `source`, which is of the format `form`.

        Formats have Image's names.  `target` is whole, or ConversionFailure was raised and it is not there.
        """

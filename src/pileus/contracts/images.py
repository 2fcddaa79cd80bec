"""The contract of image stores and of image inspection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

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
    """The store could not keep or give the data; the message is for people."""


class ImageStore(Protocol):
    """A place that keeps image data.  Blocking calls; constant memory at any size."""

    def open_new(self, image_id: str) -> BinaryIO:
        """A file to write the image's data into. It becomes visible only with `commit`."""

    def commit(self, image_id: str) -> str:
        """Make what was written durable, and give its location."""

    def abort(self, image_id: str) -> None:
        """Forget what was written and not committed. Absent is fine."""

    def open(self, location: str) -> BinaryIO:
        """Read committed data from its start. Raises StoreFailure when it is gone."""

    def remove(self, location: str) -> None:
        """Delete committed data. Absent is fine."""

    def locations(self) -> Iterator[str]:
        """Every committed location, for the collector of what no image owns."""

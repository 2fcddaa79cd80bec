"""Image data on its way: block by block, hashed and inspected as it passes, in constant memory at any size.

Source: https://docs.openstack.org/api-ref/image/v2/#image-data for `checksum`, `os_hash_algo` and `os_hash_value`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from pileus.contracts.images import ImageFacts, ImageStore, StoreFailure
from pileus.core.errors import BadRequest, TooLarge, Unavailable
from pileus.services.image.resources.store import ImageStores
from pileus.services.image.rules.inspection import Inspector

BLOCK = 1 << 20
"""Bytes that are hashed, written or read at once."""

LARGEST = 1 << 40
"""The most bytes of data that an image may have."""

ALGORITHM = "sha512"

MEDIA = "application/octet-stream"


class Sink:
    """Writes, hashes and inspects blocks, in the order of their arrival.  Without a file they are only looked at."""

    def __init__(self, file: BinaryIO | None, algorithm: str = ALGORITHM) -> None:
        self.file = file
        self.algorithm = algorithm
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.strong = hashlib.new(algorithm, usedforsecurity=False)
        self.inspector = Inspector()

    def write(self, block: bytes) -> None:
        """Write the next block, and let the strong hash and the inspector see it."""
        self.inspector.feed(block)
        if self.file is not None:
            self.file.write(block)
        self.strong.update(block)

    def values(self, facts: ImageFacts | None) -> dict[str, Any]:
        """What the data is, as columns of its image."""
        return {
            "size": self.inspector.size,
            "virtual_size": None if facts is None else facts.virtual_size,
            "checksum": self.md5.hexdigest(),
            "os_hash_algo": self.algorithm,
            "os_hash_value": self.strong.hexdigest(),
        }


@dataclass(slots=True)
class Blocks:
    """A stream of chunks of any size as blocks of about BLOCK bytes."""

    stream: AsyncIterator[bytes]
    room: int
    size: int = 0

    async def next(self) -> bytes:
        """The next block, empty at the end. Raises TooLarge when more comes than there is room for."""
        length = 0
        chunks = []
        while length < BLOCK:
            chunk = await anext(self.stream, b"")
            if not chunk:
                break
            chunks.append(chunk)
            length += len(chunk)
        self.size += length
        if self.size > self.room:
            raise TooLarge(f"The image is too large: there is room for {self.room} bytes.")
        return b"".join(chunks) if len(chunks) != 1 else chunks[0]


async def pump(stores: ImageStores, sink: Sink, following: Callable[[], Awaitable[bytes]]) -> None:
    """Let the next block come while the last one is hashed and written."""
    block = await following()
    while block:
        work = asyncio.gather(
            stores.run(partial(sink.write, block)),
            stores.run(partial(sink.md5.update, block)),
        )
        try:
            block = await following()
        finally:
            await work


async def read(stores: ImageStores, store: ImageStore, file: BinaryIO, end: int | None) -> AsyncIterator[bytes]:
    """The bytes of a file that a store has opened, `end` of them at most, block by block; closes it."""
    place = 0
    try:
        while end is None or place < end:
            block = await stores.run(partial(file.read, BLOCK if end is None else min(BLOCK, end - place)), on=store)
            if not block:
                return
            place += len(block)
            yield block
    finally:
        file.close()


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Answer what a store cannot do. Raises TooLarge and Unavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TooLarge("Image storage media is full.") from error
        raise Unavailable("The image store cannot write.") from error
    except StoreFailure as error:
        raise Unavailable(f"The image store cannot keep the data: {error}") from error


def announced(headers: Any) -> int | None:
    """How many bytes a request's headers say will come. Raises BadRequest."""
    text = headers.get(b"x-openstack-image-size") or headers.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit():
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text)

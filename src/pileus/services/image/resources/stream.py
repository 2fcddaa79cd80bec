"""Image data on its way: block by block, hashed and inspected as it passes, in constant memory at any size.

Source: https://docs.openstack.org/api-ref/image/v2/#image-data for `checksum`, `os_hash_algo` and `os_hash_value`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from pileus.contracts.images import ImageFacts, ImageStore, StoreFailure
from pileus.core.errors import BadRequest, TooLarge, Unavailable
from pileus.services.image.resources.store import ImageStores
from pileus.services.image.rules.inspection import Inspector

BLOCK = 2 << 20
"""Bytes that are hashed and written at once."""

AHEAD = 2
"""Blocks that may wait while others are hashed and written."""

PIECE = 1 << 20
"""Bytes that are read from a store at once."""

LARGEST = 1 << 40
"""The most bytes of data that an image may have."""

ALGORITHM = "sha512"

MEDIA = "application/octet-stream"


Block = list[bytes]
"""About BLOCK bytes, in the chunks in which they came: putting them together would cost as much as writing them."""


class Sink:
    """Writes, hashes and inspects blocks, in the order of their arrival.  Without a file they are only looked at."""

    def __init__(self, file: BinaryIO | None, algorithm: str = ALGORITHM) -> None:
        self.file = file
        self.algorithm = algorithm
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.strong = hashlib.new(algorithm, usedforsecurity=False)
        self.inspector = Inspector()

    def write(self, block: Block) -> None:
        """Write the next block, and let the strong hash and the inspector see it."""
        for chunk in block:
            self.inspector.feed(chunk)
            if self.file is not None:
                self.file.write(chunk)
            self.strong.update(chunk)

    def sum(self, block: Block) -> None:
        """Let the weak hash see the next block: it has a thread of its own."""
        for chunk in block:
            self.md5.update(chunk)

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

    async def next(self) -> Block:
        """The next block, empty at the end. Raises TooLarge when more comes than there is room for."""
        length = 0
        chunks: Block = []
        while length < BLOCK:
            chunk = await anext(self.stream, b"")
            if not chunk:
                break
            chunks.append(chunk)
            length += len(chunk)
        self.size += length
        if self.size > self.room:
            raise TooLarge(f"The image is too large: there is room for {self.room} bytes.")
        return chunks


class _Strand:
    """Acts on blocks one after the other in threads: a thread goes on as long as there are any, and no longer.

    From one block to the next nothing has to wait for the event loop.
    """

    def __init__(self, stores: ImageStores, act: Callable[[Block], None]) -> None:
        self._stores = stores
        self._act = act
        self._waiting: deque[tuple[Block, Future[None]]] = deque()
        self._lock = threading.Lock()
        self._running = False
        self._fault: Exception | None = None
        self._drainer: asyncio.Task[None] | None = None

    def push(self, block: Block) -> asyncio.Future[None]:
        """Act on a block after those before it; its end, or the fault that it or one before it had."""
        done: Future[None] = Future()
        with self._lock:
            self._waiting.append((block, done))
            idle, self._running = not self._running, True
        if idle:
            self._drainer = asyncio.create_task(self._stores.run(self._drain))
        return asyncio.wrap_future(done)

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                block, done = self._waiting.popleft()
            try:
                if self._fault is None:
                    self._act(block)
            except Exception as fault:
                self._fault = fault
            if self._fault is None:
                done.set_result(None)
            else:
                done.set_exception(self._fault)


async def pump(stores: ImageStores, sink: Sink, following: Callable[[], Awaitable[Block]]) -> None:
    """Let blocks come while earlier ones are written and hashed, each side at its own pace, `AHEAD` at the most."""
    strands = (_Strand(stores, sink.write), _Strand(stores, sink.sum))
    running: deque[asyncio.Future[list[None]]] = deque()
    try:
        while block := await following():
            running.append(asyncio.gather(*(strand.push(block) for strand in strands)))
            if len(running) > AHEAD:
                await running[0]
                del running[0]
        await asyncio.gather(*running)
    finally:
        await asyncio.gather(*running, return_exceptions=True)


async def read(stores: ImageStores, store: ImageStore, file: BinaryIO, end: int | None) -> AsyncIterator[bytes]:
    """The bytes of a file that a store has opened, `end` of them at most, block by block; closes it."""
    place = 0
    try:
        while end is None or place < end:
            block = await stores.run(partial(file.read, PIECE if end is None else min(PIECE, end - place)), on=store)
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
    if not text.isdigit() or len(text) > 19:
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text)

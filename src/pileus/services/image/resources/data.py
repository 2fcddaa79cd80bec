"""An image's data: written once, in a stream, and read in whole or in part.

Source: https://docs.openstack.org/api-ref/image/v2/#image-data; RFC 9110, "Range Requests".

An upload takes the image from `queued` to `saving` with a key that is its own, writes under that key, and ends in one
transaction that makes the image `active`, if it still is the upload of that key.  A running upload renews its row; one
that is not renewed any more is ended by a control loop.  What was written goes away by a row in `image_disposal`, made
in the transaction that takes the key out of the image.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, BinaryIO

import sqlalchemy as sa

from pileus.contracts.images import ImageFacts, ImageStore, StoreFailure
from pileus.core.api import Reply, Resource, Stream
from pileus.core.context import Context, Request
from pileus.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    RangeNotSatisfiable,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from pileus.core.quota import UNLIMITED
from pileus.core.store import Store, Tx
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.operations import MIB, QUOTA, take
from pileus.services.image.resources.image.table import image
from pileus.services.image.resources.store import ImageStores, dispose
from pileus.services.image.rules.inspection import UNINSPECTED, Inspector, judge

LARGEST = 1 << 40
"""The most bytes of data that an image may have."""

BLOCK = 1 << 20
"""Bytes that are hashed, written or read at once."""

TTL = timedelta(seconds=60)
"""How long an upload may stay without sign of life before it counts as dead."""

ALGORITHM = "sha512"

_MEDIA = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

resource = Resource("file", "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upload:
    """What an upload must know of its image."""

    image_id: str
    key: str
    store: str
    owner: str | None
    disk_format: str
    inspected: bool
    room: int
    """The most bytes that may come."""


def _begin(ctx: Context, image_id: str, wanted: str | None, announced: int | None) -> _Upload:
    row = policy.get(ctx, image_id, "upload_image").row
    store = ctx.of(ImageStores).name(wanted)
    if row.status != "queued":
        raise Conflict(f"Image status transition from {row.status} to saving is not allowed")
    missing = [name for name in ("disk_format", "container_format") if row._mapping[name] is None]
    if missing:
        raise BadRequest(f"Properties {', '.join(missing)} must be set prior to saving data.")
    room = _room(ctx.tx, row.owner)
    if announced is not None and announced > room:
        raise TooLarge(f"The image is too large: there is room for {room} bytes.")
    key = f"{image_id.lower()}.{ctx.seams.hex()}"
    values = {
        "status": "saving",
        "store": store,
        "upload_key": key,
        "upload_until": ctx.now + TTL,
        "updated_at": ctx.now,
    }
    ctx.tx.compare_and_set(image, {"id": image_id, "status": "queued"}, values)
    ctx.tx.changed("image.image", image_id)
    return _Upload(
        image_id=image_id,
        key=key,
        store=store,
        owner=row.owner,
        disk_format=row.disk_format,
        inspected=row.container_format not in UNINSPECTED,
        room=room,
    )


def _room(tx: Tx, owner: str | None) -> int:
    """How many bytes a project may still have, as far as one knows before they have come."""
    limit = UNLIMITED if owner is None else QUOTA.limits(tx, owner)["image_size_total"]
    if limit == UNLIMITED or owner is None:
        return LARGEST
    return max(0, min(LARGEST, (limit - QUOTA.used(tx, owner)["image_size_total"]) * MIB))


def abandon(tx: Tx, image_id: str, key: str) -> bool:
    """End an upload: its image waits for data again, and what it wrote goes. Whether the upload still was the one."""
    values = {"status": "queued", "store": None, "upload_key": None, "upload_until": None, "updated_at": tx.now}
    row = tx.first(sa.select(image.c.store).where(image.c.id == image_id, image.c.upload_key == key))
    mine = sa.update(image).where(image.c.id == image_id, image.c.upload_key == key)
    if row is None or tx.execute(mine.values(values)).rowcount != 1:
        return False
    dispose(tx, row.store, key=key)
    tx.changed("image.image", image_id)
    return True


def expired(tx: Tx) -> list[sa.Row[Any]]:
    """Images whose upload shows no sign of life: their id and upload_key."""
    return list(
        tx.all(
            sa.select(image.c.id, image.c.upload_key).where(image.c.status == "saving", image.c.upload_until < tx.now)
        )
    )


class _Sink:
    """Writes, hashes and inspects blocks, in this order of arrival."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.strong = hashlib.new(ALGORITHM)
        self.inspector = Inspector()

    def write(self, block: bytes) -> None:
        self.inspector.feed(block)
        self.file.write(block)
        self.strong.update(block)


@dataclass(slots=True)
class _Blocks:
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


async def _pump(stores: ImageStores, sink: _Sink, blocks: _Blocks) -> None:
    """Let the next block come while the last one is hashed and written."""
    block = await blocks.next()
    while block:
        work = asyncio.gather(
            stores.run(partial(sink.write, block)),
            stores.run(partial(sink.md5.update, block)),
        )
        try:
            block = await blocks.next()
        finally:
            await work


async def _receive(stores: ImageStores, upload: _Upload, blocks: _Blocks) -> tuple[str, _Sink, ImageFacts | None]:
    """Write and judge the stream; the location, the hashes and what the data is.

    Raises Refused, TooLarge, Unavailable, and BadRequest when the client goes away.
    """
    store = stores.by_name[upload.store]
    try:
        file = await stores.run(lambda: store.open_new(upload.key))
        sink = _Sink(file)
        try:
            await _pump(stores, sink, blocks)
        finally:
            await stores.run(file.close)
        facts = sink.inspector.facts() if upload.inspected else None
        if facts is not None:
            judge(facts, upload.disk_format)
        return await stores.run(lambda: store.commit(upload.key)), sink, facts
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TooLarge("Image storage media is full.") from error
        raise Unavailable("The image store cannot write.") from error
    except StoreFailure as error:
        raise Unavailable(f"The image store cannot keep the data: {error}") from error


def _finish(tx: Tx, upload: _Upload, location: str, sink: _Sink, facts: ImageFacts | None) -> None:
    """Make the image active. Raises Gone when it was deleted or the upload was given up, and TooLarge."""
    size = sink.inspector.size
    values = {
        "status": "active",
        "location": location,
        "data_key": upload.key,
        "upload_key": None,
        "upload_until": None,
        "size": size,
        "virtual_size": facts.virtual_size if facts is not None else None,
        "checksum": sink.md5.hexdigest(),
        "os_hash_algo": ALGORITHM,
        "os_hash_value": sink.strong.hexdigest(),
        "updated_at": tx.now,
    }
    mine = sa.update(image).where(image.c.id == upload.image_id, image.c.upload_key == upload.key)
    if tx.execute(mine.values(values)).rowcount != 1:
        raise Gone(f"Image {upload.image_id} was deleted, or its upload was given up, while its data came.")
    owner = tx.scalar(sa.select(image.c.owner).where(image.c.id == upload.image_id))
    take(tx, owner, {"image_size_total": -(-size // MIB)})
    tx.changed("image.image", upload.image_id)


async def _renew(store: Store, upload: _Upload) -> None:
    """Tell again and again that the upload lives."""
    mine = sa.update(image).where(image.c.id == upload.image_id, image.c.upload_key == upload.key)
    while True:
        await asyncio.sleep(TTL.total_seconds() / 4)
        with contextlib.suppress(Unavailable):
            await store.write(lambda tx: tx.execute(mine.values(upload_until=tx.now + TTL)).rowcount)


@resource.put("/images/{image_id}/file", status=204)
async def upload(ctx: Request, image_id: str, stream: AsyncIterator[bytes]) -> None:
    """Write an image's data.

    Raises BadRequest (formats are missing, the client went away), Forbidden, NotFound, Conflict (there is data, or it
    is coming), Gone (deleted meanwhile), TooLarge (quota, space), UnsupportedMediaType (the request's type, or data
    that is not what the image says or is unsafe) and Unavailable (store).  After a failure nothing is left of the
    data, and the image is `queued`.
    """
    media = ctx.headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
    if media != _MEDIA:
        raise UnsupportedMediaType(f"The content type {media or 'of nothing'} is not {_MEDIA}.")
    announced = _announced(ctx)
    wanted = ctx.headers.get(b"x-image-meta-store")
    name = wanted.decode("latin-1") if wanted else None
    stores = ctx.of(ImageStores)
    begun = await ctx.write(lambda bound: _begin(bound, image_id, name, announced))
    renewing = asyncio.create_task(_renew(ctx.store, begun))
    try:
        location, sink, facts = await _receive(stores, begun, _Blocks(stream, begun.room))
        await ctx.store.write(lambda tx: _finish(tx, begun, location, sink, facts))
    except BaseException:
        # The rows outlive this process: a loop does it if it cannot be done now.
        with contextlib.suppress(OSError, StoreFailure, Unavailable):
            await asyncio.shield(stores.run(lambda: stores.by_name[begun.store].abort(begun.key)))
            await asyncio.shield(ctx.store.write(lambda tx: _give_up(tx, begun)))
        raise
    finally:
        renewing.cancel()


def _give_up(tx: Tx, begun: _Upload) -> None:
    """End an upload of which one cannot be sure that it has not succeeded: its last answer may have been lost."""
    done = sa.select(image.c.id).where(image.c.id == begun.image_id, image.c.data_key == begun.key)
    if tx.first(done) is None and not abandon(tx, begun.image_id, begun.key):
        dispose(tx, begun.store, key=begun.key)


def _announced(ctx: Request) -> int | None:
    """How many bytes the request says will come. Raises BadRequest."""
    text = ctx.headers.get(b"x-openstack-image-size") or ctx.headers.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit():
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of an image is."""

    store: ImageStore
    location: str
    size: int
    checksum: str


def _source(ctx: Context, image_id: str) -> Source | None:
    record = policy.get(ctx, image_id)
    row = record.row
    if row.status == "deactivated" and not policy.is_admin(ctx):
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    policy.require(ctx, record, "download_image")
    if row.location is None:
        return None
    store = ctx.of(ImageStores).by_name.get(row.store)
    if store is None:
        raise Unavailable(f"The image store {row.store} is not there.")
    return Source(store, row.location, row.size, row.checksum)


@resource.get("/images/{image_id}/file")
async def download(ctx: Request, image_id: str) -> Stream | Reply:
    """Read an image's data, all of it or a range; 204 without a body when there is none.

    Raises BadRequest (several ranges), Forbidden (deactivated), NotFound, RangeNotSatisfiable and Unavailable.
    """
    source = await ctx.read(lambda bound: _source(bound, image_id))
    if source is None:
        return Reply(status=204)
    start, end = _range(ctx, source.size) or (0, source.size)
    whole = (start, end) == (0, source.size) and b"range" not in ctx.headers and b"content-range" not in ctx.headers
    stores = ctx.of(ImageStores)
    try:
        file = await stores.run(lambda: source.store.open(source.location))
    except StoreFailure:
        return Reply(status=204)
    headers = {"Content-MD5": source.checksum, "Accept-Ranges": "bytes"}
    if not whole:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{source.size}"
    return Stream(
        read(stores, file, start, end),
        end - start,
        _MEDIA,
        headers,
        200 if whole else 206,
    )


async def read(stores: ImageStores, file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes of an open file from `start` to before `end`, block by block; closes it."""
    try:
        if start:
            await stores.run(lambda: file.seek(start))
        while start < end:
            block = await stores.run(partial(file.read, min(BLOCK, end - start)))
            if not block:
                return
            start += len(block)
            yield block
    finally:
        file.close()


def _range(ctx: Request, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last that a request asks for; None for all.

    `Content-Range` in a request is an old mistake that upstream still honours.
    """
    text = ctx.headers.get(b"range")
    if text is not None:
        return _asked(text.decode("latin-1"), size)
    text = ctx.headers.get(b"content-range")
    if text is None:
        return None
    match = _CONTENT_RANGE.fullmatch(text.decode("latin-1").strip())
    if match is None:
        raise RangeNotSatisfiable("Invalid Content-Range header.")
    start, last = int(match.group(1)), int(match.group(2))
    if start > last or last >= size:
        raise RangeNotSatisfiable(f"Content-Range must lie within [0, {size - 1}].")
    return start, last + 1


def _asked(text: str, size: int) -> tuple[int, int]:
    if "," in text:
        raise BadRequest("Several ranges in one request are not supported: make a request for each.")
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == ("", ""):
        raise RangeNotSatisfiable("Invalid Range header.")
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start = int(first)
        end = min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            raise RangeNotSatisfiable("Invalid Range header.")
    if start >= size:
        raise RangeNotSatisfiable(f"The range must start within [0, {size - 1}].")
    return start, end

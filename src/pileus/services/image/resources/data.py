"""An image's data: written once, in a stream, and read in whole or in part.

Source: https://docs.openstack.org/api-ref/image/v2/#image-data; RFC 9110, "Range Requests".

An upload takes the image from `queued` to `saving` with a key that is its own, writes under that key, and ends in one
transaction that makes the image `active`, if it still is the upload of that key.  A running upload renews its row; one
that is not renewed any more is ended by a control loop.  What was written goes away by a row in `image_disposal`, made
in the transaction that takes the key out of the image.  Staged data comes in the same way, from `queued` to
`uploading`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, BinaryIO

import sqlalchemy as sa

from pileus.contracts.images import ImageFacts, ImageStore, StoreFailure
from pileus.core.api import Parameters, Reply, Resource, Stream
from pileus.core.context import Context, Request
from pileus.core.errors import (
    BadRequest,
    Conflict,
    Fault,
    Forbidden,
    Gone,
    NotFound,
    RangeNotSatisfiable,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from pileus.core.policy import Rule
from pileus.core.store import Store, Tx
from pileus.services.image.resources import cached, place
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import Record, image
from pileus.services.image.resources.store import STAGING, ImageStores, dispose
from pileus.services.image.resources.stream import LARGEST, MEDIA, Blocks, Sink, announced, answered, pump, read
from pileus.services.image.resources.usage import change, room
from pileus.services.image.rules.inspection import UNINSPECTED, judge, judge_package

TTL = timedelta(seconds=60)
"""How long an upload may stay without sign of life before it counts as dead."""

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d+|\*)")

resource = Resource(
    "file",
    "files",
    rules=[
        Rule("download_from_store", policy.DOWNLOAD, "Say which stores an image's data is read from"),
    ],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What an upload must know of its image."""

    image_id: str
    key: str
    store: str
    disk_format: str | None
    container_format: str | None
    room: int
    """The most bytes that may come."""
    staged: bool
    """Whether the data is to wait for an import."""

    @property
    def mine(self) -> sa.ColumnElement[bool]:
        """Holds for the image's row while it belongs to this upload."""
        column = image.c.stage_key if self.staged else image.c.upload_key
        return sa.and_(image.c.id == self.image_id, column == self.key)


def _queued(ctx: Context, image_id: str, rule: str, following: str) -> Record:
    record = policy.get(ctx, image_id, rule)
    if record.row.status != "queued":
        raise Conflict(f"Image status transition from {record.row.status} to {following} is not allowed")
    return record


def _begin(ctx: Context, image_id: str, wanted: str | None, coming: int | None) -> Upload:
    return begin(ctx, _queued(ctx, image_id, "upload_image", "saving").row, wanted, coming)


def begin(ctx: Context, row: sa.Row[Any], wanted: str | None, coming: int | None) -> Upload:
    """Begin the upload of a queued image, to a store of that name, of as many bytes as are said to come.

    Whoever calls it has asked whether the caller may.  Raises BadRequest, TooLarge (quota) and Conflict.
    """
    if row.status != "queued":
        raise Conflict(f"Image status transition from {row.status} to saving is not allowed")
    store = ctx.of(ImageStores).name(wanted)
    missing = [name for name in ("disk_format", "container_format") if row._mapping[name] is None]
    if missing:
        raise BadRequest(f"Properties {', '.join(missing)} must be set prior to saving data.")
    space = room(ctx.tx, row.owner, "image_size_total", LARGEST)
    _check_room(space, coming)
    key = f"{row.id.lower()}.{ctx.seams.hex()}"
    change(ctx.tx, row, {"status": "saving", "store": store, "upload_key": key, "upload_until": ctx.now + TTL})
    return Upload(
        image_id=row.id,
        key=key,
        store=store,
        disk_format=row.disk_format,
        container_format=row.container_format,
        room=space,
        staged=False,
    )


def _begin_staging(ctx: Context, image_id: str, coming: int | None) -> Upload:
    row = _queued(ctx, image_id, "modify_image", "uploading").row
    if ctx.of(ImageStores).staging is None:
        raise NotFound("'glance-direct' method is not available at this site.")
    space = room(ctx.tx, row.owner, "image_stage_total", LARGEST)
    _check_room(space, coming)
    key = f"{image_id.lower()}.{ctx.seams.hex()}"
    change(ctx.tx, row, {"status": "uploading", "stage_key": key, "upload_until": ctx.now + TTL})
    return Upload(
        image_id=image_id,
        key=key,
        store=STAGING,
        disk_format=row.disk_format,
        container_format=row.container_format,
        room=space,
        staged=True,
    )


def _check_room(space: int, coming: int | None) -> None:
    if coming is not None and coming > space:
        raise TooLarge(f"The image is too large: there is room for {space} bytes.")


def abandon(tx: Tx, image_id: str, key: str) -> bool:
    """End an upload: its image waits for data again, and what it wrote goes. Whether the upload still was the one."""
    mine = sa.or_(image.c.upload_key == key, image.c.stage_key == key)
    row = tx.first(sa.select(image).where(image.c.id == image_id, image.c.status.in_(("saving", "uploading")), mine))
    if row is None:
        return False
    values: dict[str, Any] = {"status": "queued", "upload_until": None}
    if row.stage_key == key:
        values |= {"stage_key": None, "stage_size": None}
        dispose(tx, STAGING, key=key)
    else:
        # A place on the web may be known of an image that still waits for data; it is the store of that.
        values |= {"upload_key": None} | ({"store": None} if row.location is None else {})
        dispose(tx, row.store, key=key)
    change(tx, row, values)
    return True


def expired(tx: Tx) -> list[sa.Row[Any]]:
    """Images whose upload shows no sign of life: their id, and the key of the upload as `upload_key`."""
    key = sa.func.coalesce(image.c.upload_key, image.c.stage_key).label("upload_key")
    dead = image.c.status.in_(("saving", "uploading")), image.c.upload_until < tx.now
    return list(tx.all(sa.select(image.c.id, key).where(*dead)))


async def _receive(stores: ImageStores, upload: Upload, blocks: Blocks) -> tuple[str, Sink, ImageFacts | None]:
    """Write and judge the stream; the location, the hashes and what the data is.

    Raises Refused, TooLarge, Unavailable, and BadRequest when the client goes away.
    """
    store = stores.get(upload.store)
    with answered():
        file = await stores.run(lambda: store.open_new(upload.key))
        sink = Sink(file)
        try:
            await pump(stores, sink, blocks.next)
        finally:
            await stores.run(file.close)
        facts = None if upload.staged else _judged(sink, upload)
        return await stores.run(lambda: store.commit(upload.key)), sink, facts


def _judged(sink: Sink, upload: Upload) -> ImageFacts | None:
    """What the data is; None where it is not a disk. Raises Refused."""
    container = upload.container_format or "bare"
    judge_package(sink.inspector.head, container)
    if container in UNINSPECTED:
        return None
    facts = sink.inspector.facts()
    judge(facts, upload.disk_format or "raw")
    return facts


def _mine(tx: Tx, upload: Upload) -> sa.Row[Any]:
    row = tx.first(sa.select(image).where(upload.mine))
    if row is None:
        raise Gone(f"Image {upload.image_id} was deleted, or its upload was given up, while its data came.")
    return row


def _finish(tx: Tx, upload: Upload, location: str, sink: Sink, facts: ImageFacts | None) -> None:
    """Make the image active. Raises Gone when it was deleted or the upload was given up, and TooLarge."""
    row = _mine(tx, upload)
    if upload.staged:
        # Location and key of staged data are one: it is found by the key, from its first byte on.
        change(tx, row, {"stage_size": sink.inspector.size, "upload_until": None})
        return
    values = {
        "status": "active",
        "location": location,
        "location_metadata": None,
        "data_key": upload.key,
        "copies": 1,
        "upload_key": None,
        "upload_until": None,
        **sink.values(facts),
    }
    change(tx, row, values)


async def _renew(store: Store, upload: Upload) -> None:
    """Tell again and again that the upload lives."""
    mine = sa.update(image).where(upload.mine)
    while True:
        await asyncio.sleep(TTL.total_seconds() / 4)
        with contextlib.suppress(Unavailable):
            await store.write(lambda tx: tx.execute(mine.values(upload_until=tx.now + TTL)).rowcount)


async def write(ctx: Request, begun: Upload, stream: AsyncIterator[bytes]) -> None:
    """Take in the data of an upload that has begun; when that fails nothing of it is left."""
    stores = ctx.of(ImageStores)
    renewing = asyncio.create_task(_renew(ctx.store, begun))
    try:
        location, sink, facts = await _receive(stores, begun, Blocks(stream, begun.room))
        await ctx.store.write(lambda tx: _finish(tx, begun, location, sink, facts))
    except BaseException:
        # The rows outlive this process: a loop does it if it cannot be done now.
        with contextlib.suppress(OSError, StoreFailure, Fault):
            await asyncio.shield(stores.run(lambda: stores.get(begun.store).abort(begun.key)))
            await asyncio.shield(ctx.store.write(lambda tx: _give_up(tx, begun)))
        raise
    finally:
        renewing.cancel()


def _give_up(tx: Tx, begun: Upload) -> None:
    """End an upload of which one cannot be sure that it has not succeeded: its last answer may have been lost."""
    done = (
        sa.and_(image.c.stage_key == begun.key, image.c.stage_size.is_not(None))
        if begun.staged
        else image.c.data_key == begun.key
    )
    if tx.first(sa.select(image.c.id).where(image.c.id == begun.image_id, done)) is not None:
        return
    if not abandon(tx, begun.image_id, begun.key):
        dispose(tx, begun.store, key=begun.key)


def _check_media(headers: Mapping[bytes, bytes]) -> None:
    media = headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
    if media != MEDIA:
        raise UnsupportedMediaType(f"The content type {media or 'of nothing'} is not {MEDIA}.")


@resource.put("/images/{image_id}/file", policy="upload_image", guarded=True, status=204, faults=(410, 413, 415))
async def upload(ctx: Request, image_id: str, stream: AsyncIterator[bytes]) -> None:
    """Write an image's data.

    Raises BadRequest (formats are missing, the client went away), Forbidden, NotFound, Conflict (there is data, or it
    is coming), Gone (deleted meanwhile), TooLarge (quota, space), UnsupportedMediaType (the request's type, or data
    that is not what the image says or is unsafe) and Unavailable (store).  After a failure nothing is left of the
    data, and the image is `queued`.
    """
    _check_media(ctx.headers)
    coming = announced(ctx.headers)
    wanted = ctx.headers.get(b"x-image-meta-store")
    name = wanted.decode("latin-1") if wanted else None
    await write(ctx, await ctx.write(lambda bound: _begin(bound, image_id, name, coming)), stream)


@resource.put("/images/{image_id}/stage", policy="modify_image", guarded=True, status=204, faults=(410, 413, 415))
async def stage(ctx: Request, image_id: str, stream: AsyncIterator[bytes]) -> None:
    """Have an image's data wait for an import.

    Raises BadRequest (the client went away), Forbidden, NotFound, Conflict (there is data, or it is coming), Gone
    (deleted meanwhile), TooLarge (quota, space), UnsupportedMediaType and Unavailable (store).  After a failure nothing
    is left of the data, and the image is `queued`.
    """
    _check_media(ctx.headers)
    coming = announced(ctx.headers)
    await write(ctx, await ctx.write(lambda bound: _begin_staging(bound, image_id, coming)), stream)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of an image is. `size` and `checksum` are None where nobody has seen the data yet."""

    store: ImageStore
    location: str
    size: int | None
    checksum: str | None


def _source(ctx: Context, image_id: str) -> list[Source]:
    record = policy.get(ctx, image_id)
    row = record.row
    if row.status == "deactivated" and not policy.is_admin(ctx):
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    policy.require(ctx, record, "download_image")
    stores = ctx.of(ImageStores)
    wanted = [name.strip() for name in (ctx.query.get("prefer") or "").split(",") if name.strip()]
    if wanted:
        policy.require(ctx, record, "download_from_store")
        if unknown := [name for name in wanted if name not in stores.by_name]:
            raise BadRequest(f"Store '{unknown[0]}' is not configured.")
    if row.location is None:
        return []
    return sources(ctx.tx, stores, record, wanted)


def sources(tx: Tx, stores: ImageStores, record: Record, wanted: list[str]) -> list[Source]:
    """Where an image's data can be read, best first. Raises Unavailable when it is nowhere."""
    row = record.row
    found = []
    kept = cached.find(tx, row.id) if stores.cache is not None else None
    if kept is not None and kept.location is not None and kept.checksum == row.checksum and stores.cache is not None:
        found.append(Source(stores.cache, kept.location, row.size, row.checksum))
    for one in place.preferred(stores, record, wanted):
        store = stores.find(one.store)
        if store is not None:
            found.append(Source(store, one.location, row.size, row.checksum))
    if not found:
        raise Unavailable(f"The image store {row.store} is not there.")
    return found


@resource.get(
    "/images/{image_id}/file",
    policy="download_image",
    guarded=True,
    query=Parameters("prefer"),
    successes=(204, 206),
    faults=(416,),
)
async def download(ctx: Request, image_id: str) -> Stream | Reply:
    """Read an image's data, all of it or a range; 204 without a body when there is none.

    `prefer` names stores, with commas, that it is read from where they have it.  Raises BadRequest (several ranges, an
    unknown store), Forbidden (deactivated), NotFound, RangeNotSatisfiable and Unavailable.
    """
    found = await ctx.read(lambda bound: _source(bound, image_id))
    stores = ctx.of(ImageStores)
    for source in found:
        size = source.size if source.size is not None else await _measured(stores, source)
        start, end = _range(ctx, size) or (0, size)
        try:
            file = await stores.run(partial(source.store.open, source.location, start), on=source.store)
        except StoreFailure:
            continue
        await note(stores, ctx.store, image_id, source)
        return _answer(ctx, stores, source, file, start, end, size)
    return Reply(status=204)


async def _measured(stores: ImageStores, source: Source) -> int | None:
    try:
        return await stores.run(lambda: source.store.size(source.location), on=source.store)
    except StoreFailure:
        return None


async def note(stores: ImageStores, store: Store, image_id: str, source: Source) -> None:
    """Note where an image was read from: what came from far away, and is known by its hash, is kept close by."""
    if stores.cache is None:
        return
    if source.store is stores.cache:
        await store.write(lambda tx: cached.touch(tx, image_id))
    elif source.store.kind == "http" and source.checksum is not None:
        await store.write(lambda tx: cached.queue(tx, image_id))


def _answer(
    ctx: Request,
    stores: ImageStores,
    source: Source,
    file: BinaryIO,
    start: int,
    end: int | None,
    size: int | None,
) -> Stream:
    whole = b"range" not in ctx.headers and b"content-range" not in ctx.headers
    headers = {"Accept-Ranges": "bytes"}
    if source.checksum is not None:
        headers["Content-MD5"] = source.checksum
    if end is None or size is None:
        return Stream(read(stores, source.store, file, None), None, MEDIA, headers)
    if not whole:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Stream(read(stores, source.store, file, end - start), end - start, MEDIA, headers, 200 if whole else 206)


def _range(ctx: Request, size: int | None) -> tuple[int, int] | None:
    """First byte and the one after the last that a request asks for; None for all.

    `Content-Range` in a request is an old mistake that upstream still honours.
    """
    if size is None:
        return None
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

"""Works on tasks: fetches what is on the web, inspects, converts, and writes it to stores.

A key is a task's id.  The work may end at any point, with its process: whoever begins anew finds in the rows what was
staged and which stores are written already, has removed what is half done, and goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import sqlalchemy as sa

from pileus.contracts.images import ConversionFailure, ImageFacts, ImageStore, StoreFailure
from pileus.core.errors import Fault
from pileus.core.reconcile import DONE, Again, Outcome
from pileus.core.seams import reach
from pileus.core.store import Store, Tx
from pileus.services.image.interface import ImageStores
from pileus.services.image.resources import image_import, location, place, task
from pileus.services.image.resources.image.table import Record, image, records
from pileus.services.image.resources.store import STAGING, dispose
from pileus.services.image.resources.stream import ALGORITHM, LARGEST, Block, Blocks, Sink, pump, read
from pileus.services.image.resources.task import Lost, owned
from pileus.services.image.resources.usage import room
from pileus.services.image.rules.inspection import REACH, TAIL, UNINSPECTED, Refused, inspect, judge, judge_package

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK = 5.0
"""Seconds between two signs of life, each with a word on how far the work is."""

LONGEST = 12 * 3600.0
"""Seconds that the data of one import may take to come: 100 GiB need no more than 2.5 MB a second."""

MIB = 1 << 20


class Failure(Exception):
    """The task cannot succeed; the message is for its user. `blamed` are the stores that are to blame."""

    def __init__(self, message: str, blamed: list[str] | None = None) -> None:
        super().__init__(message)
        self.blamed = blamed


class Importing:
    """Works on tasks."""

    name = "image-import"
    topics = frozenset({"image.task"})
    interval = 15.0
    batch = 1
    parallel = 4

    def __init__(self, stores: ImageStores) -> None:
        self.stores = stores

    def keys(self, tx: Tx) -> Iterable[str]:
        """Tasks that are not finished."""
        return task.unfinished(tx)

    async def reconcile(self, store: Store, keys: Sequence[str]) -> Mapping[str, Outcome]:
        """Work on tasks, unless another process does."""
        return {key: await self._work(store, key) for key in keys}

    async def _work(self, store: Store, key: str) -> Outcome:
        worker = store.seams.uuid()
        claimed = await store.write(lambda tx: task.claim(tx, key, worker, alone=store.embedded))
        if claimed is None:
            unfinished = await store.read(lambda tx: key in task.unfinished(tx))
            return Again(task.TTL.total_seconds() / 2) if unfinished else DONE
        job = Job(self.stores, store, claimed, worker)
        try:
            await job.run()
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.shield(store.write(lambda tx: task.hand_over(tx, claimed, worker)))
            raise
        await store.write(lambda tx: task.call_next(tx, claimed.row.owner))
        return DONE


class Job:
    """One attempt at a task."""

    def __init__(self, stores: ImageStores, store: Store, claimed: task.Claim, worker: str) -> None:
        self.stores = stores
        self.store = store
        self.claimed = claimed
        self.todo = claimed.row
        self.worker = worker
        self.message = ""
        self.lost = False
        self.until = time.monotonic() + LONGEST
        self.unsettled: list[tuple[str, str]] = []
        """Stores and keys under which this attempt wrote."""

    async def run(self) -> None:
        """Do the work, or undo it and say why."""
        ticking = asyncio.create_task(self._tick())
        try:
            if self.claimed.spent:
                raise Failure("The work was broken off too often.")
            await (self._locate() if self.todo.type == "location_import" else self._import())
        except Lost as reason:
            await self.store.write(partial(self._give_up, message=str(reason)))
        except Failure as failure:
            await self._fail(str(failure), failure.blamed)
        except (StoreFailure, OSError, Fault, ConversionFailure) as error:
            log.warning("task %s: %s", self.todo.id, error)
            await self._fail(_reason(error), None)
        finally:
            ticking.cancel()

    def _give_up(self, tx: Tx, message: str) -> None:
        """End a task whose image is gone: what was written since then is in no row."""
        task.end(tx, self.todo, "failure", message, self.stores.settings.task_lifetime)
        known = sa.select(image.c.id).where(image.c.id == self.todo.image_id)
        if tx.first(known) is None:
            for store, key in self.unsettled:
                dispose(tx, store, key=key)

    async def _fail(self, message: str, blamed: list[str] | None) -> None:
        if self.todo.type == "location_import":
            with contextlib.suppress(Lost):
                refused = partial(location.refused, todo=self.todo, message=message, stores=self.stores, kept=False)
                await self.store.write(refused)
            return
        await self.store.write(lambda tx: image_import.fail(tx, self.todo, self.stores, message, blamed))

    async def _tick(self) -> None:
        """Give signs of life, and notice when the image is gone or the task is another's."""
        while True:
            await asyncio.sleep(TICK)
            with contextlib.suppress(Fault):
                self.lost = not await self.store.write(self._alive)

    def _alive(self, tx: Tx) -> bool:
        mine = sa.select(image.c.id).where(image.c.id == self.todo.image_id, image.c.import_task == self.todo.id)
        return task.renew(tx, self.claimed, self.worker, self.message) and tx.first(mine) is not None

    # -- images whose data comes into stores

    async def _import(self) -> None:
        row = await self.store.write(lambda tx: image_import.prepare(tx, self.todo))
        reach("import.prepared")
        if image_import.copying(self.todo):
            source = await self.store.read(lambda tx: records(tx, [row])[0])
            await self._write_all(row, source, None, {})
        else:
            origin = None
            if row.stage_size is None:
                origin = await self._stage(row)
                row = await self.store.read(lambda tx: owned(tx, self.todo))
            else:
                origin = await self.store.read(self._origin)
            reach("import.staged")
            facts, formats = await self._judge(row, origin)
            row = await self.store.read(lambda tx: owned(tx, self.todo))
            await self._write_all(row, None, facts, formats)
            if origin is not None:
                adopted = origin
                await self.store.write(lambda tx: image_import.adopt(tx, self.todo, adopted))
        reach("import.written")
        await self.store.write(lambda tx: image_import.succeed(tx, self.todo, self.stores))

    def _origin(self, tx: Tx) -> Record | None:
        """The image that the data is taken of, if it is that of an image."""
        if self.todo.source_id is None:
            return None
        row = tx.first(sa.select(image).where(image.c.id == self.todo.source_id, image.c.status == "active"))
        return None if row is None else records(tx, [row])[0]

    async def _stage(self, row: sa.Row[Any]) -> Record | None:
        """Have the data in the staging store; the image that it is taken of, if it is that of an image."""
        origin = None
        method = self.todo.input.get("import_req", {}).get("method", {})
        if method.get("name") == "glance-download":
            origin = await self.store.read(self._origin)
            if origin is None:
                raise Failure(
                    f"There is no image {method['glance_image_id']} in the region {method['glance_region']} that may"
                    " be read."
                )
            store, file = await self._open(origin)
        else:
            url = method.get("uri") or self.todo.input.get("import_from")
            web = self.stores.web
            if web is None or url is None:
                raise Failure("There is nothing to import.")
            store = self.stores.get(web)
            file = await self.stores.run(partial(store.open, url), on=store)
        space = await self.store.read(lambda tx: room(tx, row.owner, "image_stage_total", LARGEST))
        key = await self.store.write(lambda tx: image_import.staging(tx, self.todo))
        sink, _ = await self._pour(store, file, STAGING, key, space)
        await self.store.write(lambda tx: image_import.staged(tx, self.todo, sink.inspector.size))
        return origin

    async def _open(self, record: Record) -> tuple[ImageStore, BinaryIO]:
        """The data of an image, from whichever of its places gives it. Raises StoreFailure."""
        failure = StoreFailure(f"The image {record.row.id} has no data.")
        for one in place.preferred(self.stores, record, []):
            store = self.stores.find(one.store)
            if store is None:
                continue
            try:
                return store, await self.stores.run(partial(store.open, one.location), on=store)
            except StoreFailure as error:
                failure = error
        raise failure

    async def _pour(self, store: ImageStore, file: BinaryIO, target: str, key: str, most: int) -> tuple[Sink, str]:
        """Copy what a store has opened under a key of another, and commit it; its location."""
        into = self.stores.get(target)
        self.unsettled.append((target, key))
        incoming = await self.stores.run(lambda: into.open_new(key))
        try:
            sink = await self._look(store, file, incoming, most)
        finally:
            await self.stores.run(incoming.close)
        return sink, await self.stores.run(lambda: into.commit(key))

    async def _look(
        self, store: ImageStore, file: BinaryIO, incoming: BinaryIO | None, most: int, algorithm: str = ALGORITHM
    ) -> Sink:
        """Hash and inspect what a store has opened, and write it to a file if there is one."""
        sink = Sink(incoming, algorithm)
        blocks = Blocks(read(self.stores, store, file, None), most)

        async def following() -> Block:
            if self.lost:
                raise Lost("The image is gone, or another task works on it.")
            if time.monotonic() > self.until:
                raise Failure(f"The data takes longer than {LONGEST / 3600:g} hours.")
            self.message = f"Copied {blocks.size // MIB} MiB"
            return await blocks.next()

        try:
            await pump(self.stores, sink, following)
        finally:
            file.close()
        return sink

    async def _judge(self, row: sa.Row[Any], origin: Record | None) -> tuple[ImageFacts | None, dict[str, Any]]:
        """What the staged data is, converted where that is asked for, and the formats that the image has with it.

        Raises Refused for what is not what it is said to be, or is unsafe.
        """
        formats = row if origin is None else origin.row
        form, container = self.todo.form or formats.disk_format, formats.container_format
        named = {"disk_format": form, "container_format": container}
        staging = self.stores.get(STAGING)
        if container in UNINSPECTED:
            judge_package(await self.stores.run(partial(_head, staging, row.stage_key)), container)
            return None, named
        facts = await self.stores.run(partial(_inspect, staging, row.stage_key, row.stage_size))
        judge(facts, form)
        wanted, convert = self.stores.settings.conversion, self.stores.convert
        source = staging.path(row.stage_key)
        if not wanted or convert is None or source is None or facts.format in (wanted, "iso") or container != "bare":
            return facts, named
        self.message = f"Converting to {wanted}"
        key = await self.store.write(lambda tx: image_import.converting(tx, self.todo))
        size = await self.stores.run(partial(_convert, staging, partial(convert, source, form), key, wanted))
        facts = await self.stores.run(partial(_inspect, staging, key, size))
        judge(facts, wanted)
        await self.store.write(lambda tx: image_import.converted(tx, self.todo, key, size, wanted))
        return facts, {"disk_format": wanted, "container_format": "bare"}

    async def _write_all(
        self, row: sa.Row[Any], source: Record | None, facts: ImageFacts | None, formats: dict[str, Any]
    ) -> None:
        """Write the data to each store that does not have it: that of an image, or what is staged."""
        strict = self.todo.input.get("import_req", {}).get("all_stores_must_succeed", True)
        placed = 0
        for name in [name for name in row.importing.split(",") if name]:
            try:
                await self._write(name, row, source, facts, formats, active=not strict)
                placed += 1
            except (StoreFailure, OSError, Fault, Failure) as error:
                if strict:
                    raise Failure(f"{name}: {_reason(error)}", [name]) from error
                log.warning("task %s: the store %s: %s", self.todo.id, name, error)
                await self.store.write(partial(image_import.missed, todo=self.todo, store=name))
        done = await self.store.read(lambda tx: owned(tx, self.todo))
        if not placed and done.location is None:
            raise Failure("None of the uploads finished!", [])

    async def _write(
        self,
        name: str,
        row: sa.Row[Any],
        source: Record | None,
        facts: ImageFacts | None,
        formats: dict[str, Any],
        *,
        active: bool,
    ) -> None:
        if source is not None:
            origin, file = await self._open(source)
        else:
            origin = self.stores.get(STAGING)
            file = await self.stores.run(partial(origin.open, row.stage_key))
        key = await self.store.write(lambda tx: image_import.writing(tx, self.todo, name))
        sink, placed = await self._pour(origin, file, name, key, LARGEST)
        values = {**sink.values(facts), **formats}
        known = await self.store.read(lambda tx: owned(tx, self.todo))
        if known.os_hash_algo == ALGORITHM and known.os_hash_value not in (None, values["os_hash_value"]):
            raise Failure("the data is not what its hash says")
        reach("import.copied")
        await self.store.write(lambda tx: image_import.written(tx, self.todo, key, placed, values, active=active))

    # -- images whose data stays on the web

    async def _locate(self) -> None:
        row = await self.store.read(lambda tx: owned(tx, self.todo))
        told = self.todo.input.get("validation_data") or {}
        store = self.stores.get(row.store)
        file = await self.stores.run(partial(store.open, row.location), on=store)
        sink = await self._look(store, file, None, LARGEST, told.get("os_hash_algo", ALGORITHM))
        # What is on the web is its owner's matter; but of data that is no sound disk no virtual size is known.
        values = sink.values(_sound(sink.inspector.facts(), row))
        wanted = told.get("os_hash_value")
        if wanted is not None and wanted.lower() != values["os_hash_value"]:
            message = f"os_hash_value: ({wanted}) not matched with actual os_hash_value: ({values['os_hash_value']})"
            refused = partial(location.refused, todo=self.todo, message=message, stores=self.stores, kept=True)
            await self.store.write(refused)
            return
        await self.store.write(lambda tx: location.verified(tx, self.todo, values, self.stores))


def _sound(facts: ImageFacts, row: sa.Row[Any]) -> ImageFacts | None:
    """What the data of an image is, if that is a disk of the format that the image says, and safe to open."""
    if row.container_format in UNINSPECTED or row.disk_format is None:
        return None
    try:
        judge(facts, row.disk_format)
    except Refused:
        return None
    return facts


def _inspect(store: ImageStore, place: str, size: int) -> ImageFacts:
    """What committed data is, by its start and its end."""
    head = _head(store, place)
    with store.open(place, max(0, size - TAIL)) as file:
        return inspect(head, _some(file, TAIL), size)


def _head(store: ImageStore, place: str) -> bytes:
    with store.open(place) as file:
        return _some(file, REACH)


def _some(file: BinaryIO, most: int) -> bytes:
    found = b""
    while len(found) < most and (block := file.read(most - len(found))):
        found += block
    return found


def _convert(staging: ImageStore, convert: Callable[[Path, str], None], key: str, output: str) -> int:
    """Convert staged data, and stage it under another key; its size."""
    with staging.open_new(key) as file:
        target = Path(file.name)
    convert(target, output)
    return staging.size(staging.commit(key)) or 0


def _reason(error: Exception) -> str:
    """What a task's user is told of an error."""
    if isinstance(error, Fault):
        return error.message
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return "Image storage media is full." if full else "The image store cannot write."
    return str(error)

"""The cache: images whose data is kept close by, because an operator asks for it or because it was read from afar.

Source: https://docs.openstack.org/api-ref/image/v2/#cache-manage
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, NotFound
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.image.resources.cached import cached, drop, find, forget, queue
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import image
from pileus.services.image.resources.store import ImageStores

resource = Resource(
    "cache",
    "cache",
    rules=[
        Rule("cache_list", policy.ADMIN, "See what is in the cache"),
        Rule("cache_image", policy.ADMIN, "Have an image in the cache"),
        Rule("cache_delete", policy.ADMIN, "Take images out of the cache"),
        Rule("cache_clean", policy.ADMIN, "Take out of the cache what is of no use"),
        Rule("cache_prune", policy.ADMIN, "Take out of the cache what there is no room for"),
    ],
)


def _on(ctx: Request) -> ImageStores:
    """The stores, if there is a cache. Raises NotFound."""
    stores = ctx.of(ImageStores)
    if stores.cache is None:
        raise NotFound("Caching via API is not supported at this site.")
    return stores


@resource.get("/cache", policy="cache_list")
def index(ctx: Context) -> dict[str, Any]:
    """What is in the cache, and what waits for it. Raises Forbidden, and NotFound where there is no cache."""
    _on(ctx)
    rows = ctx.tx.all(sa.select(cached).order_by(cached.c.modified_at, cached.c.image_id))
    return {
        "cached_images": [
            {
                "image_id": row.image_id,
                "hits": row.hits,
                "last_accessed": row.accessed_at.timestamp() if row.accessed_at is not None else 0,
                "last_modified": row.modified_at.timestamp(),
                "size": row.size,
            }
            for row in rows
            if row.location is not None
        ],
        "queued_images": [row.image_id for row in rows if row.location is None],
    }


@resource.put("/cache/{image_id}", policy="cache_image", status=202)
def add(ctx: Context, image_id: str) -> None:
    """Have an image in the cache. Raises BadRequest (it has no data), Forbidden and NotFound."""
    row = policy.get(ctx, image_id).row
    _on(ctx)
    if row.status != "active":
        raise BadRequest("Only images with status active can be targeted for queueing")
    queue(ctx.tx, image_id)


@resource.delete("/cache/{image_id}", policy="cache_delete")
def remove(ctx: Context, image_id: str) -> None:
    """Take an image out of the cache and its queue. Raises Forbidden, and NotFound when there is no such image."""
    _on(ctx)
    if find(ctx.tx, image_id) is None:
        policy.get(ctx, image_id)
    forget(ctx.tx, image_id)


@resource.delete("/cache", policy="cache_delete")
def clear(ctx: Context) -> None:
    """Empty the cache, its queue or, without the header, both. Raises BadRequest, Forbidden and NotFound."""
    _on(ctx)
    target = ctx.headers.get(b"x-image-cache-clear-target", b"").decode("latin-1").lower()
    conditions = {"": sa.true(), "cache": cached.c.location.is_not(None), "queue": cached.c.location.is_(None)}
    if target not in conditions:
        raise BadRequest("If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.")
    for row in ctx.tx.all(sa.select(cached).where(conditions[target])):
        drop(ctx.tx, row)


@resource.post("/cache/clean", policy="cache_clean")
async def clean(ctx: Request) -> None:
    """Take out of the cache what its store lost, and what is not its image's data any more.

    Raises Forbidden, and NotFound where there is no cache.
    """
    stores = _on(ctx)
    kept = stores.cache
    held = set[str]() if kept is None else await stores.run(lambda: set(kept.locations()))
    await ctx.write(lambda bound: _clean(bound.tx, held))


def _clean(tx: Tx, held: set[str]) -> None:
    joined = sa.outerjoin(cached, image, cached.c.image_id == image.c.id)
    known = image.c.checksum.label("wanted")
    for row in tx.all(sa.select(cached, known).select_from(joined).where(cached.c.location.is_not(None))):
        if row.location not in held or row.checksum != row.wanted:
            drop(tx, row)


@resource.post("/cache/prune", policy="cache_prune")
def prune(ctx: Context) -> dict[str, Any]:
    """Take out of the cache what was read longest ago, until there is room. Raises Forbidden and NotFound."""
    rows = crowded(ctx.tx, _on(ctx).settings.cache_room)
    for row in rows:
        drop(ctx.tx, row)
    return {"total_files_pruned": len(rows), "total_bytes_pruned": sum(row.size for row in rows)}


def crowded(tx: Tx, room: int) -> list[sa.Row[Any]]:
    """What there is no room for: of all that is in the cache, what was read longest ago."""
    read = sa.func.coalesce(cached.c.accessed_at, cached.c.modified_at)
    rows = tx.all(sa.select(cached).where(cached.c.location.is_not(None)).order_by(read.desc(), cached.c.image_id))
    found = []
    for row in rows:
        room -= row.size
        if room < 0:
            found.append(row)
    return found

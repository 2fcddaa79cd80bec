"""Image data for the cloud's own hosts: served on the link, never on the public port.

The public operation is https://docs.openstack.org/api-ref/image/v2/index.html#download-binary-image-data; a host is no
caller of a project, and gets the data of any image that a guest of its needs.
"""

from __future__ import annotations

import contextlib
from functools import partial

from pileus.contracts.images import StoreFailure
from pileus.core.api import Resource, Stream
from pileus.core.context import Context, Request
from pileus.core.errors import NotFound, Unavailable
from pileus.core.statement import at
from pileus.services.image.resources import data
from pileus.services.image.resources.image.table import image, records
from pileus.services.image.resources.store import ImageStores
from pileus.services.image.resources.stream import read

resource = Resource("host_data", "host_data")


@resource.get("/images/{image_id}/data")
async def download(ctx: Request, image_id: str) -> Stream:
    """The whole data of an image. Raises NotFound when there is none, and Unavailable when it cannot be read."""

    def find(bound: Context) -> list[data.Source]:
        row = bound.tx.first(at(image, "id"), {"value": image_id})
        if row is None or row.location is None:
            raise NotFound(f"The image {image_id} has no data.")
        return data.sources(bound.tx, bound.of(ImageStores), records(bound.tx, [row])[0], [])

    stores = ctx.of(ImageStores)
    for source in await ctx.read(find):
        with contextlib.suppress(StoreFailure):
            file = await stores.run(partial(source.store.open, source.location), on=source.store)
            await data.note(stores, ctx.store, image_id, source)
            return Stream(read(stores, source.store, file, source.size), source.size)
    raise Unavailable(f"The data of the image {image_id} cannot be read.")

"""Image data for the cloud's own hosts: served on the link, never on the public port.

The public operation is https://docs.openstack.org/api-ref/image/v2/index.html#download-binary-image-data; a host is no
caller of a project, and gets the data of any image that a guest of its needs.
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.api import Resource, Stream
from pileus.core.context import Context, Request
from pileus.core.errors import NotFound, Unavailable
from pileus.services.image.resources import data
from pileus.services.image.resources.image.table import image
from pileus.services.image.resources.store import ImageStores

resource = Resource("host_data", "host_data")


@resource.get("/images/{image_id}/data")
async def download(ctx: Request, image_id: str) -> Stream:
    """The whole data of an image. Raises NotFound when there is none, and Unavailable when its store is not there."""

    def find(bound: Context) -> data.Source:
        row = bound.tx.first(sa.select(image).where(image.c.id == image_id))
        if row is None or row.location is None:
            raise NotFound(f"The image {image_id} has no data.")
        store = bound.of(ImageStores).by_name.get(row.store)
        if store is None:
            raise Unavailable(f"The image store {row.store} is not there.")
        return data.Source(store, row.location, row.size, row.checksum)

    source = await ctx.read(find)
    stores = ctx.of(ImageStores)
    file = await stores.run(lambda: source.store.open(source.location))
    return Stream(data.read(stores, file, 0, source.size), source.size)

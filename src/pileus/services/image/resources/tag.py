"""Tags, one at a time.

Source: https://docs.openstack.org/api-ref/image/v2/#image-tags
"""

from __future__ import annotations

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import NotFound
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.operations import check_counts
from pileus.services.image.resources.image.table import image, tag
from pileus.services.image.rules import schema

resource = Resource("tag", "tags")


@resource.put("/images/{image_id}/tags/{word}", policy="modify_image", guarded=True, status=204)
def add(ctx: Context, image_id: str, word: str) -> None:
    """Give an image a tag; one that it has is fine. Raises BadRequest, Forbidden, NotFound and TooLarge."""
    schema.check({"tags": [word]})
    record = policy.get(ctx, image_id, "modify_image")
    check_counts({}, list({*record.tags, word}))
    if ctx.tx.insert_missing(tag, {"image_id": image_id, "tag": word}, key=("image_id", "tag")):
        _touch(ctx, image_id)


@resource.delete("/images/{image_id}/tags/{word}", policy="modify_image", guarded=True)
def remove(ctx: Context, image_id: str, word: str) -> None:
    """Take a tag from an image. Raises Forbidden and NotFound."""
    policy.get(ctx, image_id, "modify_image")
    found = sa.delete(tag).where(tag.c.image_id == image_id, tag.c.tag == word)
    if ctx.tx.execute(found).rowcount != 1:
        raise NotFound(f"The image {image_id} has no tag {word}.")
    _touch(ctx, image_id)


def _touch(ctx: Context, image_id: str) -> None:
    ctx.tx.execute(sa.update(image).where(image.c.id == image_id).values(updated_at=ctx.now))
    ctx.tx.changed("image.image", image_id)

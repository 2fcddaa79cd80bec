"""Members: the projects that an image is shared with.

Source: https://docs.openstack.org/api-ref/image/v2/#image-sharing
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from pileus.core.fields import View
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import Record, image, member
from pileus.services.image.rules.schema import MEMBER_STATUSES

MOST_MEMBERS = 128

resource = Resource("member", "members", rules=policy.MEMBER_RULES)


class Member(View):
    """A project that an image is shared with."""

    image_id: str
    member_id: str
    status: str
    created_at: str
    updated_at: str
    schema: str = "/v2/schemas/member"


class Members(View):
    """The projects that an image is shared with."""

    members: list[Member]
    schema: str = "/v2/schemas/members"


def _view(row: sa.Row[Any]) -> Member:
    return Member(
        image_id=row.image_id,
        member_id=row.member_id,
        status=row.status,
        created_at=f"{row.created_at:%Y-%m-%dT%H:%M:%SZ}",
        updated_at=f"{row.updated_at:%Y-%m-%dT%H:%M:%SZ}",
    )


def _shared(ctx: Context, image_id: str) -> Record:
    record = policy.get(ctx, image_id)
    if record.row.visibility != "shared":
        raise Forbidden("Only shared images have members.")
    return record


def _find(ctx: Context, image_id: str, member_id: str) -> sa.Row[Any]:
    mine = member.c.image_id == image_id, member.c.member_id == member_id
    row = ctx.tx.first(sa.select(member).where(*mine))
    if row is None:
        raise NotFound(f"{member_id} not found in the member list of the image {image_id}.")
    return row


def _text(body: Any, name: str) -> str:
    if not isinstance(body, Mapping) or name not in body:
        raise BadRequest(f"Expected an object with the key {name!r}.")
    value = body[name]
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise BadRequest(f"{name!r} must be a string of 1 to 255 characters.")
    return value


@resource.post("/images/{image_id}/members")
def create(ctx: Context, image_id: str, body: Any) -> Member:
    """Share an image with a project. Raises BadRequest, Forbidden, NotFound, Conflict and TooLarge."""
    member_id = _text(body, "member")
    record = _shared(ctx, image_id)
    policy.require(ctx, record, "add_member")
    # The image's row is locked, so that the count below holds.
    ctx.tx.execute(sa.update(image).where(image.c.id == image_id).values(updated_at=image.c.updated_at))
    count = ctx.tx.scalar(sa.select(sa.func.count()).select_from(member).where(member.c.image_id == image_id))
    values = {
        "image_id": image_id,
        "member_id": member_id,
        "status": "pending",
        "created_at": ctx.now,
        "updated_at": ctx.now,
    }
    if not ctx.tx.insert_missing(member, values, key=("image_id", "member_id")):
        raise Conflict(f"Member {member_id} is duplicated for image {image_id}")
    if count >= MOST_MEMBERS:
        raise TooLarge(f"The limit of {MOST_MEMBERS} members of an image is exceeded.")
    ctx.tx.changed("image.member", image_id)
    return _view(_find(ctx, image_id, member_id))


@resource.get("/images/{image_id}/members")
def index(ctx: Context, image_id: str) -> Members:
    """The projects that an image is shared with. Raises Forbidden and NotFound."""
    record = _shared(ctx, image_id)
    policy.require(ctx, record, "get_members")
    query = sa.select(member).where(member.c.image_id == image_id).order_by(member.c.created_at, member.c.member_id)
    if record.row.owner != ctx.auth.project_id and not policy.is_admin(ctx):
        query = query.where(member.c.member_id == ctx.auth.project_id)
    return Members(members=[_view(row) for row in ctx.tx.all(query)])


@resource.get("/images/{image_id}/members/{member_id}")
def show(ctx: Context, image_id: str, member_id: str) -> Member:
    """One project that an image is shared with. Raises NotFound."""
    missing = NotFound(f"{member_id} not found in the member list of the image {image_id}.")
    record = policy.get(ctx, image_id)
    if record.row.visibility != "shared" or not ctx.allows("get_member", policy.target(ctx, record.row)):
        raise missing
    foreign = ctx.auth.project_id not in (record.row.owner, member_id)
    if foreign and not policy.is_admin(ctx):
        raise missing
    return _view(_find(ctx, image_id, member_id))


@resource.put("/images/{image_id}/members/{member_id}")
def update(ctx: Context, image_id: str, member_id: str, body: Any) -> Member:
    """Accept or reject an image, as the project that it is shared with. Raises BadRequest, Forbidden and NotFound."""
    status = _text(body, "status")
    if status not in MEMBER_STATUSES:
        raise BadRequest('Status must be "pending", "accepted" or "rejected".')
    record = _shared(ctx, image_id)
    mine = {"project_id": record.row.owner, "member_id": member_id}
    if not ctx.allows("modify_member", mine):
        raise Forbidden(f"Not allowed to update members for image {image_id}.")
    _find(ctx, image_id, member_id)
    found = member.c.image_id == image_id, member.c.member_id == member_id
    ctx.tx.execute(sa.update(member).where(*found).values(status=status, updated_at=ctx.now))
    ctx.tx.changed("image.member", image_id)
    return _view(_find(ctx, image_id, member_id))


@resource.delete("/images/{image_id}/members/{member_id}")
def delete(ctx: Context, image_id: str, member_id: str) -> None:
    """Share an image with a project no longer. Raises Forbidden and NotFound."""
    record = _shared(ctx, image_id)
    policy.require(ctx, record, "delete_member")
    _find(ctx, image_id, member_id)
    ctx.tx.execute(sa.delete(member).where(member.c.image_id == image_id, member.c.member_id == member_id))
    ctx.tx.changed("image.member", image_id)

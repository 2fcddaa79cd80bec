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


def _shared(ctx: Context, image_id: str, rule: str) -> Record:
    """A shared image with which the caller may do something. Raises NotFound and Forbidden."""
    record = policy.get(ctx, image_id)
    if record.row.visibility != "shared":
        raise Forbidden("Only shared images have members.")
    policy.require(ctx, record, rule)
    return record


def _seen(ctx: Context, record: Record) -> sa.Select[Any]:
    """The members of an image that the caller sees: all of its own image's, else itself alone."""
    query = sa.select(member).where(member.c.image_id == record.row.id)
    if record.row.owner == ctx.auth.project_id or policy.is_admin(ctx):
        return query
    return query.where(member.c.member_id == ctx.auth.project_id)


def _find(ctx: Context, record: Record, member_id: str) -> sa.Row[Any]:
    """A member that the caller sees. Raises NotFound."""
    row = ctx.tx.first(_seen(ctx, record).where(member.c.member_id == member_id))
    if row is None:
        raise _missing(record.row.id, member_id)
    return row


def _missing(image_id: str, member_id: str) -> NotFound:
    return NotFound(f"{member_id} not found in the member list of the image {image_id}.")


def _text(body: Any, name: str) -> str:
    if not isinstance(body, Mapping) or name not in body:
        raise BadRequest(f"Expected an object with the key {name!r}.")
    value = body[name]
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise BadRequest(f"{name!r} must be a string of 1 to 255 characters.")
    return value


@resource.post("/images/{image_id}/members", policy="add_member", guarded=True)
def create(ctx: Context, image_id: str, body: dict[str, Any]) -> Member:
    """Share an image with a project. Raises BadRequest, Forbidden, NotFound, Conflict and TooLarge."""
    member_id = _text(body, "member")
    record = _shared(ctx, image_id, "add_member")
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
    return _view(_find(ctx, record, member_id))


@resource.get("/images/{image_id}/members", policy="get_members", guarded=True)
def index(ctx: Context, image_id: str) -> Members:
    """The projects that an image is shared with; one of them sees itself alone. Raises Forbidden and NotFound."""
    record = _shared(ctx, image_id, "get_members")
    if not ctx.allows("get_member", policy.target(ctx, record.row)):
        return Members(members=[])
    rows = ctx.tx.all(_seen(ctx, record).order_by(member.c.created_at, member.c.member_id))
    return Members(members=[_view(row) for row in rows])


@resource.get("/images/{image_id}/members/{member_id}", policy="get_member", guarded=True)
def show(ctx: Context, image_id: str, member_id: str) -> Member:
    """One project that an image is shared with. Raises NotFound, also where the caller may not know."""
    record = policy.get(ctx, image_id)
    may = ctx.allows("get_member", policy.target(ctx, record.row))
    if record.row.visibility != "shared" or not may:
        raise _missing(image_id, member_id)
    return _view(_find(ctx, record, member_id))


@resource.put("/images/{image_id}/members/{member_id}", policy="modify_member", guarded=True)
def update(ctx: Context, image_id: str, member_id: str, body: dict[str, Any]) -> Member:
    """Accept or reject an image, as the project that it is shared with. Raises BadRequest, Forbidden and NotFound."""
    status = _text(body, "status")
    if status not in MEMBER_STATUSES:
        raise BadRequest('Status must be "pending", "accepted" or "rejected".')
    record = _shared(ctx, image_id, "get_member")
    _find(ctx, record, member_id)
    policy.require(ctx, record, "modify_member")
    found = member.c.image_id == image_id, member.c.member_id == member_id
    ctx.tx.execute(sa.update(member).where(*found).values(status=status, updated_at=ctx.now))
    ctx.tx.changed("image.member", image_id)
    return _view(_find(ctx, record, member_id))


@resource.delete("/images/{image_id}/members/{member_id}", policy="delete_member", guarded=True)
def delete(ctx: Context, image_id: str, member_id: str) -> None:
    """Share an image with a project no longer. Raises Forbidden and NotFound."""
    record = _shared(ctx, image_id, "get_member")
    _find(ctx, record, member_id)
    policy.require(ctx, record, "delete_member")
    ctx.tx.execute(sa.delete(member).where(member.c.image_id == image_id, member.c.member_id == member_id))
    ctx.tx.changed("image.member", image_id)

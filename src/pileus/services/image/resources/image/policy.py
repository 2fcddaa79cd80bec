"""Who may see an image, and who may act on it.

Source: Image administrator guide, "Policies"; the names and defaults are upstream's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.context import Context, Request
from pileus.core.errors import Forbidden, NotFound
from pileus.core.policy import Rule
from pileus.services.image.resources.image.table import Record, image, member, records

PROJECT = "system_scope:None and domain_id:None"
"""Image's rules are for tokens of projects: one of the system or of a domain passes none of them."""

ADMIN = f"(rule:context_is_admin and {PROJECT})"
OWN_READER = f"role:reader and {PROJECT} and project_id:%(project_id)s"
_OWN_MEMBER = f"role:member and {PROJECT} and project_id:%(project_id)s"
_SEEN = (
    f"{PROJECT} and (project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s"
    " or 'public':%(visibility)s or 'shared':%(visibility)s)"
)
_MEMBER = f"{ADMIN} or ({_OWN_MEMBER})"
_READER = f"{ADMIN} or ({OWN_READER})"
_SHARED = f"{ADMIN} or (role:reader and {PROJECT} and (project_id:%(project_id)s or project_id:%(member_id)s))"

MEMBER, READER = _MEMBER, _READER
DOWNLOAD = f"{ADMIN} or (role:member and {_SEEN})"
SERVICE = f"({PROJECT} and (role:service or role:admin))"
"""Checks that rules on data have, too."""

SERVICE_RULES = [
    Rule("context_is_admin", "role:admin", "May do everything"),
]

RULES = [
    Rule("add_image", f"{ADMIN} or ({_OWN_MEMBER} and project_id:%(owner)s)", "Create an image"),
    Rule("delete_image", _MEMBER, "Delete an image"),
    Rule("get_image", f"{ADMIN} or (role:reader and {_SEEN})", "Show an image"),
    Rule("get_images", _READER, "List images"),
    Rule("modify_image", _MEMBER, "Change an image"),
    Rule("publicize_image", ADMIN, "Show an image to everybody"),
    Rule("communitize_image", _MEMBER, "Let everybody use an image who knows of it"),
    Rule("download_image", DOWNLOAD, "Read an image's data"),
    Rule("upload_image", _MEMBER, "Write an image's data"),
    Rule("deactivate", _MEMBER, "Keep an image's data from being read"),
    Rule("reactivate", _MEMBER, "Let an image's data be read again"),
]

MEMBER_RULES = [
    Rule("add_member", _MEMBER, "Share an image with a project"),
    Rule("delete_member", _MEMBER, "Share an image with a project no longer"),
    Rule("get_member", _SHARED, "Show a project that an image is shared with"),
    Rule("get_members", _SHARED, "List the projects that an image is shared with"),
    Rule(
        "modify_member",
        f"{ADMIN} or (role:member and {PROJECT} and project_id:%(member_id)s)",
        "Accept or reject an image",
    ),
]


def is_admin(ctx: Request) -> bool:
    """Whether the caller sees everything."""
    return ctx.allows("context_is_admin", {})


class Sight(NamedTuple):
    """Which images a list is about: whose list it is, and the visibility and status of membership that it asks for."""

    admin: bool
    visibility: str | None
    member_status: str


@functools.cache
def listed(sight: Sight) -> tuple[sa.ColumnElement[bool], ...]:
    """What a list holds: images for which one of these holds, each of which an index serves; `project` is the caller's.

    Those of the community are left out unless they are asked for or are the caller's own.
    """
    project = sa.bindparam("project", type_=sa.String)
    own = image.c.owner == project
    visibility = sight.visibility
    if sight.admin:
        if visibility is None:
            return (sa.or_(own, image.c.visibility != "community"),)
        return (sa.true() if visibility == "all" else image.c.visibility == visibility,)
    found: list[sa.ColumnElement[bool]] = []
    if visibility in (None, "all", "shared"):
        members = sa.select(member.c.image_id).where(member.c.member_id == project)
        if sight.member_status != "all":
            members = members.where(member.c.status == sight.member_status)
        found.append(sa.and_(image.c.visibility == "shared", image.c.id.in_(members)))
    found += [image.c.visibility == one for one in ("public", "community") if _is_asked(one, visibility)]
    if visibility not in ("public", "community"):  # of those, the caller's own are there already
        found.append(own if visibility in (None, "all") else sa.and_(own, image.c.visibility == visibility))
    return tuple(found)


def _is_asked(one: str, visibility: str | None) -> bool:
    return visibility in (one, "all") or (visibility is None and one == "public")


def find(ctx: Context, image_id: str) -> Record | None:
    """An image that the caller can see; None when there is none, or none for this caller."""
    project = ctx.auth.project_id or ""
    sharing = sa.exists().where(member.c.image_id == image.c.id, member.c.member_id == project)
    row = ctx.tx.first(sa.select(image, sharing.label("is_member")).where(image.c.id == image_id))
    if row is None:
        return None
    mine = row.owner is None or row.owner == ctx.auth.project_id
    public = row.visibility in ("public", "community") or (row.visibility == "shared" and row.is_member)
    if not (mine or public or is_admin(ctx)):
        return None
    if not ctx.allows("get_image", target(ctx, row)):
        return None
    return records(ctx.tx, [row])[0]


def seen(ctx: Context, rows: Sequence[sa.Row[Any]]) -> list[sa.Row[Any]]:
    """Those rows of a list that the caller may see, each kind of image being asked about once."""
    kinds: dict[tuple[str | None, str], bool] = {}
    found = []
    for row in rows:
        kind = row.owner, row.visibility
        if kind not in kinds:
            shared = row.visibility == "shared" and row.owner != ctx.auth.project_id
            kinds[kind] = ctx.allows("get_image", _target(ctx, *kind, shared))
        if kinds[kind]:
            found.append(row)
    return found


def target(ctx: Context, row: sa.Row[Any]) -> dict[str, Any]:
    """What policy rules see of an image."""
    return _target(ctx, row.owner, row.visibility, row._mapping.get("is_member", False))


def _target(ctx: Context, owner: str | None, visibility: str, is_member: bool) -> dict[str, Any]:
    found = {"project_id": owner, "owner": owner, "visibility": visibility}
    if is_member:
        found["member_id"] = ctx.auth.project_id
    return found


def get(ctx: Context, image_id: str, rule: str = "get_image") -> Record:
    """An image that the caller may do something with. Raises NotFound when it cannot be seen, and Forbidden."""
    record = find(ctx, image_id)
    if record is None:
        raise NotFound(f"No image found with ID {image_id}")
    require(ctx, record, rule)
    return record


def require(ctx: Context, record: Record, rule: str) -> None:
    """Raise Forbidden unless the caller may do something with an image that it sees."""
    if not ctx.allows(rule, target(ctx, record.row)):
        raise Forbidden(f"You are not authorized to complete {rule} action.")


def check_visibility(ctx: Context, visibility: str, owned: dict[str, Any]) -> None:
    """Raise Forbidden unless the caller may give an image this visibility."""
    rule = {"public": "publicize_image", "community": "communitize_image"}.get(visibility)
    if rule is not None and not ctx.allows(rule, owned):
        raise Forbidden(f"You are not authorized to complete {rule} action.")

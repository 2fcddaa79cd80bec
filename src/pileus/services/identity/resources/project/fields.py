"""Shapes of projects (https://docs.openstack.org/api-ref/identity/v3/#projects)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.context import Context
from pileus.core.fields import Body, OpenBody, View
from pileus.services.identity.resources.attribute import Flags, Id, Links, ShortName, Tags, extended, link
from pileus.services.identity.resources.project.table import tags_of


class Project(View):
    """A project. Of a domain seen as a project, `domain_id` and `parent_id` are null."""

    id: str
    name: str
    domain_id: str | None
    parent_id: str | None
    is_domain: bool
    description: str
    enabled: bool
    tags: list[str]
    options: dict[str, Any]
    links: Links
    parents: Any | UnsetType = UNSET
    subtree: Any | UnsetType = UNSET


class ProjectCreate(OpenBody):
    """A new project; below a domain when no parent is named."""

    name: ShortName
    domain_id: Id | UnsetType | None = UNSET
    parent_id: Id | UnsetType | None = UNSET
    is_domain: bool = False
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    tags: Tags | UnsetType = UNSET
    options: Flags | UnsetType = UNSET


class ProjectUpdate(OpenBody):
    """What is to be changed of a project; its place may be named, but not changed."""

    name: ShortName | UnsetType = UNSET
    domain_id: str | UnsetType | None = UNSET
    parent_id: str | UnsetType | None = UNSET
    is_domain: bool | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: Flags | UnsetType = UNSET


class TagsUpdate(Body):
    """All tags of a project."""

    tags: Tags


class TagsView(View):
    """The tags of a project."""

    tags: list[str]
    links: Links


def views(ctx: Context, rows: Sequence[sa.Row[Any]]) -> list[Project]:
    """Rows as projects."""
    tags = tags_of(ctx.tx, [row.id for row in rows])
    return [
        extended(
            Project(
                id=row.id,
                name=row.name,
                domain_id=row.domain_id,
                parent_id=row.parent_id,
                is_domain=row.is_domain,
                description=row.description,
                enabled=row.enabled,
                tags=tags[row.id],
                options=row.options,
                links=link(ctx, "projects", row.id),
            ),
            row.extra,
        )
        for row in rows
    ]

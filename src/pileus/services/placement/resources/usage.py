"""Usages: how much is held, of a provider or by a project.

Source: https://docs.openstack.org/api-ref/placement/#usages
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadQuery
from pileus.core.fields import View
from pileus.core.policy import Rule
from pileus.services.placement import versions
from pileus.services.placement.resources.allocation import UNKNOWN
from pileus.services.placement.resources.consumer import allocation, consumer
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.provider.operations import find

_TYPE = re.compile(r"[A-Z0-9_]{1,255}|all|unknown")


class ProviderUsages(View):
    """How much is held of a provider."""

    usages: dict[str, int]
    resource_provider_generation: int


class Usages(View):
    """How much a project holds: amounts by resource class, from 1.38 on by type of consumer."""

    usages: dict[str, Any]


resource = Resource(
    "usage",
    "usages",
    rules=[
        *rules(resource_providers__usages="Show what is held of a provider"),
        Rule("placement:usages", "rule:admin_or_project_reader_or_service_api", "Show what a project holds"),
    ],
)


@resource.get("/resource_providers/{uuid}/usages", policy="placement:resource_providers:usages")
def of_provider(ctx: Context, uuid: str) -> Reply:
    """How much is held of each class that a provider offers. Raises NotFound."""
    row = find(ctx, uuid)
    rooms = table.inventories(ctx.tx, [row.uuid]).get(row.uuid, {})
    body = ProviderUsages(
        usages={name: room.used for name, room in rooms.items()}, resource_provider_generation=row.generation
    )
    return Reply(body, versions.freshness(ctx.version, ctx.now))


@resource.get(
    "/usages",
    policy="placement:usages",
    guarded=True,
    since="1.9",
    query=Parameters("project_id", "user_id", later={"consumer_type": "1.38"}),
)
def of_project(ctx: Context) -> Reply:
    """How much a project, or a user in it, holds. Raises BadRequest and Forbidden."""
    project, user, kind = (ctx.query.get(name) for name in ("project_id", "user_id", "consumer_type"))
    ctx.enforce("placement:usages", {"project_id": project})
    if project is None:
        raise BadQuery("'project_id' is a required property")
    _check_length(project)
    _check_length(user)
    if kind is not None and not _TYPE.fullmatch(kind):
        raise BadQuery(f"{kind!r} does not match '{_TYPE.pattern}'")
    mine = [consumer.c.project_id == project]
    if user is not None:
        mine.append(consumer.c.user_id == user)
    if kind is not None and kind != "all":
        mine.append(consumer.c.type.is_(None) if kind == UNKNOWN else consumer.c.type == kind)
    body = Usages(usages=_grouped(ctx, mine, kind) if versions.groups_usages(ctx.version) else _total(ctx, mine))
    return Reply(body, versions.freshness(ctx.version, ctx.now))


def _check_length(text: str | None) -> None:
    """Raise BadQuery for an id that can be nobody's."""
    if text is not None and not 1 <= len(text) <= 255:
        words, keyword = ("too long", "maxLength") if text else ("too short", "minLength")
        raise BadQuery(f"{text[:300]!r} is {words}\n\nFailed validating '{keyword}' in schema")


def _total(ctx: Context, mine: list[sa.ColumnElement[bool]]) -> dict[str, Any]:
    query = sa.select(allocation.c.resource_class, sa.func.sum(allocation.c.used).label("total")).join(consumer)
    rows = ctx.tx.all(query.where(*mine).group_by(allocation.c.resource_class))
    return {row.resource_class: int(row.total) for row in rows}


def _grouped(ctx: Context, mine: list[sa.ColumnElement[bool]], kind: str | None) -> dict[str, Any]:
    group = sa.literal("all") if kind == "all" else sa.func.coalesce(consumer.c.type, UNKNOWN)
    grouped = group.label("kind")
    sums = sa.select(grouped, allocation.c.resource_class, sa.func.sum(allocation.c.used).label("total")).join(consumer)
    counts = sa.select(grouped, sa.func.count().label("total")).select_from(consumer)
    found: dict[str, Any] = {
        row.kind: {"consumer_count": row.total} for row in ctx.tx.all(counts.where(*mine).group_by(sa.text("kind")))
    }
    for row in ctx.tx.all(sums.where(*mine).group_by(sa.text("kind"), allocation.c.resource_class)):
        found[row.kind][row.resource_class] = int(row.total)
    return found

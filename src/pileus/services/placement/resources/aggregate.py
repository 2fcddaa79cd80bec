"""Aggregates of a provider.

Source: https://docs.openstack.org/api-ref/placement/#resource-provider-aggregates
"""

from __future__ import annotations

from typing import Annotated

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import Malformed
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.services.placement import versions
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.provider.operations import find
from pileus.services.placement.rules import identifier

resource = Resource(
    "aggregate",
    "aggregates",
    rules=rules(
        resource_providers__aggregates__list="List aggregates of a provider",
        resource_providers__aggregates__update="Change aggregates of a provider",
    ),
)


class AggregatesUpdate(Body):
    """The aggregates that a provider is to be in."""

    aggregates: list[identifier.Uuid]
    resource_provider_generation: int


class Aggregates(View):
    """The aggregates that a provider is in."""

    aggregates: list[str]
    resource_provider_generation: Annotated[int | UnsetType, W(since="1.19")] = UNSET


def _view(ctx: Context, uuids: list[str], generation: int) -> Reply:
    body = Aggregates(aggregates=uuids, resource_provider_generation=generation)
    return Reply(body, versions.freshness(ctx.version, ctx.now))


@resource.get(
    "/resource_providers/{uuid}/aggregates", policy="placement:resource_providers:aggregates:list", since="1.1"
)
def index(ctx: Context, uuid: str) -> Reply:
    """The aggregates that a provider is in. Raises NotFound."""
    row = find(ctx, uuid)
    return _view(ctx, sorted(table.aggregates(ctx.tx, [row.uuid]).get(row.uuid, ())), row.generation)


def _normal(given: list[str]) -> list[str]:
    uuids = [identifier.normal(one) for one in given]
    if len(set(uuids)) != len(uuids):
        text = f"{given} has non-unique elements"
        raise Malformed(f"Invalid input. {text}", flaw=text)
    return uuids


@resource.put(
    "/resource_providers/{uuid}/aggregates",
    policy="placement:resource_providers:aggregates:update",
    since="1.1",
    until="1.18",
)
def update_uncounted(ctx: Context, uuid: str, body: list[identifier.Uuid]) -> Reply:
    """Let a provider be in exactly these; its generation stays. Raises BadRequest and NotFound."""
    row = find(ctx, uuid)
    uuids = _normal(body)
    table.write_aggregates(ctx.tx, row.uuid, uuids)
    ctx.tx.changed("placement.provider", row.uuid)
    return _view(ctx, uuids, row.generation)


@resource.put(
    "/resource_providers/{uuid}/aggregates", policy="placement:resource_providers:aggregates:update", since="1.19"
)
def update(ctx: Context, uuid: str, body: AggregatesUpdate) -> Reply:
    """Let a provider be in exactly these. Raises BadRequest, NotFound and Conflict (generation)."""
    row = find(ctx, uuid)
    uuids = _normal(body.aggregates)
    generation = table.bump(ctx.tx, row.uuid, body.resource_provider_generation, table.CHANGED)
    table.write_aggregates(ctx.tx, row.uuid, uuids)
    return _view(ctx, uuids, generation)

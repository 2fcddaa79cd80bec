"""Aggregates of a provider.

Source: https://docs.openstack.org/api-ref/placement/#resource-provider-aggregates
"""

from __future__ import annotations

from typing import Annotated, Any

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import UNSET, Body, UnsetType, View, W, accept
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
    """The aggregates that a provider is to be in; before 1.19 the list alone."""

    aggregates: list[identifier.Uuid]
    resource_provider_generation: int


class Aggregates(View):
    """The aggregates that a provider is in."""

    aggregates: list[str]
    resource_provider_generation: Annotated[int | UnsetType, W(since="1.19")] = UNSET


def _view(ctx: Context, uuid: str, generation: int) -> Reply:
    found = sorted(table.aggregates(ctx.tx, [uuid]).get(uuid, ()))
    body = Aggregates(aggregates=found, resource_provider_generation=generation)
    return Reply(body, versions.freshness(ctx.version, ctx.now))


@resource.get(
    "/resource_providers/{uuid}/aggregates", policy="placement:resource_providers:aggregates:list", since="1.1"
)
def index(ctx: Context, uuid: str) -> Reply:
    """The aggregates that a provider is in. Raises NotFound."""
    row = find(ctx, uuid)
    return _view(ctx, row.uuid, row.generation)


@resource.put(
    "/resource_providers/{uuid}/aggregates", policy="placement:resource_providers:aggregates:update", since="1.1"
)
def update(ctx: Context, uuid: str, body: Any) -> Reply:
    """Let a provider be in exactly these. Raises BadRequest, NotFound and Conflict (generation)."""
    counted = versions.counts_aggregates(ctx.version)
    raw = body if counted else {"aggregates": body, "resource_provider_generation": 0}
    wanted = accept(raw, AggregatesUpdate, ctx.version)
    uuids = [identifier.normal(one) for one in wanted.aggregates]
    if len(set(uuids)) != len(uuids):
        raise BadRequest("Invalid input. aggregates: an aggregate is named twice")
    row = find(ctx, uuid)
    generation = row.generation
    if counted:
        generation = table.bump(ctx.tx, row.uuid, wanted.resource_provider_generation)
    table.write_aggregates(ctx.tx, row.uuid, uuids)
    return _view(ctx, row.uuid, generation)

"""Traits of a provider.

Source: https://docs.openstack.org/api-ref/placement/#resource-provider-traits
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.fields import Body, View
from pileus.services.placement import versions
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.provider.operations import find

resource = Resource(
    "trait",
    "traits",
    rules=rules(
        resource_providers__traits__list="List traits of a provider",
        resource_providers__traits__update="Change traits of a provider",
        resource_providers__traits__delete="Take all traits from a provider",
    ),
)


class ProviderTraitsUpdate(Body):
    """The traits that a provider is to have."""

    traits: list[Annotated[str, msgspec.Meta(min_length=1, max_length=255)]]
    resource_provider_generation: int


class ProviderTraits(View):
    """The traits that a provider has."""

    traits: list[str]
    resource_provider_generation: int


def _view(ctx: Context, uuid: str, generation: int) -> Reply:
    found = sorted(table.traits(ctx.tx, [uuid]).get(uuid, ()))
    body = ProviderTraits(traits=found, resource_provider_generation=generation)
    return Reply(body, versions.freshness(ctx.version, ctx.now))


@resource.get("/resource_providers/{uuid}/traits", policy="placement:resource_providers:traits:list", since="1.6")
def index(ctx: Context, uuid: str) -> Reply:
    """The traits that a provider has. Raises NotFound."""
    row = find(ctx, uuid)
    return _view(ctx, row.uuid, row.generation)


@resource.put("/resource_providers/{uuid}/traits", policy="placement:resource_providers:traits:update", since="1.6")
def update(ctx: Context, uuid: str, body: ProviderTraitsUpdate) -> Reply:
    """Let a provider have exactly these. Raises BadRequest, NotFound and Conflict (generation)."""
    row = find(ctx, uuid)
    generation = table.bump(ctx.tx, row.uuid, body.resource_provider_generation, table.CHANGED)
    table.write_traits(ctx.tx, row.uuid, body.traits)
    return _view(ctx, row.uuid, generation)


@resource.delete("/resource_providers/{uuid}/traits", policy="placement:resource_providers:traits:delete", since="1.6")
def clear(ctx: Context, uuid: str) -> None:
    """Take all traits from a provider. Raises NotFound."""
    row = find(ctx, uuid)
    table.bump(ctx.tx, row.uuid, row.generation)
    table.write_traits(ctx.tx, row.uuid, ())

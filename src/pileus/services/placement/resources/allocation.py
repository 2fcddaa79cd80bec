"""Allocations: what consumers hold of what providers offer.

Source: https://docs.openstack.org/api-ref/placement/#allocations

Between 1.0 and 1.39 the body grew project and user (1.8), turned from a list into an object by provider (1.12), and
grew the consumer's generation (1.28), the mappings that candidates name (1.34, taken and passed over) and the
consumer's type (1.38).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.services.placement import versions
from pileus.services.placement.resources import consumer
from pileus.services.placement.resources.consumer import Holding, Wanted, allocation
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.provider.operations import find
from pileus.services.placement.resources.provider.table import provider
from pileus.services.placement.rules import identifier

INCOMPLETE = "00000000-0000-0000-0000-000000000000"
"""Project and user of consumers that were made before 1.8."""

UNKNOWN = "unknown"
"""Type of consumers that were made before 1.38."""

resource = Resource(
    "allocation",
    "allocations",
    rules=rules(
        allocations__manage="Change allocations of several consumers",
        allocations__list="Show allocations of a consumer",
        allocations__update="Change allocations of a consumer",
        allocations__delete="Delete allocations of a consumer",
        resource_providers__allocations__list="Show allocations of a provider",
    ),
)

Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F-]{36}$")]
_Owner = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_ClassName = Annotated[str, msgspec.Meta(pattern="^[A-Z0-9_]+$", max_length=255)]
_Amounts = Annotated[
    dict[_ClassName, Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]],
    msgspec.Meta(min_length=1),
]
_Type = Annotated[str, msgspec.Meta(pattern="^[A-Z0-9_]+$", min_length=1, max_length=255)]
_Suffix = Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]{0,64}$")]
_Mappings = Annotated[
    dict[_Suffix, Annotated[list[identifier.Uuid], msgspec.Meta(min_length=1)]],
    msgspec.Meta(min_length=1),
]


class ProviderReference(Body):
    """A provider, in the list form."""

    uuid: identifier.Uuid


class Entry(Body):
    """What is held of one provider, in the list form."""

    resource_provider: ProviderReference
    resources: _Amounts


class Part(Body):
    """What is held of one provider, in the object form. The generation is passed over."""

    resources: _Amounts
    generation: int | UnsetType = UNSET


_Entries = Annotated[list[Entry], msgspec.Meta(min_length=1)]
_Parts = dict[Key, Part]
_SomeParts = Annotated[_Parts, msgspec.Meta(min_length=1)]


class AllocationsUpdate(Body):
    """What one consumer is to hold."""

    allocations: Annotated[
        list[Entry] | _Parts, W(_Entries, until="1.11"), W(_SomeParts, since="1.12", until="1.27"), W(_Parts)
    ]
    project_id: Annotated[_Owner | UnsetType, W(since="1.8", need=True)] = UNSET
    user_id: Annotated[_Owner | UnsetType, W(since="1.8", need=True)] = UNSET
    consumer_generation: Annotated[int | UnsetType | None, W(since="1.28", need=True)] = UNSET
    mappings: Annotated[_Mappings | UnsetType, W(since="1.34")] = UNSET
    consumer_type: Annotated[_Type | UnsetType, W(since="1.38", need=True)] = UNSET


class AllocationsOfOne(Body):
    """What one of several consumers is to hold: always in the object form, which may be empty."""

    allocations: _Parts
    project_id: _Owner
    user_id: _Owner
    consumer_generation: Annotated[int | UnsetType | None, W(since="1.28", need=True)] = UNSET
    mappings: Annotated[_Mappings | UnsetType, W(since="1.34")] = UNSET
    consumer_type: Annotated[_Type | UnsetType, W(since="1.38", need=True)] = UNSET


Many = dict[Key, AllocationsOfOne]
"""What several consumers are to hold, by consumer."""


class Held(View):
    """What is held of one provider."""

    resources: dict[str, int]
    generation: int


class ConsumerAllocations(View):
    """What one consumer holds."""

    allocations: dict[str, Held]
    project_id: Annotated[str | UnsetType, W(since="1.12")] = UNSET
    user_id: Annotated[str | UnsetType, W(since="1.12")] = UNSET
    consumer_generation: Annotated[int | UnsetType, W(since="1.28")] = UNSET
    consumer_type: Annotated[str | UnsetType, W(since="1.38")] = UNSET


class HeldBy(View):
    """What one consumer holds of a provider."""

    resources: dict[str, int]
    consumer_generation: Annotated[int | UnsetType, W(since="1.28")] = UNSET


class ProviderAllocations(View):
    """What is held of a provider."""

    allocations: dict[str, HeldBy]
    resource_provider_generation: int


def _holding(allocations: list[Entry] | dict[str, Part]) -> Holding:
    """Either form as amounts by provider and resource class."""
    if isinstance(allocations, list):
        return {identifier.normal(entry.resource_provider.uuid): entry.resources for entry in allocations}
    return {identifier.normal(uuid): part.resources for uuid, part in allocations.items()}


def wanted(uuid: str, body: AllocationsUpdate | AllocationsOfOne) -> Wanted:
    """What a body wants for a consumer. Raises BadRequest."""
    consumer_uuid = identifier.known(uuid)
    if consumer_uuid is None:
        raise BadRequest(f"Malformed consumer_uuid: {uuid}")
    return Wanted(
        consumer_uuid=consumer_uuid,
        project_id=INCOMPLETE if isinstance(body.project_id, UnsetType) else body.project_id,
        user_id=INCOMPLETE if isinstance(body.user_id, UnsetType) else body.user_id,
        holding=_holding(body.allocations),
        type=body.consumer_type,
        consumer_generation=body.consumer_generation,
    )


def all_wanted(body: Many) -> list[Wanted]:
    """What a body wants for several consumers. Raises BadRequest."""
    wishes = [wanted(uuid, one) for uuid, one in body.items()]
    if len({wish.consumer_uuid for wish in wishes}) != len(wishes):
        raise BadRequest("A consumer is named twice.")
    return wishes


@resource.get("/allocations/{consumer_uuid}", policy="placement:allocations:list")
def show(ctx: Context, consumer_uuid: str) -> Reply:
    """What a consumer holds; nothing when there is no such consumer."""
    query = (
        sa.select(allocation, provider.c.generation)
        .join(provider, provider.c.uuid == allocation.c.provider_uuid)
        .where(allocation.c.consumer_uuid == consumer_uuid.lower())
        .order_by(allocation.c.provider_uuid, allocation.c.resource_class)
    )
    body = ConsumerAllocations(allocations={})
    latest = None
    for row in ctx.tx.all(query):
        held = body.allocations.setdefault(row.provider_uuid, Held(resources={}, generation=row.generation))
        held.resources[row.resource_class] = row.used
        latest = max(latest or row.updated_at, row.updated_at)
    owner = ctx.tx.first(sa.select(consumer.consumer).where(consumer.consumer.c.uuid == consumer_uuid.lower()))
    if owner is not None:
        body.project_id, body.user_id = owner.project_id, owner.user_id
        body.consumer_generation, body.consumer_type = owner.generation, owner.type or UNKNOWN
    return Reply(body, versions.freshness(ctx.version, latest or ctx.now))


@resource.put("/allocations/{consumer_uuid}", policy="placement:allocations:update", status=204)
def update(ctx: Context, consumer_uuid: str, body: AllocationsUpdate) -> None:
    """Let a consumer hold exactly this. Raises BadRequest and Conflict (it does not fit, or a generation)."""
    consumer.replace(ctx.tx, [wanted(consumer_uuid, body)])


@resource.delete("/allocations/{consumer_uuid}", policy="placement:allocations:delete")
def delete(ctx: Context, consumer_uuid: str) -> None:
    """Let a consumer hold nothing any more. Raises NotFound."""
    if not consumer.release(ctx.tx, [consumer_uuid.lower()]):
        raise NotFound(f"No allocations for consumer '{consumer_uuid}'")


@resource.post("/allocations", policy="placement:allocations:manage", since="1.13", status=204)
def update_many(ctx: Context, body: Annotated[Many, msgspec.Meta(min_length=1)]) -> None:
    """Let several consumers hold exactly this, all or none of them. Raises BadRequest and Conflict."""
    consumer.replace(ctx.tx, all_wanted(body))


@resource.get("/resource_providers/{uuid}/allocations", policy="placement:resource_providers:allocations:list")
def of_provider(ctx: Context, uuid: str) -> Reply:
    """What is held of a provider. Raises NotFound."""
    row = find(ctx, uuid)
    query = (
        sa.select(allocation, consumer.consumer.c.generation)
        .join(consumer.consumer)
        .where(allocation.c.provider_uuid == row.uuid)
        .order_by(allocation.c.consumer_uuid, allocation.c.resource_class)
    )
    found: dict[str, HeldBy] = {}
    for one in ctx.tx.all(query):
        held = found.setdefault(one.consumer_uuid, HeldBy(resources={}, consumer_generation=one.generation))
        held.resources[one.resource_class] = one.used
    body = ProviderAllocations(allocations=found, resource_provider_generation=row.generation)
    return Reply(body, versions.freshness(ctx.version, ctx.now))

"""The reshaper: inventories of several providers, and what is held of them, are moved at once.

Source: https://docs.openstack.org/api-ref/placement/#reshaper
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import Body
from pileus.services.placement.resources import consumer
from pileus.services.placement.resources.allocation import Key, Many, all_wanted
from pileus.services.placement.resources.inventory import InventoriesUpdate, wanted
from pileus.services.placement.resources.policy import SERVICE, rules
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.provider.table import provider
from pileus.services.placement.rules import identifier
from pileus.services.placement.rules.capacity import Inventory

resource = Resource("reshaper", "reshaper", rules=rules(SERVICE, reshaper__reshape="Move inventories and allocations"))


class Reshape(Body):
    """What some providers are to offer, and what some consumers are to hold, from now on."""

    inventories: Annotated[dict[Key, InventoriesUpdate], msgspec.Meta(min_length=1)]
    allocations: Many


@resource.post("/reshaper", policy="placement:reshaper:reshape", since="1.30", status=204)
def reshape(ctx: Context, body: Reshape) -> None:
    """Let providers offer exactly this and consumers hold exactly this, all of it or nothing.

    Raises BadRequest, and Conflict: a generation, what is left out is held, or what is to be held does not fit.
    """
    offers: dict[str, dict[str, Inventory]] = {}
    given: dict[str, int] = {}
    for uuid, one in body.inventories.items():
        key = identifier.normal(uuid)
        given[key] = one.resource_provider_generation
        offers[key] = {name: wanted(ctx, key, name, part) for name, part in one.inventories.items()}
    if len(offers) != len(body.inventories):
        raise BadRequest("A provider is named twice.")
    wishes = all_wanted(body.allocations)
    _lock(ctx, offers.keys() | {uuid for wish in wishes for uuid in wish.holding}, given)
    present = table.inventories(ctx.tx, list(offers))
    for uuid, offer in offers.items():
        # What is still held cannot be taken away yet, and what is not there yet cannot be held.
        if offer:
            table.write_inventories(ctx.tx, uuid, {**present.get(uuid, {}), **offer})
    consumer.replace(ctx.tx, wishes)
    for uuid, offer in offers.items():
        table.write_inventories(ctx.tx, uuid, offer)
        steps = 2 if offer else 1
        counted = sa.update(provider).where(provider.c.uuid == uuid)
        ctx.tx.execute(counted.values(generation=provider.c.generation + steps, updated_at=ctx.now))
        ctx.tx.changed("placement.provider", uuid)


def _lock(ctx: Context, uuids: set[str], given: dict[str, int]) -> None:
    """Lock providers, in the one order that all do. Raises BadRequest (absent) and ConcurrentUpdate."""
    rows = sa.select(provider.c.uuid, provider.c.generation).where(provider.c.uuid.in_(uuids))
    found = ctx.tx.all(rows.order_by(provider.c.uuid).with_for_update(key_share=True))
    generations = {row.uuid: row.generation for row in found}
    for uuid, generation in given.items():
        if uuid not in generations:
            code = "pileus.resource_provider.not_found"
            raise BadRequest(f"Resource provider {uuid} in inventories not found.", code=code)
        if generations[uuid] != generation:
            raise table.ConcurrentUpdate(
                f"resource provider generation conflict for provider {uuid}: "
                f"actual: {generations[uuid]}, given: {generation}"
            )

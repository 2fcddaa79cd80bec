"""Inventories: what a provider offers.

Source: https://docs.openstack.org/api-ref/placement/#resource-provider-inventories
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, MethodNotAllowed, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View
from pileus.services.placement import versions
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.provider.operations import find, url_of
from pileus.services.placement.rules.capacity import LARGEST, Inventory

resource = Resource(
    "inventory",
    "inventories",
    rules=rules(
        resource_providers__inventories__list="List inventories",
        resource_providers__inventories__create="Create an inventory",
        resource_providers__inventories__show="Show an inventory",
        resource_providers__inventories__update="Change inventories",
        resource_providers__inventories__delete="Delete inventories",
    ),
)

ClassName = Annotated[str, msgspec.Meta(pattern="^[A-Z0-9_]+$", max_length=255)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]


class InventoryBody(Body, kw_only=True):
    """What is offered of one class."""

    total: Positive
    reserved: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] = 0
    min_unit: Positive = 1
    max_unit: Positive = LARGEST
    step_size: Positive = 1
    allocation_ratio: Annotated[float, msgspec.Meta(le=3.40282e38)] = 1.0
    resource_provider_generation: int | UnsetType = UNSET


class InventoryCreate(InventoryBody, kw_only=True):
    """What is offered of a class that was not offered before."""

    resource_class: ClassName


class InventoryUpdate(InventoryBody, kw_only=True):
    """What is offered of a class from now on."""

    resource_provider_generation: int


class InventoriesUpdate(Body):
    """Everything that is offered from now on."""

    resource_provider_generation: int
    inventories: dict[ClassName, InventoryBody]


class InventoryView(View):
    """What is offered of one class."""

    total: int
    reserved: int
    min_unit: int
    max_unit: int
    step_size: int
    allocation_ratio: float
    resource_provider_generation: int | UnsetType = UNSET


class InventoriesView(View):
    """Everything that is offered."""

    inventories: dict[str, InventoryView]
    resource_provider_generation: int


def wanted(ctx: Context, uuid: str, name: str, body: InventoryBody, verb: str = "update") -> Inventory:
    """The inventory that a body describes. Raises BadRequest when nothing of it could ever be held."""
    found = Inventory(
        total=body.total,
        reserved=body.reserved,
        min_unit=body.min_unit,
        max_unit=body.max_unit,
        step_size=body.step_size,
        allocation_ratio=body.allocation_ratio,
    )
    least = versions.least_capacity(ctx.version)
    if found.capacity < least:
        raise BadRequest(
            f"Unable to {verb} inventory for resource provider {uuid}: Invalid inventory for '{name}':"
            f" the reserved value is greater than {'or equal to ' if least else ''}total."
        )
    return found


def _view(one: Inventory, generation: int | UnsetType = UNSET) -> InventoryView:
    return InventoryView(
        total=one.total,
        reserved=one.reserved,
        min_unit=one.min_unit,
        max_unit=one.max_unit,
        step_size=one.step_size,
        allocation_ratio=one.allocation_ratio,
        resource_provider_generation=generation,
    )


def _all(ctx: Context, uuid: str, generation: int) -> Reply:
    rooms = table.inventories(ctx.tx, [uuid]).get(uuid, {})
    body = InventoriesView(
        inventories={name: _view(room) for name, room in rooms.items()}, resource_provider_generation=generation
    )
    return Reply(body, versions.freshness(ctx.version, ctx.now))


def _check_generation(given: int | UnsetType, generation: int) -> None:
    if given not in (UNSET, generation):
        raise table.ConcurrentUpdate("resource provider generation conflict")


@resource.get("/resource_providers/{uuid}/inventories", policy="placement:resource_providers:inventories:list")
def index(ctx: Context, uuid: str) -> Reply:
    """Everything that a provider offers. Raises NotFound."""
    row = find(ctx, uuid)
    return _all(ctx, row.uuid, row.generation)


@resource.put("/resource_providers/{uuid}/inventories", policy="placement:resource_providers:inventories:update")
def replace(ctx: Context, uuid: str, body: InventoriesUpdate) -> Reply:
    """Offer exactly this. Raises BadRequest, NotFound and Conflict (generation, or what is left out is held)."""
    row = find(ctx, uuid)
    _check_generation(body.resource_provider_generation, row.generation)
    offered = {name: wanted(ctx, row.uuid, name, one) for name, one in body.inventories.items()}
    generation = table.bump(ctx.tx, row.uuid, row.generation)
    table.write_inventories(ctx.tx, row.uuid, offered)
    return _all(ctx, row.uuid, generation)


@resource.post(
    "/resource_providers/{uuid}/inventories", policy="placement:resource_providers:inventories:create", status=201
)
def create(ctx: Context, uuid: str, body: InventoryCreate) -> Reply:
    """Offer something more. Raises BadRequest, NotFound and Conflict (it is offered already)."""
    row = find(ctx, uuid)
    one = wanted(ctx, row.uuid, body.resource_class, body, "create")
    generation = table.bump(ctx.tx, row.uuid, row.generation)
    present = table.inventories(ctx.tx, [row.uuid]).get(row.uuid, {})
    if body.resource_class in present:
        raise table.ConcurrentUpdate(f"Update conflict: the provider offers {body.resource_class} already.")
    table.write_inventories(ctx.tx, row.uuid, present | {body.resource_class: one})
    headers = {"Location": f"{url_of(ctx, row.uuid)}/inventories/{body.resource_class}"}
    return Reply(_view(one, generation), headers | versions.freshness(ctx.version, ctx.now))


@resource.delete(
    "/resource_providers/{uuid}/inventories",
    policy="placement:resource_providers:inventories:delete",
    until="1.4",
    faults=(405,),
)
def clear_early(ctx: Context, uuid: str) -> None:
    """Not yet: raises MethodNotAllowed."""
    raise MethodNotAllowed("The method DELETE is not allowed for this resource before microversion 1.5.")


@resource.delete(
    "/resource_providers/{uuid}/inventories", policy="placement:resource_providers:inventories:delete", since="1.5"
)
def clear(ctx: Context, uuid: str) -> None:
    """Offer nothing any more. Raises NotFound and Conflict (something is held)."""
    row = find(ctx, uuid)
    table.bump(ctx.tx, row.uuid, row.generation)
    table.write_inventories(ctx.tx, row.uuid, {})


@resource.get(
    "/resource_providers/{uuid}/inventories/{resource_class}", policy="placement:resource_providers:inventories:show"
)
def show(ctx: Context, uuid: str, resource_class: str) -> Reply:
    """What a provider offers of one class. Raises NotFound."""
    row = find(ctx, uuid)
    room = table.inventories(ctx.tx, [row.uuid]).get(row.uuid, {}).get(resource_class)
    if room is None:
        raise NotFound(f"No inventory of class {resource_class} for {uuid}")
    return Reply(_view(room, row.generation), versions.freshness(ctx.version, ctx.now))


@resource.put(
    "/resource_providers/{uuid}/inventories/{resource_class}", policy="placement:resource_providers:inventories:update"
)
def update(ctx: Context, uuid: str, resource_class: str, body: InventoryUpdate) -> Reply:
    """Offer more or less of one class. Raises BadRequest (it is not offered), NotFound and Conflict (generation)."""
    row = find(ctx, uuid)
    _check_generation(body.resource_provider_generation, row.generation)
    one = wanted(ctx, row.uuid, resource_class, body)
    generation = table.bump(ctx.tx, row.uuid, row.generation)
    present = table.inventories(ctx.tx, [row.uuid]).get(row.uuid, {})
    if resource_class not in present:
        raise BadRequest(f"No inventory record with resource class {resource_class} for resource provider {uuid}.")
    table.write_inventories(ctx.tx, row.uuid, present | {resource_class: one})
    return Reply(_view(one, generation), versions.freshness(ctx.version, ctx.now))


@resource.delete(
    "/resource_providers/{uuid}/inventories/{resource_class}", policy="placement:resource_providers:inventories:delete"
)
def delete(ctx: Context, uuid: str, resource_class: str) -> None:
    """Offer nothing of one class any more. Raises NotFound and Conflict (something of it is held)."""
    row = find(ctx, uuid)
    table.bump(ctx.tx, row.uuid, row.generation)
    present = table.inventories(ctx.tx, [row.uuid]).get(row.uuid, {})
    if resource_class not in present:
        raise NotFound(f"No inventory of class {resource_class} found for delete on {uuid}")
    table.write_inventories(ctx.tx, row.uuid, {name: one for name, one in present.items() if name != resource_class})

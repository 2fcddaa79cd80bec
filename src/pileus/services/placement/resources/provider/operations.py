"""Resource providers: create, list, show, change, delete."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadQuery, BadRequest, Conflict, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.services.placement import versions
from pileus.services.placement.resources import resource_class, trait
from pileus.services.placement.resources.policy import rules
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.provider.table import aggregate, inventory, provider, provider_trait
from pileus.services.placement.rules import identifier, query
from pileus.services.placement.rules.capacity import LARGEST

resource = Resource(
    "resource_provider",
    "resource_providers",
    rules=rules(
        resource_providers__list="List providers",
        resource_providers__create="Create a provider",
        resource_providers__show="Show a provider",
        resource_providers__update="Change a provider",
        resource_providers__delete="Delete a provider",
    ),
)

Name = Annotated[str, msgspec.Meta(max_length=200)]
Parent = Annotated[identifier.Uuid | UnsetType | None, W(since="1.14")]


class ProviderCreate(Body):
    """A new provider."""

    name: Name
    uuid: identifier.Uuid | UnsetType = UNSET
    parent_provider_uuid: Parent = UNSET


class ProviderUpdate(Body):
    """What a provider is to be."""

    name: Name
    parent_provider_uuid: Parent = UNSET


class Provider(View):
    """A provider."""

    uuid: str
    name: str
    generation: int
    links: list[dict[str, str]]
    parent_provider_uuid: Annotated[str | UnsetType | None, W(since="1.14")] = UNSET
    root_provider_uuid: Annotated[str | UnsetType, W(since="1.14")] = UNSET


class Providers(View):
    """Providers."""

    resource_providers: list[Provider]


def url_of(ctx: Context, uuid: str) -> str:
    """Where a provider is."""
    return f"{ctx.url}/resource_providers/{uuid}"


_BY_UUID = sa.select(provider).where(provider.c.uuid == sa.bindparam("key"))


def find(ctx: Context, uuid: str, purpose: str = "") -> sa.Row[Any]:
    """The row of a provider. Raises NotFound."""
    row = ctx.tx.execute(_BY_UUID, {"key": uuid.lower()}).first()
    if row is None:
        code = "pileus.resource_provider.not_found"
        raise NotFound(f"No resource provider with uuid {uuid} found{purpose}", code=code)
    return row


def _view(ctx: Context, row: sa.Row[Any]) -> Provider:
    return Provider(
        uuid=row.uuid,
        name=row.name,
        generation=row.generation,
        links=versions.links(ctx.version, urlsplit(url_of(ctx, row.uuid)).path),
        parent_provider_uuid=row.parent,
        root_provider_uuid=row.root,
    )


@resource.post("/resource_providers", policy="placement:resource_providers:create", status={"": 201, "1.20": 200})
def create(ctx: Context, body: ProviderCreate) -> Reply:
    """Make a provider. Raises BadRequest (no such parent) and Conflict (the uuid or the name is taken)."""
    uuid = ctx.seams.uuid() if body.uuid is UNSET else identifier.normal(body.uuid)
    parent, root = None, uuid
    if body.parent_provider_uuid is not UNSET and body.parent_provider_uuid is not None:
        parent = identifier.normal(body.parent_provider_uuid)
        if parent == uuid:
            whose = f'Unable to create resource provider "{body.name}", {uuid}'
            raise BadRequest(f"{whose}: parent provider UUID cannot be same as UUID.")
        root = _root(ctx, parent)
    _refuse_name(ctx, body.name, uuid)
    values = {
        "uuid": uuid,
        "name": body.name,
        "generation": 0,
        "parent": parent,
        "root": root,
        "created_at": ctx.now,
        "updated_at": ctx.now,
    }
    if not ctx.tx.insert_missing(provider, values, key=("uuid",)):
        raise Conflict(f"Conflicting resource provider uuid: {uuid} already exists.", code="pileus.duplicate_name")
    ctx.tx.changed("placement.provider", uuid)
    headers = {"Location": url_of(ctx, uuid)}
    if not versions.shows_created(ctx.version):
        return Reply(None, headers)
    return Reply(_view(ctx, find(ctx, uuid)), headers | versions.freshness(ctx.version, ctx.now))


def _root(ctx: Context, parent: str) -> str:
    """The root of a new child's tree. Keeps the parent from being moved or deleted meanwhile."""
    found = sa.select(provider.c.root).where(provider.c.uuid == parent).with_for_update(read=True)
    row = ctx.tx.first(found)
    if row is None:
        raise BadRequest(f"parent provider UUID does not exist: {parent}.")
    return str(row.root)


def _refuse_name(ctx: Context, name: str, uuid: str) -> None:
    taken = provider.c.name == name, provider.c.uuid != uuid
    if ctx.tx.first(sa.select(provider.c.uuid).where(*taken)) is not None:
        raise Conflict(f"Conflicting resource provider name: {name} already exists.", code="pileus.duplicate_name")


@resource.get(
    "/resource_providers",
    policy="placement:resource_providers:list",
    query=Parameters(
        "name", "uuid", later={"member_of": "1.3", "resources": "1.4", "in_tree": "1.14", "required": "1.18"}
    ),
)
def index(ctx: Context) -> Reply:
    """Providers that are as the query says. Raises BadRequest."""
    wanted = sa.select(provider).where(*_conditions(ctx)).order_by(provider.c.created_at, provider.c.uuid)
    rows = ctx.tx.all(wanted)
    latest = max((row.updated_at for row in rows), default=ctx.now)
    body = Providers(resource_providers=[_view(ctx, row) for row in rows])
    return Reply(body, versions.freshness(ctx.version, latest))


def _conditions(ctx: Context) -> list[sa.ColumnElement[bool]]:
    asked, grammar = ctx.query, versions.grammar(ctx.version)
    found: list[sa.ColumnElement[bool]] = []
    if (name := asked.get("name")) is not None:
        found.append(provider.c.name == name)
    if (uuid := asked.get("uuid")) is not None:
        found.append(provider.c.uuid == _uuid(uuid))
    if (tree := asked.get("in_tree")) is not None:
        root = sa.select(provider.c.root).where(provider.c.uuid == _uuid(tree)).scalar_subquery()
        found.append(provider.c.root == root)
    if (text := asked.get("resources")) is not None:
        amounts = query.resources(text)
        if missing := resource_class.unknown(ctx.tx, amounts):
            raise BadRequest(f"Invalid resource class in resources parameter: {', '.join(sorted(missing))}")
        found += [_offers(name, amount) for name, amount in amounts.items()]
    demanded = query.traits(asked.all("required"), grammar)
    if missing := trait.unknown(ctx.tx, demanded.names):
        raise BadRequest(f"No such trait(s): {', '.join(sorted(missing))}.")
    if demanded.clashes:
        names = ", ".join(sorted(set().union(*demanded.clashes)))
        raise BadRequest(
            f"Conflicting required and forbidden traits found in the following traits keys: required: ({names})"
        )
    mine = provider_trait.c.provider_uuid == provider.c.uuid
    found += [sa.exists().where(mine, provider_trait.c.trait.in_(sorted(one))) for one in demanded.required]
    if demanded.forbidden:
        found.append(~sa.exists().where(mine, provider_trait.c.trait.in_(sorted(demanded.forbidden))))
    groups = query.aggregates(asked.all("member_of"), grammar)
    mine = aggregate.c.provider_uuid == provider.c.uuid
    found += [sa.exists().where(mine, aggregate.c.aggregate_uuid.in_(sorted(one))) for one in groups.required]
    if groups.forbidden:
        found.append(~sa.exists().where(mine, aggregate.c.aggregate_uuid.in_(sorted(groups.forbidden))))
    return found


def _uuid(text: str) -> str:
    found = identifier.known(text)
    if found is None:
        raise BadQuery(f"{text!r} is not a 'uuid'")
    return found


def _offers(name: str, amount: int) -> sa.ColumnElement[bool]:
    """Whether a provider has room for an amount."""
    if amount > LARGEST:
        return sa.false()
    return sa.exists().where(
        inventory.c.provider_uuid == provider.c.uuid,
        inventory.c.resource_class == name,
        inventory.c.min_unit <= amount,
        inventory.c.max_unit >= amount,
        sa.literal(amount, sa.BigInteger) % inventory.c.step_size == 0,
        inventory.c.used + amount <= (inventory.c.total - inventory.c.reserved) * inventory.c.allocation_ratio,
    )


@resource.get("/resource_providers/{uuid}", policy="placement:resource_providers:show")
def show(ctx: Context, uuid: str) -> Reply:
    """One provider. Raises NotFound."""
    row = find(ctx, uuid)
    return Reply(_view(ctx, row), versions.freshness(ctx.version, row.updated_at))


@resource.put("/resource_providers/{uuid}", policy="placement:resource_providers:update")
def update(ctx: Context, uuid: str, body: ProviderUpdate) -> Reply:
    """Rename a provider, or give it a parent. Raises BadRequest, NotFound and Conflict (the name is taken)."""
    row = find(ctx, uuid)
    _refuse_name(ctx, body.name, row.uuid)
    if body.parent_provider_uuid is not UNSET:
        _move(ctx, row, body.parent_provider_uuid)
    ctx.tx.execute(sa.update(provider).where(provider.c.uuid == row.uuid).values(name=body.name, updated_at=ctx.now))
    ctx.tx.changed("placement.provider", row.uuid)
    fresh = find(ctx, uuid)
    return Reply(_view(ctx, fresh), versions.freshness(ctx.version, fresh.updated_at))


def _move(ctx: Context, row: sa.Row[Any], wanted: str | None) -> None:
    """Hang a provider and all below it under another parent, or under none."""
    parent = None if wanted is None else identifier.normal(wanted)
    if parent == row.parent:
        return
    if row.parent is not None and not versions.sets_parents(ctx.version):
        verb = "un-parenting" if parent is None else "re-parenting"
        raise BadRequest(f"{verb} a provider is not currently allowed before microversion 1.37.")
    below = _subtree(ctx, row)
    if parent in below:
        raise BadRequest("creating loop in the provider tree is not allowed.")
    root = row.uuid if parent is None else _root(ctx, parent)
    ctx.tx.execute(sa.update(provider).where(provider.c.uuid.in_(below)).values(root=root))
    ctx.tx.execute(sa.update(provider).where(provider.c.uuid == row.uuid).values(parent=parent))
    for uuid in below:
        ctx.tx.changed("placement.provider", uuid)


def _subtree(ctx: Context, row: sa.Row[Any]) -> set[str]:
    """A provider and all below it; the whole tree is kept from being changed meanwhile."""
    tree = sa.select(provider.c.uuid, provider.c.parent).where(provider.c.root == row.root)
    rows = ctx.tx.all(tree.order_by(provider.c.uuid).with_for_update())
    found, before = {row.uuid}, 0
    while len(found) != before:
        before = len(found)
        found |= {one.uuid for one in rows if one.parent in found}
    return found


@resource.delete("/resource_providers/{uuid}", policy="placement:resource_providers:delete")
def delete(ctx: Context, uuid: str) -> None:
    """Forget a provider and what it offers. Raises NotFound and Conflict (something is held, or it has children)."""
    row = find(ctx, uuid, " for delete")
    if ctx.tx.first(sa.select(provider.c.uuid).where(provider.c.parent == row.uuid)) is not None:
        raise Conflict(
            f"Unable to delete parent resource provider {uuid}: It has child resource providers.",
            code="pileus.resource_provider.cannot_delete_parent",
        )
    try:
        table.write_inventories(ctx.tx, row.uuid, {})
    except table.InventoryInUse:
        raise Conflict(
            f"Unable to delete resource provider {uuid}: Resource provider has allocations.",
            code="pileus.resource_provider.inuse",
        ) from None
    ctx.tx.execute(sa.delete(provider).where(provider.c.uuid == row.uuid))
    ctx.tx.changed("placement.provider", row.uuid)

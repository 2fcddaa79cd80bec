"""The tables of providers and of what they have, and how they are read and changed as a whole.

A provider's generation counts the changes to what it offers and what of it is handed out.  Every such change is a
compare-and-set of the generation, or holds the provider's row locked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.errors import BadRequest, Conflict
from pileus.core.store import Instant, Tx, metadata
from pileus.services.placement.resources import resource_class, trait
from pileus.services.placement.rules.capacity import Capacity, Inventory, Room

provider = sa.Table(
    "placement_provider",
    metadata,
    sa.Column("uuid", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("parent", sa.ForeignKey("placement_provider.uuid"), index=True),
    sa.Column("root", sa.String(36), nullable=False, index=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)

inventory = sa.Table(
    "placement_inventory",
    metadata,
    sa.Column("provider_uuid", sa.ForeignKey("placement_provider.uuid", ondelete="CASCADE"), primary_key=True),
    sa.Column("resource_class", sa.String(255), primary_key=True, index=True),
    sa.Column("custom_class", sa.ForeignKey("placement_custom_class.name"), index=True),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("reserved", sa.Integer, nullable=False),
    sa.Column("min_unit", sa.Integer, nullable=False),
    sa.Column("max_unit", sa.Integer, nullable=False),
    sa.Column("step_size", sa.Integer, nullable=False),
    sa.Column("allocation_ratio", sa.Double, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False, server_default="0", comment="sum of the allocations"),
    sa.Column("updated_at", Instant, nullable=False),
    sa.CheckConstraint("used >= 0", name="used_not_negative"),
)

provider_trait = sa.Table(
    "placement_provider_trait",
    metadata,
    sa.Column("provider_uuid", sa.ForeignKey("placement_provider.uuid", ondelete="CASCADE"), primary_key=True),
    sa.Column("trait", sa.String(255), primary_key=True, index=True),
    sa.Column("custom_trait", sa.ForeignKey("placement_custom_trait.name"), index=True),
)

aggregate = sa.Table(
    "placement_aggregate",
    metadata,
    sa.Column("provider_uuid", sa.ForeignKey("placement_provider.uuid", ondelete="CASCADE"), primary_key=True),
    sa.Column("aggregate_uuid", sa.String(36), primary_key=True, index=True),
)

_FIELDS = tuple(Inventory.__struct_fields__)


class ConcurrentUpdate(Conflict):
    """The generation is another than the client believes."""

    code = "pileus.concurrent_update"


class InventoryInUse(Conflict):
    """What is held cannot be taken out of the inventory."""

    code = "pileus.inventory.inuse"


CHANGED = "Resource provider's generation already changed. Please update the generation and try again."
"""What is said where a client names a generation that is past."""


def bump(tx: Tx, uuid: str, generation: int, words: str = "resource provider generation conflict") -> int:
    """Count a change to a provider; the new generation. Raises ConcurrentUpdate when there was another."""
    found = sa.update(provider).where(provider.c.uuid == uuid, provider.c.generation == generation)
    if tx.execute(found.values(generation=generation + 1, updated_at=tx.now)).rowcount != 1:
        raise ConcurrentUpdate(words)
    tx.changed("placement.provider", uuid)
    return generation + 1


def _values(row: sa.Row[Any]) -> tuple[Any, ...]:
    """A row by place: where there are thousands of them, names cost too much."""
    return tuple(row)


_ROOMS = sa.select(*(inventory.c[name] for name in ("provider_uuid", "resource_class", *_FIELDS, "used"))).order_by(
    inventory.c.resource_class
)


def inventories(tx: Tx, uuids: Collection[str] | None) -> dict[str, dict[str, Room]]:
    """What providers (None: all) offer and what of it is held, by provider and resource class."""
    found: dict[str, dict[str, Room]] = {}
    for row in tx.all(_ROOMS if uuids is None else _ROOMS.where(inventory.c.provider_uuid.in_(uuids))):
        uuid, name, total, reserved, min_unit, max_unit, step_size, ratio, used = _values(row)
        found.setdefault(uuid, {})[name] = Room(
            total=total,
            reserved=reserved,
            min_unit=min_unit,
            max_unit=max_unit,
            step_size=step_size,
            allocation_ratio=ratio,
            used=used,
        )
    return found


def _sets(tx: Tx, key: sa.Column[str], value: sa.Column[str], uuids: Collection[str] | None) -> dict[str, set[str]]:
    query = sa.select(key.label("owner"), value.label("item"))
    found: dict[str, set[str]] = {}
    for row in tx.all(query if uuids is None else query.where(key.in_(uuids))):
        owner, item = _values(row)
        found.setdefault(owner, set()).add(item)
    return found


def traits(tx: Tx, uuids: Collection[str] | None) -> dict[str, set[str]]:
    """The traits of providers (None: all)."""
    return _sets(tx, provider_trait.c.provider_uuid, provider_trait.c.trait, uuids)


def aggregates(tx: Tx, uuids: Collection[str] | None) -> dict[str, set[str]]:
    """The aggregates that providers (None: all) are in."""
    return _sets(tx, aggregate.c.provider_uuid, aggregate.c.aggregate_uuid, uuids)


def capacities(tx: Tx, uuids: Collection[str] | None) -> list[Capacity]:
    """Providers (None: all) with everything that a scheduler wants to know, by four queries; unknown ones are left out.

    In the order of their uuids.
    """
    columns = (provider.c[name] for name in ("uuid", "name", "generation", "root", "parent"))
    query = sa.select(*columns).order_by(provider.c.uuid)
    rows = tx.all(query if uuids is None else query.where(provider.c.uuid.in_(uuids)))
    rooms, held, grouped = inventories(tx, uuids), traits(tx, uuids), aggregates(tx, uuids)
    return [
        Capacity(
            uuid=uuid,
            name=name,
            generation=generation,
            root=root,
            parent=parent,
            rooms=rooms.get(uuid, {}),
            traits=frozenset(held.get(uuid, ())),
            aggregates=frozenset(grouped.get(uuid, ())),
        )
        for uuid, name, generation, root, parent in map(_values, rows)
    ]


def write_inventories(tx: Tx, uuid: str, wanted: Mapping[str, Inventory]) -> bool:
    """Let a provider offer exactly this; whether anything changed. The caller counts the change.

    What is held stays counted, even when there is less of it now.  Raises BadRequest for a class that is not there,
    and InventoryInUse for one that is held and not wanted.
    """
    missing = resource_class.unknown(tx, wanted)
    if missing:
        raise BadRequest(f"Unknown resource class in inventory: No such resource class {', '.join(sorted(missing))}.")
    present = inventories(tx, [uuid]).get(uuid, {})
    lost = present.keys() - wanted.keys()
    held = sorted((name for name in lost if present[name].used), key=resource_class.order)
    if held:
        raise InventoryInUse(f"Inventory for '{', '.join(held)}' on resource provider '{uuid}' in use.")
    changed = {name: one for name, one in wanted.items() if name not in present or differs(present[name], one)}
    if lost:
        unused = inventory.c.provider_uuid == uuid, inventory.c.resource_class.in_(lost), inventory.c.used == 0
        if tx.execute(sa.delete(inventory).where(*unused)).rowcount != len(lost):
            raise InventoryInUse(f"Inventory on resource provider '{uuid}' in use.")
    rows = [
        {
            "provider_uuid": uuid,
            "resource_class": name,
            "custom_class": None if name in resource_class.STANDARD else name,
            "updated_at": tx.now,
            **{field: getattr(one, field) for field in _FIELDS},
        }
        for name, one in changed.items()
    ]
    tx.upsert_all(inventory, rows, key=("provider_uuid", "resource_class"))
    return bool(lost or changed)


def differs(one: Inventory, other: Inventory) -> bool:
    """Whether two inventories offer something else."""
    return any(getattr(one, field) != getattr(other, field) for field in _FIELDS)


def write_traits(tx: Tx, uuid: str, wanted: Iterable[str]) -> bool:
    """Let a provider have exactly these traits; whether anything changed. Raises BadRequest for unknown ones."""
    names = set(wanted)
    missing = trait.unknown(tx, names)
    if missing:
        raise BadRequest(f"No such trait(s): {', '.join(sorted(missing))}.")
    present = traits(tx, [uuid]).get(uuid, set())
    if present - names:
        lost = provider_trait.c.provider_uuid == uuid, provider_trait.c.trait.in_(present - names)
        tx.execute(sa.delete(provider_trait).where(*lost))
    if names - present:
        rows = [
            {"provider_uuid": uuid, "trait": name, "custom_trait": None if name in trait.standard() else name}
            for name in sorted(names - present)
        ]
        tx.insert(provider_trait, rows)
    return present != names


def write_aggregates(tx: Tx, uuid: str, wanted: Iterable[str]) -> bool:
    """Let a provider be in exactly these aggregates; whether anything changed."""
    names = set(wanted)
    present = aggregates(tx, [uuid]).get(uuid, set())
    if present - names:
        lost = aggregate.c.provider_uuid == uuid, aggregate.c.aggregate_uuid.in_(present - names)
        tx.execute(sa.delete(aggregate).where(*lost))
    if names - present:
        rows = [{"provider_uuid": uuid, "aggregate_uuid": name} for name in sorted(names - present)]
        tx.insert(aggregate, rows)
    return present != names

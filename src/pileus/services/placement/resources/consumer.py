"""Consumers and what they hold: the tables, and the one way in which they change.

Source: https://docs.openstack.org/api-ref/placement/#allocations

However many consumers and providers a change is about, it takes the same few statements.  The last place is never
given twice, on any engine: the providers' rows are locked in the order of their uuids, what is free is read under that
lock, and `used` is added to only where the sum stays within the capacity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.errors import BadRequest, Conflict, Fault, Raced
from pileus.core.statement import by, many
from pileus.core.store import Instant, Tx, metadata
from pileus.services.placement.resources import resource_class
from pileus.services.placement.resources.provider.table import ConcurrentUpdate, inventories, inventory, provider
from pileus.services.placement.rules.capacity import Room

consumer = sa.Table(
    "placement_consumer",
    metadata,
    sa.Column("uuid", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(255), nullable=False, index=True),
    sa.Column("user_id", sa.String(255), nullable=False),
    sa.Column("type", sa.String(255), comment="empty: unknown"),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)

allocation = sa.Table(
    "placement_allocation",
    metadata,
    sa.Column("consumer_uuid", sa.ForeignKey("placement_consumer.uuid", ondelete="CASCADE"), primary_key=True),
    sa.Column("provider_uuid", sa.String(36), primary_key=True),
    sa.Column("resource_class", sa.String(255), primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.ForeignKeyConstraint(
        ["provider_uuid", "resource_class"],
        ["placement_inventory.provider_uuid", "placement_inventory.resource_class"],
    ),
    sa.Index("ix_placement_allocation_provider", "provider_uuid", "resource_class"),
    sa.CheckConstraint("used > 0", name="used_positive"),
)

Holding = dict[str, dict[str, int]]
"""Amounts by provider and resource class."""


class CapacityExceeded(Conflict):
    """An amount does not fit: there is too little left, or it is none that may be held."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Unable to allocate inventory: {reason}")


class Wanted(msgspec.Struct, kw_only=True):
    """What a consumer is to hold from now on, in place of what it held."""

    consumer_uuid: str
    project_id: str
    user_id: str
    holding: Holding
    """Empty: nothing, and the consumer is forgotten."""
    type: str | UnsetType | None = UNSET
    """UNSET leaves what is there."""
    consumer_generation: int | UnsetType | None = UNSET
    """What the consumer's generation must be, None when there must be no consumer; UNSET when it does not matter."""
    provider_generations: dict[str, int] = {}
    """What the generations of providers must be."""


def holdings(tx: Tx, uuids: Collection[str]) -> dict[str, Holding]:
    """What consumers hold; those that hold nothing are left out."""
    found: dict[str, Holding] = {}
    for row in tx.all(by(allocation, "consumer_uuid"), {"values": uuids}):
        found.setdefault(row.consumer_uuid, {}).setdefault(row.provider_uuid, {})[row.resource_class] = row.used
    return found


_LOCKED = (
    sa.select(provider.c.uuid, provider.c.generation)
    .where(provider.c.uuid.in_(many("uuids")))
    .order_by(provider.c.uuid)
    .with_for_update(key_share=True)
)
_COUNTED = (
    sa.update(provider)
    .where(provider.c.uuid.in_(many("uuids")))
    .values(generation=provider.c.generation + 1, updated_at=sa.bindparam("now"))
)


class _Books:
    """What is there, and what becomes of it as one wish after the other is granted."""

    def __init__(self, tx: Tx, wishes: Sequence[Wanted]) -> None:
        consumers = sorted({wish.consumer_uuid for wish in wishes})
        self.consumers = {row.uuid: row for row in tx.all(by(consumer, "uuid"), {"values": consumers})}
        self.before = holdings(tx, consumers)
        uuids = sorted({uuid for wish in wishes for uuid in wish.holding})
        rows = tx.all(_LOCKED, {"uuids": uuids}) if uuids else []
        self.generations: dict[str, int] = {row.uuid: row.generation for row in rows}
        self.rooms = inventories(tx, uuids) if uuids else {}
        names = {name for wish in wishes for amounts in wish.holding.values() for name in amounts}
        self.unknown = resource_class.unknown(tx, names)
        self.deltas: defaultdict[tuple[str, str], int] = defaultdict(int)

    def fault(self, wish: Wanted) -> Fault | None:
        """Why a wish cannot be granted; None when it can."""
        row = self.consumers.get(wish.consumer_uuid)
        if wish.consumer_generation is not UNSET:
            generation = None if row is None else row.generation
            if wish.consumer_generation != generation:
                return ConcurrentUpdate(
                    f"consumer generation conflict - expected {_shown(generation)}"
                    f" but got {_shown(wish.consumer_generation)}"
                )
        for uuid, amounts in wish.holding.items():
            generation = self.generations.get(uuid)
            if generation is None:
                return BadRequest(f"Allocation for resource provider '{uuid}' that does not exist.")
            if wish.provider_generations.get(uuid, generation) != generation:
                return Raced(f"The resource provider {uuid} was changed by another request at the same time.")
            for name, amount in amounts.items():
                if name in self.unknown:
                    whose = f"Unable to allocate inventory for consumer {wish.consumer_uuid}"
                    return BadRequest(f"{whose}: No such resource class {name}.")
                if (fault := self._misfit(uuid, name, amount)) is not None:
                    return fault
        return None

    def _misfit(self, uuid: str, name: str, amount: int) -> Fault | None:
        room: Room | None = self.rooms.get(uuid, {}).get(name)
        if room is None:
            return CapacityExceeded(f"Inventory for '{name}' on '{uuid}' is not there.")
        if not room.admits(amount):
            return CapacityExceeded(
                f"{amount} of '{name}' on '{uuid}' violates min_unit={room.min_unit},"
                f" max_unit={room.max_unit} or step_size={room.step_size}."
            )
        delta = self.deltas[uuid, name]
        # What is held above the capacity, since an inventory shrank, may stay so, but not grow.
        if delta + amount > max(room.free, 0):
            return CapacityExceeded(
                f"Inventory of '{name}' on '{uuid}': The requested amount would exceed the capacity:"
                f" requested {amount}, free {room.free - delta}."
            )
        return None

    def forget(self, wish: Wanted, sign: int = -1) -> None:
        """Count what a consumer held as given back; with `sign` 1, as held again."""
        self._count(self.before.get(wish.consumer_uuid, {}), sign)

    def grant(self, wish: Wanted) -> None:
        """Count what a consumer is to hold, after `forget`."""
        self._count(wish.holding, 1)

    def _count(self, holding: Holding, sign: int) -> None:
        for uuid, amounts in holding.items():
            for name, amount in amounts.items():
                self.deltas[uuid, name] += sign * amount


def _shown(generation: int | UnsetType | None) -> str:
    return "null" if generation is None else str(generation)


def replace(tx: Tx, wishes: Sequence[Wanted], *, partly: bool = False, counts_ends: bool = True) -> dict[str, Fault]:
    """Let consumers hold what they are to hold, all of it or nothing, in whatever order.

    `counts_ends`: whether the generations count it when a consumer ends to hold anything of a provider.  With `partly`,
    wishes that cannot be granted are left out, and given with their reasons, by consumer; a wish that comes earlier is
    granted first.  Raises BadRequest (an unknown provider or class), ConcurrentUpdate and Raced (generations), and
    CapacityExceeded.
    """
    if len({wish.consumer_uuid for wish in wishes}) != len(wishes):
        raise ValueError("a consumer is named twice in one change")
    books = _Books(tx, wishes)
    refused: dict[str, Fault] = {}
    granted = []
    if not partly:
        for wish in wishes:
            books.forget(wish)
    for wish in wishes:
        if partly:
            books.forget(wish)
        fault = books.fault(wish)
        if fault is None:
            books.grant(wish)
            granted.append(wish)
        elif partly:
            books.forget(wish, 1)
            refused[wish.consumer_uuid] = fault
        else:
            raise fault
    if granted:
        _write(tx, books, granted, counts_ends)
    return refused


def _write(tx: Tx, books: _Books, granted: Sequence[Wanted], counts_ends: bool) -> None:
    uuids = [wish.consumer_uuid for wish in granted]
    if books.before.keys() & set(uuids):
        tx.execute(sa.delete(allocation).where(allocation.c.consumer_uuid.in_(uuids)))
    _write_consumers(tx, books, granted)
    rows = [
        {
            "consumer_uuid": wish.consumer_uuid,
            "provider_uuid": uuid,
            "resource_class": name,
            "used": amount,
            "updated_at": tx.now,
        }
        for wish in granted
        for uuid, amounts in wish.holding.items()
        for name, amount in amounts.items()
    ]
    _move(tx, books.deltas)
    tx.insert(allocation, rows)
    counted = {uuid for wish in granted for uuid in wish.holding}
    if counts_ends:
        counted |= {uuid for wish in granted if not wish.holding for uuid in books.before.get(wish.consumer_uuid, ())}
    if counted:
        tx.execute(_COUNTED, {"uuids": sorted(counted), "now": tx.now})
    for uuid in counted | {uuid for wish in granted for uuid in books.before.get(wish.consumer_uuid, ())}:
        tx.changed("placement.provider", uuid)
    for uuid in uuids:
        tx.changed("placement.consumer", uuid)


def _write_consumers(tx: Tx, books: _Books, granted: Sequence[Wanted]) -> None:
    fresh: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []
    for wish in granted:
        row = books.consumers.get(wish.consumer_uuid)
        if row is None:
            if wish.holding:
                fresh.append(_values(tx, wish, 1, None) | {"uuid": wish.consumer_uuid, "created_at": tx.now})
            continue
        key = {"key": wish.consumer_uuid, "was": row.generation}
        if wish.holding:
            kept.append(key | _values(tx, wish, row.generation + 1, row.type))
        else:
            ended.append(key)
    mine = consumer.c.uuid == sa.bindparam("key"), consumer.c.generation == sa.bindparam("was")
    tx.insert(consumer, fresh)
    if kept and tx.execute(sa.update(consumer).where(*mine), kept).rowcount != len(kept):
        raise Raced("The allocations of a consumer were changed by another request at the same time.")
    if ended and tx.execute(sa.delete(consumer).where(*mine), ended).rowcount != len(ended):
        raise Raced("The allocations of a consumer were changed by another request at the same time.")


def _values(tx: Tx, wish: Wanted, generation: int, kind: str | None) -> dict[str, Any]:
    return {
        "project_id": wish.project_id,
        "user_id": wish.user_id,
        "type": kind if isinstance(wish.type, UnsetType) else wish.type,
        "generation": generation,
        "updated_at": tx.now,
    }


def _move(tx: Tx, deltas: Mapping[tuple[str, str], int]) -> None:
    """Count what is held more or less, always in the same order. Raises Raced when it does not fit after all."""
    rows = [{"key": uuid, "name": name, "more": more} for (uuid, name), more in sorted(deltas.items()) if more]
    if not rows:
        return
    more = sa.bindparam("more", type_=sa.BigInteger)
    capacity = (inventory.c.total - inventory.c.reserved) * inventory.c.allocation_ratio
    found = sa.update(inventory).where(
        inventory.c.provider_uuid == sa.bindparam("key"),
        inventory.c.resource_class == sa.bindparam("name"),
        sa.or_(more < 0, inventory.c.used + more <= capacity),
    )
    if tx.execute(found.values(used=inventory.c.used + more), rows).rowcount != len(rows):
        raise Raced("What is held of an inventory was changed by another request at the same time.")


def release(tx: Tx, uuids: Iterable[str]) -> list[str]:
    """Let consumers hold nothing any more; those that held something. Raises Raced."""
    rows = tx.all(by(consumer, "uuid"), {"values": list(uuids)})
    wishes = [
        Wanted(consumer_uuid=row.uuid, project_id=row.project_id, user_id=row.user_id, holding={}) for row in rows
    ]
    if wishes:
        replace(tx, wishes, counts_ends=False)
    return [wish.consumer_uuid for wish in wishes]

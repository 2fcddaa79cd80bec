"""What neighbours may ask of Placement, always within their own transaction.

A scheduler takes a `snapshot`, ranks what it sees outside of any transaction, and then claims with the generations
that it saw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from pileus.core.errors import Conflict, Fault, NotFound
from pileus.core.store import Store, Tx
from pileus.services.placement.resources import consumer
from pileus.services.placement.resources.consumer import CapacityExceeded, Holding, Wanted
from pileus.services.placement.resources.provider import table
from pileus.services.placement.resources.snapshot import snapshot_of
from pileus.services.placement.rules.capacity import Capacity, Inventory, Room

__all__ = [
    "Capacity",
    "CapacityExceeded",
    "Claim",
    "Holding",
    "Inventory",
    "Room",
    "allocations_of",
    "claim",
    "claim_many",
    "consumers_on",
    "ensure_provider",
    "news",
    "release",
    "release_many",
    "remove_provider",
    "set_aggregates",
    "set_inventory",
    "set_traits",
    "snapshot",
]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer is to hold of one provider."""

    consumer_uuid: str
    provider_uuid: str
    resources: Mapping[str, int]
    """Amounts by resource class."""
    project_id: str
    user_id: str
    generation: int | None = None
    """The provider's generation as it was seen; None when whatever fits will do."""


def ensure_provider(tx: Tx, uuid: str, name: str) -> None:
    """Let there be a root provider of this uuid and name. Writes nothing when it is so.

    Raises Conflict when another provider has the name.
    """
    row = tx.first(sa.select(table.provider).where(table.provider.c.uuid == uuid))
    if row is not None and row.name == name:
        return
    taken = table.provider.c.name == name, table.provider.c.uuid != uuid
    if tx.first(sa.select(table.provider.c.uuid).where(*taken)) is not None:
        raise Conflict(f"Conflicting resource provider {name} already exists.", code="pileus.duplicate_name")
    values = {"uuid": uuid, "name": name, "generation": 0, "root": uuid, "created_at": tx.now, "updated_at": tx.now}
    if row is None:
        tx.insert_missing(table.provider, values, key=("uuid",))
    else:
        tx.execute(sa.update(table.provider).where(table.provider.c.uuid == uuid).values(name=name, updated_at=tx.now))
    tx.changed("placement.provider", uuid)


def remove_provider(tx: Tx, uuid: str) -> None:
    """Forget a provider; absent is fine. Raises InventoryInUse (a Conflict) while anything of it is held."""
    if tx.first(sa.select(table.provider.c.uuid).where(table.provider.c.uuid == uuid)) is None:
        return
    table.write_inventories(tx, uuid, {})
    tx.execute(sa.delete(table.provider).where(table.provider.c.uuid == uuid))
    tx.changed("placement.provider", uuid)


def _generation(tx: Tx, uuid: str) -> int:
    """The provider's generation; locks its row, so that nothing is claimed of it meanwhile. Raises NotFound."""
    query = sa.select(table.provider.c.generation).where(table.provider.c.uuid == uuid).with_for_update(key_share=True)
    row = tx.first(query)
    if row is None:
        raise NotFound(f"No resource provider with uuid {uuid} found")
    return int(row.generation)


def set_inventory(tx: Tx, provider_uuid: str, inventories: Mapping[str, Inventory], *, keep: str | None = None) -> bool:
    """Let a provider offer exactly this; whether that is a change. Writes nothing when it is so already.

    Classes whose names begin with `keep` stay as they are.
    Raises NotFound, BadRequest (an unknown resource class) and Conflict (what is left out is held).
    """
    present = table.inventories(tx, [provider_uuid]).get(provider_uuid, {})
    if keep is not None:
        inventories = {name: one for name, one in present.items() if name.startswith(keep)} | dict(inventories)
    if (
        present
        and present.keys() == inventories.keys()
        and not any(table.differs(present[name], one) for name, one in inventories.items())
    ):
        return False
    generation = _generation(tx, provider_uuid)
    changed = table.write_inventories(tx, provider_uuid, inventories)
    if changed:
        table.bump(tx, provider_uuid, generation)
    return changed


def set_traits(tx: Tx, provider_uuid: str, names: Iterable[str]) -> bool:
    """Let a provider have exactly these traits; whether that is a change. Raises NotFound and BadRequest."""
    wanted = set(names)
    if table.traits(tx, [provider_uuid]).get(provider_uuid) == wanted:
        return False
    generation = _generation(tx, provider_uuid)
    changed = table.write_traits(tx, provider_uuid, wanted)
    if changed:
        table.bump(tx, provider_uuid, generation)
    return changed


def set_aggregates(tx: Tx, provider_uuid: str, uuids: Iterable[str]) -> bool:
    """Let a provider be in exactly these aggregates; whether that is a change. Raises NotFound."""
    wanted = set(uuids)
    if table.aggregates(tx, [provider_uuid]).get(provider_uuid) == wanted:
        return False
    generation = _generation(tx, provider_uuid)
    changed = table.write_aggregates(tx, provider_uuid, wanted)
    if changed:
        table.bump(tx, provider_uuid, generation)
    return changed


def snapshot(tx: Tx, provider_uuids: Collection[str] | None = None) -> list[Capacity]:
    """Providers (None: all) with what they offer and what of it is held, by four queries.

    In the order of their uuids; unknown ones are left out.
    """
    return table.capacities(tx, provider_uuids)


def news(store: Store, tx: Tx, edition: int) -> tuple[int, dict[str, Capacity | None]]:
    """What changed of providers since an edition of the copy that this process keeps (0: all), and its edition now.

    By uuid, None for one that is gone.  Only what changed is read.
    """
    copy = snapshot_of(store)
    with copy.fresh(tx):
        return copy.edition, copy.since(edition)


def _wanted(one: Claim) -> Wanted:
    return Wanted(
        consumer_uuid=one.consumer_uuid,
        project_id=one.project_id,
        user_id=one.user_id,
        type="INSTANCE",
        holding={one.provider_uuid: dict(one.resources)},
        provider_generations={} if one.generation is None else {one.provider_uuid: one.generation},
    )


def claim(
    tx: Tx,
    consumer_uuid: str,
    provider_uuid: str,
    resources: Mapping[str, int],
    *,
    project_id: str,
    user_id: str,
    generation: int | None = None,
) -> None:
    """Let a consumer hold this of one provider, in place of whatever it held.

    Raises Raced when the provider's generation is not the one given, CapacityExceeded (a Conflict) when it does not
    fit, and BadRequest when there is no such provider or resource class.
    """
    one = Claim(
        consumer_uuid=consumer_uuid,
        provider_uuid=provider_uuid,
        resources=resources,
        project_id=project_id,
        user_id=user_id,
        generation=generation,
    )
    consumer.replace(tx, [_wanted(one)])


def claim_many(tx: Tx, claims: Sequence[Claim]) -> dict[str, Fault]:
    """Let consumers hold what they claim, as far as it goes, by the same few statements however many they are.

    What comes earlier is served first.  Several claims on one provider may name the same generation.  Those that
    cannot be served are given with the reason that `claim` would raise, by consumer; nothing is written for them.
    """
    return consumer.replace(tx, [_wanted(one) for one in claims], partly=True)


def release(tx: Tx, consumer_uuid: str) -> bool:
    """Let a consumer hold nothing any more; whether it held anything."""
    return bool(consumer.release(tx, [consumer_uuid]))


def release_many(tx: Tx, consumer_uuids: Iterable[str]) -> list[str]:
    """Let consumers hold nothing any more; those that held something."""
    return consumer.release(tx, consumer_uuids)


def allocations_of(tx: Tx, consumer_uuids: Collection[str]) -> dict[str, Holding]:
    """What consumers hold, by consumer, provider and resource class; those that hold nothing are left out."""
    return consumer.holdings(tx, consumer_uuids)


def consumers_on(tx: Tx, provider_uuid: str) -> set[str]:
    """The consumers that hold anything of a provider."""
    query = sa.select(consumer.allocation.c.consumer_uuid).where(consumer.allocation.c.provider_uuid == provider_uuid)
    return set(tx.execute(query).scalars())

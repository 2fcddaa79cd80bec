"""What holds in every cloud that was left alone for a while, whatever had happened to it.

Each check gives lines for people; none is the good news.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

import sqlalchemy as sa

from pileus.core.quota import usage
from pileus.core.store import Tx
from pileus.services.compute.resources.migration import migration
from pileus.services.compute.resources.server.table import facts, server
from pileus.services.compute.rules.placing import resources
from pileus.services.compute.rules.status import status, task_state, vm_state
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import host
from pileus.services.image.resources.image.table import image
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.router.table import router
from pileus.services.network.resources.security_group.table import group as security_group
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.placement.resources.consumer import allocation
from tests.sim.cloud import Cloud
from tests.sim.user import COMPUTE, NETWORK, User

STABLE = {
    *("ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED", "ERROR", "RESCUE", "VERIFY_RESIZE", "SHELVED", "SHELVED_OFFLOADED"),
    "SOFT_DELETED",
}


def nothing_is_stuck(tx: Tx, cloud: Cloud) -> Iterator[str]:
    """Every server is in a state that lasts; one that is deleted is gone."""
    for row in tx.all(sa.select(server).where(server.c.deleted_at.is_(None))):
        known = facts(row)
        word = status(known)
        if word not in STABLE or task_state(known) is not None:
            held = (row.power, row.state, row.mode, row.task, row.revision, row.written, row.host)
            yield f"server {row.id} is {word}, {vm_state(known)}, {task_state(known)}: {held}"


def hosts_hold_what_they_are_assigned(tx: Tx, cloud: Cloud) -> Iterator[str]:
    """No more, no less, of the newest generation; and no tombstone is left."""
    names = {row.id: row.name for row in tx.all(sa.select(host))}
    assigned: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in tx.all(sa.select(assignment)):
        assigned[names[row.host_id]][row.kind].add(row.id)
        if row.tombstone:
            yield f"{names[row.host_id]}: the tombstone of {row.kind} {row.id} is left ({row.state} {row.detail})"
        elif row.observed_generation != row.generation:
            yield f"{names[row.host_id]}: {row.kind} {row.id} is of an older generation ({row.state} {row.detail})"
    for one in cloud.hosts:
        held = assigned[one.name]
        found = {
            "guest": set(one.hypervisor.guests()),
            "network": set(one.kernel.networks),
            "router": set(one.kernel.routers),
            "snapshot": set(one.storage.snapshots()),
        }
        for kind, ids in found.items():
            if ids != held[kind]:
                yield f"{one.name} has {kind}s {sorted(ids - held[kind])} too many, {sorted(held[kind] - ids)} too few"
        if strays := set(one.storage.guests()) - held["guest"]:
            yield f"{one.name} has disks of {sorted(strays)}"


def servers_are_where_they_are_said_to_be(tx: Tx, cloud: Cloud) -> Iterator[str]:
    """A server's guest is on its host alone; a server without a host has none."""
    names = {row.id: row.name for row in tx.all(sa.select(host))}
    guests: dict[str, list[str]] = defaultdict(list)
    for row in tx.all(sa.select(assignment).where(assignment.c.kind == "guest")):
        guests[row.id].append(names[row.host_id])
    rows = tx.all(sa.select(server).where(server.c.deleted_at.is_(None)))
    for row in rows:
        wanted = [] if row.host is None else [row.host]
        if guests.pop(row.id, []) != wanted:
            yield f"server {row.id} of {row.host} has guests elsewhere, or none"
    for left, where in guests.items():
        yield f"guest {left} on {where} has no server"


def allocations_are_what_servers_take(tx: Tx, cloud: Cloud) -> Iterator[str]:
    """Each server on a host holds what its flavor says there, and while a resize waits what it had before as well."""
    held: dict[str, Counter[str]] = defaultdict(Counter)
    for row in tx.all(sa.select(allocation)):
        held[row.consumer_uuid][f"{row.provider_uuid}/{row.resource_class}"] += row.used
    for row in tx.all(sa.select(server).where(server.c.deleted_at.is_(None), server.c.host_id.is_not(None))):
        amounts = resources(row.flavor, row.image.get("virtual_size"))
        wanted = Counter({f"{row.host_id}/{name}": amount for name, amount in amounts.items() if amount})
        if held.pop(row.id, Counter()) != wanted:
            yield f"server {row.id} does not hold what its flavor says: {dict(wanted)}"
    resized = sa.select(server.c.id).where(server.c.deleted_at.is_(None), server.c.previous.is_not(None))
    for row in tx.all(sa.select(migration).where(migration.c.server_id.in_(resized))):
        held.pop(row.uuid, None)
    for left, amount in held.items():
        yield f"consumer {left} holds {dict(amount)}, and is nothing"


def quotas_are_what_there_is(tx: Tx, cloud: Cloud) -> Iterator[str]:
    """What is counted as used is what exists."""
    there: Counter[tuple[str, str]] = Counter()
    for row in tx.all(sa.select(server).where(server.c.deleted_at.is_(None))):
        if row.mode == "soft_deleted":
            continue
        flavors = [row.flavor, *([row.previous["flavor"]] if row.previous else [])]
        there[row.project_id, "instances"] += 1
        there[row.project_id, "cores"] += max(one["vcpus"] for one in flavors)
        there[row.project_id, "ram"] += max(one["ram"] for one in flavors)
    kinds = {
        "network": network, "subnet": subnet, "port": port, "router": router, "floatingip": floatingip,
        "security_group": security_group,
    }  # fmt: skip
    for name, table in kinds.items():
        for row in tx.all(sa.select(table)):
            if row.project_id and not (name == "port" and row.device_owner == "network:dhcp"):
                there[row.project_id, name] += 1
    counted: Counter[tuple[str, str]] = Counter()
    for row in tx.all(sa.select(usage).where(usage.c.service.in_(("compute", "network")))):
        counted[row.project_id, row.resource] += row.used
    named = {"instances", "cores", "ram", *kinds}
    for key in {*there, *counted}:
        if key[1] in named and there[key] != counted[key]:
            yield f"quota of {key}: {counted[key]} are counted, {there[key]} are there"


def ports_have_owners(tx: Tx, cloud: Cloud) -> Iterator[str]:
    """A port that is a server's has its server, and is bound where that is."""
    rows = {row.id: row for row in tx.all(sa.select(server).where(server.c.deleted_at.is_(None)))}
    for row in tx.all(sa.select(port).where(port.c.device_owner.like("compute:%"))):
        owner = rows.get(row.device_id)
        if owner is None:
            yield f"port {row.id} is of server {row.device_id}, which is gone"
        elif owner.host_id != row.host_id:
            yield f"port {row.id} is bound to {row.host_id}, and its server is on {owner.host_id}"


def images_are_whole(tx: Tx, cloud: Cloud) -> Iterator[str]:
    """No snapshot is left half made."""
    for row in tx.all(sa.select(image).where(image.c.status.in_(("queued", "saving", "importing")))):
        yield f"image {row.id} is {row.status}"


CHECKS: tuple[Callable[[Tx, Cloud], Iterator[str]], ...] = (
    nothing_is_stuck,
    hosts_hold_what_they_are_assigned,
    servers_are_where_they_are_said_to_be,
    allocations_are_what_servers_take,
    quotas_are_what_there_is,
    ports_have_owners,
    images_are_whole,
)


def broken(cloud: Cloud) -> list[str]:
    """Everything that does not hold."""
    return cloud.store.read_here(
        lambda tx: [f"{check.__name__}: {line}" for check in CHECKS for line in check(tx, cloud)]
    )


async def promises(cloud: Cloud, user: User) -> list[str]:
    """No 2xx was lost: what was made is there, what was let go is gone."""
    found = []
    for kind, ones in user.things.items():
        for one, sure in ones.items():
            code, _ = await cloud.request("GET", _path(kind, one))
            if sure and code != 200:
                found.append(f"{kind} {one} was promised, and answers {code}")
    for kind, gone in user.gone.items():
        for one in gone:
            code, _ = await cloud.request("GET", _path(kind, one))
            if code != 404:
                found.append(f"{kind} {one} was to go, and answers {code}")
    return found


def _path(kind: str, one: str) -> str:
    return f"{COMPUTE if kind == 'servers' else NETWORK}/{kind}/{one}"


def empty(cloud: Cloud) -> list[str]:
    """What is left although everything was let go."""

    def look(tx: Tx) -> list[str]:
        kept: Mapping[str, int] = {
            "servers": tx.scalar(sa.select(sa.func.count()).where(server.c.deleted_at.is_(None))),
            "guests": tx.scalar(sa.select(sa.func.count()).where(assignment.c.kind == "guest")),
            "allocations": tx.scalar(sa.select(sa.func.count()).select_from(allocation)),
            "routers": tx.scalar(sa.select(sa.func.count()).select_from(router)),
        }
        return [f"{count} {name} are left" for name, count in kept.items() if count]

    found = cloud.store.read_here(look)
    for one in cloud.hosts:
        left = {
            "guests": one.hypervisor.guests(), "disks of": one.storage.guests(), "routers": list(one.kernel.routers),
        }  # fmt: skip
        found += [f"{one.name}: {name} {ids}" for name, ids in left.items() if ids]
    return found

"""Nothing is stuck: from every state that a row can say, the loops come to an end, whatever the host does.

All modes, tasks and powers are put into a store at once, with what each of them needs; a host that obeys, one that can
do nothing at all, and one whose guests turn themselves off answer until nothing changes any more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from pileus.contracts.hypervisor import GuestSpec
from pileus.contracts.link import Heartbeat
from pileus.core.config import Config
from pileus.core.quota import usage
from pileus.core.store import Store, Tx
from pileus.services.compute.controllers import Scheduler, Snapshots
from pileus.services.compute.controllers.folder import fold_all
from pileus.services.compute.controllers.writer import write
from pileus.services.compute.resources.migration import migration
from pileus.services.compute.resources.server.table import facts, server, snapshot
from pileus.services.compute.rules import status
from pileus.services.compute.rules.task import ENDS
from pileus.services.fleet import interface as fleet
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import host
from pileus.services.image.resources.image.table import image
from pileus.services.placement import interface as placement
from tests.api.compute_cloud import FACTS
from tests.conftest import Schema, whole_schema
from tests.services.compute.cloud import PROJECT, image_row

HOST = "host-1"
FLAVOR = {"name": "f", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "extra_specs": {}}
POWERS = ("running", "stopped", "paused", "suspended")
ALL = list(itertools.product(status.MODES, (None, *status.TASKS), POWERS))
ROUNDS = 10
OURS = {"project_id": PROJECT, "service": "compute"}

Answer = Callable[[GuestSpec], dict[str, Any]]


def obeys(spec: GuestSpec) -> dict[str, Any]:
    """A host that does as it is told."""
    return {"state": spec.power, "permanent": False, "reboot_nonce": spec.reboot_nonce, "acts": dict(spec.acts)}


def fails(spec: GuestSpec) -> dict[str, Any]:
    """A host that can do nothing."""
    return {"state": "failed", "permanent": True, "detail": "it cannot", "reboot_nonce": 0, "acts": {}}


def halts(spec: GuestSpec) -> dict[str, Any]:
    """A host whose guests turn themselves off as soon as they run."""
    return obeys(spec) | ({"state": "shutdown"} if spec.power == "running" else {})


def row(number: int, mode: str, task: status.Task | None, power: str, now: Any) -> dict[str, Any]:
    """A server with whatever its mode and its task stand on."""
    away = task == "unshelving" or (
        mode == "shelved_offloaded" and (task is None or ENDS[task].waits not in ("guest", "gone", "acts", "snapshot"))
    )
    resized = mode == "resized" or (task or "").startswith("resize_")
    shelved = mode.startswith("shelved") or "shelving" in (task or "") or task == "spawning"
    return {
        "id": f"server-{number}",
        "project_id": PROJECT,
        "user_id": "u",
        "name": "s",
        "hostname": "s",
        "image_id": "image",
        "image": {"format": "qcow2", "virtual_size": 1},
        "flavor_id": "1",
        "flavor": FLAVOR,
        "config_drive": False,
        "metadata": {},
        "disk_config": "AUTO",
        "reservation_id": "r",
        "launch_index": 0,
        "target": {},
        "scheduler_hints": {},
        "created_at": now,
        "launched_at": now,
        "mode": mode,
        "task": task,
        "power": power,
        "state": "running",
        "host_id": None if away else HOST,
        "host": None if away else "h1",
        "acts": {"password": 1} if task == "updating_password" else {},
        "acts_done": {},
        "disks": {},
        "previous": (
            {"flavor_id": "1", "flavor": FLAVOR, "disks": {}, "migration": f"migration-{number}"} if resized else None
        ),
        "shelf": {"image_id": f"image-server-{number}", "power": "running"} if shelved else None,
        "rescue": None,
    }


def fill(tx: Tx) -> None:
    """All states, on one host that has room for all."""
    facts_ = msgspec.to_builtins(FACTS)
    values = {"id": HOST, "name": "h1", "facts": facts_, "network_filter": "fake", "version": "0"}
    tx.execute(sa.insert(host).values(**values, created_at=tx.now, seen_at=tx.now))
    placement.ensure_provider(tx, HOST, "h1")
    room = placement.Inventory(total=10**6, max_unit=10**6)
    placement.set_inventory(tx, HOST, dict.fromkeys(("VCPU", "MEMORY_MB", "DISK_GB"), room))
    rows = [row(number, *one, tx.now) for number, one in enumerate(ALL)]
    tx.execute(sa.insert(server), rows)
    counted = {"instances": len(rows), "cores": len(rows), "ram": 64 * len(rows)}
    tx.execute(sa.insert(usage), [{**OURS, "resource": name, "used": used} for name, used in counted.items()])
    of_images = {"project_id": PROJECT, "service": "image", "used": 10**12}
    tx.execute(
        sa.insert(usage), [{**of_images, "resource": name} for name in ("image_count_total", "image_size_total")]
    )
    common = {"project_id": PROJECT, "user_id": "u", "type": "resize", "status": "migrating", "created_at": tx.now}
    common |= {"old_flavor_id": "1", "new_flavor_id": "1"}
    begun = [
        {
            "uuid": one["previous"]["migration"],
            "server_id": one["id"],
            "project_id": "p",
            "user_id": "u",
            "type": "resize",
            "status": "migrating",
            "old_flavor_id": "1",
            "new_flavor_id": "1",
            "created_at": tx.now,
        }
        for one in rows
        if one["previous"] is not None
    ]
    tx.execute(sa.insert(migration), begun)
    tx.execute(sa.insert(image), [image_row(f"image-{one['id']}") | {"status": "active"} for one in rows])
    for one in rows:
        if one["task"] is not None and ENDS[one["task"]].waits == "snapshot" and one["host_id"] is not None:
            taken(tx, one)


def taken(tx: Tx, one: dict[str, Any]) -> None:
    """Let the host be making an image of a server."""
    name = f"image-{one['id']}"
    tx.execute(sa.update(image).where(image.c.id == name).values(status="queued"))
    purpose = "shelve" if "shelving" in one["task"] else "image"
    made = {"image_id": name, "server_id": one["id"], "host_id": HOST, "purpose": purpose, "details": {}}
    tx.execute(sa.insert(snapshot).values(**made, created_at=tx.now))
    spec = msgspec.json.encode({"id": name, "guest_id": one["id"]})
    held = {"host_id": HOST, "kind": "snapshot", "id": name, "generation": 1, "spec": spec}
    tx.execute(sa.insert(assignment).values(**held, updated_at=tx.now))


def respond(tx: Tx, answer: Answer) -> None:
    """Let the host answer all that it was told."""
    for one in tx.all(sa.select(assignment)):
        mine = (assignment.c.kind == one.kind, assignment.c.id == one.id)
        if one.tombstone:
            tx.execute(sa.delete(assignment).where(*mine))
            continue
        if one.kind == "guest":
            seen = answer(msgspec.json.decode(one.spec, type=GuestSpec))
        else:
            there = answer is not fails
            seen = {"state": "ready" if there else "failed", "permanent": not there, "detail": "it cannot"}
            made = sa.update(image).where(image.c.id == one.id, image.c.status == "queued")
            tx.execute(made.values(status="active" if there else "queued"))
        tx.execute(sa.update(assignment).where(*mine).values(observed_generation=one.generation, **seen))


def turn(store: Store, answer: Answer, config: Config, scheduler: Scheduler) -> None:
    """One turn of all loops, and of the host."""
    ids = [one.id for one in store.read_here(lambda tx: tx.all(sa.select(server.c.id)))]
    waiting = store.read_here(lambda tx: list(scheduler.keys(tx)))

    async def place() -> None:
        await scheduler.reconcile(store, waiting)

    asyncio.run(place())
    store.write_here(lambda tx: write(tx, ids))
    store.write_here(lambda tx: respond(tx, answer))
    store.write_here(lambda tx: fold_all(tx, ids, config))
    snapshots = Snapshots(config)
    for key in store.read_here(lambda tx: list(snapshots.keys(tx))):
        store.write_here(lambda tx, key=key: snapshots.work(tx, key))  # type: ignore[misc] # bound now


@pytest.fixture
def database_schema() -> Schema | None:
    return whole_schema


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    store.write_here(fill)
    yield store
    store.close()


def busy(tx: Tx) -> bool:
    """Whether a server on a host has a task, or something that its host was not told."""
    open_ones = sa.or_(server.c.task.is_not(None), server.c.written < server.c.revision)
    return bool(tx.all(sa.select(server.c.id).where(open_ones, server.c.host_id.is_not(None)).limit(1)))


@pytest.mark.parametrize("answer", [obeys, fails, halts])
def test_every_task_ends(store: Store, answer: Answer) -> None:
    known = fleet.Fleet(store.seams.clock)
    known.beat(HOST, Heartbeat(free_disk_gib=100))
    config, scheduler = Config(state=Path("/nonexistent")), Scheduler(known)
    for _ in range(ROUNDS):
        turn(store, answer, config, scheduler)
        if not store.read_here(busy):
            break
    rows = store.read_here(lambda tx: tx.all(sa.select(server)))
    assert len(rows) == len(ALL)
    for one in rows:
        start = ALL[int(one.id.removeprefix("server-"))]
        found = facts(one)
        assert status.task_state(found) is None, (start, found)
        assert found.error or answer is not fails or not found.placed or found.mode == "soft_deleted", (start, found)
        if (start[1] or "").startswith("resize_"):
            assert one.previous is None or found.mode == "resized", (start, found)
        assert answer is not obeys or not found.error, (start, found)
    turn(store, answer, config, scheduler)
    again = store.read_here(lambda tx: tx.all(sa.select(server)))
    assert [facts(one) for one in again] == [facts(one) for one in rows], "it has come to rest"


def test_every_task_has_one_end() -> None:
    assert set(ENDS) == set(status.TASKS)
    for task, end in ENDS.items():
        seen = {task}
        while end.then is not None:
            assert end.then not in seen, f"{task} goes round in a circle"
            seen.add(end.then)
            end = ENDS[end.then]
        assert end.mode is None or end.mode in status.MODES

"""What upper services may ask of the fleet, inside their own transactions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from pileus.contracts.hypervisor import ConsoleKind
from pileus.contracts.link import Call, Kind
from pileus.core import changes
from pileus.core.context import Request
from pileus.core.errors import Conflict, Unavailable
from pileus.core.statement import at, many
from pileus.core.store import Store, Tx
from pileus.services.fleet.resources import roster
from pileus.services.fleet.resources.assignment import assignment, call
from pileus.services.fleet.resources.host import FORGOTTEN, Fleet, Host, host, store
from pileus.services.fleet.resources.roster import Roster
from pileus.services.fleet.resources.stream import Channel

__all__ = [
    "Channel",
    "Fleet",
    "Host",
    "Observed",
    "Roster",
    "Spec",
    "ask",
    "assign",
    "assigned",
    "begin",
    "console",
    "fetch_image",
    "host_ids",
    "hosts",
    "observed",
    "remove_host",
    "tombstone",
    "update_host",
]


_CALL_LIFE = timedelta(minutes=1)

Verb = Literal["console_log", "diagnostics"]


class Spec(NamedTuple):
    """An object to be held by a host: its kind, id and spec (the struct of that kind in `contracts`)."""

    host_id: str
    kind: Kind
    id: str
    spec: msgspec.Struct


class Observed(NamedTuple):
    """What is known of an assignment. `state` is empty until something was observed."""

    host_id: str
    generation: int
    observed_generation: int
    state: str
    detail: str
    permanent: bool
    reboot_nonce: int
    started_at: float | None
    tombstone: bool
    acts: Mapping[str, int]
    """Of a guest: the last nonce of each act that was applied, or could not be."""
    faults: Mapping[str, str]
    """Of a guest: why the last of an act could not be applied, for people."""
    nics: Sequence[str]
    """Of a guest: ids of the ports whose cards it has."""

    @property
    def current(self) -> bool:
        """Whether what was observed is of the newest spec."""
        return self.observed_generation == self.generation


def begin(tx: Tx) -> str:
    """Note a new run of the control plane on this store; the store's id."""
    known = tx.scalar(sa.select(store.c.store_id).limit(1))
    store_id = known or tx.seams.uuid()
    tx.execute(
        sa.insert(store).values(store_id=store_id, incarnation=tx.seams.uuid(), start=changes.position(tx), at=tx.now)
    )
    return str(store_id)


_NAMED = (assignment.c.kind.in_(many("kinds")), assignment.c.id.in_(many("ids")))
_THERE = assignment.c.host_id.in_(many("hosts"))
_TOLD = sa.select(*(assignment.c[name] for name in ("host_id", "kind", "id", "generation", "spec", "tombstone"))).where(
    *_NAMED
)
_TOLD_THERE = _TOLD.where(_THERE)
_SEEN = sa.select(assignment.c.id, *(assignment.c[name] for name in Observed._fields)).where(*_NAMED)
_SEEN_THERE = _SEEN.where(_THERE)
_SHARED = 8
"""Up to so many objects are looked for on the hosts that are meant: others may hold them too, and be many."""


def hosts(tx: Tx, fleet: Fleet, ids: Collection[str] | None = None) -> list[Host]:
    """All hosts, or those with the ids, by name."""
    return roster.read(tx, fleet, ids)


def host_ids(tx: Tx) -> list[str]:
    """The ids of all hosts."""
    return [row.id for row in tx.all(sa.select(host.c.id))]


def update_host(tx: Tx, host_id: str, **values: Any) -> None:
    """Set `disabled`, `disabled_reason` or `forced_down` of a host."""
    tx.execute(sa.update(host).where(host.c.id == host_id).values(updated_at=tx.now, **values))
    tx.changed("fleet.host", host_id)


def remove_host(tx: Tx, fleet: Fleet, host_id: str) -> None:
    """Forget a host that is down, with all that it was on its way to let go. Absent is fine.

    What hangs on it without being its own, as networks do on the ports of its guests, is forgotten with it.  Should its
    agent come back, it is a new host, and what it holds is unknown here.  Raises Conflict for a host that is up, and
    for one that is to hold guests or routers.
    """
    found = hosts(tx, fleet, [host_id])
    if not found:
        return
    if found[0].up:
        raise Conflict(f"The host {found[0].name} is up and would come back: stop its agent first, or force it down.")
    rows = tx.all(at(assignment, "host_id"), {"value": host_id})
    held = sorted(f"{row.kind} {row.id}" for row in rows if row.kind in ("guest", "router") and not row.tombstone)
    if held:
        raise Conflict(f"The host {found[0].name} is to hold {', '.join(held[:3])}{' and more' * (len(held) > 3)}.")
    tx.execute(sa.delete(call).where(call.c.host_id == host_id))
    tx.execute(sa.delete(assignment).where(assignment.c.host_id == host_id))
    tx.execute(sa.delete(host).where(host.c.id == host_id))
    for row in rows:
        tx.changed(f"fleet.{row.kind}", row.id)
    tx.changed(f"host.{host_id}", FORGOTTEN)
    tx.changed("fleet.host", host_id)


def assign(tx: Tx, specs: Iterable[Spec]) -> dict[tuple[str, str, str], int]:
    """Let hosts hold these objects, as these specs say; their generations by (host, kind, id).

    A spec that is the same as before changes nothing.  An object that was on its way out is wanted again.  One that
    comes back to a host after it was gone begins above every generation that it had.
    """
    wanted = _encoded(specs)
    known = {(row.host_id, row.kind, row.id): row for row in _told(tx, wanted)}
    generations: dict[tuple[str, str, str], int] = {}
    fresh = []
    first = _first_generation(tx) if wanted.keys() - known.keys() else 0
    for key, spec in wanted.items():
        row = known.get(key)
        host_id, kind, object_id = key
        if row is not None and not row.tombstone and row.spec == spec:
            generations[key] = row.generation
            continue
        if row is None:
            generations[key] = first
            row_key = {"host_id": host_id, "kind": kind, "id": object_id}
            cause = {"request_id": tx.cause(object_id)}
            fresh.append({**row_key, **cause, "generation": first, "spec": spec, "updated_at": tx.now})
        else:
            generations[key] = row.generation + 1
            where = {"host_id": host_id, "kind": kind, "id": object_id, "generation": row.generation}
            values = {"generation": row.generation + 1, "spec": spec, "tombstone": False, "updated_at": tx.now}
            tx.compare_and_set(assignment, where, {**values, "request_id": tx.cause(object_id)})
        tx.changed(f"host.{host_id}", f"{kind}/{object_id}")
    tx.insert(assignment, fresh)
    return generations


def _encoded(specs: Iterable[Spec]) -> dict[tuple[str, str, str], bytes]:
    """Specs as they are kept, by (host, kind, id). One that is for many hosts is encoded once."""
    found: dict[tuple[str, str, str], bytes] = {}
    last: tuple[msgspec.Struct | None, bytes] = (None, b"")
    for one in specs:
        if one.spec is not last[0]:
            last = (one.spec, msgspec.json.encode(one.spec))
        found[one.host_id, one.kind, one.id] = last[1]
    return found


def _told(tx: Tx, keys: Collection[tuple[str, str, str]]) -> Sequence[sa.Row[Any]]:
    """What hosts hold of objects: of those on other hosts, some may be among them."""
    hosts_, kinds, ids = ({key[place] for key in keys} for place in range(3))
    if not keys:
        return ()
    if len(ids) <= _SHARED:
        return tx.all(_TOLD_THERE, {"kinds": kinds, "ids": ids, "hosts": hosts_})
    return tx.all(_TOLD, {"kinds": kinds, "ids": ids})


def _first_generation(tx: Tx) -> int:
    """A generation above all that were ever given: each was noted in the change log by the transaction that gave it.

    The last ten bits count what one transaction does to one object.
    """
    return (1 + changes.position(tx)) << 10


def tombstone(tx: Tx, kind: Kind, ids: Collection[str], host_id: str | None = None) -> None:
    """Let the objects go, from one host or from all that hold them. The row stays until the host says it is gone."""
    query = sa.select(assignment).where(
        assignment.c.kind == kind, assignment.c.id.in_(ids), assignment.c.tombstone.is_(False)
    )
    for row in tx.all(query if host_id is None else query.where(assignment.c.host_id == host_id)):
        where = {"host_id": row.host_id, "kind": kind, "id": row.id, "generation": row.generation}
        values = {"generation": row.generation + 1, "spec": None, "tombstone": True, "updated_at": tx.now}
        tx.compare_and_set(assignment, where, {**values, "request_id": tx.cause(row.id)})
        tx.changed(f"host.{row.host_id}", f"{kind}/{row.id}")


def observed(
    tx: Tx, kind: Kind, ids: Collection[str], hosts_: Collection[str] | None = None
) -> dict[str, list[Observed]]:
    """What is known of objects: for each id, one entry for each host that holds it, those on their way out included.

    Of all hosts, or of some.
    """
    found: dict[str, list[Observed]] = {}
    if not ids:
        return found
    given = {"kinds": (kind,), "ids": ids}
    rows = tx.all(_SEEN, given) if hosts_ is None else tx.all(_SEEN_THERE, {**given, "hosts": hosts_})
    for row in rows:
        values: tuple[Any, ...] = tuple(row)
        object_id, *plain, acts, faults, nics = values
        found.setdefault(object_id, []).append(Observed._make((*plain, acts or {}, faults or {}, nics or ())))
    return found


def assigned(tx: Tx, kind: Kind, host_id: str | None = None) -> list[tuple[str, str]]:
    """(id, host id) of all objects of a kind that are assigned and not on their way out."""
    query = sa.select(assignment.c.id, assignment.c.host_id).where(
        assignment.c.kind == kind, assignment.c.tombstone.is_(False)
    )
    rows = tx.all(query if host_id is None else query.where(assignment.c.host_id == host_id))
    return [(row.id, row.host_id) for row in rows]


async def ask(
    request: Request, host_id: str, verb: Verb, target: str, arguments: Mapping[str, Any], *, seconds: float = 10.0
) -> str:
    """Ask a host, and wait for its answer. Raises Unavailable when none comes in time, or when it is an error."""
    call_id = request.seams.uuid()
    return await _ask(
        request.of(Fleet),
        request.store,
        Call(id=call_id, verb=verb, target=target, arguments=dict(arguments)),
        host_id,
        seconds,
    )


@contextlib.asynccontextmanager
async def console(
    fleet: Fleet, store_: Store, host_id: str, guest_id: str, kind: ConsoleKind, *, seconds: float = 10.0
) -> AsyncIterator[Channel]:
    """The console of a guest, as a stream between this process and the guest's host, which ends with the context.

    Raises Unavailable when the host does not answer in time, or the guest has no such console now.
    """
    name = store_.seams.uuid()
    channel = fleet.streams.expect(name, host_id)
    try:
        call = Call(
            id=store_.seams.uuid(), verb="open_console", target=guest_id, arguments={"kind": kind, "stream": name}
        )
        await _ask(fleet, store_, call, host_id, seconds)
        try:
            async with asyncio.timeout(seconds):
                await channel.arrived.wait()
        except TimeoutError:
            raise Unavailable("The host did not open the console in time.") from None
        yield channel
    finally:
        fleet.streams.end(name, channel)


def fetch_image(tx: Tx, host_id: str, image_id: str, *, form: str, sha512: str) -> None:
    """Let a host have an image ahead of guests that may start from it: a hint, which is lost where the host is away."""
    arguments = {"format": form, "sha512": sha512}
    _put(tx, Call(id=tx.seams.uuid(), verb="fetch_image", target=image_id, arguments=arguments), host_id)


def _put(tx: Tx, asked: Call, host_id: str) -> None:
    tx.execute(sa.delete(call).where(call.c.created_at < tx.now - _CALL_LIFE))
    values = {**msgspec.structs.asdict(asked), "host_id": host_id, "created_at": tx.now}
    tx.insert(call, values)
    tx.changed(f"host.{host_id}", f"call/{asked.id}")


async def _ask(fleet: Fleet, store_: Store, asked: Call, host_id: str, seconds: float) -> str:
    clock, topic = store_.seams.clock, f"call.{asked.id}"

    def put(tx: Tx) -> None:
        _put(tx, asked, host_id)

    fleet.expect(topic)
    await store_.write(put)
    deadline = clock.monotonic() + seconds
    try:
        while (left := deadline - clock.monotonic()) > 0 and not fleet.closed:
            rows: Sequence[Any] = await store_.read(lambda tx: tx.all(at(call, "id"), {"value": asked.id}))
            if rows and rows[0].answered:
                if rows[0].output is None:
                    raise Unavailable(rows[0].error)
                return str(rows[0].output)
            await fleet.changed(topic, min(left, 1.0 if store_.embedded else 0.2))
    finally:
        fleet.forget(topic)
        await store_.write(lambda tx: tx.execute(sa.delete(call).where(call.c.id == asked.id)).rowcount)
    raise Unavailable("The host did not answer in time.")

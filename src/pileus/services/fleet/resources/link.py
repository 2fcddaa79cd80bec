"""The link: what agents ask of the control plane. Served on its own socket, never on the public port.

The contract is `pileus.contracts.link`.  Upstream has a message broker here; the nearest public description is that of
Compute's services (https://docs.openstack.org/api-ref/compute/#compute-services-os-services).
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import msgspec
import sqlalchemy as sa

from pileus.contracts.link import (
    Answer,
    Assignment,
    Call,
    Heartbeat,
    Hello,
    Observation,
    Pace,
    Report,
    Watch,
    Welcome,
)
from pileus.core import changes
from pileus.core.api import Resource, Stream
from pileus.core.changes import Cursor
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Conflict
from pileus.core.statement import at, many
from pileus.core.store import Tx
from pileus.services.fleet.resources.assignment import assignment, call
from pileus.services.fleet.resources.host import FORGOTTEN, Fleet, host, store
from pileus.services.fleet.rules.lineage import Incarnation, refusal

WAIT = 20.0
"""Seconds after which an empty watch is answered, in a large fleet as seldom as its heartbeats come."""

LONGEST = 45.0
"""The most of them: an agent takes a longer silence for the end."""


resource = Resource("link", "links")


@resource.post("/hello", public=True)
def hello(ctx: Context, body: Hello) -> Welcome:
    """Let a host in. Raises Conflict when the host has obeyed another store, or a newer state of this one."""
    tx = ctx.tx
    runs = tx.all(sa.select(store).order_by(store.c.number))
    lineage = [Incarnation(run.incarnation, run.start) for run in runs]
    reason = refusal(
        runs[-1].store_id,
        lineage,
        changes.position(tx),
        known=body.store_id,
        heard=body.incarnation,
        position=body.position,
    )
    fleet = ctx.of(Fleet)
    if reason is not None:
        fleet.refuse(body.host, reason)
        raise Conflict(f"The host {body.host} must not obey this store: {reason}.")
    values = {
        "facts": msgspec.to_builtins(body.facts),
        "network_filter": body.network,
        "version": body.version,
        "seen_at": tx.now,
    }
    found = tx.first(at(host, "name"), {"value": body.host})
    if found is None:
        host_id = tx.seams.uuid()
        tx.insert(host, {"id": host_id, "name": body.host, "created_at": tx.now, **values})
    else:
        host_id = found.id
        tx.execute(sa.update(host).where(host.c.id == host_id).values(updated_at=tx.now, **values))
    tx.changed("fleet.host", host_id)
    fleet.welcome(body.host)
    return Welcome(host_id=host_id, store_id=runs[-1].store_id, incarnation=runs[-1].incarnation)


@resource.post("/heartbeat")
async def heartbeat(ctx: Request, body: Heartbeat) -> Pace:
    """Note that a host is there; when it shall say so again."""
    host_id = ctx.auth.user_id
    fleet = ctx.of(Fleet)
    fresh = host_id not in fleet.pulses
    fleet.beat(host_id, body)

    def note(bound: Context) -> None:
        late = host.c.seen_at < bound.now - fleet.seen
        written = bound.tx.execute(sa.update(host).where(host.c.id == host_id, late).values(seen_at=bound.now))
        if written.rowcount or fresh:
            bound.tx.changed("fleet.host", host_id)

    now, noted = ctx.seams.clock.now(), fleet.noted.get(host_id)
    if not fresh and noted is not None and now - noted <= fleet.seen:
        return Pace(seconds=fleet.pace)
    row = await ctx.read(lambda bound: bound.tx.first(_SEEN, {"id": host_id}))
    late = row is not None and now - row.seen_at > fleet.seen
    if fresh or late:
        await ctx.write(note)
    if row is not None:
        fleet.noted[host_id] = now if late else row.seen_at
    return Pace(seconds=fleet.pace)


@resource.get("/watch")
async def watch(ctx: Request) -> Watch:
    """What the host is to hold: everything without `since`, else what changed after that revision (long poll).

    Raises Conflict for a host that was forgotten: it is to say hello again.
    """
    host_id, since = ctx.auth.user_id, ctx.query.get("since")
    cursor, topic = Cursor.parse(since or ""), f"host.{host_id}"
    fleet, clock = ctx.of(Fleet), ctx.seams.clock
    # Most come back at once for what is next: there is nothing to be read when nothing was written meanwhile.
    quiet = ctx.store.embedded and fleet.quiet(topic, since)
    if not quiet:
        await ctx.read(lambda bound: _check_known(bound.tx, host_id))
    if cursor is None:
        fleet.expect(topic)
        whole = await ctx.read(lambda bound: _everything(bound.tx, host_id))
        fleet.tell(topic, whole.revision)
        return whole
    # Hosts that came together are not answered together: thousands at once would wait for each other.
    share = 0.5 + zlib.crc32(host_id.encode()) / (1 << 33)
    deadline = clock.monotonic() + share * min(max(WAIT, fleet.pace), LONGEST)

    async def news(after: Cursor) -> tuple[Watch, Cursor]:
        return await ctx.read(lambda bound: _news(bound.tx, host_id, topic, after))

    while True:
        left = deadline - clock.monotonic()
        if not quiet:
            fleet.expect(topic)
            found, cursor = await news(cursor)
            fleet.tell(topic, found.revision)
            if found.assignments or found.calls or found.full or left <= 0 or fleet.closed:
                return found
        quiet = False
        named = await fleet.changed(topic, left if ctx.store.embedded else min(left, 0.5))
        if ctx.store.embedded and not named and not fleet.closed:
            return Watch(revision=str(cursor), position=cursor.next - 1, full=False, assignments=[])


_KNOWN = sa.select(host.c.id).where(host.c.id == sa.bindparam("id"))
_SEEN = sa.select(host.c.seen_at).where(host.c.id == sa.bindparam("id"))
_OF_HOST = sa.select(assignment).where(
    assignment.c.host_id == sa.bindparam("host_id"), assignment.c.id.in_(many("ids"))
)


def _check_known(tx: Tx, host_id: str) -> None:
    if tx.first(_KNOWN, {"id": host_id}) is None:
        raise Conflict(f"The host {host_id} is not known here.")


def _everything(tx: Tx, host_id: str) -> Watch:
    revision, position = str(changes.head(tx)), changes.position(tx)
    rows = tx.all(at(assignment, "host_id"), {"value": host_id})
    assignments = [_wire(row) for row in rows]
    return Watch(revision=revision, position=position, full=True, assignments=assignments, calls=_calls(tx, host_id))


def _news(tx: Tx, host_id: str, topic: str, cursor: Cursor) -> tuple[Watch, Cursor]:
    found = changes.since(tx, cursor, topic=topic)
    if found.lost:
        return _everything(tx, host_id), found.cursor
    revision, position = str(found.cursor), changes.position(tx)
    if not found.changes:
        return Watch(revision=revision, position=position, full=False, assignments=[]), found.cursor
    if FORGOTTEN in {one.key for one in found.changes}:
        _check_known(tx, host_id)
    ids = {one.key.partition("/")[2] for one in found.changes}
    named = {one.key for one in found.changes}
    rows = [row for row in tx.all(_OF_HOST, {"host_id": host_id, "ids": ids}) if f"{row.kind}/{row.id}" in named]
    calls = _calls(tx, host_id) if any(key.startswith("call/") for key in named) else []
    assignments = [_wire(row) for row in rows]
    news = Watch(revision=revision, position=position, full=False, assignments=assignments, calls=calls)
    return news, found.cursor


def _wire(row: sa.Row[tuple[object, ...]]) -> Assignment:
    spec = msgspec.Raw(b"null") if row.spec is None or row.tombstone else msgspec.Raw(row.spec)
    cause = row.request_id or ""
    return Assignment(
        kind=row.kind, id=row.id, generation=row.generation, spec=spec, tombstone=row.tombstone, request_id=cause
    )


def _calls(tx: Tx, host_id: str) -> list[Call]:
    rows = tx.all(sa.select(call).where(call.c.host_id == host_id, call.c.answered.is_(False)))
    return [Call(id=row.id, verb=row.verb, target=row.target, arguments=row.arguments) for row in rows]


@resource.post("/report", status=204)
def report(ctx: Context, body: Report) -> None:
    """Take in what the host observed. What is of an older generation than is known already is passed over."""
    if len(body.observations) > 10_000:
        raise BadRequest("A report holds at most 10,000 observations.")
    tx, host_id = ctx.tx, ctx.auth.user_id
    ids = {one.id for one in body.observations}
    rows = {(row.kind, row.id): row for row in tx.all(_OF_HOST, {"host_id": host_id, "ids": ids})}
    for one in body.observations:
        row = rows.get((one.kind, one.id))
        if row is None or one.generation < row.observed_generation or one.generation > row.generation:
            continue
        _fold(tx, row, one)


def _fold(tx: Tx, row: sa.Row[tuple[object, ...]], seen: Observation) -> None:
    same = (assignment.c.kind == row.kind, assignment.c.id == row.id, assignment.c.host_id == row.host_id)
    if seen.request_id and seen.request_id == row.request_id:
        tx.because(row.id, seen.request_id)
    if row.tombstone and seen.state == "absent" and seen.generation == row.generation:
        gone = tx.execute(sa.delete(assignment).where(*same, assignment.c.generation == row.generation))
        if gone.rowcount:
            tx.changed(f"fleet.{row.kind}", row.id)
        return
    values = {
        "observed_generation": seen.generation,
        "state": seen.state,
        "detail": seen.detail,
        "permanent": seen.permanent,
        "reboot_nonce": seen.reboot_nonce,
        "acts": seen.acts or None,
        "faults": seen.faults or None,
        "nics": seen.nics or None,
        "started_at": seen.started_at,
    }
    if all(row._mapping[name] == value for name, value in values.items()):
        return
    key = {"kind": row.kind, "id": row.id, "host_id": row.host_id}
    tx.update(assignment, key, {"observed_at": tx.now, **values})
    tx.changed(f"fleet.{row.kind}", row.id)


@resource.post("/answer", status=204)
def answer(ctx: Context, body: Answer) -> None:
    """Take in the answer to a call."""
    same = (call.c.id == body.id, call.c.host_id == ctx.auth.user_id)
    ctx.tx.execute(sa.update(call).where(*same).values(answered=True, output=body.output, error=body.error))
    ctx.tx.changed(f"call.{body.id}", body.id)


@resource.post("/streams/{name}")
async def open_stream(ctx: Request, name: str, stream: AsyncIterator[bytes]) -> Stream:
    """Take a stream that this host was asked to open: what it posts, and what it is answered, side by side.

    Raises NotFound when it was not asked to.
    """
    return Stream(ctx.of(Fleet).streams.take(name, ctx.auth.user_id).connect(stream), None)

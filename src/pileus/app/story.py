"""What the store knows of a request, or of a thing: who asked for what, what was changed, decided and observed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from pileus.cli.main import Told
from pileus.core.statement import by
from pileus.core.store import Tx, change
from pileus.services.compute.resources.server.table import action, decision, server
from pileus.services.fleet.resources.assignment import assignment
from pileus.services.fleet.resources.host import host

MOST = 2000
"""Changes that are looked at, the newest."""


def tell(tx: Tx, wanted: str) -> Iterator[Told]:
    """All that the store knows, in no order. `wanted` is the id of a request (`req-…`) or of a thing."""
    of_request = wanted.startswith("req-")
    found = (
        change.c.request_id == wanted
        if of_request
        else sa.or_(change.c.key == wanted, change.c.key.like(f"%/{wanted}"))
    )
    rows = tx.all(sa.select(change).where(found).order_by(change.c.seq.desc()).limit(MOST))
    names = {row.id: row.name for row in tx.all(sa.select(host.c.id, host.c.name))}
    yield from _changes(rows, names)
    servers = {row.key.rpartition("/")[2] for row in rows} if of_request else {wanted}
    asked = action.c.request_id == wanted if of_request else action.c.server_id == wanted
    yield from _actions(tx, asked)
    decided = _decisions(tx, servers)
    if of_request and rows:
        decided = _caused(tx, decided, wanted, min(row.at for row in rows))
    yield from (told for _, told in decided)
    held = assignment.c.request_id == wanted if of_request else assignment.c.id == wanted
    yield from _observed(tx, held, names)


def _changes(rows: Iterable[sa.Row[Any]], names: dict[str, str]) -> Iterator[Told]:
    """A line for each transaction."""

    def transaction(row: sa.Row[Any]) -> tuple[datetime, str]:
        return row.at, row.request_id or ""

    for (at, request_id), group in groupby(sorted(rows, key=transaction), key=transaction):
        words = ", ".join(dict.fromkeys(_named(row, names) for row in group))
        yield Told(at.timestamp(), "store", f"changed: {words}", request_id)


def _named(row: sa.Row[Any], names: dict[str, str]) -> str:
    kind, _, host_id = row.topic.partition(".")
    if kind == "host":
        return f"what host {names.get(host_id, host_id)} is to hold: {row.key}"
    return f"{row.topic} {row.key}"


def _actions(tx: Tx, asked: sa.ColumnElement[bool]) -> Iterator[Told]:
    for row in tx.all(sa.select(action).where(asked)):
        who = f"user {row.user_id} of project {row.project_id}"
        yield Told(row.started_at.timestamp(), "compute", f"{who} asked: {row.action} {row.server_id}", row.request_id)
        if row.finished_at is not None:
            text = f"{row.action} {row.server_id} ended: {row.result or row.message or 'done'}"
            more = f": {row.details}" if row.details else ""
            yield Told(row.finished_at.timestamp(), "compute", text + more, row.request_id)


def _decisions(tx: Tx, servers: Iterable[str]) -> Iterator[tuple[str, Told]]:
    """What was decided on servers, and what is wrong with them; each with its server."""
    ids = list(servers)[:500]
    for row in tx.all(by(decision, "server_id"), {"values": ids}):
        refused = ", ".join(f"{count} refused by {name}" for name, count in row.counts.items() if count)
        chosen = f"chose {row.chosen}" if row.chosen else "found no host"
        text = f"{chosen} for server {row.server_id}" + (f" ({refused})" if refused else "")
        yield row.server_id, Told(row.at.timestamp(), "scheduler", text, "")
        for name, reason in (row.hosts or {}).items():
            yield row.server_id, Told(row.at.timestamp(), "scheduler", f"  {name}: {reason}", "")
    columns = (server.c.id, server.c.fault, server.c.updated_at, server.c.created_at)
    for row in tx.all(sa.select(*columns).where(server.c.id.in_(ids), server.c.fault.is_not(None))):
        if row.fault:
            at = row.updated_at or row.created_at
            text = f"fault of server {row.id}: {row.fault.get('message', '')}"
            yield row.id, Told(at.timestamp(), "compute", text, "")


def _caused(
    tx: Tx, decided: Iterable[tuple[str, Told]], request_id: str, began: datetime
) -> Iterator[tuple[str, Told]]:
    """What was decided on account of a request: since it came, and before another request for the same server."""
    found = list(decided)
    others = (
        sa.select(action.c.server_id, sa.func.min(action.c.started_at).label("at"))
        .where(action.c.server_id.in_({one for one, _ in found}))
        .where(action.c.started_at > began, action.c.request_id != request_id)
        .group_by(action.c.server_id)
    )
    ends = {row.server_id: row.at.timestamp() for row in tx.all(others)}
    for one, told in found:
        if began.timestamp() <= told.at < ends.get(one, float("inf")):
            yield one, told


def _observed(tx: Tx, held: sa.ColumnElement[bool], names: dict[str, str]) -> Iterator[Told]:
    for row in tx.all(sa.select(assignment).where(held)):
        where = f"host {names.get(row.host_id, row.host_id)}"
        verb = "let go" if row.tombstone else "hold"
        text = f"{where} is to {verb} {row.kind}/{row.id}, generation {row.generation}"
        yield Told(row.updated_at.timestamp(), "fleet", text, row.request_id or "")
        if row.observed_at is not None:
            seen = f"{row.state}{': ' + row.detail if row.detail else ''}, generation {row.observed_generation}"
            text = f"{where} told of {row.kind}/{row.id}: {seen}"
            yield Told(row.observed_at.timestamp(), "fleet", text, row.request_id or "")

"""Servers that others are to be with on a host, or apart from: the hints `same_host` and `different_host`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules import hint


class Companions(NamedTuple):
    """Hosts by name: of servers that one is to be with (None when there is no such hint), and to be apart from."""

    beside: Sequence[str] | None = None
    apart: Sequence[str] = ()


NOBODY = Companions()


def companions(tx: Tx, rows: Sequence[sa.Row[Any]]) -> dict[str, Companions]:
    """The companions of those servers whose users gave such hints; one query however many, none without hints.

    A hint speaks of servers of the same project: of others it says nothing, as if they were not there.
    """
    hinted = {
        row.id: (hint.servers(row.scheduler_hints, "same_host"), hint.servers(row.scheduler_hints, "different_host"))
        for row in rows
        if row.scheduler_hints
    }
    named = {one for both in hinted.values() for names in both for one in names}
    if not named:
        return {}
    there = (server.c.id.in_(named), server.c.host.is_not(None), server.c.deleted_at.is_(None))
    query = sa.select(server.c.id, server.c.host, server.c.project_id).where(*there)
    places = {one.id: one for one in tx.all(query)}
    found = {}
    for row in rows:
        same, different = hinted.get(row.id, ((), ()))

        def hosts(ids: Sequence[str], project_id: str = row.project_id) -> list[str]:
            return sorted({places[one].host for one in ids if one in places and places[one].project_id == project_id})

        if same or different:
            found[row.id] = Companions(hosts(same) if same else None, hosts(different))
    return found

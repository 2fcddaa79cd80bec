"""Events that other services tell of servers.

https://docs.openstack.org/api-ref/compute/#create-external-events-os-server-external-events

Network is in the same store and needs to tell nothing.  What others tell makes the loops look at the server anew, and
they do what is to be done: an event is a hint, and nothing is believed because of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.core.policy import Rule
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules.persona import SERVICE
from pileus.services.compute.rules.shape import Uuid

_First = Literal["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"]
_Second = _First | Literal["volume-extended"]
_Third = _Second | Literal["power-update"]
_Fourth = _Third | Literal["accelerator-request-bound"]
_Fifth = _Fourth | Literal["volume-reimaged"]

_TAGGED = ("volume-extended", "power-update", "accelerator-request-bound")
"""Events that tell nothing without a tag."""


class ExternalEvent(Body):
    """One event."""

    name: Annotated[
        _Fifth,
        W(_First, until="2.50"),
        W(_Second, since="2.51", until="2.75"),
        W(_Third, since="2.76", until="2.81"),
        W(_Fourth, since="2.82", until="2.92"),
        W(_Fifth, since="2.93"),
    ]
    server_uuid: Uuid
    status: Literal["failed", "completed", "in-progress"] = "completed"
    tag: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType = UNSET


class ExternalEvents(Body):
    """Body of create."""

    events: Annotated[list[ExternalEvent], msgspec.Meta(min_length=1)]


class Taken(View):
    """An event, and what became of it."""

    name: str
    server_uuid: str
    status: str
    code: int
    tag: str | UnsetType


class Taking(View):
    """The response: all events."""

    events: list[Taken]


RULES = (Rule("os_compute_api:os-server-external-events:create", SERVICE, "Tell of something that happened"),)

resource = Resource("event", "events", rules=RULES)


def _code(event: ExternalEvent, hosts: dict[str, str | None]) -> int:
    if event.server_uuid not in hosts:
        return 404
    if event.name in _TAGGED and event.tag is UNSET:
        return 400
    return 422 if hosts[event.server_uuid] is None else 200


@resource.post("/os-server-external-events", policy="os_compute_api:os-server-external-events:create", successes=(207,))
def create(ctx: Context, body: ExternalEvents) -> Reply:
    """Take events; 207 when some were refused: 404 no such server, 422 one without a host, 400 without a needed tag."""
    ids = {event.server_uuid for event in body.events}
    query = sa.select(server.c.id, server.c.host_id).where(server.c.id.in_(ids), server.c.deleted_at.is_(None))
    hosts = {row.id: row.host_id for row in ctx.tx.all(query)}
    taken = []
    for event in body.events:
        code = _code(event, hosts)
        status = event.status if code == 200 else "failed"
        if code == 200:
            status = "completed"
        taken.append(Taken(name=event.name, server_uuid=event.server_uuid, status=status, code=code, tag=event.tag))
    for server_id in sorted({one.server_uuid for one in taken if one.code == 200}):
        ctx.tx.changed("compute.intent", server_id)
    return Reply(Taking(events=taken), status=200 if all(one.code == 200 for one in taken) else 207)

"""What was asked of a server, and how it went."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Page, Parameters, next_query
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound
from pileus.core.fields import UNSET, Guard, UnsetType, View, W
from pileus.core.listing import instant, limit_of
from pileus.services.compute.resources.server.fields import host_hash
from pileus.services.compute.resources.server.operations.row import find, resource
from pileus.services.compute.resources.server.table import action
from pileus.services.compute.rules.shape import bare
from pileus.services.compute.versions import ACTIONS_OF_DELETED, ACTIONS_PAGED, EVENTS_FOR_ALL

_MANY = Parameters(
    later={"limit": "2.58", "marker": "2.58", "changes-since": "2.58", "changes-before": "2.66"}, closed="2.58"
)
_MOST = 1000


class Action(View):
    """One thing that was asked."""

    action: str
    instance_uuid: str
    request_id: str
    user_id: str
    project_id: str
    start_time: str | None
    message: str | None
    updated_at: Annotated[str | UnsetType | None, W(since="2.58")]


class Event(View):
    """What an action caused on the host."""

    event: str
    start_time: str | None
    finish_time: str | None
    result: str | None
    traceback: Annotated[UnsetType | None, Guard("os_compute_api:os-instance-actions:events")]
    host: Annotated[str | UnsetType | None, W(since="2.62"), Guard("os_compute_api:os-instance-actions:events")]
    host_hash: Annotated[str | UnsetType, W(since="2.62")] = msgspec.field(name="hostId")
    details: Annotated[
        str | UnsetType | None, W(since="2.84"), Guard("os_compute_api:os-instance-actions:events:details")
    ]


class ActionDetail(Action):
    """One thing that was asked, with its events."""

    events: list[Event] | UnsetType


def _fields(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "action": row.action,
        "instance_uuid": row.server_id,
        "request_id": row.request_id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "start_time": bare(row.started_at),
        "message": row.message,
        "updated_at": bare(row.updated_at),
    }


@resource.get(
    "/servers/{server_id}/os-instance-actions",
    policy="os_compute_api:os-instance-actions:list",
    wraps="instanceActions",
    query=_MANY,
)
def list_actions(ctx: Context, server_id: str) -> Page:
    """All that was asked of a server, newest first."""
    row = find(ctx, server_id, deleted=ACTIONS_OF_DELETED.covers(ctx.version))
    query = (
        sa.select(action).where(action.c.server_id == row.id).order_by(action.c.started_at.desc(), action.c.id.desc())
    )
    if not ACTIONS_PAGED.covers(ctx.version):
        return Page([Action(**_fields(one)) for one in ctx.tx.all(query)])
    since, before = ctx.query.get("changes-since"), ctx.query.get("changes-before")
    if since is not None:
        query = query.where(action.c.updated_at >= instant(since))
    if before is not None:
        query = query.where(action.c.updated_at <= instant(before))
    if since is not None and before is not None and instant(before) < instant(since):
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    marker = ctx.query.get("marker")
    if marker:
        last = _newest(ctx, row.id, marker)
        if last is None:
            raise BadRequest(f"marker [{marker}] not found")
        query = query.where(action.c.id < last.id)
    limit = _limit(ctx)
    rows = ctx.tx.all(query.limit(limit))
    page = Page([Action(**_fields(one)) for one in rows])
    if len(rows) == limit:
        href = ctx.url + ctx.path + next_query(ctx, rows[-1].request_id)
        page.more["links"] = [{"rel": "next", "href": href}]
    return page


def _limit(ctx: Context) -> int:
    return min(limit_of(ctx.query.get("limit") or "0") or _MOST, _MOST)


def _newest(ctx: Context, server_id: str, request_id: str) -> sa.Row[Any] | None:
    query = sa.select(action).where(action.c.server_id == server_id, action.c.request_id == request_id)
    return ctx.tx.first(query.order_by(action.c.id.desc()))


@resource.get(
    "/servers/{server_id}/os-instance-actions/{request_id}",
    policy="os_compute_api:os-instance-actions:show",
    wraps="instanceAction",
)
def show_action(ctx: Context, server_id: str, request_id: str) -> ActionDetail:
    """What one request asked of a server."""
    row = find(ctx, server_id, deleted=ACTIONS_OF_DELETED.covers(ctx.version))
    found = _newest(ctx, row.id, request_id)
    if found is None:
        raise NotFound(f"Action {request_id} not found")
    target = {"project_id": row.project_id}
    if not EVENTS_FOR_ALL.covers(ctx.version) and not ctx.allows("os_compute_api:os-instance-actions:events", target):
        return ActionDetail(events=UNSET, **_fields(found))
    events = []
    if found.event is not None:
        events.append(
            Event(
                event=found.event,
                start_time=bare(found.started_at),
                finish_time=bare(found.finished_at),
                result=found.result,
                traceback=None,
                host=found.host,
                host_hash=host_hash(found.host, row.project_id),
                details=found.details,
            )
        )
    return ActionDetail(events=events, **_fields(found))

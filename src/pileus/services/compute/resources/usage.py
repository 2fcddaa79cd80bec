"""Usage of projects: how long their servers ran in a period, and how much they had.

https://docs.openstack.org/api-ref/compute/#usage-reports-os-simple-tenant-usage

Pages are of servers, not of projects: one whose servers do not fit on a page comes again on the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource, links_paging
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.listing import integer
from pileus.core.policy import Rule
from pileus.services.compute.resources.server.table import facts, server
from pileus.services.compute.rules.persona import ADMIN, READER
from pileus.services.compute.rules.shape import bare
from pileus.services.compute.rules.status import vm_state
from pileus.services.compute.rules.usage import Period, moment
from pileus.services.compute.versions import USAGE_PAGES

RULES = (
    Rule("os_compute_api:os-simple-tenant-usage:list", ADMIN, "Show the usage of all projects"),
    Rule("os_compute_api:os-simple-tenant-usage:show", READER, "Show the usage of a project"),
)

resource = Resource("tenant_usage", "tenant_usages", rules=RULES)

_MOST = 1000
_PAGED = {"limit": "2.40", "marker": "2.40"}


def _period(ctx: Context) -> Period:
    """The period that a request names, as far as it is over. Raises BadRequest."""
    try:
        start, stop = (moment(text) if (text := ctx.query.get(name)) else ctx.now for name in ("start", "end"))
    except ValueError:
        raise BadRequest("Datetime is in invalid format") from None
    if not start < stop:
        raise BadRequest("Invalid start time. The start time cannot occur after the end time.")
    return Period(start, min(stop, ctx.now))


def _servers(ctx: Context, period: Period, project_id: str | None) -> tuple[Sequence[sa.Row[Any]], str | None]:
    """Servers that were there in a period, oldest first, and the marker of the next page. Raises BadRequest."""
    c = server.c
    query = sa.select(server).where(
        c.launched_at < period.stop, sa.or_(c.deleted_at.is_(None), c.deleted_at > period.start)
    )
    if project_id is not None:
        query = query.where(c.project_id == project_id)
    limit = _MOST
    if USAGE_PAGES.covers(ctx.version):
        wanted = integer(ctx.query.get("limit") or str(_MOST))
        if wanted < 0:
            raise BadRequest("limit must not be negative")
        limit = min(wanted, _MOST)
        marker = ctx.query.get("marker")
        if marker is not None:
            row = ctx.tx.first(sa.select(c.launched_at, c.id).where(c.id == marker))
            if row is None or row.launched_at is None:
                raise BadRequest(f"Marker {marker} could not be found.")
            later = sa.and_(c.launched_at == row.launched_at, c.id > row.id)
            query = query.where(sa.or_(c.launched_at > row.launched_at, later))
    rows = ctx.tx.all(query.order_by(c.launched_at, c.id).limit(limit))
    return rows, rows[-1].id if rows and len(rows) == limit else None


def _server_usage(ctx: Context, period: Period, row: sa.Row[Any]) -> dict[str, Any]:
    ended = row.deleted_at
    return {
        "instance_id": row.id,
        "name": row.name,
        "tenant_id": row.project_id,
        "flavor": row.flavor.get("name", ""),
        "hours": period.hours(row.launched_at, ended),
        "memory_mb": row.flavor.get("ram", 0),
        "local_gb": row.flavor.get("disk", 0) + row.flavor.get("ephemeral", 0),
        "vcpus": row.flavor.get("vcpus", 0),
        "started_at": bare(row.launched_at),
        "ended_at": bare(ended),
        "state": "terminated" if ended is not None else vm_state(facts(row)),
        "uptime": int(((ended or ctx.now) - row.launched_at).total_seconds()),
    }


def _usages(ctx: Context, period: Period, rows: Sequence[sa.Row[Any]], *, detailed: bool) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = _server_usage(ctx, period, row)
        total = found.setdefault(
            row.project_id,
            {
                "tenant_id": row.project_id,
                **({"server_usages": []} if detailed else {}),
                "total_local_gb_usage": 0.0,
                "total_vcpus_usage": 0.0,
                "total_memory_mb_usage": 0.0,
                "total_hours": 0.0,
                "start": bare(period.start),
                "stop": bare(period.stop),
            },
        )
        for name in ("local_gb", "vcpus", "memory_mb"):
            total[f"total_{name}_usage"] += one[name] * one["hours"]
        total["total_hours"] += one["hours"]
        if detailed:
            total["server_usages"].append(one)
    return list(found.values())


def _page(ctx: Context, items: Sequence[Any], marker: str | None) -> Page:
    return Page(items, marker if USAGE_PAGES.covers(ctx.version) else None)


@resource.get(
    "/os-simple-tenant-usage",
    policy="os_compute_api:os-simple-tenant-usage:list",
    query=Parameters("start", "end", "detailed", later=_PAGED, closed="2.75"),
)
def list_all(ctx: Context) -> Page:
    """The usage of all projects that had servers in the period. Raises BadRequest."""
    period = _period(ctx)
    rows, marker = _servers(ctx, period, None)
    return _page(ctx, _usages(ctx, period, rows, detailed=ctx.query.get("detailed") == "1"), marker)


@resource.get(
    "/os-simple-tenant-usage/{project_id}",
    policy="os_compute_api:os-simple-tenant-usage:show",
    query=Parameters("start", "end", later=_PAGED, closed="2.75"),
)
def show(ctx: Context, project_id: str) -> dict[str, Any]:
    """The usage of one project, with its servers; an empty object when it had none. Raises BadRequest."""
    period = _period(ctx)
    rows, marker = _servers(ctx, period, project_id)
    found = links_paging(ctx, "tenant_usage", _page(ctx, [], marker))
    usages = _usages(ctx, period, rows, detailed=True)
    return {**found, "tenant_usage": usages[0] if usages else {}}

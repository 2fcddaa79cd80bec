"""Listing, showing and changing servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page
from pileus.core.context import Context
from pileus.core.errors import Conflict
from pileus.core.fields import UNSET, given
from pileus.services.compute.resources import aggregate, server_group
from pileus.services.compute.resources.server.fields import (
    LIST_PARAMETERS,
    Beside,
    Server,
    ServerName,
    ServerUpdate,
    ServerUpdated,
    values,
)
from pileus.services.compute.resources.server.operations import listing
from pileus.services.compute.resources.server.operations.row import allow, find, resource
from pileus.services.compute.resources.server.table import tags_of, want
from pileus.services.compute.rules import address
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.shape import links
from pileus.services.compute.versions import UPDATE_SHOWS_ALL
from pileus.services.fleet import interface as fleet
from pileus.services.network import interface as network


def host_status(host: fleet.Host | None) -> str:
    """The API's word for how a server's host is; empty for none."""
    if host is None:
        return ""
    if host.forced_down:
        return "DOWN"
    if not host.up:
        return "UNKNOWN"
    return "MAINTENANCE" if host.disabled else "UP"


def _beside(ctx: Context, rows: Sequence[sa.Row[Any]], *, brief: bool = False) -> dict[str, Beside]:
    """What the views of these servers take from elsewhere, by a number of queries that does not grow with them."""
    ids = [row.id for row in rows]
    ports = network.ports_of(ctx.tx, ids) if ids else {}
    tags = tags_of(ctx.tx, ids)
    placed = {row.host_id for row in rows if row.host_id is not None}
    watched = placed and ctx.allows("os_compute_api:servers:show:host_status")
    hosts = {one.id: one for one in fleet.hosts(ctx.tx, ctx.of(fleet.Fleet), placed)} if watched else {}
    zones = aggregate.zones(ctx.tx, {row.host for row in rows if row.host is not None}) if placed else {}
    return {
        row.id: Beside(
            addresses=address.by_network(ports.get(row.id, ()), brief=brief),
            groups=address.groups(ports.get(row.id, ())),
            tags=tags[row.id],
            zone=(row.availability_zone or "") if row.host is None else zones.get(row.host, ZONE),
            host_status=host_status(hosts.get(row.host_id)),
        )
        for row in rows
    }


@resource.get("/servers", policy="os_compute_api:servers:index", query=LIST_PARAMETERS)
def list_names(ctx: Context) -> Page:
    """Servers in brief."""
    found = listing.page(ctx, "os_compute_api:servers:index:get_all_tenants")
    items = [
        ServerName(id=row.id, name=row.name, links=links(ctx.url, ctx.path, "servers", row.id)) for row in found.rows
    ]
    return Page(items, found.next_marker)


@resource.get("/servers/detail", policy="os_compute_api:servers:detail", query=LIST_PARAMETERS)
def list_details(ctx: Context) -> Page:
    """Servers in full."""
    found = listing.page(ctx, "os_compute_api:servers:detail:get_all_tenants")
    beside = _beside(ctx, found.rows)
    items = [Server(**{**values(ctx, row, beside[row.id]), "server_groups": UNSET}) for row in found.rows]
    return Page(items, found.next_marker)


@resource.get("/servers/{server_id}", policy="os_compute_api:servers:show", wraps="server")
def show(ctx: Context, server_id: str) -> Server:
    """One server."""
    row = find(ctx, server_id)
    return Server(**_in_group(ctx, row, values(ctx, row, _beside(ctx, [row])[row.id])))


def _in_group(ctx: Context, row: sa.Row[Any], found: dict[str, Any]) -> dict[str, Any]:
    """The fields of one server with the server group that it is in; lists have them not."""
    return {**found, "server_groups": list(server_group.of_servers(ctx.tx, [row.id]).values())}


@resource.put("/servers/{server_id}", policy="os_compute_api:servers:update", accepts="server", wraps="server")
def update(ctx: Context, server_id: str, body: ServerUpdate) -> ServerUpdated:
    """Change what a server is called, and the like.

    Raises BadRequest for what is no address, Conflict for a zone that it cannot be bound to.
    """
    row = find(ctx, server_id)
    allow(ctx, row, "update")
    changes = given(body)
    if "pinned_availability_zone" in changes:
        changes["availability_zone"] = _pin(ctx, row, changes.pop("pinned_availability_zone"))
    if "access_ipv4" in changes:
        changes["access_ip_v4"] = address.access_v4(changes.pop("access_ipv4"))
    if "access_ipv6" in changes:
        changes["access_ip_v6"] = address.access_v6(changes.pop("access_ipv6"))
    if changes:
        want(ctx.tx, row, **changes)
        row = find(ctx, server_id)
    return ServerUpdated(**described(ctx, row))


def described(ctx: Context, row: sa.Row[Any]) -> dict[str, Any]:
    """The fields of `ServerUpdated`, which say less of addresses until 2.74."""
    beside = _beside(ctx, [row], brief=not UPDATE_SHOWS_ALL.covers(ctx.version))
    return _in_group(ctx, row, values(ctx, row, beside[row.id]))


def _pin(ctx: Context, row: sa.Row[Any], zone: str | None) -> str | None:
    bound: str | None = row.availability_zone
    if zone is not None and bound is not None and zone != bound:
        raise Conflict(
            "Cannot change pinned availability zone directly. Unpin first by setting pinned_availability_zone to null."
        )
    here = "" if row.host is None else aggregate.zones(ctx.tx, [row.host]).get(row.host, ZONE)
    if zone is not None and bound is None and zone != here:
        raise Conflict(
            f"Server can only be pinned to its current availability zone '{here}', but '{zone}' was requested."
        )
    return zone

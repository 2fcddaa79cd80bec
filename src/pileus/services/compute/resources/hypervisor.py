"""Hosts as Compute shows them: hypervisors, and the stock that the scheduler sees.

https://docs.openstack.org/api-ref/compute/#hypervisors-os-hypervisors

Before microversion 2.53 a hypervisor is named by a number: its place in the order of the hosts' creation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound, NotImplementedHere
from pileus.core.fields import UNSET, UnsetType, View, W
from pileus.core.listing import boolean, limit_of
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.server.table import facts, server
from pileus.services.compute.rules import placing
from pileus.services.compute.rules.persona import ADMIN
from pileus.services.compute.rules.shape import is_uuid
from pileus.services.compute.rules.status import settled
from pileus.services.compute.rules.uptime import uptime
from pileus.services.compute.versions import (
    HYPERVISOR_PAGES,
    HYPERVISOR_QUERIES,
    HYPERVISOR_UUID,
    SERVERS_ALWAYS,
    cpu_info,
)
from pileus.services.fleet import interface as fleet
from pileus.services.placement import interface as placement

_NONE = placing.Stock(0, 0, 1.0, 0)


def candidates(tx: Tx, hosts: Collection[fleet.Host]) -> list[placing.Host]:
    """The hosts as the scheduler judges them."""
    capacities = {one.uuid: one for one in placement.snapshot(tx, [host.id for host in hosts])}
    zones = aggregate.zones(tx)
    return [candidate(host, capacities.get(host.id), zones.get(host.name, placing.ZONE)) for host in hosts]


def candidate(host: fleet.Host, capacity: placement.Capacity | None, zone: str) -> placing.Host:
    """A host as the scheduler judges it, given what its provider has and its availability zone."""
    rooms = {} if capacity is None else capacity.rooms
    return placing.Host(
        id=host.id,
        name=host.name,
        up=host.up,
        disabled=host.disabled,
        disabled_reason=host.disabled_reason,
        zone=zone,
        generation=-1 if capacity is None else capacity.generation,
        stock={
            name: placing.Stock(room.total, room.reserved, room.allocation_ratio, room.used)
            for name, room in rooms.items()
        },
        facts=host.facts,
        traits=frozenset() if capacity is None else capacity.traits,
    )


class HypervisorService(View):
    """The service that drives a hypervisor."""

    id: int | str
    host: str
    disabled_reason: str | None


class ServerOn(View):
    """A server on a hypervisor."""

    name: str
    uuid: str


class HypervisorName(View):
    """A hypervisor in brief."""

    id: int | str
    hypervisor_hostname: str
    state: str
    status: str
    servers: list[ServerOn] | UnsetType = UNSET


class HypervisorUptime(HypervisorName, kw_only=True):
    """A hypervisor, and how long it has been up."""

    uptime: str


class Hypervisor(HypervisorName):
    """A hypervisor in full. Sums are shown until 2.87, `uptime` from then on; null where it is not known."""

    hypervisor_type: str = ""
    hypervisor_version: int = 0
    host_ip: str | None = None
    service: HypervisorService | UnsetType = UNSET
    vcpus: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    memory_mb: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    local_gb: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    vcpus_used: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    memory_mb_used: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    local_gb_used: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    free_ram_mb: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    free_disk_gb: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    current_workload: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    running_vms: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    disk_available_least: Annotated[int | UnsetType, W(until="2.87")] = UNSET
    cpu_info: Annotated[dict[str, Any] | str | UnsetType, W(until="2.87")] = UNSET
    uptime: Annotated[str | UnsetType | None, W(since="2.88")] = None


RULES = (
    Rule("os_compute_api:os-hypervisors:list", ADMIN, "List hypervisors in brief"),
    Rule("os_compute_api:os-hypervisors:list-detail", ADMIN, "List hypervisors in full"),
    Rule("os_compute_api:os-hypervisors:statistics", ADMIN, "Sums over all hypervisors"),
    Rule("os_compute_api:os-hypervisors:show", ADMIN, "Show a hypervisor"),
    Rule("os_compute_api:os-hypervisors:uptime", ADMIN, "Show how long a hypervisor has been up"),
    Rule("os_compute_api:os-hypervisors:search", ADMIN, "Find hypervisors by name"),
    Rule("os_compute_api:os-hypervisors:servers", ADMIN, "List the servers of hypervisors"),
)

resource = Resource("hypervisor", "hypervisors", rules=RULES)

_MANY = Parameters(
    later={"limit": "2.33", "marker": "2.33", "hypervisor_hostname_pattern": "2.53", "with_servers": "2.53"},
    closed="2.53",
)
_ONE = Parameters(later={"with_servers": "2.53"}, closed="2.53")


class Known(NamedTuple):
    """A host, its number, its availability zone, its stock, and its servers' rows."""

    number: int
    host: fleet.Host
    zone: str
    stock: Mapping[str, placing.Stock]
    servers: Sequence[sa.Row[Any]]

    def name(self, ctx: Context) -> int | str:
        """What the API calls it at the request's version."""
        return self.host.id if HYPERVISOR_UUID.covers(ctx.version) else self.number


def known(ctx: Context) -> list[Known]:
    """All hosts, in the order of their creation."""
    hosts = sorted(fleet.hosts(ctx.tx, ctx.of(fleet.Fleet)), key=lambda one: (one.created_at, one.id))
    judged = {one.id: one for one in candidates(ctx.tx, hosts)}
    query = sa.select(server).where(server.c.host_id.is_not(None), server.c.deleted_at.is_(None))
    servers: dict[str, list[sa.Row[Any]]] = {}
    for row in ctx.tx.all(query.order_by(server.c.created_at)):
        servers.setdefault(row.host_id, []).append(row)
    return [
        Known(place, host, judged[host.id].zone, judged[host.id].stock, servers.get(host.id, []))
        for place, host in enumerate(hosts, 1)
    ]


def _brief(ctx: Context, one: Known) -> dict[str, Any]:
    return {
        "id": one.name(ctx),
        "hypervisor_hostname": one.host.name,
        "state": "up" if one.host.up else "down",
        "status": "disabled" if one.host.disabled else "enabled",
    }


def _servers(ctx: Context, one: Known, *, wanted: bool) -> list[ServerOn] | UnsetType:
    if not wanted or (not one.servers and not SERVERS_ALWAYS.covers(ctx.version)):
        return UNSET
    return [ServerOn(name=row.name, uuid=row.id) for row in one.servers]


_SUMS = (
    *("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used", "free_ram_mb", "free_disk_gb"),
    *("current_workload", "running_vms", "disk_available_least"),
)


def _sums(one: Known) -> dict[str, Any]:
    """Amounts as upstream adds them up: what the host has, and what its servers hold."""
    cpu, ram, disk = (one.stock.get(name, _NONE) for name in ("VCPU", "MEMORY_MB", "DISK_GB"))
    used_ram = ram.used + ram.reserved
    return {
        "vcpus": cpu.total,
        "memory_mb": ram.total,
        "local_gb": disk.total,
        "vcpus_used": cpu.used,
        "memory_mb_used": used_ram,
        "local_gb_used": disk.used,
        "free_ram_mb": ram.total - used_ram,
        "free_disk_gb": disk.total - disk.used,
        "current_workload": sum(not settled(facts(row)) for row in one.servers),
        "running_vms": len(one.servers),
        "disk_available_least": disk.free,
    }


def _full(ctx: Context, one: Known, *, servers: bool) -> Hypervisor:
    measured = one.host.facts
    info = {
        "arch": measured.architecture,
        "model": measured.cpu_model,
        "vendor": "",
        "features": [],
        "topology": {"cores": measured.vcpus, "threads": 1, "sockets": 1},
    }
    return Hypervisor(
        **_brief(ctx, one),
        servers=_servers(ctx, one, wanted=servers),
        hypervisor_type=measured.type,
        hypervisor_version=measured.version,
        service=HypervisorService(id=one.name(ctx), host=one.host.name, disabled_reason=one.host.disabled_reason),
        cpu_info=cpu_info(info, ctx.version),
        uptime=_uptime(ctx, one),
        **_sums(one),
    )


def _uptime(ctx: Context, one: Known) -> str | None:
    """How long a host has been up, as far as it is known."""
    booted_at = one.host.facts.booted_at
    return None if booted_at is None or not one.host.up else uptime(ctx.now, booted_at)


def _matching(ctx: Context, pattern: str) -> list[Known]:
    found = [one for one in known(ctx) if pattern in one.host.name]
    if not found:
        raise NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return found


def _page(ctx: Context) -> tuple[list[Known], str | None]:
    """The hosts that a list shows, and the marker of the next page."""
    pattern = ctx.query.get("hypervisor_hostname_pattern") if HYPERVISOR_QUERIES.covers(ctx.version) else None
    paged = HYPERVISOR_PAGES.covers(ctx.version)
    limit, marker = ctx.query.get("limit"), ctx.query.get("marker")
    if pattern is not None:
        if limit is not None or marker is not None:
            raise BadRequest(
                "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."
            )
        return _matching(ctx, pattern), None
    found = known(ctx)
    if not paged:
        return found, None
    if marker:
        names = [str(one.name(ctx)) for one in found]
        if marker not in names:
            raise BadRequest(f"marker [{marker}] not found")
        found = found[names.index(marker) + 1 :]
    if limit is None:
        return found, None
    most = limit_of(limit) or len(found)
    page = found[:most]
    return page, str(page[-1].name(ctx)) if len(page) == most and page else None


def _with_servers(ctx: Context) -> bool:
    return HYPERVISOR_QUERIES.covers(ctx.version) and boolean(ctx.query.get("with_servers") or "false")


@resource.get("/os-hypervisors", policy="os_compute_api:os-hypervisors:list", query=_MANY)
def list_names(ctx: Context) -> Page:
    """Hypervisors in brief."""
    found, marker = _page(ctx)
    servers = _with_servers(ctx)
    items = [HypervisorName(**_brief(ctx, one), servers=_servers(ctx, one, wanted=servers)) for one in found]
    return Page(items, marker)


@resource.get("/os-hypervisors/detail", policy="os_compute_api:os-hypervisors:list-detail", query=_MANY)
def list_details(ctx: Context) -> Page:
    """Hypervisors in full."""
    found, marker = _page(ctx)
    servers = _with_servers(ctx)
    return Page([_full(ctx, one, servers=servers) for one in found], marker)


@resource.get(
    "/os-hypervisors/statistics",
    policy="os_compute_api:os-hypervisors:statistics",
    until="2.87",
    wraps="hypervisor_statistics",
)
def show_statistics(ctx: Context) -> dict[str, int]:
    """Sums over all hypervisors that are enabled."""
    sums = [_sums(one) for one in known(ctx) if not one.host.disabled]
    return {"count": len(sums), **{name: sum(one[name] for one in sums) for name in _SUMS}}


def _find(ctx: Context, hypervisor_id: str) -> Known:
    if HYPERVISOR_UUID.covers(ctx.version) and not is_uuid(hypervisor_id):
        raise BadRequest(f"Invalid uuid {hypervisor_id}")
    for one in known(ctx):
        if str(one.name(ctx)) == hypervisor_id:
            return one
    raise NotFound(f"Hypervisor with ID '{hypervisor_id}' could not be found.")


@resource.get(
    "/os-hypervisors/{hypervisor_id}", policy="os_compute_api:os-hypervisors:show", wraps="hypervisor", query=_ONE
)
def show(ctx: Context, hypervisor_id: str) -> Hypervisor:
    """One hypervisor."""
    return _full(ctx, _find(ctx, hypervisor_id), servers=_with_servers(ctx))


@resource.get(
    "/os-hypervisors/{hypervisor_id}/uptime",
    policy="os_compute_api:os-hypervisors:uptime",
    until="2.87",
    wraps="hypervisor",
    faults=(501,),
)
def show_uptime(ctx: Context, hypervisor_id: str) -> HypervisorUptime:
    """How long a hypervisor has been up. Raises BadRequest for one that is down, NotImplementedHere."""
    one = _find(ctx, hypervisor_id)
    if not one.host.up:
        raise BadRequest(f"Compute service of {one.host.name} is unavailable at this time.")
    text = _uptime(ctx, one)
    if text is None:
        raise NotImplementedHere(f"Host {one.host.name} does not report its uptime.")
    return HypervisorUptime(**_brief(ctx, one), uptime=text)


@resource.get("/os-hypervisors/{pattern}/search", policy="os_compute_api:os-hypervisors:search", until="2.52")
def search(ctx: Context, pattern: str) -> Page:
    """Hypervisors whose name holds a text."""
    return Page([HypervisorName(**_brief(ctx, one)) for one in _matching(ctx, pattern)])


@resource.get("/os-hypervisors/{pattern}/servers", policy="os_compute_api:os-hypervisors:servers", until="2.52")
def list_servers(ctx: Context, pattern: str) -> Page:
    """The servers of hypervisors whose name holds a text."""
    return Page(
        [HypervisorName(**_brief(ctx, one), servers=_servers(ctx, one, wanted=True)) for one in _matching(ctx, pattern)]
    )

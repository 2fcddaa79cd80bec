"""What a host knows of a guest: what it measures, how its processors and memory lie, and its crash dump.

https://docs.openstack.org/api-ref/compute/#servers-diagnostics-servers-diagnostics
https://docs.openstack.org/api-ref/compute/#server-topology-servers-topology
https://docs.openstack.org/api-ref/compute/#trigger-crash-dump-in-server
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.contracts.hypervisor import Diagnostics
from pileus.core.context import Context, Request
from pileus.core.errors import Conflict, Unavailable
from pileus.services.compute.resources.server.operations.row import allow, find, note, resource
from pileus.services.compute.resources.server.table import next_act, want
from pileus.services.compute.rules import measure
from pileus.services.compute.rules.machine import MachineError, machine
from pileus.services.compute.versions import DIAGNOSTICS_STANDARD
from pileus.services.fleet import interface as fleet


@resource.get("/servers/{server_id}/diagnostics", policy="os_compute_api:os-server-diagnostics")
async def show_diagnostics(ctx: Request, server_id: str) -> dict[str, Any]:
    """What the host measures of a running guest.

    Raises Conflict when the server is on no host, its host is away, or the guest does not run.
    """

    def check(bound: Context) -> sa.Row[Any]:
        row = find(bound, server_id)
        allow(bound, row, "get_diagnostics")
        return row

    row = await ctx.read(check)
    try:
        text = await fleet.ask(ctx, row.host_id, "diagnostics", row.id, {})
    except Unavailable as fault:
        raise Conflict(f"Instance {server_id} is not ready: {fault.message}") from None
    found = msgspec.json.decode(text, type=Diagnostics)
    if DIAGNOSTICS_STANDARD.covers(ctx.version):
        return measure.standard(found, config_drive=row.config_drive)
    return measure.plain(found)


@resource.get("/servers/{server_id}/topology", policy="compute:server:topology:index", since="2.78")
def show_topology(ctx: Context, server_id: str) -> dict[str, Any]:
    """How a guest's processors and memory lie: nothing, unless its flavor pins processors or asks for huge pages."""
    row = find(ctx, server_id)
    try:
        spec = machine(row.flavor, row.image.get("properties") or {}).spec
    except MachineError:
        return {"nodes": [], "pagesize_kb": None}
    if not spec.pinned and not spec.page_kib:
        return {"nodes": [], "pagesize_kb": None}
    cpus = list(range(row.flavor["vcpus"]))
    node: dict[str, Any] = {"vcpu_set": cpus, "siblings": [], "memory_mb": row.flavor["ram"]}
    if spec.threads > 1:
        node["siblings"] = [cpus[first : first + spec.threads] for first in range(0, len(cpus), spec.threads)]
    if ctx.allows("compute:server:topology:host:index", {"project_id": row.project_id}):
        node |= {"host_node": 0, "cpu_pinning": {}}
    return {"nodes": [node], "pagesize_kb": spec.page_kib or None}


@resource.action(
    "/servers/{server_id}/action",
    "trigger_crash_dump",
    policy="os_compute_api:servers:trigger_crash_dump",
    since="2.17",
)
def trigger_crash_dump(ctx: Context, server_id: str, body: None) -> None:
    """Send a guest an interrupt that cannot be masked: its kernel does with it what it is set up for."""
    row = find(ctx, server_id)
    allow(ctx, row, "trigger_crash_dump")
    want(ctx.tx, row, acts=next_act(row, "nmi"))
    note(ctx, row.id, row.project_id, "trigger_crash_dump", "compute_trigger_crash_dump", row.host)

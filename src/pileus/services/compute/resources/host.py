"""Hosts as the oldest clients know them, until microversion 2.42.

https://docs.openstack.org/api-ref/compute/#hosts-os-hosts-deprecated

What schedules and conducts is part of the control plane, and shows under the name of the machine that answers.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, Literal

from pileus.core.api import Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound, NotImplementedHere
from pileus.core.fields import Body
from pileus.core.policy import Rule
from pileus.services.compute.resources.hypervisor import Known, known
from pileus.services.compute.rules.persona import ADMIN
from pileus.services.fleet import interface as fleet

Switch = Literal["enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]


class HostUpdate(Body):
    """Body of update: what to switch."""

    status: Switch | None = None
    maintenance_mode: Switch | None = None


RULES = (
    Rule("os_compute_api:os-hosts:list", ADMIN, "List hosts"),
    Rule("os_compute_api:os-hosts:show", ADMIN, "Show what a host has, and who uses it"),
    Rule("os_compute_api:os-hosts:update", ADMIN, "Let a host be given servers, or no more"),
    Rule("os_compute_api:os-hosts:reboot", ADMIN, "Start a host anew"),
    Rule("os_compute_api:os-hosts:shutdown", ADMIN, "Switch a host off"),
    Rule("os_compute_api:os-hosts:start", ADMIN, "Switch a host on"),
)

resource = Resource("host", "hosts", rules=RULES)

_INTERNAL = "internal"
"""The zone of what runs no servers."""


def _find(ctx: Context, name: str) -> Known:
    for one in known(ctx):
        if one.host.name == name:
            return one
    raise NotFound(f"Host '{name}' is not mapped to any cell")


@resource.get("/os-hosts", policy="os_compute_api:os-hosts:list", until="2.42", wraps="hosts", query=Parameters("zone"))
def list_all(ctx: Context) -> list[dict[str, str]]:
    """Hosts that are in use, and what runs on them."""
    here = platform.node()
    found = [{"host_name": here, "service": name, "zone": _INTERNAL} for name in ("conductor", "scheduler")]
    running = [one for one in known(ctx) if not one.host.disabled]
    found += [{"host_name": one.host.name, "service": "compute", "zone": one.zone} for one in running]
    zone = ctx.query.get("zone")
    return [one for one in found if not zone or one["zone"] == zone]


@resource.get("/os-hosts/{host_name}", policy="os_compute_api:os-hosts:show", until="2.42", wraps="host")
def show(ctx: Context, host_name: str) -> list[dict[str, Any]]:
    """What a host has, what is used of it, and by which project."""
    one = _find(ctx, host_name)

    def line(project: str, amounts: Mapping[str, int]) -> dict[str, Any]:
        return {"resource": {"host": host_name, "project": project, **amounts}}

    stock = {"cpu": "VCPU", "memory_mb": "MEMORY_MB", "disk_gb": "DISK_GB"}
    parts = {name: one.stock.get(wanted) for name, wanted in stock.items()}
    used = {name: part.used if part else 0 for name, part in parts.items()}
    used["memory_mb"] += parts["memory_mb"].reserved if parts["memory_mb"] else 0
    projects: dict[str, dict[str, int]] = {}
    for row in one.servers:
        sums = projects.setdefault(row.project_id, dict.fromkeys(stock, 0))
        sums["cpu"] += row.flavor.get("vcpus", 0)
        sums["memory_mb"] += row.flavor.get("ram", 0)
        sums["disk_gb"] += row.flavor.get("disk", 0) + row.flavor.get("ephemeral", 0)
    return [
        line("(total)", {name: part.total if part else 0 for name, part in parts.items()}),
        line("(used_now)", used),
        line("(used_max)", {name: sum(sums[name] for sums in projects.values()) for name in stock}),
        *(line(project, sums) for project, sums in sorted(projects.items())),
    ]


@resource.put("/os-hosts/{host_name}", policy="os_compute_api:os-hosts:update", until="2.42", faults=(501,))
def update(ctx: Context, host_name: str, body: HostUpdate) -> dict[str, str]:
    """Let a host be given servers, or no more.

    Raises BadRequest for an empty body, NotFound, and NotImplementedHere for maintenance, which no driver here knows.
    """
    if body.status is None and body.maintenance_mode is None:
        raise BadRequest("Specifying status or maintenance_mode is required.")
    one = _find(ctx, host_name)
    if body.maintenance_mode is not None:
        raise _unsupported()
    disabled = str(body.status).lower() == "disable"
    fleet.update_host(ctx.tx, one.host.id, disabled=disabled, disabled_reason=None)
    return {"host": host_name, "status": "disabled" if disabled else "enabled"}


def _unsupported() -> NotImplementedHere:
    return NotImplementedHere("The requested functionality is not supported.")


@resource.get("/os-hosts/{host_name}/reboot", policy="os_compute_api:os-hosts:reboot", until="2.42", faults=(501,))
def reboot(ctx: Context, host_name: str) -> None:
    """Hosts are not switched from here."""
    _find(ctx, host_name)
    raise _unsupported()


@resource.get("/os-hosts/{host_name}/shutdown", policy="os_compute_api:os-hosts:shutdown", until="2.42", faults=(501,))
def shutdown(ctx: Context, host_name: str) -> None:
    """Hosts are not switched from here."""
    _find(ctx, host_name)
    raise _unsupported()


@resource.get("/os-hosts/{host_name}/startup", policy="os_compute_api:os-hosts:start", until="2.42", faults=(501,))
def startup(ctx: Context, host_name: str) -> None:
    """Hosts are not switched from here."""
    _find(ctx, host_name)
    raise _unsupported()

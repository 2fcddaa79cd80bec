"""Services on hosts, as Compute shows them: one `nova-compute` for each host of the fleet.

https://docs.openstack.org/api-ref/compute/#compute-services-os-services
https://docs.openstack.org/api-ref/compute/#availability-zones-os-availability-zone

The scheduler and the loops are part of the control plane: whoever gets an answer knows that they are there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from pileus.core.api import Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.core.listing import integer
from pileus.core.policy import Rule
from pileus.services.compute.resources import aggregate
from pileus.services.compute.resources.hypervisor import Known, known
from pileus.services.compute.resources.server.operations.ending import finish_deletions
from pileus.services.compute.rules.persona import ADMIN, ANYONE
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.shape import Truth, bare, is_true, is_uuid
from pileus.services.compute.versions import HYPERVISOR_UUID
from pileus.services.fleet import interface as fleet
from pileus.services.placement import interface as placement

BINARY = "nova-compute"

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class ServiceUpdate(Body):
    """Body of update: what to change."""

    status: Literal["enabled", "disabled"] | UnsetType = UNSET
    disabled_reason: Reason | UnsetType = UNSET
    forced_down: Annotated[Truth | UnsetType, W(Truth, strict=True)] = UNSET


class ServiceVerb(Body):
    """Body of the older verbs, which name a service by host and binary."""

    host: str
    binary: str
    disabled_reason: Reason | UnsetType = UNSET
    forced_down: Annotated[Truth | UnsetType, W(Truth, since="2.11", strict=True)] = UNSET


class Service(View):
    """A service."""

    id: int | str
    binary: str
    host: str
    zone: str
    status: str
    state: str
    updated_at: str | None
    disabled_reason: str | None
    forced_down: Annotated[bool | UnsetType, W(since="2.11")]


RULES = (
    Rule("os_compute_api:os-services:list", ADMIN, "List services"),
    Rule("os_compute_api:os-services:update", ADMIN, "Enable, disable or force down a service"),
    Rule("os_compute_api:os-services:delete", ADMIN, "Forget the service of a host that is no more"),
    Rule("os_compute_api:os-availability-zone:list", ANYONE, "List availability zones"),
    Rule("os_compute_api:os-availability-zone:detail", ADMIN, "List availability zones with their hosts"),
)

resource = Resource("service", "services", rules=RULES)


def _view(ctx: Context, one: Known) -> Service:
    host = one.host
    return Service(
        id=one.name(ctx),
        binary=BINARY,
        host=host.name,
        zone=one.zone,
        status="disabled" if host.disabled else "enabled",
        state="up" if host.up else "down",
        updated_at=bare(host.seen_at),
        disabled_reason=host.disabled_reason,
        forced_down=host.forced_down,
    )


@resource.get(
    "/os-services",
    policy="os_compute_api:os-services:list",
    wraps="services",
    query=Parameters("host", "binary", closed="2.75"),
)
def list_all(ctx: Context) -> list[Service]:
    """All services, or those of a host or with a name."""
    host, binary = ctx.query.get("host"), ctx.query.get("binary")
    if binary and binary != BINARY:
        return []
    return [_view(ctx, one) for one in known(ctx) if not host or one.host.name == host]


@resource.put("/os-services/{service_id}", policy="os_compute_api:os-services:update", since="2.53", wraps="service")
def update(ctx: Context, service_id: str, body: ServiceUpdate) -> Service:
    """Enable, disable or force down a service. Raises BadRequest for a reason without `disabled`."""
    if not is_uuid(service_id):
        raise BadRequest(f"Invalid uuid {service_id}")
    if body.disabled_reason is not UNSET and body.status != "disabled":
        raise BadRequest("Specifying disabled_reason requires that status is 'disabled'.")
    values: dict[str, Any] = {}
    if body.status is not UNSET:
        values["disabled"] = body.status == "disabled"
        values["disabled_reason"] = None if body.disabled_reason is UNSET else body.disabled_reason
    if body.forced_down is not UNSET:
        values["forced_down"] = is_true(body.forced_down)
    if not values:
        raise BadRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    found = {one.host.id: one for one in known(ctx)}
    if service_id not in found:
        raise NotFound(f"Service {service_id} could not be found.")
    fleet.update_host(ctx.tx, service_id, **values)
    return _view(ctx, next(one for one in known(ctx) if one.host.id == service_id))


@resource.delete("/os-services/{service_id}", policy="os_compute_api:os-services:delete")
def delete(ctx: Context, service_id: str) -> None:
    """Forget the service of a host that is no more, and the host: its provider, its place in aggregates.

    Servers whose deletion waits for that host are gone with it.  Raises BadRequest, NotFound, and Conflict for a host
    that is up, or has servers or routers.
    """
    if HYPERVISOR_UUID.covers(ctx.version) and not is_uuid(service_id):
        raise BadRequest(f"Invalid uuid {service_id}")
    if not HYPERVISOR_UUID.covers(ctx.version):
        integer(service_id)
    found = next((one for one in known(ctx) if str(one.name(ctx)) == service_id), None)
    if found is None:
        raise NotFound(f"Service {service_id} not found.")
    if any(row.deleting_at is None for row in found.servers):
        raise Conflict(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first."
        )
    fleet.remove_host(ctx.tx, ctx.of(fleet.Fleet), found.host.id)
    finish_deletions(ctx.tx, [row.id for row in found.servers])
    aggregate.forget_host(ctx.tx, found.host)
    if placement.snapshot(ctx.tx, [found.host.id]):
        placement.set_aggregates(ctx.tx, found.host.id, ())
        placement.set_traits(ctx.tx, found.host.id, ())
        placement.remove_provider(ctx.tx, found.host.id)


def _change(ctx: Context, body: ServiceVerb, **values: Any) -> dict[str, Any]:
    if body.binary != BINARY:
        raise BadRequest(
            f"Updating a {body.binary} service is not supported. Only nova-compute services can be updated."
        )
    for one in known(ctx):
        if one.host.name == body.host:
            fleet.update_host(ctx.tx, one.host.id, **values)
            return {"host": body.host, "binary": body.binary}
    raise NotFound(f"Could not find binary {body.binary} on host {body.host}.")


@resource.put("/os-services/enable", policy="os_compute_api:os-services:update", until="2.52", wraps="service")
def enable(ctx: Context, body: ServiceVerb) -> dict[str, Any]:
    """Let a host be given servers."""
    return {**_change(ctx, body, disabled=False, disabled_reason=None), "status": "enabled"}


@resource.put("/os-services/disable", policy="os_compute_api:os-services:update", until="2.52", wraps="service")
def disable(ctx: Context, body: ServiceVerb) -> dict[str, Any]:
    """Give a host no more servers."""
    return {**_change(ctx, body, disabled=True, disabled_reason=None), "status": "disabled"}


@resource.put(
    "/os-services/disable-log-reason", policy="os_compute_api:os-services:update", until="2.52", wraps="service"
)
def disable_for(ctx: Context, body: ServiceVerb) -> dict[str, Any]:
    """Give a host no more servers, and say why."""
    if body.disabled_reason is UNSET:
        raise BadRequest("Missing disabled reason field")
    found = _change(ctx, body, disabled=True, disabled_reason=body.disabled_reason)
    return {**found, "status": "disabled", "disabled_reason": body.disabled_reason}


@resource.put(
    "/os-services/force-down",
    policy="os_compute_api:os-services:update",
    since="2.11",
    until="2.52",
    wraps="service",
)
def force_down(ctx: Context, body: ServiceVerb) -> dict[str, Any]:
    """Say that a host is down, or no more."""
    if body.forced_down is UNSET:
        raise BadRequest("Missing forced_down field")
    forced = is_true(body.forced_down)
    return {**_change(ctx, body, forced_down=forced), "forced_down": forced}


@resource.get("/os-availability-zone", policy="os_compute_api:os-availability-zone:list", wraps="availabilityZoneInfo")
def list_zones(ctx: Context) -> list[dict[str, Any]]:
    """The availability zones."""
    return _zones(ctx, detail=False)


@resource.get(
    "/os-availability-zone/detail", policy="os_compute_api:os-availability-zone:detail", wraps="availabilityZoneInfo"
)
def list_zones_with_hosts(ctx: Context) -> list[dict[str, Any]]:
    """The availability zones, with the hosts that are in use there."""
    return _zones(ctx, detail=True)


def _zones(ctx: Context, *, detail: bool) -> list[dict[str, Any]]:
    """Zones that have a host in use come first; `nova` is there always, others as long as a host is in them."""
    hosts: dict[str, dict[str, Any]] = {ZONE: {}}
    for one in known(ctx):
        in_use = hosts.setdefault(one.zone, {})
        if not one.host.disabled:
            state = {"available": one.host.up, "active": True, "updated_at": bare(one.host.seen_at)}
            in_use[one.host.name] = {BINARY: state}
    return [
        {"zoneName": name, "zoneState": {"available": bool(each)}, "hosts": each if detail and each else None}
        for name, each in sorted(hosts.items(), key=lambda item: (not item[1], item[0]))
    ]

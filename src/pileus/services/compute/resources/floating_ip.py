"""Floating IPs and their pools by way of Compute, until microversion 2.35. They are Network's.

https://docs.openstack.org/api-ref/compute/#floating-ips-os-floating-ips-deprecated
https://docs.openstack.org/api-ref/compute/#floating-ip-pools-os-floating-ip-pools-deprecated

A pool is an external network, by its name or id.
"""

from __future__ import annotations

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden, NotFound
from pileus.core.fields import OpenBody, View
from pileus.core.policy import Rule
from pileus.services.compute.rules.persona import ANYONE, MEMBER, READER
from pileus.services.compute.rules.shape import is_uuid
from pileus.services.network import interface as network


class FloatingCreate(OpenBody):
    """Body of create. Without a pool, the one that there is."""

    pool: str | None = None


class FloatingIp(View):
    """A floating IP."""

    id: str
    ip: str
    fixed_ip: str | None
    instance_id: str | None
    pool: str


class Pool(View):
    """A pool."""

    name: str


_RULE = "os_compute_api:os-floating-ips:"

RULES = (
    Rule(_RULE + "list", READER, "List floating IPs"),
    Rule(_RULE + "show", READER, "Show a floating IP"),
    Rule(_RULE + "create", MEMBER, "Make a floating IP"),
    Rule(_RULE + "delete", MEMBER, "Delete a floating IP"),
    Rule("os_compute_api:os-floating-ip-pools", ANYONE, "List pools of floating IPs"),
)

resource = Resource("floating_ip", "floating_ips", rules=RULES)


def _view(one: network.FloatingInfo) -> FloatingIp:
    return FloatingIp(
        id=one.id,
        ip=one.ip_address,
        fixed_ip=one.fixed_ip_address,
        instance_id=one.device_id,
        pool=one.network_name or one.network_id,
    )


def _missing(floating_ip_id: str) -> NotFound:
    return NotFound(f"Floating IP not found for ID {floating_ip_id}")


def _checked(floating_ip_id: str) -> str:
    if not is_uuid(floating_ip_id):
        raise BadRequest(f"Invalid ID received {floating_ip_id}.")
    return floating_ip_id


@resource.get("/os-floating-ips", policy=_RULE + "list", until="2.35", wraps="floating_ips")
def list_all(ctx: Context) -> list[FloatingIp]:
    """The project's floating IPs."""
    return [_view(one) for one in network.floating_ips(ctx)]


@resource.get("/os-floating-ips/{floating_ip_id}", policy=_RULE + "show", until="2.35", wraps="floating_ip")
def show(ctx: Context, floating_ip_id: str) -> FloatingIp:
    """One floating IP."""
    try:
        return _view(network.floating_ip(ctx, _checked(floating_ip_id)))
    except NotFound:
        raise _missing(floating_ip_id) from None


def _pool(ctx: Context, wanted: str | None) -> str:
    """The id of the network that is meant. Raises NotFound, and BadRequest when it is not clear."""
    pools = [one for one in network.all_networks(ctx) if one.external]
    found = [one.id for one in pools if not wanted or wanted in (one.id, one.name)]
    if not found:
        raise NotFound("Floating IP pool not found.")
    if len(found) > 1:
        raise BadRequest("Several pools of floating IPs match: name one by its id.")
    return found[0]


@resource.post("/os-floating-ips", policy=_RULE + "create", until="2.35", wraps="floating_ip")
def create(ctx: Context, body: FloatingCreate | None = None) -> FloatingIp:
    """Make a floating IP. Raises NotFound without a pool or a free address in it, Forbidden over quota."""
    wanted = None if body is None else body.pool
    try:
        return _view(network.create_floating_ip(ctx, _pool(ctx, wanted)))
    except Conflict as fault:
        where = f" in pool {wanted}" if wanted else ""
        if fault.type == "OverQuota":
            raise Forbidden(f"IP allocation over quota{where}.") from None
        raise NotFound(f"No more floating IPs{where or ' available'}.") from None


@resource.delete("/os-floating-ips/{floating_ip_id}", policy=_RULE + "delete", until="2.35", status=202)
def delete(ctx: Context, floating_ip_id: str) -> None:
    """Let a floating IP go, whatever it leads to."""
    try:
        network.delete_floating_ip(ctx, _checked(floating_ip_id))
    except NotFound:
        raise _missing(floating_ip_id) from None


@resource.get(
    "/os-floating-ip-pools", policy="os_compute_api:os-floating-ip-pools", until="2.35", wraps="floating_ip_pools"
)
def list_pools(ctx: Context) -> list[Pool]:
    """The external networks."""
    return [Pool(name=one.name or one.id) for one in network.all_networks(ctx) if one.external]

"""The operations on networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import given
from pileus.core.statement import at
from pileus.core.store import Tx
from pileus.services.network.resources import association, draft, quota
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.network import fields, policy
from pileus.services.network.resources.network.fields import (
    DEFAULT_MTU,
    LEAST_MTU,
    NetworkCreate,
    NetworkReply,
    NetworksCreate,
    NetworkUpdate,
    NetworkView,
    view,
)
from pileus.services.network.resources.network.table import TOPIC, network
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.rbac_policy import table as rbac_policy
from pileus.services.network.resources.router.table import TOPIC as ROUTER
from pileus.services.network.resources.router.table import router
from pileus.services.network.resources.standard_attribute import (
    Row,
    change,
    check_revision,
    drop_tags,
    enforce,
    every,
    fresh,
    owner,
    page,
    tag_operations,
    tags_of,
)
from pileus.services.network.resources.subnet import operations as subnets
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.resources.subnetpool.operations import scopes_of
from pileus.services.network.rules.fault import (
    DefaultExternalNetworkExists,
    ExternalNetworkInUse,
    InvalidInput,
    InvalidSharedSetting,
    NetworkInUse,
)

resource = Resource("network", "networks", rules=policy.RULES)

NAMED = 5
"""How many ports an answer names that stand in the way."""


def _mtu(mtu: int | None) -> int:
    """An MTU as it is kept; 0 and null stand for the default. Raises InvalidInput."""
    if not mtu:
        return DEFAULT_MTU
    if mtu < LEAST_MTU:
        raise InvalidInput(f"an MTU is at least {LEAST_MTU}, not {mtu}")
    return mtu


def _check_default(tx: Tx, row: Row) -> None:
    """Raise DefaultExternalNetworkExists when a network is to be the default external one, and another is."""
    if not (row["external"] and row["is_default"]):
        return
    query = sa.select(network.c.id).where(
        network.c.external.is_(True), network.c.is_default.is_(True), network.c.id != row["id"]
    )
    other = tx.scalar(query.limit(1))
    if other is not None:
        raise DefaultExternalNetworkExists(other)


def _create(ctx: Context, body: NetworkCreate) -> NetworkView:
    tx, project_id = ctx.tx, owner(ctx, body)
    enforce(ctx, "create_network", {"project_id": project_id, "tenant_id": project_id})
    physical = body.physical_network or None
    kind = "local" if body.network_type is UNSET else body.network_type
    if (kind == "flat") != (physical is not None):
        raise InvalidInput("provider:physical_network is for networks of provider:network_type flat, and they need it")
    if physical is not None and not body.external:
        # A host has one uplink, and external networks alone are on it.
        raise InvalidInput(f"physical network {physical} is not within the reach of a network that is not external")
    if any(zone != fields.ZONE for zone in body.availability_zone_hints):
        raise InvalidInput(f"the only availability zone is {fields.ZONE}")
    quota.take(tx, project_id, {"network": 1})
    row = {
        **fresh(tx, project_id, body.description),
        "name": body.name,
        "admin_state_up": body.admin_state_up,
        "shared": bool(body.shared),
        "external": bool(body.external),
        "is_default": bool(body.is_default),
        "mtu": _mtu(body.mtu),
        "port_security_enabled": body.port_security_enabled,
        "network_type": kind,
        "physical_network": physical,
        "dns_domain": body.dns_domain,
        "availability_zone_hints": body.availability_zone_hints,
    }
    _check_default(tx, row)
    tx.insert(network, row)
    if row["shared"]:
        rbac_policy.note_shared(tx, row, shared=True)
    tx.changed(TOPIC, row["id"])
    return view(row)


@resource.post("/networks", policy="create_network", guarded=True, status=201)
def create(ctx: Context, body: NetworksCreate) -> NetworkReply:
    """Make one network, or several: all or none."""
    if body.network is not UNSET:
        return NetworkReply(network=_create(ctx, body.network))
    if body.networks is UNSET or not body.networks:
        raise BadRequest("Unable to find 'network' in the request body.")
    return NetworkReply(networks=[_create(ctx, one) for one in body.networks])


def _views(tx: Tx, rows: Sequence[Row]) -> list[NetworkView]:
    ids = [row["id"] for row in rows]
    tags = tags_of(tx, ids)
    found: dict[str, list[str]] = {}
    pooled: list[sa.Row[Any]] = []
    c = subnet.c
    query = sa.select(c.id, c.network_id, c.ip_version, c.subnetpool_id).where(c.network_id.in_(ids))
    for one in tx.all(query.order_by(c.created_at, c.id)) if ids else ():
        found.setdefault(one.network_id, []).append(one.id)
        if one.subnetpool_id is not None:
            pooled.append(one)
    views = {row["id"]: view(row, found.get(row["id"], ()), tags.get(row["id"], ())) for row in rows}
    scopes = scopes_of(tx, {one.subnetpool_id for one in pooled})
    for one in pooled:
        setattr(views[one.network_id], f"ipv{one.ip_version}_address_scope", scopes.get(one.subnetpool_id))
    return [views[row["id"]] for row in rows]


@resource.get("/networks", policy="get_network", guarded=True, wraps="networks")
def index(ctx: Context) -> Page:
    """The networks that the caller sees: its project's, shared ones and external ones."""
    rows, make = page(ctx, fields.listing, sa.select(network).where(policy.visible(ctx)))
    return make(_views(ctx.tx, rbac_policy.shared_with(ctx, rows)))


@resource.get("/networks/{network_id}", policy="get_network", guarded=True, wraps="network")
def show(ctx: Context, network_id: str) -> NetworkView:
    """A network."""
    return _views(ctx.tx, [policy.find(ctx, network_id)])[0]


def _check_unshared(tx: Tx, row: Row) -> None:
    strangers = sa.select(port.c.id).where(
        port.c.network_id == row["id"], port.c.project_id.not_in((row["project_id"], ""))
    )
    if tx.first(strangers.limit(1)) is not None:
        raise InvalidSharedSetting(row["id"])


def _check_internal(tx: Tx, network_id: str) -> None:
    gateways = sa.select(router.c.id).where(router.c.gateway_network_id == network_id)
    floating = sa.select(floatingip.c.id).where(floatingip.c.floating_network_id == network_id)
    if tx.first(gateways.limit(1)) is not None or tx.first(floating.limit(1)) is not None:
        raise ExternalNetworkInUse(network_id)


@resource.put("/networks/{network_id}", policy="update_network", guarded=True, accepts="network", wraps="network")
def update(ctx: Context, network_id: str, body: NetworkUpdate) -> NetworkView:
    """Change a network."""
    tx, row = ctx.tx, policy.find(ctx, network_id, "update")
    values: dict[str, Any] = given(body)
    if row["shared"] and values.get("shared") is False:
        _check_unshared(tx, row)
    if row["external"] and values.get("external") is False:
        _check_internal(tx, network_id)
    if "mtu" in values:
        values["mtu"] = _mtu(values["mtu"])
    _check_default(tx, {**row, **values})
    new = change(ctx, network, TOPIC, row, values)
    if new["shared"] != row["shared"]:
        rbac_policy.note_shared(tx, new, shared=new["shared"])
    if new["mtu"] != row["mtu"]:
        query = sa.select(port.c.device_id).where(
            port.c.network_id == network_id, port.c.device_owner.in_((draft.LEG, draft.GATEWAY))
        )
        for leg in tx.all(query):
            tx.changed(ROUTER, leg.device_id)
    return _views(tx, [new])[0]


@resource.delete("/networks/{network_id}", policy="delete_network", guarded=True)
def delete(ctx: Context, network_id: str) -> None:
    """Delete a network on which nobody has a port, with its subnets, DHCP port and floating IPs that lead nowhere."""
    tx, row = ctx.tx, policy.find(ctx, network_id, "delete")
    check_revision(ctx, row)
    ours = port.c.id.in_(association.forget_idle(tx, network_id)) | (port.c.device_owner == draft.DHCP)
    others = sa.select(port.c.id).where(port.c.network_id == network_id, ~ours)
    if found := tx.all(others.order_by(port.c.id).limit(NAMED)):
        raise NetworkInUse(network_id, [one.id for one in found])
    draft.remove(tx, draft.load(tx, every(tx, at(port, "network_id"), {"value": network_id})))
    rows = every(tx, at(subnet, "network_id"), {"value": network_id})
    if rows:
        subnets.forget(tx, rows)
    tx.execute(sa.delete(network).where(network.c.id == network_id))
    rbac_policy.forget(tx, network_id)
    drop_tags(tx, [network_id])
    quota.give_back(tx, row["project_id"], {"network": 1})
    tx.changed(TOPIC, network_id)


tag_operations(resource, "/networks", network, TOPIC, policy.find)

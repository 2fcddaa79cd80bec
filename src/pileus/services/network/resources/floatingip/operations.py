"""The operations on floating IPs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import given
from pileus.core.statement import at, by
from pileus.core.store import Tx
from pileus.services.network.resources import address as addresses
from pileus.services.network.resources import association, draft, quota
from pileus.services.network.resources.address import Given, Wish
from pileus.services.network.resources.draft import FLOATING, LEG, Draft
from pileus.services.network.resources.floatingip import fields, policy
from pileus.services.network.resources.floatingip.fields import (
    FloatingIPCreate,
    FloatingIPReply,
    FloatingIPsCreate,
    FloatingIPUpdate,
    FloatingIPView,
    view,
)
from pileus.services.network.resources.floatingip.table import TOPIC, floatingip
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.port import policy as ports
from pileus.services.network.resources.port.table import address, port
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
    sees_all,
    tag_operations,
    tags_of,
)
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules.fault import (
    ExternalGatewayForFloatingIPNotFound,
    FloatingIPPortAlreadyAssociated,
)
from pileus.services.network.rules.subnet import parse_address

resource = Resource("floatingip", "floatingips", rules=policy.RULES)

NOWHERE: dict[str, Any] = {"port_id": None, "fixed_ip_address": None, "router_id": None, "status": "DOWN"}


def _fixed(port_id: str, ips: Sequence[Given], wanted: str | None) -> Given:
    """The address of a port that a floating IP leads to. Raises BadRequest when it is not clear which."""
    inner = [one for one in ips if ":" not in one.ip_address]
    if wanted is not None:
        text = str(parse_address(wanted, 4))
        found = next((one for one in inner if one.ip_address == text), None)
        if found is None:
            raise BadRequest(f"Port {port_id} does not have the fixed IP {text}.")
        return found
    if not inner:
        raise BadRequest(f"Port {port_id} has no fixed IPv4 address that a floating IP could lead to.")
    if len(inner) > 1:
        raise BadRequest(f"Port {port_id} has several fixed IPv4 addresses: fixed_ip_address must be given.")
    return inner[0]


def _way(tx: Tx, fixed: Given, network_id: str, owners: Collection[str]) -> str | None:
    """The router between an external network and a fixed address: the one that is its subnet's gateway before others.

    Another leg is one that a member may have put into a network that is shared, by a port of his own: it is a way for
    projects that have to do with it, and not one to them.
    """
    gate = address.c.ip_address == subnet.c.gateway_ip
    query = (
        sa.select(router.c.id)
        .join(port, port.c.device_id == router.c.id)
        .join(address, address.c.port_id == port.c.id)
        .join(subnet, subnet.c.id == address.c.subnet_id)
        .where(
            port.c.device_owner == LEG,
            address.c.subnet_id == fixed.subnet_id,
            router.c.gateway_network_id == network_id,
            sa.or_(gate, router.c.project_id.in_(owners)),
        )
        .order_by(sa.case((gate, 0), else_=1), router.c.created_at, router.c.id)
    )
    router_id: str | None = tx.scalar(query.limit(1))
    if router_id is not None:
        # A leg that goes at the same time is gone by now, or stays until the floating IP is seen.
        tx.execute(sa.select(router.c.id).where(router.c.id == router_id).with_for_update(read=True))
        router_id = tx.scalar(query.where(router.c.id == router_id).limit(1))
    return router_id


def associate(ctx: Context, row: Row, port_id: str, wanted: str | None) -> dict[str, Any]:
    """The columns of a floating IP that leads to a port. Raises when it cannot."""
    tx = ctx.tx
    found, net = ports.find(ctx, port_id)
    if found["project_id"] != row["project_id"] and "admin" not in ctx.auth.roles:
        raise BadRequest(f"Port {port_id} is of another project than the floating IP.")
    fixed = _fixed(port_id, addresses.addresses_of(tx, [port_id])[port_id], wanted)
    taken = sa.select(floatingip.c.id).where(
        floatingip.c.port_id == port_id,
        floatingip.c.fixed_ip_address == fixed.ip_address,
        floatingip.c.id != row["id"],
    )
    if tx.first(taken.limit(1)) is not None:
        raise FloatingIPPortAlreadyAssociated(row["floating_ip_address"], port_id, fixed.ip_address)
    owners = {found["project_id"], row["project_id"], net["project_id"]}
    router_id = _way(tx, fixed, row["floating_network_id"], owners)
    if router_id is None:
        raise ExternalGatewayForFloatingIPNotFound(row["floating_network_id"], fixed.subnet_id, port_id)
    return {"port_id": port_id, "fixed_ip_address": fixed.ip_address, "router_id": router_id}


def _create(ctx: Context, body: FloatingIPCreate) -> Row:
    tx, project_id = ctx.tx, owner(ctx, body)
    enforce(ctx, "create_floatingip", {"project_id": project_id, "tenant_id": project_id})
    net = networks.find(ctx, body.floating_network_id)
    if not net["external"]:
        raise BadRequest(f"Network {net['id']} is not a valid external network.")
    if body.port_id is None and body.fixed_ip_address is not None:
        raise BadRequest("fixed_ip_address is given, but no port_id.")
    quota.take(tx, project_id, {"floatingip": 1})
    row = {**fresh(tx, project_id, body.description), "floating_network_id": net["id"], **NOWHERE}
    outer = [one for one in addresses.lock_subnets(tx, [net["id"]])[net["id"]] if one["ip_version"] == 4]
    if not outer:
        raise BadRequest(f"Network {net['id']} has no IPv4 subnet.")
    asked = body.floating_ip_address or None
    one = Draft(
        network=net,
        project_id="",
        wishes=[Wish(body.subnet_id, asked)] if body.subnet_id or asked else None,
        values={"device_owner": FLOATING, "device_id": row["id"], "port_security_enabled": False},
    )
    made = draft.make(tx, [one], {net["id"]: outer})[0]
    row |= {"floating_port_id": made.row["id"], "floating_ip_address": made.addresses[0].ip_address}
    if body.port_id is not None:
        row |= associate(ctx, row, body.port_id, body.fixed_ip_address)
        tx.changed(ROUTER, row["router_id"])
        association.tell_device(tx, row["port_id"])
    tx.insert(floatingip, row)
    tx.changed(TOPIC, row["id"])
    return row


def _views(tx: Tx, rows: Sequence[Row]) -> list[FloatingIPView]:
    tags = tags_of(tx, [row["id"] for row in rows])
    inner = {row["port_id"] for row in rows if row["port_id"] is not None}
    known = {one["id"]: one for one in every(tx, by(port, "id"), {"values": inner})} if inner else {}
    return [view(row, known.get(row["port_id"]), tags.get(row["id"], ())) for row in rows]


@resource.post("/floatingips", policy="create_floatingip", guarded=True, status=201)
def create(ctx: Context, body: FloatingIPsCreate) -> FloatingIPReply:
    """Make one floating IP, or several: all or none."""
    if body.floatingip is not UNSET:
        return FloatingIPReply(floatingip=_views(ctx.tx, [_create(ctx, body.floatingip)])[0])
    if body.floatingips is UNSET or not body.floatingips:
        raise BadRequest("Unable to find 'floatingip' in the request body.")
    return FloatingIPReply(floatingips=_views(ctx.tx, [_create(ctx, one) for one in body.floatingips]))


@resource.get("/floatingips", policy="get_floatingip", guarded=True, wraps="floatingips")
def index(ctx: Context) -> Page:
    """The floating IPs that the caller sees."""
    query = sa.select(floatingip)
    if not sees_all(ctx, "get_floatingip"):
        query = query.where(floatingip.c.project_id == (ctx.auth.project_id or ""))
    rows, make = page(ctx, fields.listing, query)
    return make(_views(ctx.tx, rows))


@resource.get("/floatingips/{floatingip_id}", policy="get_floatingip", guarded=True, wraps="floatingip")
def show(ctx: Context, floatingip_id: str) -> FloatingIPView:
    """A floating IP."""
    return _views(ctx.tx, [policy.find(ctx, floatingip_id)])[0]


@resource.put(
    "/floatingips/{floatingip_id}", policy="update_floatingip", guarded=True, accepts="floatingip", wraps="floatingip"
)
def update(ctx: Context, floatingip_id: str, body: FloatingIPUpdate) -> FloatingIPView:
    """Say what a floating IP leads to, or describe it."""
    tx, row = ctx.tx, policy.find(ctx, floatingip_id, "update")
    values = given(body)
    port_id = values.pop("port_id", row["port_id"])
    wanted = values.pop("fixed_ip_address", UNSET)
    values.pop("qos_policy_id", None)
    if port_id is None:
        if wanted not in (UNSET, None):
            raise BadRequest("fixed_ip_address is given, but no port_id.")
        values |= NOWHERE
    elif port_id != row["port_id"] or wanted is not UNSET:
        values |= associate(ctx, row, port_id, None if wanted is UNSET else wanted)
    new = change(ctx, floatingip, TOPIC, row, values)
    for router_id in {row["router_id"], new["router_id"]} - {None}:
        tx.changed(ROUTER, router_id)
    if new["port_id"] != row["port_id"] or new["fixed_ip_address"] != row["fixed_ip_address"]:
        association.tell_device(tx, row["port_id"])
        association.tell_device(tx, new["port_id"])
    return _views(tx, [new])[0]


@resource.delete("/floatingips/{floatingip_id}", policy="delete_floatingip", guarded=True)
def delete(ctx: Context, floatingip_id: str) -> None:
    """Delete a floating IP; its address is free again."""
    tx, row = ctx.tx, policy.find(ctx, floatingip_id, "delete")
    check_revision(ctx, row)
    tx.execute(sa.delete(floatingip).where(floatingip.c.id == floatingip_id))
    draft.remove(tx, draft.load(tx, every(tx, at(port, "id"), {"value": row["floating_port_id"]})))
    drop_tags(tx, [floatingip_id])
    quota.give_back(tx, row["project_id"], {"floatingip": 1})
    tx.changed(TOPIC, floatingip_id)
    association.tell_device(tx, row["port_id"])
    if row["router_id"] is not None:
        tx.changed(ROUTER, row["router_id"])


tag_operations(resource, "/floatingips", floatingip, TOPIC, policy.find)

"""The operations on routers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Raced
from pileus.core.fields import given
from pileus.core.statement import at, by
from pileus.core.store import Tx
from pileus.services.network.resources import address as addresses
from pileus.services.network.resources import draft, quota
from pileus.services.network.resources.address import Given, Wish
from pileus.services.network.resources.draft import GATEWAY, LEG, Draft, Port
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.leg import Leg, check_free, check_room, check_routes, legs_of
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.fields import ZONE
from pileus.services.network.resources.network.table import TOPIC as NETWORK
from pileus.services.network.resources.port import policy as ports
from pileus.services.network.resources.port.table import TOPIC as PORT
from pileus.services.network.resources.port.table import port, port_group
from pileus.services.network.resources.router import fields, policy
from pileus.services.network.resources.router.fields import (
    ROUTES,
    GatewayCreate,
    GatewayUpdate,
    InterfaceBody,
    InterfaceView,
    RouterCreate,
    RouterReply,
    RoutersCreate,
    RouterUpdate,
    RouterView,
    RoutesBody,
    view,
)
from pileus.services.network.resources.router.table import TOPIC, router
from pileus.services.network.resources.standard_attribute import (
    Row,
    bump,
    change,
    check_revision,
    drop_tags,
    enforce,
    every,
    first_row,
    fresh,
    owner,
    page,
    sees_all,
    tag_operations,
    tags_of,
)
from pileus.services.network.resources.subnet import policy as subnets
from pileus.services.network.resources.subnet.fields import RouteBody
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules import subnet as rules
from pileus.services.network.rules.fault import (
    InvalidInput,
    PortInUse,
    RouterExternalGatewayInUseByFloatingIp,
    RouterInterfaceNotFound,
    RouterInterfaceNotFoundForSubnet,
    RouterInUse,
    RoutesExhausted,
)
from pileus.services.network.rules.status import router_status

resource = Resource("router", "routers", rules=policy.RULES)


def _status(row: Mapping[str, Any], *, legs: bool) -> str:
    """The status as far as it is known without asking a host: the loop writes what the host says."""
    status = router_status(admin_state_up=row["admin_state_up"], legs=legs, seen=None)
    return row["status"] if status == "BUILD" and row["status"] in ("ACTIVE", "ERROR") and row["host_id"] else status


def _views(tx: Tx, rows: Sequence[Row]) -> list[RouterView]:
    tags = tags_of(tx, [row["id"] for row in rows])
    gateways = addresses.addresses_of(tx, {row["gateway_port_id"] for row in rows if row["gateway_port_id"]})
    return [view(row, gateways.get(row["gateway_port_id"], ()), tags.get(row["id"], ())) for row in rows]


def _open_gateway(
    ctx: Context, row: Row, body: GatewayCreate | GatewayUpdate, legs: Sequence[Leg]
) -> tuple[dict[str, Any], list[Given]]:
    """Make the gateway's port; the router's columns and the gateway's addresses."""
    tx = ctx.tx
    if body.network_id is UNSET:
        raise InvalidInput("external_gateway_info needs a network_id")
    net = networks.find(ctx, body.network_id)
    if not net["external"]:
        raise BadRequest(f"Network {net['id']} is not an external network.")
    found = addresses.lock_subnets(tx, [net["id"]])
    check_room([one for one in legs if one.device_owner == LEG], found[net["id"]])
    asked = body.external_fixed_ips
    made = draft.make(
        tx,
        [
            Draft(
                network=net,
                project_id="",
                wishes=[Wish(one.subnet_id, one.ip_address) for one in asked] if isinstance(asked, list) else None,
                values={
                    "device_owner": GATEWAY,
                    "device_id": row["id"],
                    "port_security_enabled": False,
                    "host_id": row["host_id"],
                },
            )
        ],
        found,
    )[0]
    snat = True if body.enable_snat is UNSET else body.enable_snat
    values = {"gateway_network_id": net["id"], "gateway_port_id": made.row["id"], "enable_snat": snat}
    return values, made.addresses


def _close_gateway(tx: Tx, row: Row, legs: Sequence[Leg]) -> dict[str, Any]:
    """Remove the gateway's port; the router's columns. Raises when floating IPs need it."""
    users = sa.select(floatingip.c.id).where(floatingip.c.router_id == row["id"])
    if tx.first(users.limit(1)) is not None:
        raise RouterExternalGatewayInUseByFloatingIp(row["id"], row["gateway_network_id"])
    check_free(tx, row, legs, [one for one in legs if one.device_owner == GATEWAY])
    draft.remove(tx, _ports(tx, row["gateway_port_id"]))
    return {"gateway_network_id": None, "gateway_port_id": None, "enable_snat": True}


def _regate(ctx: Context, row: Row, body: GatewayUpdate | None, legs: Sequence[Leg]) -> dict[str, Any]:
    """The columns after a change of the gateway. Nothing, or an empty object, closes it."""
    tx, current = ctx.tx, row["gateway_network_id"]
    if body is None or not given(body):
        return {} if current is None else _close_gateway(tx, row, legs)
    body.network_id = current or UNSET if body.network_id is UNSET else body.network_id
    same = body.network_id == current
    if same and not isinstance(body.external_fixed_ips, list):
        return {"enable_snat": body.enable_snat is not False}
    if same:
        draft.remove(tx, _ports(tx, row["gateway_port_id"]))
    elif current is not None:
        _close_gateway(tx, row, legs)
    return _open_gateway(ctx, row, body, legs)[0]


def _ports(tx: Tx, port_id: str) -> list[Port]:
    return draft.load(tx, every(tx, at(port, "id"), {"value": port_id}))


def _create(ctx: Context, body: RouterCreate) -> RouterView:
    tx, project_id = ctx.tx, owner(ctx, body)
    enforce(ctx, "create_router", {"project_id": project_id, "tenant_id": project_id})
    if any(zone != ZONE for zone in body.availability_zone_hints):
        raise InvalidInput(f"the only availability zone is {ZONE}")
    quota.take(tx, project_id, {"router": 1})
    row: Row = {
        **fresh(tx, project_id, body.description),
        "name": body.name,
        "admin_state_up": body.admin_state_up,
        "enable_snat": True,
        "gateway_network_id": None,
        "gateway_port_id": None,
        "routes": [],
        "availability_zone_hints": body.availability_zone_hints,
        "host_id": None,
        "status": "DOWN",
    }
    ips: list[Given] = []
    if body.external_gateway_info is not None and given(body.external_gateway_info):
        values, ips = _open_gateway(ctx, row, body.external_gateway_info, ())
        row |= values
    row["status"] = _status(row, legs=bool(row["gateway_port_id"]))
    tx.insert(router, row)
    tx.changed(TOPIC, row["id"])
    return view(row, ips)


@resource.post("/routers", policy="create_router", guarded=True, status=201)
def create(ctx: Context, body: RoutersCreate) -> RouterReply:
    """Make one router, or several: all or none."""
    if body.router is not UNSET:
        return RouterReply(router=_create(ctx, body.router))
    if body.routers is UNSET or not body.routers:
        raise BadRequest("Unable to find 'router' in the request body.")
    return RouterReply(routers=[_create(ctx, one) for one in body.routers])


@resource.get("/routers", policy="get_router", guarded=True, wraps="routers")
def index(ctx: Context) -> Page:
    """The routers that the caller sees."""
    query = sa.select(router)
    if not sees_all(ctx, "get_router"):
        query = query.where(router.c.project_id == (ctx.auth.project_id or ""))
    rows, make = page(ctx, fields.listing, query)
    return make(_views(ctx.tx, rows))


@resource.get("/routers/{router_id}", policy="get_router", guarded=True, wraps="router")
def show(ctx: Context, router_id: str) -> RouterView:
    """A router."""
    return _views(ctx.tx, [policy.find(ctx, router_id)])[0]


def _routes(row: Row, legs: Sequence[Leg], routes: Sequence[RouteBody | Mapping[str, str]]) -> list[dict[str, str]]:
    plain = [
        {"destination": one.destination, "nexthop": one.nexthop} if isinstance(one, RouteBody) else dict(one)
        for one in routes
    ]
    if len(plain) > ROUTES:
        raise RoutesExhausted(row["id"], ROUTES)
    found = rules.check_routes(plain, None, ROUTES)
    check_routes(legs, found)
    return found


def _hold(tx: Tx, router_id: str) -> None:
    """Let no floating IP begin to lead by way of a router until the transaction ends: it is to lose a leg."""
    tx.execute(sa.select(router.c.id).where(router.c.id == router_id).with_for_update(key_share=True))


@resource.put("/routers/{router_id}", policy="update_router", guarded=True, accepts="router", wraps="router")
def update(ctx: Context, router_id: str, body: RouterUpdate) -> RouterView:
    """Change a router."""
    tx, row = ctx.tx, policy.find(ctx, router_id, "update")
    check_revision(ctx, row)
    if body.external_gateway_info is not UNSET:
        _hold(tx, router_id)
    values = given(body)
    for name in ("external_gateway_info", "routes", "distributed", "ha"):
        values.pop(name, None)
    legs = legs_of(tx, router_id)
    if body.external_gateway_info is not UNSET:
        values |= _regate(ctx, row, body.external_gateway_info, legs)
        legs = legs_of(tx, router_id)
    if body.routes is not UNSET:
        values["routes"] = _routes(row, legs, body.routes or [])
    values["status"] = _status({**row, **values}, legs=bool(legs))
    return _views(tx, [change(ctx, router, TOPIC, row, values)])[0]


@resource.delete("/routers/{router_id}", policy="delete_router", guarded=True)
def delete(ctx: Context, router_id: str) -> None:
    """Delete a router that has no legs but its gateway."""
    tx, row = ctx.tx, policy.find(ctx, router_id, "delete")
    check_revision(ctx, row)
    legs = legs_of(tx, router_id)
    inner = sa.select(port.c.id).where(port.c.device_id == router_id, port.c.device_owner == LEG)
    if tx.first(inner.limit(1)) is not None:
        raise RouterInUse(router_id)
    if row["gateway_port_id"] is not None:
        _close_gateway(tx, {**row, "routes": []}, legs)
    same = (router.c.id == router_id, router.c.revision_number == row["revision_number"])
    if tx.execute(sa.delete(router).where(*same)).rowcount != 1:
        raise Raced(f"The router {router_id} was changed by another request at the same time.")
    drop_tags(tx, [router_id])
    quota.give_back(tx, row["project_id"], {"router": 1})
    tx.changed(TOPIC, router_id)


def _interface(row: Row, one: Port) -> InterfaceView:
    ids = [each.subnet_id for each in one.addresses]
    return InterfaceView(
        id=row["id"],
        project_id=row["project_id"],
        tenant_id=row["project_id"],
        port_id=one.row["id"],
        network_id=one.row["network_id"],
        subnet_id=ids[0] if ids else "",
        subnet_ids=ids,
    )


def _by_subnet(ctx: Context, row: Row, subnet_id: str, legs: Sequence[Leg]) -> Port:
    found, net = subnets.find(ctx, subnet_id)
    if found["project_id"] != ctx.auth.project_id and not ctx.auth.is_admin:
        # The leg would have the gateway's address, and so the traffic of everybody there.
        raise BadRequest(f"Subnet {subnet_id} is not owned by the project that makes the request.")
    if found["gateway_ip"] is None:
        raise BadRequest(f"Subnet {subnet_id} has no gateway IP, which a router's interface needs.")
    check_room(legs, [found], row["routes"])
    quota.take(ctx.tx, row["project_id"], {"port": 1})
    one = Draft(
        network=net,
        project_id=row["project_id"],
        wishes=[Wish(subnet_id, found["gateway_ip"])],
        values={
            "device_owner": LEG,
            "device_id": row["id"],
            "port_security_enabled": False,
            "host_id": row["host_id"],
        },
    )
    return draft.make(ctx.tx, [one])[0]


def _by_port(ctx: Context, row: Row, port_id: str, legs: Sequence[Leg]) -> Port:
    tx = ctx.tx
    found, _ = ports.find(ctx, port_id, "update")
    if found["device_id"]:
        raise PortInUse(port_id, found["device_id"])
    one = draft.load(tx, [found])[0]
    if not one.addresses:
        raise BadRequest(f"Port {port_id} has no fixed IP, which a router's interface needs.")
    if sum(1 for each in one.addresses if ":" not in each.ip_address) > 1:
        raise BadRequest(f"Port {port_id} has several IPv4 addresses, and a router's interface has one at most.")
    ids = {each.subnet_id for each in one.addresses}
    check_room(legs, every(tx, by(subnet, "id"), {"values": ids}), row["routes"])
    tx.execute(sa.delete(port_group).where(port_group.c.port_id == port_id))
    values = {
        "device_owner": LEG,
        "device_id": row["id"],
        "port_security_enabled": False,
        "allowed_address_pairs": [],
        "host_id": row["host_id"],
    }
    new = bump(tx, port, PORT, found, values)
    draft.announce(tx, one)
    return Port(new, one.addresses, [])


@resource.put("/routers/{router_id}/add_router_interface", policy="add_router_interface", guarded=True)
def add_interface(ctx: Context, router_id: str, body: InterfaceBody) -> InterfaceView:
    """Give a router a leg in a subnet, with the subnet's gateway address; or by way of a port."""
    tx, row = ctx.tx, policy.find_for(ctx, router_id, "add_router_interface")
    if (body.subnet_id is UNSET) == (body.port_id is UNSET):
        raise BadRequest("Exactly one of subnet_id and port_id must be given.")
    legs = legs_of(tx, router_id)
    if body.subnet_id is not UNSET:
        one = _by_subnet(ctx, row, body.subnet_id, legs)
    else:
        one = _by_port(ctx, row, str(body.port_id), legs)
    bump(tx, router, TOPIC, row, {"status": _status(row, legs=True)})
    tx.changed(NETWORK, one.row["network_id"])
    return _interface(row, one)


@resource.put("/routers/{router_id}/remove_router_interface", policy="remove_router_interface", guarded=True)
def remove_interface(ctx: Context, router_id: str, body: InterfaceBody) -> InterfaceView:
    """Take a leg from a router; its port goes with it."""
    tx, row = ctx.tx, policy.find_for(ctx, router_id, "remove_router_interface")
    if body.subnet_id is UNSET and body.port_id is UNSET:
        raise BadRequest("One of subnet_id and port_id must be given.")
    _hold(tx, router_id)
    legs = legs_of(tx, router_id)
    inner = [one for one in legs if one.device_owner == LEG]
    if body.port_id is not UNSET:
        port_id = body.port_id
        known = first_row(
            tx, sa.select(port).where(port.c.id == port_id, port.c.device_id == router_id, port.c.device_owner == LEG)
        )
        if known is None:
            raise RouterInterfaceNotFound(router_id, port_id)
        if body.subnet_id is not UNSET and not any(
            one.port_id == port_id and one.subnet_id == body.subnet_id for one in inner
        ):
            raise BadRequest(f"Port {port_id} is not on subnet {body.subnet_id}.")
    else:
        subnets.find(ctx, str(body.subnet_id))
        leg = next((one for one in inner if one.subnet_id == body.subnet_id), None)
        if leg is None:
            raise RouterInterfaceNotFoundForSubnet(router_id, str(body.subnet_id))
        port_id = leg.port_id
        known = first_row(tx, at(port, "id"), {"value": port_id})
    check_free(tx, row, legs, [one for one in inner if one.port_id == port_id])
    one = draft.load(tx, [known] if known else [])[0]
    draft.remove(tx, [one])
    left = [each for each in legs if each.port_id != port_id]
    bump(tx, router, TOPIC, row, {"status": _status(row, legs=bool(left))})
    tx.changed(NETWORK, one.row["network_id"])
    return _interface(row, one)


@resource.put(
    "/routers/{router_id}/add_extraroutes", policy="add_extraroutes", guarded=True, accepts="router", wraps="router"
)
def add_routes(ctx: Context, router_id: str, body: RoutesBody) -> RouterView:
    """Add routes; those that the router has already stay."""
    row = policy.find_for(ctx, router_id, "add_extraroutes")
    new = _routes(row, legs_of(ctx.tx, router_id), body.routes)
    routes = [*row["routes"], *(one for one in new if one not in row["routes"])]
    if len(routes) > ROUTES:
        raise RoutesExhausted(router_id, ROUTES)
    return _views(ctx.tx, [change(ctx, router, TOPIC, row, {"routes": routes})])[0]


@resource.put(
    "/routers/{router_id}/remove_extraroutes",
    policy="remove_extraroutes",
    guarded=True,
    accepts="router",
    wraps="router",
)
def remove_routes(ctx: Context, router_id: str, body: RoutesBody) -> RouterView:
    """Remove routes; those that the router has not got are passed over."""
    row = policy.find_for(ctx, router_id, "remove_extraroutes")
    plain = [{"destination": one.destination, "nexthop": one.nexthop} for one in body.routes]
    gone = rules.check_routes(plain, None, ROUTES)
    routes = [one for one in row["routes"] if one not in gone]
    return _views(ctx.tx, [change(ctx, router, TOPIC, row, {"routes": routes})])[0]


tag_operations(resource, "/routers", router, TOPIC, policy.find)

"""The operations on subnets.

That subnets of a network do not overlap is kept by comparing the network's revision: who adds a subnet counts it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import given
from pileus.core.store import Tx
from pileus.services.network.resources import address as addresses
from pileus.services.network.resources import quota, service_port
from pileus.services.network.resources.address import Ask, Wish
from pileus.services.network.resources.draft import DHCP, GATEWAY, LEG, OURS
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import TOPIC as NETWORK
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import TOPIC as PORT
from pileus.services.network.resources.port.table import address, port
from pileus.services.network.resources.router.table import TOPIC as ROUTER
from pileus.services.network.resources.standard_attribute import (
    Row,
    bump,
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
from pileus.services.network.resources.subnet import fields, policy
from pileus.services.network.resources.subnet.fields import (
    SubnetCreate,
    SubnetReply,
    SubnetsCreate,
    SubnetUpdate,
    SubnetView,
    view,
)
from pileus.services.network.resources.subnet.table import TOPIC, subnet
from pileus.services.network.resources.subnetpool import operations as pools
from pileus.services.network.rules import subnet as rules
from pileus.services.network.rules.fault import (
    GatewayIpInUse,
    InvalidInput,
    NetworkSubnetPoolAffinityError,
    SubnetInUse,
)

resource = Resource("subnet", "subnets", rules=policy.RULES)


def _pools(cidr: rules.Cidr, body: SubnetCreate | SubnetUpdate, gateway: str | None) -> list[dict[str, str]]:
    if body.allocation_pools is UNSET or body.allocation_pools is None:
        found = rules.default_pools(cidr, gateway)
    else:
        asked = [{"start": one.start, "end": one.end} for one in body.allocation_pools]
        found = rules.check_pools(cidr, asked, gateway)
    return [one._asdict() for one in found]


def _routes(body: SubnetCreate | SubnetUpdate, ip_version: int) -> list[dict[str, str]]:
    routes = [{"destination": one.destination, "nexthop": one.nexthop} for one in body.host_routes or ()]
    return rules.check_routes(routes, ip_version, rules.MAX_HOST_ROUTES)


def _prefix(ctx: Context, project_id: str, body: SubnetCreate) -> tuple[rules.Cidr, Row | None]:
    """The prefix of a new subnet, and the pool that it is out of. Raises what is wrong with what is asked for."""
    version = None if body.ip_version is UNSET else body.ip_version
    text = body.cidr if isinstance(body.cidr, str) else None
    wanted = None if text is None else rules.parse_cidr(text, version)
    version = version if wanted is None else wanted.version
    length = body.prefixlen if isinstance(body.prefixlen, int) else None
    pool = pools.pool_of(ctx, body.subnetpool_id, default=body.use_default_subnetpool, ip_version=version)
    if pool is None:
        if wanted is None:
            raise BadRequest("A subnet needs a cidr, or a subnet pool to take one from.")
        if length is not None:
            raise BadRequest("prefixlen is for subnets out of a subnet pool.")
        return wanted, None
    cidr = None if wanted is None else str(wanted)
    return rules.parse_cidr(pools.allocate(ctx, pool, project_id, cidr=cidr, length=length)), pool


def _check_affinity(tx: Tx, pool: Row | None, cidr: rules.Cidr, others: Sequence[Row]) -> None:
    """Raise NetworkSubnetPoolAffinityError unless a network's subnets of an IP version are of one pool or scope."""
    pool_id = None if pool is None else pool["id"]
    strangers = {one["subnetpool_id"] for one in others if one["ip_version"] == cidr.version} - {pool_id}
    if not strangers:
        return
    scopes = pools.scopes_of(tx, strangers - {None})
    scope = None if pool is None else pool["address_scope_id"]
    if scope is None or any(scopes.get(one or "") != scope for one in strangers):
        raise NetworkSubnetPoolAffinityError


def _row(ctx: Context, project_id: str, net: Row, body: SubnetCreate, others: Sequence[Row]) -> Row:
    """A new subnet of what a user asks for. Raises what is wrong with that."""
    tx = ctx.tx
    cidr, pool = _prefix(ctx, project_id, body)
    _check_affinity(tx, pool, cidr, others)
    rules.check_modes(
        cidr, enable_dhcp=body.enable_dhcp, ra_mode=body.ipv6_ra_mode, address_mode=body.ipv6_address_mode
    )
    gateway = rules.default_gateway(cidr) if body.gateway_ip is UNSET else body.gateway_ip
    if gateway is not None and body.gateway_ip is not UNSET:
        rules.check_gateway(cidr, gateway)
        gateway = str(rules.parse_address(gateway))
    if cidr.version == 6 and net["mtu"] < 1280:
        raise InvalidInput(f"the network's MTU {net['mtu']} is less than IPv6 needs")
    return {
        **fresh(tx, project_id, body.description),
        "network_id": net["id"],
        "name": body.name,
        "ip_version": cidr.version,
        "cidr": str(cidr),
        "gateway_ip": gateway,
        "enable_dhcp": body.enable_dhcp,
        "ipv6_ra_mode": body.ipv6_ra_mode,
        "ipv6_address_mode": body.ipv6_address_mode,
        "allocation_pools": _pools(cidr, body, gateway),
        "dns_nameservers": rules.check_nameservers(body.dns_nameservers or []),
        "host_routes": _routes(body, cidr.version),
        "cursor": None,
        "subnetpool_id": None if pool is None else pool["id"],
    }


def _create(ctx: Context, body: SubnetCreate) -> SubnetView:
    tx, project_id = ctx.tx, owner(ctx, body)
    net = networks.find(ctx, body.network_id)
    enforce(ctx, "create_subnet", {**networks.facts(net), "project_id": project_id, "tenant_id": project_id})
    others = addresses.lock_subnets(tx, [net["id"]])[net["id"]]
    row = _row(ctx, project_id, net, body, others)
    twin = rules.overlapping(ip_network(row["cidr"]), {one["id"]: one["cidr"] for one in others})
    if twin is not None:
        raise InvalidInput(f"the cidr {row['cidr']} overlaps with another subnet of network {net['id']}: {twin}")
    quota.take(tx, project_id, {"subnet": 1})
    bump(tx, network, NETWORK, net, {})
    tx.insert(subnet, row)
    if addresses.automatic(row):
        _self_address(tx, net["id"], row)
    service_port.settle_dhcp(tx, net, [*others, row], first=not any(one["enable_dhcp"] for one in others))
    tx.changed(TOPIC, row["id"])
    return view(row, external=net["external"])


def _self_address(tx: Tx, network_id: str, row: Row) -> None:
    """Ports that are there make addresses for themselves on a new subnet that lets them."""
    query = sa.select(port.c.id, port.c.mac_address).where(
        port.c.network_id == network_id, port.c.device_owner.not_in((LEG, GATEWAY, DHCP))
    )
    ports = every(tx, query)
    asks = [Ask(network_id, one["mac_address"], [Wish(row["id"])]) for one in ports]
    found = addresses.allocate(tx, {network_id: [row]}, asks)
    new = [each for one, ips in zip(ports, found, strict=True) for each in addresses.rows_of(one["id"], ips, 1000)]
    tx.insert(address, new)
    for one in ports:
        tx.changed(PORT, one["id"])


@resource.post("/subnets", policy="create_subnet", guarded=True, status=201)
def create(ctx: Context, body: SubnetsCreate) -> SubnetReply:
    """Make one subnet, or several: all or none."""
    if body.subnet is not UNSET:
        return SubnetReply(subnet=_create(ctx, body.subnet))
    if body.subnets is UNSET or not body.subnets:
        raise BadRequest("Unable to find 'subnet' in the request body.")
    return SubnetReply(subnets=[_create(ctx, one) for one in body.subnets])


@resource.get("/subnets", policy="get_subnet", guarded=True, wraps="subnets")
def index(ctx: Context) -> Page:
    """The subnets that the caller sees."""
    rows, make = page(ctx, fields.listing, sa.select(subnet).where(policy.visible(ctx)))
    tags = tags_of(ctx.tx, [row["id"] for row in rows])
    outside = sa.select(network.c.id).where(
        network.c.id.in_({row["network_id"] for row in rows}), network.c.external.is_(True)
    )
    external = {row.id for row in ctx.tx.all(outside)}
    return make([view(row, external=row["network_id"] in external, tags=tags.get(row["id"], ())) for row in rows])


@resource.get("/subnets/{subnet_id}", policy="get_subnet", guarded=True, wraps="subnet")
def show(ctx: Context, subnet_id: str) -> SubnetView:
    """A subnet."""
    row, net = policy.find(ctx, subnet_id)
    return view(row, external=net["external"], tags=tags_of(ctx.tx, [subnet_id]).get(subnet_id, ()))


def _holder(tx: Tx, subnet_id: str, text: str | None) -> str | None:
    """The port that has an address of a subnet."""
    if text is None:
        return None
    c = address.c
    found = tx.scalar(sa.select(c.port_id).where(c.subnet_id == subnet_id, c.packed == addresses.packed(text)))
    return None if found is None else str(found)


def _values(tx: Tx, row: Row, body: SubnetUpdate) -> dict[str, Any]:
    """The columns that an update sets. Raises what is wrong with them."""
    cidr, values = ip_network(row["cidr"]), given(body)
    values.pop("service_types", None)
    gateway = row["gateway_ip"]
    if body.gateway_ip is not UNSET and body.gateway_ip != gateway:
        holder = _holder(tx, row["id"], gateway)
        if holder is not None:
            raise GatewayIpInUse(gateway, holder)
        gateway = body.gateway_ip
        if gateway is not None:
            rules.check_gateway(cidr, gateway)
            gateway = str(rules.parse_address(gateway))
        values["gateway_ip"] = gateway
    if body.allocation_pools is not UNSET:
        values["allocation_pools"] = _pools(cidr, body, gateway)
    elif gateway is not None:
        rules.check_pools(cidr, row["allocation_pools"], gateway)
    if body.dns_nameservers is not UNSET:
        values["dns_nameservers"] = rules.check_nameservers(body.dns_nameservers or [])
    if body.host_routes is not UNSET:
        values["host_routes"] = _routes(body, cidr.version)
    rules.check_modes(
        cidr,
        enable_dhcp=bool(values.get("enable_dhcp", row["enable_dhcp"])),
        ra_mode=row["ipv6_ra_mode"],
        address_mode=row["ipv6_address_mode"],
    )
    return values


@resource.put("/subnets/{subnet_id}", policy="update_subnet", guarded=True, accepts="subnet", wraps="subnet")
def update(ctx: Context, subnet_id: str, body: SubnetUpdate) -> SubnetView:
    """Change a subnet."""
    tx = ctx.tx
    row, net = policy.find(ctx, subnet_id, "update")
    new = change(ctx, subnet, TOPIC, row, _values(tx, row, body))
    if new["enable_dhcp"] != row["enable_dhcp"]:
        rows = addresses.lock_subnets(tx, [net["id"]])[net["id"]]
        service_port.settle_dhcp(tx, net, [new if one["id"] == subnet_id else one for one in rows])
    if new is not row:
        tx.changed(NETWORK, net["id"])
        tell_routers(tx, subnet_id)
    return view(new, external=net["external"], tags=tags_of(tx, [subnet_id]).get(subnet_id, ()))


def tell_routers(tx: Tx, subnet_id: str) -> None:
    """Let the routers with a leg in a subnet be looked at."""
    query = sa.select(port.c.device_id).join(address, address.c.port_id == port.c.id)
    legs = query.where(address.c.subnet_id == subnet_id, port.c.device_owner.in_((LEG, GATEWAY)))
    for row in tx.all(legs):
        tx.changed(ROUTER, row.device_id)


@resource.delete("/subnets/{subnet_id}", policy="delete_subnet", guarded=True)
def delete(ctx: Context, subnet_id: str) -> None:
    """Delete a subnet of which nobody has an address but the DHCP service, or hosts that made it themselves."""
    tx = ctx.tx
    row, net = policy.find(ctx, subnet_id, "delete")
    check_revision(ctx, row)
    query = sa.select(port.c.id, port.c.device_owner).join(address, address.c.port_id == port.c.id)
    users = every(tx, query.where(address.c.subnet_id == subnet_id))
    stays = not addresses.automatic(row)
    if any(one["device_owner"] != DHCP and (stays or one["device_owner"] in OURS) for one in users):
        raise SubnetInUse(subnet_id)
    rows = addresses.lock_subnets(tx, [net["id"]])[net["id"]]
    tx.execute(sa.delete(address).where(address.c.subnet_id == subnet_id))
    if row["enable_dhcp"]:
        service_port.settle_dhcp(tx, net, [one for one in rows if one["id"] != subnet_id])
    forget(tx, [row])
    bump(tx, network, NETWORK, net, {})
    for one in users:
        tx.changed(PORT, one["id"])


def forget(tx: Tx, rows: list[Row]) -> None:
    """Delete subnets of which nobody has an address, and give back what they counted for."""
    ids = [row["id"] for row in rows]
    tx.execute(sa.delete(subnet).where(subnet.c.id.in_(ids)))
    drop_tags(tx, ids)
    counted: Mapping[str, int] = {
        project_id: sum(1 for row in rows if row["project_id"] == project_id)
        for project_id in sorted({row["project_id"] for row in rows})
    }
    for project_id, amount in counted.items():
        quota.give_back(tx, project_id, {"subnet": amount})
    for one in ids:
        tx.changed(TOPIC, one)


def _find_tagged(ctx: Context, subnet_id: str, verb: str) -> Row:
    return policy.find(ctx, subnet_id, verb)[0]


tag_operations(resource, "/subnets", subnet, TOPIC, _find_tagged)

"""Auto-allocated topologies: a network of a project's own behind a router to the outside, made when it is asked for.

https://docs.openstack.org/api-ref/network/v2/#auto-allocated-topologies

The outside is the external network that is the default one, and the subnets are out of the default subnet pools.  The
whole is made in one transaction, so that there is no part of it, and never a second one.
"""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.fields import View
from pileus.core.policy import Rule
from pileus.core.store import Tx, metadata
from pileus.services.network.resources.draft import LEG
from pileus.services.network.resources.network import operations as networks
from pileus.services.network.resources.network.fields import NetworkCreate, NetworksCreate
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.router import operations as routers
from pileus.services.network.resources.router.fields import GatewayCreate, InterfaceBody, RouterCreate, RoutersCreate
from pileus.services.network.resources.router.table import router
from pileus.services.network.resources.standard_attribute import (
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
    Row,
    enforce,
    every,
    first_row,
)
from pileus.services.network.resources.subnet import operations as subnets
from pileus.services.network.resources.subnet.fields import SubnetCreate, SubnetsCreate
from pileus.services.network.resources.subnetpool import policy as pools
from pileus.services.network.resources.subnetpool.table import subnetpool

_PATH = "/auto-allocated-topology/{project_id}"
_DRY_RUN = "dry-run"

auto_allocated_topology = sa.Table(
    "network_auto_allocated_topology",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("network_id", sa.String(64), sa.ForeignKey(network.c.id, ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("router_id", sa.String(64), sa.ForeignKey(router.c.id, ondelete="SET NULL"), index=True),
)


class AutoAllocationFailure(Conflict):
    """409: the cloud has not what a topology is made of."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Deployment error: {reason}.")


class TopologyView(View):
    """A topology in a response: `id` is the network's."""

    id: str
    project_id: str
    tenant_id: str


resource = Resource(
    "auto_allocated_topology",
    "auto_allocated_topologies",
    rules=[
        Rule("get_auto_allocated_topology", ADMIN_OR_PROJECT_READER, "Show a topology, and make it when it is missing"),
        Rule("delete_auto_allocated_topology", ADMIN_OR_PROJECT_MEMBER, "Delete a topology"),
    ],
)


def _project(ctx: Context, named: str, verb: str) -> str:
    """The project that a path names; `None` is the caller's own. Raises PolicyNotAuthorized."""
    project_id = (ctx.auth.project_id or "") if named == "None" else named
    enforce(ctx, f"{verb}_auto_allocated_topology", {"project_id": project_id, "tenant_id": project_id})
    return project_id


def _found(tx: Tx, project_id: str) -> Row | None:
    table = auto_allocated_topology
    return first_row(tx, sa.select(table).where(table.c.project_id == project_id))


def _parts(ctx: Context) -> tuple[str, list[Row]]:
    """The external network and the subnet pools that a topology is made of. Raises AutoAllocationFailure."""
    outside = ctx.tx.scalar(sa.select(network.c.id).where(network.c.external.is_(True), network.c.is_default.is_(True)))
    if outside is None:
        raise AutoAllocationFailure("No default router:external network")
    query = sa.select(subnetpool).where(subnetpool.c.default_of.is_not(None), pools.kind.visible(ctx))
    found = every(ctx.tx, query.order_by(subnetpool.c.default_of))
    if not found:
        raise AutoAllocationFailure("No default subnetpools defined")
    return outside, found


def ensure(ctx: Context, project_id: str) -> str:
    """The id of the network of a project's topology, which is made when it is missing.

    Raises AutoAllocationFailure when the cloud has no default external network or no default subnet pool, or they do
    not serve, and whatever else making networks, subnets and routers raises.
    """
    row = _found(ctx.tx, project_id)
    if row is not None:
        return str(row["network_id"])
    outside, found = _parts(ctx)
    try:
        made = _make(ctx, project_id, outside, found)
    except (BadRequest, NotFound) as fault:
        raise AutoAllocationFailure(f"Unable to provide project private network: {fault.message}") from None
    ctx.tx.insert(auto_allocated_topology, made)
    return made["network_id"]


def _make(ctx: Context, project_id: str, outside: str, found: list[Row]) -> dict[str, str]:
    asked = NetworkCreate(name="auto_allocated_network", project_id=project_id)
    network_id: str = networks.create(ctx, NetworksCreate(network=asked)).network.id  # type: ignore[union-attr] # one
    way = RouterCreate(
        name="auto_allocated_router", external_gateway_info=GatewayCreate(network_id=outside), project_id=project_id
    )
    router_id: str = routers.create(ctx, RoutersCreate(router=way)).router.id  # type: ignore[union-attr] # one
    for pool in found:
        wanted = SubnetCreate(
            name=f"auto_allocated_subnet_v{pool['ip_version']}",
            network_id=network_id,
            ip_version=pool["ip_version"],
            subnetpool_id=pool["id"],
            project_id=project_id,
        )
        subnet_id = subnets.create(ctx, SubnetsCreate(subnet=wanted)).subnet.id  # type: ignore[union-attr] # one
        routers.add_interface(ctx, router_id, InterfaceBody(subnet_id=subnet_id))
    return {"project_id": project_id, "network_id": network_id, "router_id": router_id}


@resource.get(_PATH, policy="get_auto_allocated_topology", guarded=True, wraps="auto_allocated_topology", writes=True)
def show(ctx: Context, project_id: str) -> TopologyView | Reply:
    """The topology of a project, made when it is missing; `fields=dry-run` asks whether it could be.

    Raises AutoAllocationFailure when the cloud has not what it is made of.
    """
    project_id = _project(ctx, project_id, "get")
    if _DRY_RUN in ctx.query.all("fields"):
        _parts(ctx)
        passed = TopologyView(id=f"{_DRY_RUN}=pass", project_id=project_id, tenant_id=project_id)
        return Reply(msgspec.json.encode({"auto_allocated_topology": passed}))  # bytes, that no field is left out
    return TopologyView(id=ensure(ctx, project_id), project_id=project_id, tenant_id=project_id)


@resource.delete(_PATH, policy="delete_auto_allocated_topology", guarded=True)
def delete(ctx: Context, project_id: str) -> None:
    """Delete the router and the network of a project's topology; without any there is nothing to do.

    Raises NetworkInUse while somebody has a port on the network, and RouterInUse for legs in other networks.
    """
    row = _found(ctx.tx, _project(ctx, project_id, "delete"))
    if row is None:
        return
    if row["router_id"] is not None:
        legs = sa.select(port.c.id).where(
            port.c.device_id == row["router_id"], port.c.device_owner == LEG, port.c.network_id == row["network_id"]
        )
        for leg in ctx.tx.all(legs):
            routers.remove_interface(ctx, row["router_id"], InterfaceBody(port_id=leg.id))
        routers.delete(ctx, row["router_id"])
    networks.delete(ctx, row["network_id"])

"""Who may do what with subnets, and which subnets somebody sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.standard_attribute import (
    ADMIN,
    NET_OWNER_MEMBER,
    NET_OWNER_READER,
    PROJECT_MEMBER,
    PROJECT_READER,
    Row,
    enforce,
    first_row,
    sees_all,
)
from pileus.services.network.resources.subnet.table import subnet
from pileus.services.network.rules.fault import SubnetNotFound

_SHOW = f"{PROJECT_READER} or rule:shared or rule:external or {ADMIN} or {NET_OWNER_READER} or role:service"

RULES = (
    Rule("create_subnet", f"{ADMIN} or {NET_OWNER_MEMBER}", "Create a subnet"),
    Rule("get_subnet", _SHOW, "Show a subnet"),
    Rule("update_subnet", f"{PROJECT_MEMBER} or {ADMIN} or {NET_OWNER_MEMBER}", "Update a subnet"),
    Rule("delete_subnet", f"{PROJECT_MEMBER} or {ADMIN} or {NET_OWNER_MEMBER}", "Delete a subnet"),
)


def target(row: Mapping[str, Any], net: Mapping[str, Any]) -> dict[str, Any]:
    """A subnet as a target of rules."""
    return {**networks.facts(net), "id": row["id"], "project_id": row["project_id"], "tenant_id": row["project_id"]}


def visible(ctx: Context) -> sa.ColumnElement[bool]:
    """The condition for subnets that the caller sees."""
    if sees_all(ctx, "get_subnet"):
        return sa.true()
    seen = sa.select(network.c.id).where(networks.visible(ctx))
    return sa.or_(subnet.c.project_id == (ctx.auth.project_id or ""), subnet.c.network_id.in_(seen))


def find(ctx: Context, subnet_id: str, verb: str = "get") -> tuple[Row, Row]:
    """A subnet that the caller may `get`, `update` or `delete`, and its network.

    Raises SubnetNotFound when the caller must not see it, and PolicyNotAuthorized.
    """
    row = first_row(ctx.tx, at(subnet, "id"), {"value": subnet_id})
    if row is None:
        raise SubnetNotFound(subnet_id)
    net = networks.load(ctx, row["network_id"])
    if net is None or not ctx.allows("get_subnet", target(row, net)):
        raise SubnetNotFound(subnet_id)
    if verb != "get":
        enforce(ctx, f"{verb}_subnet", target(row, net))
    return row, net

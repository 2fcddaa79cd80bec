"""Who may do what with networks, and which networks somebody sees."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.core.statement import at, by
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.rbac_policy.table import granted, shared_with
from pileus.services.network.resources.standard_attribute import (
    ADMIN,
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
    Row,
    enforce,
    every,
    first_row,
    sees_all,
)
from pileus.services.network.rules.fault import NetworkNotFound

_SHOW = f"{ADMIN_OR_PROJECT_READER} or role:service or rule:shared or rule:external"

RULES = (
    Rule("create_network", ADMIN_OR_PROJECT_MEMBER, "Create a network"),
    Rule("create_network:shared", ADMIN, "Create a shared network"),
    Rule("create_network:router:external", ADMIN, "Create an external network"),
    Rule("create_network:is_default", ADMIN, "Create the default external network"),
    Rule("create_network:port_security_enabled", ADMIN_OR_PROJECT_MEMBER, "Say whether ports get port security"),
    Rule("create_network:provider:network_type", ADMIN, "Say how a network is realised"),
    Rule("create_network:provider:physical_network", ADMIN, "Say on what a network is realised"),
    Rule("create_network:provider:segmentation_id", ADMIN, "Say under which number a network is realised"),
    Rule("get_network", _SHOW, "Show a network"),
    Rule("get_network:provider:network_type", ADMIN, "See how a network is realised"),
    Rule("get_network:provider:physical_network", ADMIN, "See on what a network is realised"),
    Rule("get_network:provider:segmentation_id", ADMIN, "See under which number a network is realised"),
    Rule("update_network", ADMIN_OR_PROJECT_MEMBER, "Update a network"),
    Rule("update_network:shared", ADMIN, "Share a network, or no longer"),
    Rule("update_network:router:external", ADMIN, "Make a network external, or no longer"),
    Rule("update_network:is_default", ADMIN, "Make a network the default external one"),
    Rule("update_network:port_security_enabled", ADMIN_OR_PROJECT_MEMBER, "Say whether ports get port security"),
    Rule("delete_network", ADMIN_OR_PROJECT_MEMBER, "Delete a network"),
)


def facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What rules may ask of the network of a thing."""
    return {
        "network:project_id": row["project_id"],
        "network:shared": row["shared"],
        "network:router:external": row["external"],
    }


def target(row: Mapping[str, Any]) -> dict[str, Any]:
    """A network as a target of rules."""
    return {**facts(row), "id": row["id"], "project_id": row["project_id"], "tenant_id": row["project_id"]}


def visible(ctx: Context) -> sa.ColumnElement[bool]:
    """The condition for networks that the caller sees."""
    if sees_all(ctx, "get_network"):
        return sa.true()
    c = network.c
    own = c.project_id == (ctx.auth.project_id or "")
    return sa.or_(own, c.shared.is_(True), c.external.is_(True), c.id.in_(granted(ctx)))


def load(ctx: Context, network_id: str) -> Row | None:
    """A network as the caller's project has it, whether the caller may see it or not."""
    rows = shared_with(ctx, every(ctx.tx, at(network, "id"), {"value": network_id}))
    return rows[0] if rows else None


def find(ctx: Context, network_id: str, verb: str = "get", *, missing: str | None = None) -> Row:
    """A network that the caller may `get`, `update` or `delete`.

    Raises NetworkNotFound when the caller must not see it, and PolicyNotAuthorized.
    """
    row = first_row(ctx.tx, at(network, "id"), {"value": network_id})
    seen = None if row is None else shared_with(ctx, [row])[0]
    if row is None or seen is None or not ctx.allows("get_network", target(seen)):
        raise NetworkNotFound(missing or network_id)
    if verb == "get":
        return seen
    enforce(ctx, f"{verb}_network", target(seen))
    return row  # what is changed is what is kept, not what this caller has of it


def find_all(ctx: Context, ids: Collection[str]) -> dict[str, Row]:
    """Networks that the caller sees, by id. Raises NetworkNotFound for the first that is not among them."""
    rows = shared_with(ctx, every(ctx.tx, by(network, "id"), {"values": ids}))
    found = {row["id"]: row for row in rows if ctx.allows("get_network", target(row))}
    for one in ids:
        if one not in found:
            raise NetworkNotFound(one)
    return found

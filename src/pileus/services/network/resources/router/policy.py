"""Who may do what with routers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.services.network.resources.router.table import router
from pileus.services.network.resources.standard_attribute import (
    ADMIN,
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
    Row,
    enforce,
    first_row,
)
from pileus.services.network.rules.fault import RouterNotFound

RULES = (
    Rule("create_router", ADMIN_OR_PROJECT_MEMBER, "Create a router"),
    Rule("create_router:distributed", ADMIN, "Say whether a router is on all hosts"),
    Rule("create_router:ha", ADMIN, "Say whether a router is on several hosts"),
    Rule("create_router:external_gateway_info:enable_snat", ADMIN, "Turn source NAT on or off"),
    Rule("create_router:external_gateway_info:external_fixed_ips", ADMIN, "Choose the gateway's addresses"),
    Rule("get_router", ADMIN_OR_PROJECT_READER, "Show a router"),
    Rule("get_router:distributed", ADMIN, "See whether a router is on all hosts"),
    Rule("get_router:ha", ADMIN, "See whether a router is on several hosts"),
    Rule("update_router", ADMIN_OR_PROJECT_MEMBER, "Update a router"),
    Rule("update_router:distributed", ADMIN, "Say whether a router is on all hosts"),
    Rule("update_router:ha", ADMIN, "Say whether a router is on several hosts"),
    Rule("update_router:external_gateway_info:enable_snat", ADMIN, "Turn source NAT on or off"),
    Rule("update_router:external_gateway_info:external_fixed_ips", ADMIN, "Choose the gateway's addresses"),
    Rule("delete_router", ADMIN_OR_PROJECT_MEMBER, "Delete a router"),
    Rule("add_router_interface", ADMIN_OR_PROJECT_MEMBER, "Add a leg to a router"),
    Rule("remove_router_interface", ADMIN_OR_PROJECT_MEMBER, "Remove a leg from a router"),
    Rule("add_extraroutes", ADMIN_OR_PROJECT_MEMBER, "Add routes to a router"),
    Rule("remove_extraroutes", ADMIN_OR_PROJECT_MEMBER, "Remove routes from a router"),
)


def target(row: Mapping[str, Any]) -> dict[str, Any]:
    """A router as a target of rules."""
    return {"id": row["id"], "project_id": row["project_id"], "tenant_id": row["project_id"]}


def find(ctx: Context, router_id: str, verb: str = "get") -> Row:
    """A router that the caller may `get`, `update` or `delete`.

    Raises RouterNotFound when the caller must not see it, and PolicyNotAuthorized.
    """
    row = first_row(ctx.tx, at(router, "id"), {"value": router_id})
    if row is None or not ctx.allows("get_router", target(row)):
        raise RouterNotFound(router_id)
    if verb != "get":
        enforce(ctx, f"{verb}_router", target(row))
    return row


def find_for(ctx: Context, router_id: str, rule: str) -> Row:
    """A router for which the caller passes a rule."""
    row = find(ctx, router_id)
    enforce(ctx, rule, target(row))
    return row

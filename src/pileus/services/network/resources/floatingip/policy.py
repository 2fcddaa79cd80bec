"""Who may do what with floating IPs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.services.network.resources.floatingip.table import floatingip
from pileus.services.network.resources.standard_attribute import (
    ADMIN_OR_PROJECT_MANAGER,
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
    Row,
    enforce,
    first_row,
)
from pileus.services.network.rules.fault import FloatingIPNotFound

RULES = (
    Rule("create_floatingip", ADMIN_OR_PROJECT_MEMBER, "Create a floating IP"),
    Rule("create_floatingip:floating_ip_address", ADMIN_OR_PROJECT_MANAGER, "Choose the address"),
    Rule("get_floatingip", ADMIN_OR_PROJECT_READER, "Show a floating IP"),
    Rule("update_floatingip", ADMIN_OR_PROJECT_MEMBER, "Say what a floating IP leads to"),
    Rule("delete_floatingip", ADMIN_OR_PROJECT_MEMBER, "Delete a floating IP"),
)


def target(row: Mapping[str, Any]) -> dict[str, Any]:
    """A floating IP as a target of rules."""
    return {"id": row["id"], "project_id": row["project_id"], "tenant_id": row["project_id"]}


def find(ctx: Context, floatingip_id: str, verb: str = "get") -> Row:
    """A floating IP that the caller may `get`, `update` or `delete`.

    Raises FloatingIPNotFound when the caller must not see it, and PolicyNotAuthorized.
    """
    row = first_row(ctx.tx, at(floatingip, "id"), {"value": floatingip_id})
    if row is None or not ctx.allows("get_floatingip", target(row)):
        raise FloatingIPNotFound(floatingip_id)
    if verb != "get":
        enforce(ctx, f"{verb}_floatingip", target(row))
    return row

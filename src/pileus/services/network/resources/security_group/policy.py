"""Who may do what with security groups, and which groups somebody sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pileus.core.context import Context
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.services.network.resources.security_group.table import group, rule
from pileus.services.network.resources.standard_attribute import (
    ADMIN,
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
    Row,
    enforce,
    first_row,
)
from pileus.services.network.rules.fault import SecurityGroupNotFound, SecurityGroupRuleNotFound

RULES = (
    Rule("sg_owner", "project_id:%(security_group:project_id)s", "The project that owns the rule's group"),
    Rule("create_security_group", ADMIN_OR_PROJECT_MEMBER, "Create a security group"),
    Rule("get_security_group", ADMIN_OR_PROJECT_READER, "Show a security group"),
    Rule("update_security_group", ADMIN_OR_PROJECT_MEMBER, "Update a security group"),
    Rule("delete_security_group", ADMIN_OR_PROJECT_MEMBER, "Delete a security group"),
    Rule("create_security_group_rule", f"{ADMIN} or (role:member and rule:sg_owner)", "Create a rule"),
    Rule("get_security_group_rule", f"{ADMIN} or (role:reader and rule:sg_owner)", "Show a rule"),
    Rule("delete_security_group_rule", f"{ADMIN} or (role:member and rule:sg_owner)", "Delete a rule"),
)


def target(row: Mapping[str, Any]) -> dict[str, Any]:
    """A group as a target of rules."""
    project_id = row["project_id"]
    return {"id": row["id"], "project_id": project_id, "tenant_id": project_id, "security_group:project_id": project_id}


def find(ctx: Context, group_id: str, verb: str = "get") -> Row:
    """A group that the caller may `get`, `update` or `delete`.

    Raises SecurityGroupNotFound when the caller must not see it, and PolicyNotAuthorized.
    """
    row = first_row(ctx.tx, at(group, "id"), {"value": group_id})
    if row is None or not ctx.allows("get_security_group", target(row)):
        raise SecurityGroupNotFound(group_id)
    if verb != "get":
        enforce(ctx, f"{verb}_security_group", target(row))
    return row


def find_rule(ctx: Context, rule_id: str, verb: str = "get") -> tuple[Row, Row]:
    """A rule that the caller may `get` or `delete`, and its group.

    Raises SecurityGroupRuleNotFound when the caller must not see it, and PolicyNotAuthorized.
    """
    row = first_row(ctx.tx, at(rule, "id"), {"value": rule_id})
    parent = first_row(ctx.tx, at(group, "id"), {"value": row["group_id"]}) if row else None
    if row is None or parent is None or not ctx.allows("get_security_group_rule", target(parent)):
        raise SecurityGroupRuleNotFound(rule_id)
    if verb != "get":
        enforce(ctx, f"{verb}_security_group_rule", target(parent))
    return row, parent

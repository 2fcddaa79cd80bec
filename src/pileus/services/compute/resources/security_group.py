"""Security groups by way of Compute, until microversion 2.35. They are Network's.

https://docs.openstack.org/api-ref/compute/#security-groups-os-security-groups-deprecated
https://docs.openstack.org/api-ref/compute/#rules-for-security-group-os-security-group-rules-deprecated
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from pileus.core.address import read_prefix
from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden
from pileus.core.fields import OpenBody
from pileus.core.listing import integer
from pileus.core.policy import Rule
from pileus.services.compute.rules.ingress import ingress_range
from pileus.services.compute.rules.persona import MEMBER, READER
from pileus.services.compute.rules.shape import Uuid, is_uuid
from pileus.services.network import interface as network

Text = Annotated[str, msgspec.Meta(max_length=255)]


class GroupValues(OpenBody):
    """Body of create and update: the value of `security_group`."""

    name: Text
    description: Text


class RuleValues(OpenBody):
    """Body of a rule's create: the value of `security_group_rule`. What lets in whom is looked at by the operation."""

    parent_group_id: Uuid
    group_id: Uuid | None = None
    ip_protocol: Any = None
    from_port: Any = None
    to_port: Any = None
    cidr: Any = None


_RULE = "os_compute_api:os-security-groups:"

RULES = (
    Rule(_RULE + "get", READER, "List security groups"),
    Rule(_RULE + "show", READER, "Show a security group"),
    Rule(_RULE + "create", MEMBER, "Make a security group"),
    Rule(_RULE + "update", MEMBER, "Change a security group"),
    Rule(_RULE + "delete", MEMBER, "Delete a security group"),
    Rule(_RULE + "rule:create", MEMBER, "Make a rule of a security group"),
    Rule(_RULE + "rule:delete", MEMBER, "Delete a rule of a security group"),
)

resource = Resource("security_group", "security_groups", rules=RULES)

_MANY = Parameters("limit", "offset", "all_tenants")


def _checked(group_id: str) -> str:
    if not is_uuid(group_id):
        raise BadRequest("Security group id should be uuid")
    return group_id


def slice_of(ctx: Context, found: list[Any]) -> list[Any]:
    """The items that `limit` and `offset` ask for, 1000 at most. Raises BadRequest."""
    limit, offset = integer(ctx.query.get("limit") or "1000"), integer(ctx.query.get("offset") or "0")
    if limit < 0 or offset < 0:
        raise BadRequest("limit and offset must not be negative")
    return found[offset : offset + min(limit or 1000, 1000)]


@resource.get("/os-security-groups", policy=_RULE + "get", until="2.35", writes=True, query=_MANY)
def list_all(ctx: Context) -> Page:
    """The project's groups; with `all_tenants`, an admin sees those of all."""
    everybody = ctx.auth.is_admin and "all_tenants" in ctx.query.names()
    return Page(slice_of(ctx, network.security_groups(ctx, everybody=everybody)))


@resource.get("/os-security-groups/{group_id}", policy=_RULE + "show", until="2.35", wraps="security_group")
def show(ctx: Context, group_id: str) -> dict[str, Any]:
    """One group."""
    return network.security_group(ctx, _checked(group_id))


@resource.post(
    "/os-security-groups",
    policy=_RULE + "create",
    until="2.35",
    accepts="security_group",
    wraps="security_group",
)
def create(ctx: Context, body: GroupValues) -> dict[str, Any]:
    """Make a group. Raises Forbidden over quota, and BadRequest for a name that cannot be."""
    try:
        return network.create_security_group(ctx, body.name, body.description)
    except Conflict as fault:
        raise (Forbidden if fault.type == "OverQuota" else BadRequest)(fault.message) from None


@resource.put(
    "/os-security-groups/{group_id}",
    policy=_RULE + "update",
    until="2.35",
    accepts="security_group",
    wraps="security_group",
)
def update(ctx: Context, group_id: str, body: GroupValues) -> dict[str, Any]:
    """Change a group's name and description. Raises BadRequest for the default group."""
    try:
        return network.update_security_group(ctx, _checked(group_id), body.name, body.description)
    except Conflict as fault:
        raise BadRequest(fault.message) from None


@resource.delete("/os-security-groups/{group_id}", policy=_RULE + "delete", until="2.35", status=202)
def delete(ctx: Context, group_id: str) -> None:
    """Delete a group. Raises BadRequest for one that is in use, and for the default one."""
    try:
        network.delete_security_group(ctx, _checked(group_id))
    except Conflict as fault:
        raise BadRequest(fault.message) from None


def _prefix(text: Any) -> str:
    """Raises BadRequest."""
    if not text:
        return "0.0.0.0/0"
    try:
        if "/" not in text:
            raise ValueError
        found = read_prefix(str(text), strict=False)
    except (TypeError, ValueError):
        raise BadRequest(f"{text} is not a valid IP network.") from None
    if found.prefixlen == 0 and not str(text).startswith(("0.0.0.0/", "::/")):
        raise BadRequest(f"Bad prefix for network in cidr {text}")
    return str(text)


@resource.post(
    "/os-security-group-rules",
    policy=_RULE + "rule:create",
    until="2.35",
    accepts="security_group_rule",
    wraps="security_group_rule",
)
def create_rule(ctx: Context, body: RuleValues) -> dict[str, Any]:
    """Let something in to a group, from a prefix or from another group.

    Raises BadRequest for what cannot be and for what is there already, NotFound for groups, Forbidden over quota.
    """
    network.security_group(ctx, body.parent_group_id)
    if body.group_id is not None:
        network.security_group(ctx, body.group_id)
    span = ingress_range(body.ip_protocol, body.from_port, body.to_port, group=body.group_id is not None)
    prefix = None if body.group_id is not None else _prefix(body.cidr)
    wanted = network.Ingress(*span, prefix, body.group_id)
    try:
        return network.create_security_group_rule(ctx, body.parent_group_id, wanted)
    except Conflict as fault:
        raise (Forbidden if fault.type == "OverQuota" else BadRequest)(fault.message) from None


@resource.delete("/os-security-group-rules/{rule_id}", policy=_RULE + "rule:delete", until="2.35", status=202)
def delete_rule(ctx: Context, rule_id: str) -> None:
    """Delete a rule. Raises NotFound."""
    network.delete_security_group_rule(ctx, _checked(rule_id))

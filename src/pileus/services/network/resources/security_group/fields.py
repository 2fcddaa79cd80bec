"""The shapes of security groups and their rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from pileus.core.fields import Body, View
from pileus.core.listing import Filter, Listing, boolean, integer
from pileus.services.network.resources.security_group.table import group, rule
from pileus.services.network.resources.standard_attribute import (
    BULK,
    Id,
    Name,
    Owned,
    StandardView,
    Text,
    filters,
    sort_keys,
    standard,
)

Number = Annotated[int, msgspec.Meta(ge=-1, le=65535)]


class GroupCreate(Owned, kw_only=True):
    """A new security group."""

    name: Name = ""
    description: Text = ""
    stateful: bool = True


class GroupsCreate(Body, kw_only=True):
    """One security group, or several at once."""

    security_group: GroupCreate | UnsetType = UNSET
    security_groups: Annotated[list[GroupCreate], BULK] | UnsetType = UNSET


class GroupUpdate(Body, kw_only=True):
    """What may be changed of a security group."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    stateful: bool | UnsetType = UNSET


class RuleCreate(Owned, kw_only=True):
    """A new rule."""

    security_group_id: Id
    direction: Literal["ingress", "egress"]
    ethertype: str = "IPv4"
    protocol: Annotated[str, msgspec.Meta(max_length=40)] | int | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: Id | None = None
    remote_address_group_id: None = None
    description: Text | None = ""


class RulesCreate(Body, kw_only=True):
    """One rule, or several at once."""

    security_group_rule: RuleCreate | UnsetType = UNSET
    security_group_rules: Annotated[list[RuleCreate], BULK] | UnsetType = UNSET


class RuleView(View, kw_only=True):
    """A rule in a response."""

    id: str
    project_id: str
    tenant_id: str
    security_group_id: str
    direction: str
    ethertype: str
    protocol: str | None
    port_range_min: int | None
    port_range_max: int | None
    remote_ip_prefix: str | None
    normalized_cidr: str | None
    remote_group_id: str | None
    remote_address_group_id: None
    belongs_to_default_sg: bool
    description: str
    created_at: str
    updated_at: str
    revision_number: int


class RuleReply(View, kw_only=True):
    """One rule, or those of a bulk request."""

    security_group_rule: RuleView | UnsetType = UNSET
    security_group_rules: list[RuleView] | UnsetType = UNSET


class GroupView(StandardView, kw_only=True):
    """A security group in a response."""

    name: str
    stateful: bool
    shared: bool
    security_group_rules: list[RuleView]


class GroupReply(View, kw_only=True):
    """One security group, or those of a bulk request."""

    security_group: GroupView | UnsetType = UNSET
    security_groups: list[GroupView] | UnsetType = UNSET


def rule_view(row: Mapping[str, Any], *, default: bool) -> RuleView:
    """A rule's row as a response shows it; `default`: it is of a project's default group."""
    shared = standard(row)
    del shared["tags"]
    return RuleView(
        **shared,
        security_group_id=row["group_id"],
        direction=row["direction"],
        ethertype=row["ethertype"],
        protocol=row["protocol"],
        port_range_min=row["port_range_min"],
        port_range_max=row["port_range_max"],
        remote_ip_prefix=row["remote_ip_prefix"],
        normalized_cidr=row["normalized_cidr"],
        remote_group_id=row["remote_group_id"],
        remote_address_group_id=None,
        belongs_to_default_sg=default,
    )


def group_view(row: Mapping[str, Any], rules: Sequence[Mapping[str, Any]], tags: Sequence[str] = ()) -> GroupView:
    """A group's row and those of its rules as a response shows them."""
    default = row["default_of"] is not None
    return GroupView(
        **standard(row, tags),
        name=row["name"],
        stateful=row["stateful"],
        shared=False,
        security_group_rules=[rule_view(one, default=default) for one in rules],
    )


class _Never(Filter):
    """`shared`: no security group is."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> Any:
        """The condition for the values of one parameter."""
        return self.column.is_(None) if any(boolean(value) for value in values) else self.column.is_not(None)


groups = Listing(
    group,
    filters={**filters(group, "name", flags=("stateful",)), "shared": _Never(group.c.id)},
    sort=sort_keys(group, "name", "stateful"),
    maximum=None,
)

rules = Listing(
    rule,
    filters={
        **filters(rule, "direction", "ethertype", "protocol", "remote_ip_prefix", "remote_group_id", "normalized_cidr"),
        "security_group_id": Filter(rule.c.group_id),
        "port_range_min": Filter(rule.c.port_range_min, integer),
        "port_range_max": Filter(rule.c.port_range_max, integer),
    },
    sort=sort_keys(rule, "direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix")
    | {"security_group_id": rule.c.group_id, "remote_group_id": rule.c.remote_group_id},
    maximum=None,
)

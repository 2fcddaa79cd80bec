"""Metering labels, and their rules: which traffic counts for whom.

https://docs.openstack.org/api-ref/network/v2/#metering-labels-and-rules-metering-labels-metering-label-rules

They are kept for those who count: hosts here do not meter traffic themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.fields import View
from pileus.core.listing import Filter, Listing, boolean
from pileus.core.policy import Rule
from pileus.core.store import metadata
from pileus.services.network.resources.kind import Kind
from pileus.services.network.resources.standard_attribute import (
    ADMIN_OR_PROJECT_MANAGER,
    ADMIN_OR_PROJECT_READER,
    Id,
    Name,
    Owned,
    columns,
    fresh,
    owner,
    page,
)
from pileus.services.network.rules.fault import InvalidInput, MeteringLabelNotFound, MeteringLabelRuleNotFound
from pileus.services.network.rules.subnet import parse_cidr

label = sa.Table(
    "network_metering_label",
    metadata,
    *columns(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("text", sa.String(1024), nullable=False),
    sa.Column("shared", sa.Boolean, nullable=False),
)
"""`text` is the description, which is longer here than that of other nouns."""

rule = sa.Table(
    "network_metering_label_rule",
    metadata,
    *columns(),
    sa.Column("metering_label_id", sa.String(64), sa.ForeignKey(label.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("direction", sa.String(16), nullable=False),
    sa.Column("excluded", sa.Boolean, nullable=False),
    sa.Column("remote_ip_prefix", sa.String(64)),
    sa.Column("source_ip_prefix", sa.String(64)),
    sa.Column("destination_ip_prefix", sa.String(64)),
    sa.Index("ix_network_metering_label_rule_metering_label_id", "metering_label_id"),
)


class MeteringLabelCreate(Owned, kw_only=True):
    """A new label: the value of `metering_label`."""

    name: Name = ""
    description: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    shared: bool = False


class MeteringRuleCreate(Owned, kw_only=True):
    """A new rule: the value of `metering_label_rule`."""

    metering_label_id: Id
    direction: Literal["ingress", "egress"]
    excluded: bool = False
    remote_ip_prefix: str | None = None
    source_ip_prefix: str | None = None
    destination_ip_prefix: str | None = None


class MeteringLabelView(View, kw_only=True):
    """A label in a response."""

    id: str
    project_id: str
    tenant_id: str
    name: str
    description: str
    shared: bool


class MeteringRuleView(View, kw_only=True):
    """A rule in a response."""

    id: str
    metering_label_id: str
    direction: str
    excluded: bool
    remote_ip_prefix: str | None
    source_ip_prefix: str | None
    destination_ip_prefix: str | None


_LABEL = {**{name: label.c[name] for name in ("id", "project_id", "name")}, "tenant_id": label.c.project_id}
_LABEL["description"] = label.c.text
_RULE = {
    name: rule.c[name]
    for name in (
        "id",
        "metering_label_id",
        "direction",
        "remote_ip_prefix",
        "source_ip_prefix",
        "destination_ip_prefix",
    )
}

labels = Listing(
    label,
    filters={name: Filter(column) for name, column in _LABEL.items()} | {"shared": Filter(label.c.shared, boolean)},
    sort={**_LABEL, "shared": label.c.shared},
    maximum=None,
)

rules = Listing(
    rule,
    filters={name: Filter(column) for name, column in _RULE.items()} | {"excluded": Filter(rule.c.excluded, boolean)},
    sort={**_RULE, "excluded": rule.c.excluded},
    maximum=None,
)

RULES = (
    Rule("create_metering_label", ADMIN_OR_PROJECT_MANAGER, "Create a metering label"),
    Rule("get_metering_label", ADMIN_OR_PROJECT_READER, "Show a metering label"),
    Rule("delete_metering_label", ADMIN_OR_PROJECT_MANAGER, "Delete a metering label"),
    Rule("create_metering_label_rule", ADMIN_OR_PROJECT_MANAGER, "Create a rule of a metering label"),
    Rule("get_metering_label_rule", ADMIN_OR_PROJECT_READER, "Show a rule of a metering label"),
    Rule("delete_metering_label_rule", ADMIN_OR_PROJECT_MANAGER, "Delete a rule of a metering label"),
)

resource = Resource("metering_label", "metering_labels", rules=RULES)
label_kind = Kind("metering_label", label, MeteringLabelNotFound)
rule_kind = Kind("metering_label_rule", rule, MeteringLabelRuleNotFound)

LABELS, LABEL_RULES = "/metering/metering-labels", "/metering/metering-label-rules"


def _label_view(row: Mapping[str, Any]) -> MeteringLabelView:
    return MeteringLabelView(
        id=row["id"],
        project_id=row["project_id"],
        tenant_id=row["project_id"],
        name=row["name"],
        description=row["text"],
        shared=row["shared"],
    )


def _rule_view(row: Mapping[str, Any]) -> MeteringRuleView:
    return MeteringRuleView(**{name: row[name] for name in MeteringRuleView.__struct_fields__})


@resource.get(LABELS, policy="get_metering_label", guarded=True, wraps="metering_labels")
def index(ctx: Context) -> Page:
    """The labels that the caller sees."""
    rows, make = page(ctx, labels, sa.select(label).where(label_kind.visible(ctx)))
    return make([_label_view(row) for row in rows if ctx.allows("get_metering_label", label_kind.target(row))])


@resource.get(f"{LABELS}/{{label_id}}", policy="get_metering_label", guarded=True, wraps="metering_label")
def show(ctx: Context, label_id: str) -> MeteringLabelView:
    """A label."""
    return _label_view(label_kind.find(ctx, label_id))


@resource.post(
    LABELS, policy="create_metering_label", guarded=True, status=201, accepts="metering_label", wraps="metering_label"
)
def create(ctx: Context, body: MeteringLabelCreate) -> MeteringLabelView:
    """Make a label."""
    project_id = owner(ctx, body)
    label_kind.may_create(ctx, project_id)
    row = {**fresh(ctx.tx, project_id), "name": body.name, "text": body.description, "shared": body.shared}
    ctx.tx.insert(label, row)
    return _label_view(row)


@resource.delete(f"{LABELS}/{{label_id}}", policy="delete_metering_label", guarded=True)
def delete(ctx: Context, label_id: str) -> None:
    """Delete a label with its rules."""
    row = label_kind.find(ctx, label_id, "delete")
    for table, column in ((rule, rule.c.metering_label_id), (label, label.c.id)):
        ctx.tx.execute(sa.delete(table).where(column == row["id"]))


@resource.get(LABEL_RULES, policy="get_metering_label_rule", guarded=True, wraps="metering_label_rules")
def index_rules(ctx: Context) -> Page:
    """The rules that the caller sees."""
    rows, make = page(ctx, rules, sa.select(rule).where(rule_kind.visible(ctx)))
    return make([_rule_view(row) for row in rows if ctx.allows("get_metering_label_rule", rule_kind.target(row))])


@resource.get(f"{LABEL_RULES}/{{rule_id}}", policy="get_metering_label_rule", guarded=True, wraps="metering_label_rule")
def show_rule(ctx: Context, rule_id: str) -> MeteringRuleView:
    """A rule."""
    return _rule_view(rule_kind.find(ctx, rule_id))


def _prefixes(body: MeteringRuleCreate) -> dict[str, str | None]:
    """What traffic a rule is about. Raises InvalidInput."""
    given = {
        "remote_ip_prefix": body.remote_ip_prefix,
        "source_ip_prefix": body.source_ip_prefix,
        "destination_ip_prefix": body.destination_ip_prefix,
    }
    if not any(given.values()):
        raise InvalidInput("a rule needs remote_ip_prefix, source_ip_prefix or destination_ip_prefix")
    if body.remote_ip_prefix and (body.source_ip_prefix or body.destination_ip_prefix):
        raise InvalidInput("remote_ip_prefix does not go with source_ip_prefix and destination_ip_prefix")
    return {name: str(parse_cidr(text)) if text else None for name, text in given.items()}


@resource.post(
    LABEL_RULES,
    policy="create_metering_label_rule",
    guarded=True,
    status=201,
    accepts="metering_label_rule",
    wraps="metering_label_rule",
)
def create_rule(ctx: Context, body: MeteringRuleCreate) -> MeteringRuleView:
    """Make a rule of a label. Raises InvalidInput, MeteringLabelNotFound."""
    project_id = owner(ctx, body)
    rule_kind.may_create(ctx, project_id)
    parent = label_kind.find(ctx, body.metering_label_id)
    row = {
        **fresh(ctx.tx, project_id),
        "metering_label_id": parent["id"],
        "direction": body.direction,
        "excluded": body.excluded,
        **_prefixes(body),
    }
    ctx.tx.insert(rule, row)
    return _rule_view(row)


@resource.delete(f"{LABEL_RULES}/{{rule_id}}", policy="delete_metering_label_rule", guarded=True)
def delete_rule(ctx: Context, rule_id: str) -> None:
    """Delete a rule."""
    row = rule_kind.find(ctx, rule_id, "delete")
    ctx.tx.execute(sa.delete(rule).where(rule.c.id == row["id"]))

"""The operations on security groups and rules.

Each project gets its default group when it first needs one.  Upstream makes it likewise; here its name is `default`,
it lets everything out, and in only what comes from its own members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from pileus.contracts.network import RuleSpec
from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import given
from pileus.core.statement import at
from pileus.core.store import Tx
from pileus.services.network.resources import quota
from pileus.services.network.resources.port.table import port_group
from pileus.services.network.resources.security_group import fields, policy
from pileus.services.network.resources.security_group.fields import (
    GroupCreate,
    GroupReply,
    GroupsCreate,
    GroupUpdate,
    GroupView,
    RuleCreate,
    RuleReply,
    RulesCreate,
    RuleView,
    group_view,
    rule_view,
)
from pileus.services.network.resources.security_group.table import TOPIC, group, rule
from pileus.services.network.resources.standard_attribute import (
    Row,
    bump,
    change,
    check_revision,
    drop_tags,
    enforce,
    every,
    first_row,
    fresh,
    owner,
    page,
    sees_all,
    tag_operations,
    tags_of,
)
from pileus.services.network.rules import security
from pileus.services.network.rules.fault import (
    DuplicateSecurityGroupRuleInPost,
    InvalidInput,
    SecurityGroupCannotRemoveDefault,
    SecurityGroupCannotUpdateDefault,
    SecurityGroupDefaultAlreadyExists,
    SecurityGroupInUse,
    SecurityGroupNotFound,
    SecurityGroupRuleExists,
)

resource = Resource("security_group", "security_groups", rules=policy.RULES)
rule_resource = Resource("security_group_rule", "security_group_rules")

DEFAULT = "default"


def _rule_row(tx: Tx, parent: Row, spec: RuleSpec, **more: Any) -> Row:
    return {
        **fresh(tx, parent["project_id"]),
        "group_id": parent["id"],
        "direction": spec.direction,
        "ethertype": spec.ethertype,
        "protocol": None,
        "port_range_min": spec.port_range_min,
        "port_range_max": spec.port_range_max,
        "remote_ip_prefix": spec.remote_ip_prefix,
        "normalized_cidr": spec.remote_ip_prefix,
        "remote_group_id": spec.remote_group_id,
        "protocol_number": spec.protocol,
        "fingerprint": security.fingerprint(spec),
        **more,
    }


def _first_rules(tx: Tx, parent: Row) -> list[Row]:
    specs = [RuleSpec(direction="egress", ethertype="IPv4"), RuleSpec(direction="egress", ethertype="IPv6")]
    if parent["default_of"] is not None:
        own = parent["id"]
        specs.append(RuleSpec(direction="ingress", ethertype="IPv4", remote_group_id=own))
        specs.append(RuleSpec(direction="ingress", ethertype="IPv6", remote_group_id=own))
    return [_rule_row(tx, parent, spec) for spec in specs]


def default_id(tx: Tx, project_id: str) -> str | None:
    """The id of a project's default group, if it has one yet."""
    found = tx.scalar(sa.select(group.c.id).where(group.c.default_of == project_id))
    return None if found is None else str(found)


def ensure_default(tx: Tx, project_id: str) -> str:
    """The id of a project's default group, which is made when there is none."""
    found = default_id(tx, project_id)
    if found is not None:
        return found
    row = {
        **fresh(tx, project_id, "Default security group"),
        "name": DEFAULT,
        "stateful": True,
        "default_of": project_id,
    }
    tx.insert(group, row)
    rows = _first_rules(tx, row)
    tx.insert(rule, rows)
    quota.count(tx, project_id, {"security_group": 1, "security_group_rule": len(rows)})
    tx.changed(TOPIC, row["id"])
    return str(row["id"])


def rules_of(tx: Tx, ids: Collection[str]) -> dict[str, list[Row]]:
    """The rules of groups, oldest first."""
    found: dict[str, list[Row]] = {one: [] for one in ids}
    query = sa.select(rule).where(rule.c.group_id.in_(ids)).order_by(rule.c.created_at, rule.c.id)
    for row in every(tx, query) if ids else ():
        found[row["group_id"]].append(row)
    return found


def _views(ctx: Context, rows: Sequence[Row]) -> list[GroupView]:
    ids = [row["id"] for row in rows]
    rules, tags = rules_of(ctx.tx, ids), tags_of(ctx.tx, ids)
    return [group_view(row, rules[row["id"]], tags.get(row["id"], ())) for row in rows]


def _create(ctx: Context, body: GroupCreate) -> GroupView:
    tx, project_id = ctx.tx, owner(ctx, body)
    enforce(ctx, "create_security_group", {"project_id": project_id, "tenant_id": project_id})
    ensure_default(tx, project_id)
    if body.name == DEFAULT:
        raise SecurityGroupDefaultAlreadyExists
    quota.take(tx, project_id, {"security_group": 1})
    row = {
        **fresh(tx, project_id, body.description),
        "name": body.name,
        "stateful": body.stateful,
        "default_of": None,
    }
    tx.insert(group, row)
    rules = _first_rules(tx, row)
    tx.insert(rule, rules)
    quota.count(tx, project_id, {"security_group_rule": len(rules)})
    tx.changed(TOPIC, row["id"])
    return group_view(row, rules)


@resource.post("/security-groups", policy="create_security_group", guarded=True, status=201)
def create(ctx: Context, body: GroupsCreate) -> GroupReply:
    """Make one security group, or several."""
    if body.security_group is not UNSET:
        return GroupReply(security_group=_create(ctx, body.security_group))
    if body.security_groups is UNSET or not body.security_groups:
        raise BadRequest("Unable to find 'security_group' in the request body.")
    return GroupReply(security_groups=[_create(ctx, one) for one in body.security_groups])


@resource.get("/security-groups", policy="get_security_group", guarded=True, wraps="security_groups", writes=True)
def index(ctx: Context) -> Page:
    """The groups that the caller sees. The caller's project gets its default group now if it has none."""
    if ctx.auth.project_id is not None and ctx.allows("get_security_group"):
        ensure_default(ctx.tx, ctx.auth.project_id)
    query = sa.select(group)
    if not sees_all(ctx, "get_security_group"):
        query = query.where(group.c.project_id == (ctx.auth.project_id or ""))
    rows, make = page(ctx, fields.groups, query)
    return make(_views(ctx, rows))


@resource.get("/security-groups/{group_id}", policy="get_security_group", guarded=True, wraps="security_group")
def show(ctx: Context, group_id: str) -> GroupView:
    """A security group with its rules."""
    return _views(ctx, [policy.find(ctx, group_id)])[0]


@resource.put(
    "/security-groups/{group_id}",
    policy="update_security_group",
    guarded=True,
    accepts="security_group",
    wraps="security_group",
)
def update(ctx: Context, group_id: str, body: GroupUpdate) -> GroupView:
    """Change a security group."""
    row = policy.find(ctx, group_id, "update")
    values = given(body)
    if row["default_of"] is not None and values.get("name", DEFAULT) != DEFAULT:
        raise SecurityGroupCannotUpdateDefault
    if row["default_of"] is None and values.get("name") == DEFAULT:
        raise SecurityGroupDefaultAlreadyExists
    if values.get("stateful", row["stateful"]) != row["stateful"] and _used(ctx.tx, group_id):
        raise SecurityGroupInUse(group_id)
    return _views(ctx, [change(ctx, group, TOPIC, row, values)])[0]


def _used(tx: Tx, group_id: str) -> bool:
    return tx.first(sa.select(port_group.c.port_id).where(port_group.c.group_id == group_id).limit(1)) is not None


@resource.delete("/security-groups/{group_id}", policy="delete_security_group", guarded=True)
def delete(ctx: Context, group_id: str) -> None:
    """Delete a security group that no port has, and with it the rules of other groups that name it."""
    tx, row = ctx.tx, policy.find(ctx, group_id, "delete")
    check_revision(ctx, row)
    if row["default_of"] is not None and "admin" not in ctx.auth.roles:
        raise SecurityGroupCannotRemoveDefault
    if _used(tx, group_id):
        raise SecurityGroupInUse(group_id)
    meant = sa.or_(rule.c.group_id == group_id, rule.c.remote_group_id == group_id)
    ended = every(tx, sa.select(rule).where(meant))
    tx.execute(sa.delete(rule).where(meant))
    others = {one["group_id"] for one in ended} - {group_id}
    values = {"updated_at": tx.now, "revision_number": group.c.revision_number + 1}
    tx.execute(sa.update(group).where(group.c.id.in_(others)).values(values))
    tx.execute(sa.delete(group).where(group.c.id == group_id))
    drop_tags(tx, [group_id])
    quota.give_back(tx, row["project_id"], {"security_group": 1})
    for project_id, gone in Counter(one["project_id"] for one in ended).items():
        quota.give_back(tx, project_id, {"security_group_rule": gone})
    remotes = {one["remote_group_id"] for one in ended} - {None}
    for one in {group_id, *others, *remotes}:
        tx.changed(TOPIC, one)


def _spec(body: RuleCreate) -> tuple[RuleSpec, str | None]:
    """What a new rule means, and the protocol as it is shown. Raises InvalidInput."""
    ethertype = {"ipv4": "IPv4", "ipv6": "IPv6"}.get(body.ethertype.lower())
    if ethertype is None:
        raise InvalidInput(f"ethertype '{body.ethertype}' is not one of IPv4 and IPv6")
    if body.remote_ip_prefix is not None and body.remote_group_id is not None:
        raise InvalidInput("only one of remote_ip_prefix and remote_group_id may be given")
    shown = None if body.protocol is None else str(body.protocol).lower()
    number = security.protocol_number(shown, ethertype)
    security.check_ports(number, body.port_range_min, body.port_range_max)
    spec = RuleSpec(
        direction=body.direction,
        ethertype="IPv6" if ethertype == "IPv6" else "IPv4",
        protocol=number,
        port_range_min=body.port_range_min,
        port_range_max=body.port_range_max,
        remote_ip_prefix=security.normal_prefix(body.remote_ip_prefix, ethertype),
        remote_group_id=body.remote_group_id,
    )
    return spec, None if shown in ("any", "") else shown


def _create_rules(ctx: Context, bodies: Sequence[RuleCreate]) -> list[RuleView]:
    tx = ctx.tx
    if len({one.security_group_id for one in bodies}) != 1:
        raise InvalidInput("all rules must be of one security group")
    parent = policy.find(ctx, bodies[0].security_group_id)
    enforce(ctx, "create_security_group_rule", policy.target(parent))
    made = []
    for body in bodies:
        spec, shown = _spec(body)
        if body.remote_group_id is not None:
            _check_remote(ctx, body.remote_group_id)
        made.append(
            _rule_row(
                tx,
                parent,
                spec,
                protocol=shown,
                description=body.description or "",
                remote_ip_prefix=body.remote_ip_prefix,
            )
        )
    prints = [one["fingerprint"] for one in made]
    if len(set(prints)) != len(prints):
        raise DuplicateSecurityGroupRuleInPost
    same = sa.select(rule.c.id).where(rule.c.group_id == parent["id"], rule.c.fingerprint.in_(prints))
    twin = tx.scalar(same)
    if twin is not None:
        raise SecurityGroupRuleExists(twin)
    quota.take(tx, parent["project_id"], {"security_group_rule": len(made)})
    tx.insert(rule, made)
    bump(tx, group, TOPIC, parent, {})
    return [rule_view(one, default=parent["default_of"] is not None) for one in made]


def _check_remote(ctx: Context, group_id: str) -> None:
    """A rule may name any group that the caller sees, and needs it to be there."""
    row = first_row(ctx.tx, at(group, "id"), {"value": group_id})
    if row is None or not ctx.allows("get_security_group", policy.target(row)):
        raise SecurityGroupNotFound(group_id)


@rule_resource.post("/security-group-rules", policy="create_security_group_rule", guarded=True, status=201)
def create_rule(ctx: Context, body: RulesCreate) -> RuleReply:
    """Make one rule, or several of one group."""
    if body.security_group_rule is not UNSET:
        return RuleReply(security_group_rule=_create_rules(ctx, [body.security_group_rule])[0])
    if body.security_group_rules is UNSET or not body.security_group_rules:
        raise BadRequest("Unable to find 'security_group_rule' in the request body.")
    return RuleReply(security_group_rules=_create_rules(ctx, body.security_group_rules))


@rule_resource.get(
    "/security-group-rules", policy="get_security_group_rule", guarded=True, wraps="security_group_rules", writes=True
)
def index_rules(ctx: Context) -> Page:
    """The rules that the caller sees."""
    if ctx.auth.project_id is not None and ctx.allows("get_security_group"):
        ensure_default(ctx.tx, ctx.auth.project_id)
    query = sa.select(rule, group.c.default_of).join(group, group.c.id == rule.c.group_id)
    if not ctx.allows("get_security_group_rule", {"project_id": "", "security_group:project_id": ""}):
        query = query.where(group.c.project_id == (ctx.auth.project_id or ""))
    rows, make = page(ctx, fields.rules, query)
    return make([rule_view(row, default=row["default_of"] is not None) for row in rows])


@rule_resource.get(
    "/security-group-rules/{rule_id}", policy="get_security_group_rule", guarded=True, wraps="security_group_rule"
)
def show_rule(ctx: Context, rule_id: str) -> RuleView:
    """A rule."""
    row, parent = policy.find_rule(ctx, rule_id)
    return rule_view(row, default=parent["default_of"] is not None)


@rule_resource.delete("/security-group-rules/{rule_id}", policy="delete_security_group_rule", guarded=True)
def delete_rule(ctx: Context, rule_id: str) -> None:
    """Delete a rule."""
    tx = ctx.tx
    row, parent = policy.find_rule(ctx, rule_id, "delete")
    check_revision(ctx, row)
    if tx.execute(sa.delete(rule).where(rule.c.id == rule_id)).rowcount:
        quota.give_back(tx, row["project_id"], {"security_group_rule": 1})
    bump(tx, group, TOPIC, parent, {})
    if row["remote_group_id"] is not None:
        tx.changed(TOPIC, row["remote_group_id"])


tag_operations(resource, "/security-groups", group, TOPIC, policy.find)

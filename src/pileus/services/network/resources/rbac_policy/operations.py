"""The operations on RBAC policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.fields import Body, View
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.network.resources import quota
from pileus.services.network.resources.kind import Kind
from pileus.services.network.resources.network import policy as networks
from pileus.services.network.resources.network.table import TOPIC as NETWORK_TOPIC
from pileus.services.network.resources.network.table import network
from pileus.services.network.resources.port.table import port
from pileus.services.network.resources.rbac_policy.table import EVERYBODY, NETWORK, SHARED, rbac_policy
from pileus.services.network.resources.standard_attribute import (
    ADMIN,
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
    Id,
    Owned,
    bump,
    enforce,
    fresh,
    owner,
    page,
)
from pileus.services.network.rules.fault import (
    DuplicateRbacPolicy,
    InvalidInput,
    RbacPolicyInUse,
    RbacPolicyNotFound,
)

Target = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class RbacCreate(Owned, kw_only=True):
    """A new policy: the value of `rbac_policy`."""

    object_type: Literal["network"]
    object_id: Id
    action: Literal["access_as_shared"]
    target_tenant: Target


class RbacUpdate(Body, kw_only=True):
    """What may be changed of a policy."""

    target_tenant: Target


class RbacView(View, kw_only=True):
    """A policy in a response."""

    id: str
    project_id: str
    tenant_id: str
    object_type: str
    object_id: str
    action: str
    target_tenant: str


_COLUMNS = {name: rbac_policy.c[name] for name in ("id", "project_id", "object_type", "object_id", "action")} | {
    "tenant_id": rbac_policy.c.project_id,
    "target_tenant": rbac_policy.c.target,
}

listing = Listing(
    rbac_policy,
    filters={name: Filter(column) for name, column in _COLUMNS.items()},
    sort=_COLUMNS,
    maximum=None,
)

_NOT_ALL = f"{ADMIN} or not '*':%(target)s"

RULES = (
    Rule("create_rbac_policy", ADMIN_OR_PROJECT_MEMBER, "Share a network with a project"),
    Rule("create_rbac_policy:target_tenant", _NOT_ALL, "Share a network with all projects"),
    Rule("get_rbac_policy", ADMIN_OR_PROJECT_READER, "Show with whom a network is shared"),
    Rule("update_rbac_policy", ADMIN_OR_PROJECT_MEMBER, "Share a network with another project instead"),
    Rule("update_rbac_policy:target_tenant", _NOT_ALL, "Share a network with all projects instead"),
    Rule("delete_rbac_policy", ADMIN_OR_PROJECT_MEMBER, "Share a network with a project no more"),
)

resource = Resource("rbac_policy", "rbac_policies", rules=RULES)
kind = Kind("rbac_policy", rbac_policy, RbacPolicyNotFound)


def _view(row: Mapping[str, Any]) -> RbacView:
    names = ("id", "project_id", "object_type", "object_id", "action")
    return RbacView(tenant_id=row["project_id"], target_tenant=row["target"], **{name: row[name] for name in names})


@resource.get("/rbac-policies", policy="get_rbac_policy", guarded=True, wraps="rbac_policies")
def index(ctx: Context) -> Page:
    """The policies that the caller's project made; all of them for admins."""
    rows, make = page(ctx, listing, sa.select(rbac_policy).where(kind.visible(ctx)))
    return make([_view(row) for row in rows if ctx.allows("get_rbac_policy", kind.target(row))])


@resource.get("/rbac-policies/{policy_id}", policy="get_rbac_policy", guarded=True, wraps="rbac_policy")
def show(ctx: Context, policy_id: str) -> RbacView:
    """A policy."""
    return _view(kind.find(ctx, policy_id))


@resource.post(
    "/rbac-policies",
    policy="create_rbac_policy",
    guarded=True,
    status=201,
    accepts="rbac_policy",
    wraps="rbac_policy",
)
def create(ctx: Context, body: RbacCreate) -> RbacView:
    """Share a network with a project, or (`*`) with all. Raises DuplicateRbacPolicy, and 403 for another's network."""
    tx, project_id = ctx.tx, owner(ctx, body)
    kind.may_create(ctx, project_id)
    enforce(ctx, "create_rbac_policy:target_tenant", {"target": body.target_tenant})
    net = networks.find(ctx, body.object_id)
    if net["project_id"] != ctx.auth.project_id and not ctx.auth.is_admin:
        raise InvalidInput("only admins can share networks that are not their project's")
    key = {"object_type": NETWORK, "object_id": net["id"], "action": SHARED, "target": body.target_tenant}
    row = {**fresh(tx, project_id), **key}
    if not tx.insert_missing(rbac_policy, row, key=tuple(key)):
        raise DuplicateRbacPolicy
    quota.take(tx, project_id, {"rbac_policy": 1})
    _settle(tx, net["id"], body.target_tenant, shared=True)
    return _view(row)


def _settle(tx: Tx, network_id: str, target: str, *, shared: bool) -> None:
    """Let the network's own column say whether it is shared with everybody."""
    if target == EVERYBODY:
        tx.execute(sa.update(network).where(network.c.id == network_id).values(shared=shared))
    tx.changed(NETWORK_TOPIC, network_id)


def _check_unused(tx: Tx, row: Mapping[str, Any]) -> None:
    """Raise RbacPolicyInUse when the project has ports on the network that it would see no more."""
    owner_id = sa.select(network.c.project_id).where(network.c.id == row["object_id"]).scalar_subquery()
    query = sa.select(port.c.id).where(
        port.c.network_id == row["object_id"], port.c.project_id != "", port.c.project_id != owner_id
    )
    others = sa.select(rbac_policy.c.target).where(
        rbac_policy.c.object_id == row["object_id"], rbac_policy.c.object_type == NETWORK, rbac_policy.c.id != row["id"]
    )
    if row["target"] != EVERYBODY:
        query = query.where(port.c.project_id == row["target"])
        if tx.first(others.where(rbac_policy.c.target == EVERYBODY)) is not None:
            return
    if tx.first(query.where(port.c.project_id.not_in(others)).limit(1)) is not None:
        raise RbacPolicyInUse(row["object_id"])


@resource.put(
    "/rbac-policies/{policy_id}", policy="update_rbac_policy", guarded=True, accepts="rbac_policy", wraps="rbac_policy"
)
def update(ctx: Context, policy_id: str, body: RbacUpdate) -> RbacView:
    """Share a network with another project instead."""
    tx, row = ctx.tx, kind.find(ctx, policy_id, "update")
    enforce(ctx, "update_rbac_policy:target_tenant", {"target": body.target_tenant})
    if body.target_tenant == row["target"]:
        return _view(row)
    _check_unused(tx, row)
    names = ("object_type", "object_id", "action")
    twin = sa.select(rbac_policy.c.id).where(*(rbac_policy.c[name] == row[name] for name in names))
    if tx.first(twin.where(rbac_policy.c.target == body.target_tenant)) is not None:
        raise DuplicateRbacPolicy
    new = bump(tx, rbac_policy, "network.rbac_policy", row, {"target": body.target_tenant})
    _settle(tx, row["object_id"], row["target"], shared=False)
    _settle(tx, row["object_id"], body.target_tenant, shared=True)
    return _view(new)


@resource.delete("/rbac-policies/{policy_id}", policy="delete_rbac_policy", guarded=True)
def delete(ctx: Context, policy_id: str) -> None:
    """Share a network with a project no more. Raises RbacPolicyInUse while the project has ports on it."""
    row = kind.find(ctx, policy_id, "delete")
    _check_unused(ctx.tx, row)
    if ctx.tx.execute(sa.delete(rbac_policy).where(rbac_policy.c.id == policy_id)).rowcount:
        quota.give_back(ctx.tx, row["project_id"], {"rbac_policy": 1})
    _settle(ctx.tx, row["object_id"], row["target"], shared=False)

"""Quotas: how many of each noun a project may have.

https://docs.openstack.org/api-ref/network/v2/#quotas-extension-quotas

The default security group, its rules and the rules that a new group begins with are counted but never refused.  DHCP
ports, routers' gateway ports and floating IPs' ports belong to the cloud and are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core import quota as core
from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import QuotaExceeded
from pileus.core.fields import Body, given
from pileus.core.policy import Rule
from pileus.core.quota import Quota
from pileus.core.store import Tx
from pileus.services.network.resources.standard_attribute import ADMIN, ADMIN_OR_PROJECT_MANAGER, enforce
from pileus.services.network.rules.fault import InvalidInput, OverQuota, PolicyNotAuthorized

quota = Quota(
    "network",
    {
        "floatingip": 50,
        "network": 100,
        "port": 500,
        "rbac_policy": 10,
        "router": 10,
        "security_group": 10,
        "security_group_rule": 100,
        "subnet": 100,
        "subnetpool": core.UNLIMITED,
    },
)


def take(tx: Tx, project_id: str, amounts: Mapping[str, int]) -> None:
    """Count what a project is about to have. Raises OverQuota."""
    try:
        quota.take(tx, project_id, amounts)
    except QuotaExceeded as fault:
        raise OverQuota(fault.resource) from None


def count(tx: Tx, project_id: str, amounts: Mapping[str, int]) -> None:
    """Count what a project has now, whatever its limits."""
    for resource, amount in sorted(amounts.items()):
        key = {"project_id": project_id, "service": quota.service, "resource": resource}
        if not tx.insert_missing(core.usage, {**key, "used": amount}, key=tuple(key)):
            same = [core.usage.c[name] == value for name, value in key.items()]
            tx.execute(sa.update(core.usage).where(*same).values(used=core.usage.c.used + amount))


give_back = quota.give_back


Limit = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]


class QuotaUpdate(Body, kw_only=True):
    """New limits; -1 is unlimited. Without `force` a limit below what is used is refused; `check_limit` is of old."""

    floatingip: Limit | UnsetType = UNSET
    network: Limit | UnsetType = UNSET
    port: Limit | UnsetType = UNSET
    rbac_policy: Limit | UnsetType = UNSET
    router: Limit | UnsetType = UNSET
    security_group: Limit | UnsetType = UNSET
    security_group_rule: Limit | UnsetType = UNSET
    subnet: Limit | UnsetType = UNSET
    subnetpool: Limit | UnsetType = UNSET
    check_limit: bool = False
    force: bool = False


resource = Resource(
    "quota",
    "quotas",
    rules=[
        Rule("get_quota", ADMIN_OR_PROJECT_MANAGER, "Show the limits of a project"),
        Rule("update_quota", ADMIN, "Set limits of a project"),
        Rule("delete_quota", ADMIN, "Give a project the default limits again"),
    ],
)


def _named(project_id: str) -> dict[str, str]:
    return {"project_id": project_id, "tenant_id": project_id}


def _look(ctx: Context, project_id: str) -> None:
    """A project may always look at its own limits."""
    if not ctx.allows("get_quota", _named(project_id)) and project_id != ctx.auth.project_id:
        raise PolicyNotAuthorized("get_quota")


@resource.get("/quotas", policy="get_quota", guarded=True)
def index(ctx: Context) -> dict[str, Any]:
    """The limits of all projects that have some of their own."""
    enforce(ctx, "get_quota", {})
    projects = quota.projects(ctx.tx)
    return {"quotas": [{**quota.limits(ctx.tx, one), **_named(one)} for one in projects]}


@resource.get("/quotas/{project_id}", policy="get_quota", guarded=True, wraps="quota")
def show(ctx: Context, project_id: str) -> dict[str, int]:
    """The limits of a project."""
    _look(ctx, project_id)
    return quota.limits(ctx.tx, project_id)


@resource.get("/quotas/{project_id}/default", policy="get_quota", guarded=True, wraps="quota")
def defaults(ctx: Context, project_id: str) -> dict[str, int]:
    """The limits of a project that has none of its own."""
    _look(ctx, project_id)
    return quota.defaults(ctx.tx)


@resource.get("/quotas/{project_id}/details.json", policy="get_quota", guarded=True, wraps="quota")
def details(ctx: Context, project_id: str) -> dict[str, dict[str, int]]:
    """Limits and usage of a project."""
    return _details(ctx, project_id)


@resource.get("/quotas/{project_id}/details", policy="get_quota", guarded=True, wraps="quota")
def plain_details(ctx: Context, project_id: str) -> dict[str, dict[str, int]]:
    """`details` without a suffix."""
    return _details(ctx, project_id)


def _details(ctx: Context, project_id: str) -> dict[str, dict[str, int]]:
    _look(ctx, project_id)
    used = quota.used(ctx.tx, project_id)
    limits = quota.limits(ctx.tx, project_id)
    return {name: {"limit": limit, "used": used[name], "reserved": 0} for name, limit in limits.items()}


@resource.put("/quotas/{project_id}", policy="update_quota", accepts="quota", wraps="quota")
def update(ctx: Context, project_id: str, body: QuotaUpdate) -> dict[str, int]:
    """Set limits of a project."""
    wanted = {name: value for name, value in given(body).items() if name in quota.builtin}
    if not body.force:
        used = quota.used(ctx.tx, project_id)
        for name, value in wanted.items():
            if value != core.UNLIMITED and value < used[name]:
                raise InvalidInput(f"quota limit for {name} is {value}, but {used[name]} are used")
    quota.set(ctx.tx, project_id, wanted)
    return quota.limits(ctx.tx, project_id)


@resource.delete("/quotas/{project_id}", policy="delete_quota")
def delete(ctx: Context, project_id: str) -> None:
    """Give a project the default limits again."""
    quota.reset(ctx.tx, project_id)

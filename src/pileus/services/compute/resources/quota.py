"""Quotas and limits.

https://docs.openstack.org/api-ref/compute/#quota-sets-os-quota-sets
https://docs.openstack.org/api-ref/compute/#quota-class-sets-os-quota-class-sets
https://docs.openstack.org/api-ref/compute/#limits-limits

Counting is `pileus.core.quota`'s.  Limits are those of projects; key pairs are counted by user.  A user of a project
may have limits of its own below the project's, for what its servers hold (`check_user`).  Quotas of networking are
Network's own: old versions keep and show here what somebody sets, and nothing comes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, QuotaExceeded
from pileus.core.fields import UNSET, Body, UnsetType, View, W, given
from pileus.core.policy import Rule
from pileus.core.quota import DEFAULT, UNLIMITED, Quota
from pileus.core.store import Tx, metadata
from pileus.services.compute.resources import project
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules import holding
from pileus.services.compute.rules.persona import ADMIN, ANYONE, READER
from pileus.services.compute.rules.shape import Flag, is_true

user_limit = sa.Table(
    "compute_user_limit",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.BigInteger, nullable=False),
)
"""Limits of single users in a project; whoever counts against them locks them first."""

QUOTA = Quota(
    "compute",
    {
        "instances": 10,
        "cores": 20,
        "ram": 50 * 1024,
        "metadata_items": 128,
        "key_pairs": 100,
        "server_groups": 10,
        "server_group_members": 10,
        "injected_files": 5,
        "injected_file_content_bytes": 10 * 1024,
        "injected_file_path_bytes": 255,
    },
    names={
        "instances": "servers",
        "cores": "class:VCPU",
        "ram": "class:MEMORY_MB",
        "metadata_items": "server_metadata_items",
        "key_pairs": "server_key_pairs",
        "injected_files": "server_injected_files",
        "injected_file_content_bytes": "server_injected_file_content_bytes",
        "injected_file_path_bytes": "server_injected_file_path_bytes",
    },
)
"""Resources and their default limits, upstream's; `ram` in MiB. `names` are those of its unified limits."""

NETWORKING = ("fixed_ips", "floating_ips", "security_groups", "security_group_rules")
INJECTION = ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")

Limit = Annotated[int, msgspec.Meta(ge=-1, le=0x7FFFFFFF)]
_Files = Annotated[Limit | UnsetType | None, W(until="2.56")]
_Network = Annotated[Limit | UnsetType | None, W(until="2.35")]
_ClassNetwork = Annotated[Limit | UnsetType | None, W(until="2.49")]
_ClassGroup = Annotated[Limit | UnsetType | None, W(since="2.50")]


class QuotaSetUpdate(Body):
    """Body of update: the value of `quota_set`."""

    instances: Limit | UnsetType | None = UNSET
    cores: Limit | UnsetType | None = UNSET
    ram: Limit | UnsetType | None = UNSET
    metadata_items: Limit | UnsetType | None = UNSET
    key_pairs: Limit | UnsetType | None = UNSET
    server_groups: Limit | UnsetType | None = UNSET
    server_group_members: Limit | UnsetType | None = UNSET
    injected_files: _Files = UNSET
    injected_file_content_bytes: _Files = UNSET
    injected_file_path_bytes: _Files = UNSET
    fixed_ips: _Network = UNSET
    floating_ips: _Network = UNSET
    security_groups: _Network = UNSET
    security_group_rules: _Network = UNSET
    force: Flag = False


class QuotaClassUpdate(Body):
    """Body of a class's update: the value of `quota_class_set`."""

    instances: Limit | UnsetType = UNSET
    cores: Limit | UnsetType = UNSET
    ram: Limit | UnsetType = UNSET
    metadata_items: Limit | UnsetType = UNSET
    key_pairs: Limit | UnsetType = UNSET
    server_groups: _ClassGroup = UNSET
    server_group_members: _ClassGroup = UNSET
    injected_files: _Files = UNSET
    injected_file_content_bytes: _Files = UNSET
    injected_file_path_bytes: _Files = UNSET
    fixed_ips: _ClassNetwork = UNSET
    floating_ips: _ClassNetwork = UNSET
    security_groups: _ClassNetwork = UNSET
    security_group_rules: _ClassNetwork = UNSET


class QuotaSet(View):
    """A project's quotas: limits, or limits with usage."""

    id: str | UnsetType
    instances: Any
    cores: Any
    ram: Any
    metadata_items: Any
    key_pairs: Any
    server_groups: Any
    server_group_members: Any
    injected_files: Annotated[Any, W(until="2.56")]
    injected_file_content_bytes: Annotated[Any, W(until="2.56")]
    injected_file_path_bytes: Annotated[Any, W(until="2.56")]
    fixed_ips: Annotated[Any, W(until="2.35")]
    floating_ips: Annotated[Any, W(until="2.35")]
    security_groups: Annotated[Any, W(until="2.35")]
    security_group_rules: Annotated[Any, W(until="2.35")]


class QuotaClass(View):
    """The limits of projects for which nothing was set."""

    id: str | UnsetType
    instances: int
    cores: int
    ram: int
    metadata_items: int
    key_pairs: int
    server_groups: Annotated[int | UnsetType, W(since="2.50")]
    server_group_members: Annotated[int | UnsetType, W(since="2.50")]
    injected_files: Annotated[int | UnsetType, W(until="2.56")]
    injected_file_content_bytes: Annotated[int | UnsetType, W(until="2.56")]
    injected_file_path_bytes: Annotated[int | UnsetType, W(until="2.56")]
    fixed_ips: Annotated[int | UnsetType, W(until="2.49")]
    floating_ips: Annotated[int | UnsetType, W(until="2.49")]
    security_groups: Annotated[int | UnsetType, W(until="2.49")]
    security_group_rules: Annotated[int | UnsetType, W(until="2.49")]


class Absolute(View, rename="camel"):
    """Limits and usage under the names that the limits have."""

    max_total_instances: int
    max_total_cores: int
    max_total_ram_size: int = msgspec.field(name="maxTotalRAMSize")
    max_total_keypairs: int
    max_server_meta: int
    max_image_meta: Annotated[int | UnsetType, W(until="2.38")]
    max_server_groups: int
    max_server_group_members: int
    max_personality: Annotated[int | UnsetType, W(until="2.56")]
    max_personality_size: Annotated[int | UnsetType, W(until="2.56")]
    max_total_floating_ips: Annotated[int | UnsetType, W(until="2.35")]
    max_security_groups: Annotated[int | UnsetType, W(until="2.35")]
    max_security_group_rules: Annotated[int | UnsetType, W(until="2.35")]
    total_instances_used: int
    total_cores_used: int
    total_ram_used: int = msgspec.field(name="totalRAMUsed")
    total_server_groups_used: int
    total_floating_ips_used: Annotated[int | UnsetType, W(until="2.35")]
    total_security_groups_used: Annotated[int | UnsetType, W(until="2.35")]


class Limits(View):
    """All limits of the caller's project; there are none on rates."""

    rate: list[Any]
    absolute: Absolute


RULES = (
    Rule("os_compute_api:os-quota-sets:show", READER, "Show a project's quotas"),
    Rule("os_compute_api:os-quota-sets:detail", READER, "Show a project's quotas with usage"),
    Rule("os_compute_api:os-quota-sets:defaults", ANYONE, "Show the default quotas"),
    Rule("os_compute_api:os-quota-sets:update", ADMIN, "Change a project's quotas"),
    Rule("os_compute_api:os-quota-sets:delete", ADMIN, "Let a project have the default quotas again"),
    Rule("os_compute_api:os-quota-class-sets:show", ADMIN, "Show the default quotas as a class"),
    Rule("os_compute_api:os-quota-class-sets:update", ADMIN, "Change the default quotas"),
    Rule("os_compute_api:limits", ANYONE, "Show the own limits"),
    Rule("os_compute_api:limits:other_project", ADMIN, "Show the limits of another project"),
)

resource = Resource("quota_set", "quota_sets", rules=RULES)

_USER = Parameters("user_id", closed="2.75")


def _full(limits: Mapping[str, int]) -> dict[str, int]:
    return {name: limits.get(name, UNLIMITED) for name in (*NETWORKING, *QUOTA.builtin)}


def _user_limits(tx: Tx, project_id: str, user_id: str, *, lock: bool = False) -> dict[str, int]:
    """What was set for a user of a project."""
    query = sa.select(user_limit).where(user_limit.c.project_id == project_id, user_limit.c.user_id == user_id)
    return {row.resource: row.limit for row in tx.all(query.with_for_update() if lock else query)}


def _user_used(tx: Tx, project_id: str, user_id: str) -> dict[str, int]:
    """What a user's servers in a project hold."""
    query = sa.select(server.c.flavor, server.c.previous, server.c.mode, server.c.task).where(
        server.c.project_id == project_id, server.c.user_id == user_id, server.c.deleting_at.is_(None)
    )
    found: Counter[str] = Counter()
    for row in tx.all(query):
        if holding.counted(row.mode, row.task):
            found.update(holding.quota(row.flavor, row.previous))
    return {
        **dict.fromkeys(QUOTA.builtin, 0),
        **found,
        "key_pairs": QUOTA.used(tx, user_id)["key_pairs"],
    }


def check_user(tx: Tx, project_id: str, user_id: str, amounts: Mapping[str, int]) -> None:
    """Check what a user's servers are about to hold against limits of its own, beside what the project's quota counts.

    Raises QuotaExceeded.  Costs one query for a user without such limits.
    """
    limits = _user_limits(tx, project_id, user_id, lock=True)
    if not limits:
        return
    used = _user_used(tx, project_id, user_id)
    for name, amount in sorted(amounts.items()):
        most = limits.get(name, UNLIMITED)
        if amount > 0 and most != UNLIMITED and used[name] + amount > most:
            raise QuotaExceeded(name, limit=most, used=used[name], requested=amount)


def take(tx: Tx, project_id: str, user_id: str, amounts: Mapping[str, int]) -> None:
    """Count what a user's servers are about to hold, if both the user and the project may. Raises QuotaExceeded."""
    check_user(tx, project_id, user_id, amounts)
    QUOTA.take(tx, project_id, amounts)


def _limits(ctx: Context, project_id: str) -> dict[str, int]:
    """The limits of a project, or of the user of it that the query names."""
    limits, user_id = QUOTA.limits(ctx.tx, project_id), ctx.query.get("user_id")
    return limits | _user_limits(ctx.tx, project_id, user_id) if user_id else limits


@resource.get("/os-quota-sets/{project_id}", policy="os_compute_api:os-quota-sets:show", wraps="quota_set", query=_USER)
def show(ctx: Context, project_id: str) -> QuotaSet:
    """A project's limits, or those of `user_id` in it. Raises BadRequest when there is no such project."""
    project.check(ctx, project_id)
    return QuotaSet(id=project_id, **_full(_limits(ctx, project_id)))


@resource.get(
    "/os-quota-sets/{project_id}/detail", policy="os_compute_api:os-quota-sets:detail", wraps="quota_set", query=_USER
)
def show_detail(ctx: Context, project_id: str) -> QuotaSet:
    """A project's limits and what it uses of them, or those of `user_id`. Key pairs show usage for a user alone.

    Raises BadRequest when there is no such project.
    """
    project.check(ctx, project_id)
    user_id = ctx.query.get("user_id")
    used = _user_used(ctx.tx, project_id, user_id) if user_id else QUOTA.used(ctx.tx, project_id)
    limits = _full(_limits(ctx, project_id))
    detail = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
    return QuotaSet(id=project_id, **detail)


@resource.get("/os-quota-sets/{project_id}/defaults", policy="os_compute_api:os-quota-sets:defaults", wraps="quota_set")
def show_defaults(ctx: Context, project_id: str) -> QuotaSet:
    """The limits of a project for which nothing was set. Raises BadRequest when there is no such project."""
    project.check(ctx, project_id)
    return QuotaSet(id=project_id, **_full(QUOTA.defaults(ctx.tx)))


@resource.put(
    "/os-quota-sets/{project_id}",
    policy="os_compute_api:os-quota-sets:update",
    accepts="quota_set",
    wraps="quota_set",
    query=_USER,
)
def update(ctx: Context, project_id: str, body: QuotaSetUpdate) -> QuotaSet:
    """Change a project's limits, or those of `user_id` in it.

    Raises BadRequest for one below what is used or (a user's) above the project's, unless `force`, and for a project
    that is not there.
    """
    project.check(ctx, project_id)
    user_id = ctx.query.get("user_id")
    wanted = {name: value for name, value in given(body).items() if value is not None and name != "force"}
    used = _user_used(ctx.tx, project_id, user_id) if user_id else QUOTA.used(ctx.tx, project_id)
    most = QUOTA.limits(ctx.tx, project_id) if user_id else {}
    for name, value in wanted.items() if not is_true(body.force) else ():
        _check(name, value, used.get(name, 0), most.get(name, UNLIMITED))
    if user_id:
        _set_user(ctx, project_id, user_id, wanted)
    else:
        QUOTA.set(ctx.tx, project_id, wanted)
    return QuotaSet(id=UNSET, **_full(_limits(ctx, project_id)))


def _check(name: str, value: int, least: int, most: int) -> None:
    """Raise BadRequest for a limit below what is used, or above the project's."""
    if value != UNLIMITED and value < least:
        raise BadRequest(
            f"Quota limit {value} for {name} must be greater than or equal to already used and reserved {least}."
        )
    if most != UNLIMITED and (value == UNLIMITED or value > most):
        raise BadRequest(f"Quota limit {value} for {name} must be less than or equal to {most}.")


def _set_user(ctx: Context, project_id: str, user_id: str, limits: Mapping[str, int]) -> None:
    if len(user_id) > 64:
        raise BadRequest(f"There is no user {user_id}.")
    for name, value in limits.items():
        row = {"project_id": project_id, "user_id": user_id, "resource": name, "limit": value}
        ctx.tx.upsert(user_limit, row, key=("project_id", "user_id", "resource"))


@resource.delete("/os-quota-sets/{project_id}", policy="os_compute_api:os-quota-sets:delete", status=202, query=_USER)
def delete(ctx: Context, project_id: str) -> None:
    """Let a project and its users have the defaults again, or `user_id` alone the project's."""
    user_id = ctx.query.get("user_id")
    gone = sa.delete(user_limit).where(user_limit.c.project_id == project_id)
    ctx.tx.execute(gone.where(user_limit.c.user_id == user_id) if user_id else gone)
    if not user_id:
        QUOTA.reset(ctx.tx, project_id)


@resource.get("/os-quota-class-sets/{name}", policy="os_compute_api:os-quota-class-sets:show", wraps="quota_class_set")
def show_class(ctx: Context, name: str) -> QuotaClass:
    """The default limits. There is one class, `default`; others show the same."""
    return QuotaClass(id=name, **_full(QUOTA.defaults(ctx.tx)))


@resource.put(
    "/os-quota-class-sets/{name}",
    policy="os_compute_api:os-quota-class-sets:update",
    accepts="quota_class_set",
    wraps="quota_class_set",
)
def update_class(ctx: Context, name: str, body: QuotaClassUpdate) -> QuotaClass:
    """Change the default limits. Raises BadRequest for another class than `default`."""
    if name != DEFAULT:
        raise BadRequest(f"There is no quota class {name}: the only one is {DEFAULT}.")
    QUOTA.set(ctx.tx, DEFAULT, {key: value for key, value in given(body).items() if value is not None})
    return QuotaClass(id=UNSET, **_full(QUOTA.defaults(ctx.tx)))


@resource.get(
    "/limits",
    policy="os_compute_api:limits",
    wraps="limits",
    query=Parameters("tenant_id", "reserved", closed="2.75"),
)
def show_limits(ctx: Context) -> Limits:
    """Limits and usage of the caller's project, or of `tenant_id` for those who may see it."""
    project_id = ctx.auth.project_id or ""
    if (other := ctx.query.get("tenant_id")) is not None:
        ctx.enforce("os_compute_api:limits:other_project")
        project_id = other
    return Limits(rate=[], absolute=_absolute(ctx.tx, project_id))


def _absolute(tx: Tx, project_id: str) -> Absolute:
    limits, used = QUOTA.limits(tx, project_id), QUOTA.used(tx, project_id)
    return Absolute(
        max_total_instances=limits["instances"],
        max_total_cores=limits["cores"],
        max_total_ram_size=limits["ram"],
        max_total_keypairs=limits["key_pairs"],
        max_server_meta=limits["metadata_items"],
        max_image_meta=limits["metadata_items"],
        max_server_groups=limits["server_groups"],
        max_server_group_members=limits["server_group_members"],
        max_personality=limits["injected_files"],
        max_personality_size=limits["injected_file_content_bytes"],
        max_total_floating_ips=limits.get("floating_ips", UNLIMITED),
        max_security_groups=limits.get("security_groups", UNLIMITED),
        max_security_group_rules=limits.get("security_group_rules", UNLIMITED),
        total_instances_used=used["instances"],
        total_cores_used=used["cores"],
        total_ram_used=used["ram"],
        total_server_groups_used=used["server_groups"],
        total_floating_ips_used=0,
        total_security_groups_used=0,
    )

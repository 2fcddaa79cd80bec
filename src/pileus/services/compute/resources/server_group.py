"""Server groups: servers that shall share a host, or shall not.

https://docs.openstack.org/api-ref/compute/#server-groups-os-server-groups
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound, QuotaExceeded
from pileus.core.fields import Body, UnsetType, View, W
from pileus.core.listing import integer
from pileus.core.policy import Rule
from pileus.core.quota import UNLIMITED
from pileus.core.statement import at, many
from pileus.core.store import Instant, Tx, metadata
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules.group import Group
from pileus.services.compute.rules.persona import ADMIN, MEMBER, READER
from pileus.services.compute.rules.shape import Name

server_group = sa.Table(
    "compute_server_group",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False, index=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("policy", sa.String(32), nullable=False),
    sa.Column("rules", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
)

member = sa.Table(
    "compute_server_group_member",
    metadata,
    sa.Column("server_id", sa.String(64), sa.ForeignKey("compute_server.id"), primary_key=True),
    sa.Column("group_id", sa.String(64), sa.ForeignKey("compute_server_group.id"), nullable=False, index=True),
)
"""A server is in one group at most, from its creation to its end."""

Hard = Literal["affinity", "anti-affinity"]
Any4 = Literal["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]
One = msgspec.Meta(min_length=1, max_length=1)


class Rules(Body):
    """What refines a policy; only for anti-affinity."""

    max_server_per_host: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | UnsetType = msgspec.UNSET


class ServerGroupCreate(Body):
    """Body of create: the value of `server_group`. One policy, in a list until 2.63."""

    name: Name
    policies: Annotated[
        list[Any4] | UnsetType,
        W(Annotated[list[Hard], One], until="2.14", need=True),
        W(Annotated[list[Any4], One], since="2.15", until="2.63", need=True),
    ] = msgspec.UNSET
    policy: Annotated[Any4 | UnsetType, W(since="2.64", need=True)] = msgspec.UNSET
    rules: Annotated[Rules | UnsetType, W(since="2.64")] = msgspec.UNSET


class ServerGroup(View):
    """A group in full."""

    id: str
    name: str
    policies: Annotated[list[str] | UnsetType, W(until="2.63")]
    policy: Annotated[str | UnsetType, W(since="2.64")]
    rules: Annotated[dict[str, int] | UnsetType, W(since="2.64")]
    members: list[str]
    metadata: Annotated[dict[str, str] | UnsetType, W(until="2.63")]
    project_id: Annotated[str | UnsetType, W(since="2.13")]
    user_id: Annotated[str | UnsetType, W(since="2.13")]


RULES = (
    Rule("os_compute_api:os-server-groups:create", MEMBER, "Make a server group"),
    Rule("os_compute_api:os-server-groups:delete", MEMBER, "Delete a server group"),
    Rule("os_compute_api:os-server-groups:index", READER, "List the project's server groups"),
    Rule("os_compute_api:os-server-groups:index:all_projects", ADMIN, "List all projects' server groups"),
    Rule("os_compute_api:os-server-groups:show", READER, "Show a server group"),
)

resource = Resource("server_group", "server_groups", rules=RULES)
_MANY = Parameters("limit", "offset", "all_projects", closed="2.75")


def _view(row: sa.Row[Any], members: Sequence[str]) -> ServerGroup:
    return ServerGroup(
        id=row.id,
        name=row.name,
        policies=[row.policy],
        policy=row.policy,
        rules=row.rules,
        members=list(members),
        metadata={},
        project_id=row.project_id,
        user_id=row.user_id,
    )


def _members(tx: Tx, ids: Collection[str]) -> dict[str, list[str]]:
    """Servers of each group that are not deleted, in the order in which they were made."""
    found: dict[str, list[str]] = {one: [] for one in ids}
    query = (
        sa.select(member.c.group_id, member.c.server_id)
        .join(server, server.c.id == member.c.server_id)
        .where(member.c.group_id.in_(ids), server.c.deleted_at.is_(None))
        .order_by(server.c.created_at, server.c.id)
    )
    for row in tx.all(query):
        found[row.group_id].append(row.server_id)
    return found


def _find(ctx: Context, group_id: str) -> sa.Row[Any]:
    row = ctx.tx.first(at(server_group, "id"), {"value": group_id})
    missing = NotFound(f"Instance group {group_id} could not be found.")
    if row is None:
        raise missing
    ctx.guard({"project_id": row.project_id, "user_id": row.user_id}, missing)
    return row


@resource.get("/os-server-groups", policy="os_compute_api:os-server-groups:index", query=_MANY)
def index(ctx: Context) -> Page:
    """The project's groups, oldest first; with `all_projects`, whatever its value, an admin sees all, nobody else."""
    query = sa.select(server_group).order_by(server_group.c.created_at, server_group.c.id)
    if "all_projects" in ctx.query.names() and ctx.auth.is_admin:
        ctx.enforce("os_compute_api:os-server-groups:index:all_projects")
    else:
        query = query.where(server_group.c.project_id == ctx.auth.project_id)
    limit, offset = integer(ctx.query.get("limit") or "1000"), integer(ctx.query.get("offset") or "0")
    if limit < 0 or offset < 0:
        raise BadRequest("limit and offset must not be negative")
    rows = ctx.tx.all(query.limit(min(limit or 1000, 1000)).offset(offset))
    members = _members(ctx.tx, [row.id for row in rows])
    return Page([_view(row, members[row.id]) for row in rows])


@resource.get("/os-server-groups/{group_id}", policy="os_compute_api:os-server-groups:show", wraps="server_group")
def show(ctx: Context, group_id: str) -> ServerGroup:
    """One group."""
    row = _find(ctx, group_id)
    return _view(row, _members(ctx.tx, [row.id])[row.id])


@resource.post(
    "/os-server-groups",
    policy="os_compute_api:os-server-groups:create",
    accepts="server_group",
    wraps="server_group",
)
def create(ctx: Context, body: ServerGroupCreate) -> ServerGroup:
    """Make a group. Raises BadRequest for rules without anti-affinity, and Forbidden over quota."""
    policy = body.policy or body.policies[0]  # type: ignore[index] # the window needs one of them
    rules = {} if body.rules is msgspec.UNSET else msgspec.to_builtins(body.rules)
    if rules and policy != "anti-affinity":
        raise BadRequest("Only anti-affinity policy supports rules.")
    project_id = ctx.auth.project_id or ""
    QUOTA.take(ctx.tx, project_id, {"server_groups": 1})
    group_id = ctx.seams.uuid()
    values = {
        "id": group_id,
        "project_id": project_id,
        "user_id": ctx.auth.user_id,
        "name": body.name,
        "policy": policy,
        "rules": rules,
        "created_at": ctx.now,
    }
    ctx.tx.insert(server_group, values)
    return show(ctx, group_id)


@resource.delete("/os-server-groups/{group_id}", policy="os_compute_api:os-server-groups:delete")
def delete(ctx: Context, group_id: str) -> None:
    """Delete a group; its servers stay where they are, and belong to none."""
    row = _find(ctx, group_id)
    ctx.tx.execute(sa.delete(member).where(member.c.group_id == row.id))
    if ctx.tx.execute(sa.delete(server_group).where(server_group.c.id == row.id)).rowcount:
        QUOTA.give_back(ctx.tx, row.project_id, {"server_groups": 1})


def join(ctx: Context, group_id: Any, server_ids: Sequence[str]) -> None:
    """Let new servers be members of a group of their project, as the hint `group` asks.

    Raises BadRequest for what is no group of the project's, and QuotaExceeded for more members than it may have.
    """
    query = sa.select(server_group).where(server_group.c.id == str(group_id)).with_for_update()
    row = ctx.tx.first(query)
    if row is None or row.project_id != ctx.auth.project_id:
        raise BadRequest(f"Instance group {group_id} could not be found.")
    most = QUOTA.limits(ctx.tx, row.project_id)["server_group_members"]
    used = len(_members(ctx.tx, [row.id])[row.id])
    if most != UNLIMITED and used + len(server_ids) > most:
        raise QuotaExceeded("server_group_members", limit=most, used=used, requested=len(server_ids))
    ctx.tx.insert(member, [{"server_id": one, "group_id": row.id} for one in server_ids])


_OF_SERVERS = sa.select(member.c.server_id, member.c.group_id).where(member.c.server_id.in_(many("ids")))


def of_servers(tx: Tx, server_ids: Collection[str]) -> dict[str, str]:
    """The group's id of each server that is in one."""
    rows = tx.all(_OF_SERVERS, {"ids": server_ids}) if server_ids else ()
    return {row.server_id: row.group_id for row in rows}


def placed(tx: Tx, server_ids: Collection[str], *, lock: bool = False) -> dict[str, Group]:
    """The group of each server that is in one, with where its other members are.

    With `lock` the groups stay as they are until the transaction ends, for a claim that must hold what was decided.
    """
    groups = of_servers(tx, server_ids)
    if not groups:
        return {}
    ids = sorted(set(groups.values()))
    query = sa.select(server_group).where(server_group.c.id.in_(ids)).order_by(server_group.c.id)
    rows = {row.id: row for row in tx.all(query.with_for_update() if lock else query)}
    where = (
        sa.select(member.c.group_id, server.c.host, sa.func.count().label("amount"))
        .join(server, server.c.id == member.c.server_id)
        .where(member.c.group_id.in_(ids), server.c.host.is_not(None), server.c.deleting_at.is_(None))
        .group_by(member.c.group_id, server.c.host)
    )
    hosts: dict[str, dict[str, int]] = {one: {} for one in ids}
    for found in tx.all(where):
        hosts[found.group_id][found.host] = found.amount
    made = {key: _group(row, hosts[key]) for key, row in rows.items()}
    return {server_id: made[group_id] for server_id, group_id in groups.items() if group_id in made}


def _group(row: sa.Row[Any], hosts: Mapping[str, int]) -> Group:
    return Group(row.id, row.policy, row.rules.get("max_server_per_host", 1), hosts)

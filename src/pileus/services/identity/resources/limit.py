"""Limits of projects and domains of their own (https://docs.openstack.org/api-ref/identity/v3/#unified-limits).

Under the model `strict_two_level` no limit of a project passes that of its domain, or, where the domain has none, the
registered one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Forbidden
from pileus.core.fields import Body, View, given
from pileus.core.listing import Filter, Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import registered_limit as registered_limits
from pileus.services.identity.resources import service as services
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    CLOUD_ADMIN,
    Id,
    Links,
    Name,
    among,
    compared,
    given_or,
    link,
    missing,
    page,
    permit,
    something,
)
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.registered_limit import Amount, RegionId
from pileus.services.identity.rules import limit as rules

table = sa.Table(
    "identity_limit",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("registered_limit_id", sa.String(64), sa.ForeignKey(registered_limits.table.c.id), nullable=False),
    sa.Column(
        "owner_id", sa.String(64), sa.ForeignKey(projects.table.c.id, ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("resource_limit", sa.Integer, nullable=False),
    sa.Column("description", sa.Text),
    sa.UniqueConstraint("registered_limit_id", "owner_id"),
)
"""`owner_id` is a project or a domain."""

_registered = registered_limits.table
_joined = table.join(_registered, _registered.c.id == table.c.registered_limit_id).join(
    projects.table, projects.table.c.id == table.c.owner_id
)
_SELECT = sa.select(
    table,
    _registered.c.service_id,
    _registered.c.region_id,
    _registered.c.resource_name,
    _registered.c.default_limit,
    projects.table.c.is_domain,
    projects.table.c.domain_id.label("owner_domain_id"),
).select_from(_joined)


class Limit(View):
    """The limit of a project or of a domain; the id of the other kind is null."""

    id: str
    project_id: str | None
    domain_id: str | None
    service_id: str
    region_id: str | None
    resource_name: str
    resource_limit: int
    description: str | None
    links: Links


class LimitCreate(Body):
    """A new limit of a project or of a domain: one of them is to be named."""

    service_id: str
    resource_name: Name
    resource_limit: Amount
    project_id: Id | UnsetType | None = UNSET
    domain_id: Id | UnsetType | None = UNSET
    region_id: RegionId | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET


class LimitsCreate(Body):
    """New limits: all of them are made, or none."""

    limits: Annotated[list[LimitCreate], msgspec.Meta(min_length=1)]


class LimitUpdate(Body):
    """What is to be changed of a limit."""

    resource_limit: Amount | UnsetType = UNSET
    description: str | UnsetType | None = UNSET


resource = Resource(
    "limit",
    "limits",
    rules=[
        Rule("identity:get_limit_model", "", "Show the model of enforcement"),
        Rule(
            "identity:get_limit",
            f"{ADMIN_OR_SYSTEM_READER} or (domain_id:%(target.limit.domain.id)s"
            " or domain_id:%(target.limit.project.domain_id)s)"
            " or (project_id:%(target.limit.project_id)s and not None:%(target.limit.project_id)s)",
            "Show a limit",
        ),
        Rule("identity:list_limits", "", "List limits: all, or those of one's own project or domain"),
        Rule("identity:create_limits", CLOUD_ADMIN, "Create limits"),
        Rule("identity:update_limit", CLOUD_ADMIN, "Change a limit"),
        Rule("identity:delete_limit", CLOUD_ADMIN, "Delete a limit"),
    ],
)


class _Owner(Filter):
    """A filter by project, or by domain."""

    __slots__ = ("is_domain",)

    def __init__(self, *, is_domain: bool) -> None:
        super().__init__(table.c.owner_id)
        self.is_domain = is_domain

    def condition(self, values: Any) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        return sa.and_(table.c.owner_id.in_(values), projects.table.c.is_domain == self.is_domain)


_listing = Listing(
    table,
    filters={
        "service_id": Filter(_registered.c.service_id),
        "region_id": Filter(_registered.c.region_id),
        "resource_name": Filter(_registered.c.resource_name),
        "project_id": _Owner(is_domain=False),
        "domain_id": _Owner(is_domain=True),
        **compared(resource_name=_registered.c.resource_name),
    },
    sort={"id": table.c.id},
    maximum=None,
)


def find(tx: Tx, key: str) -> sa.Row[Any] | None:
    """A limit with what is registered, None when there is no such."""
    return tx.first(_SELECT.where(table.c.id == key))


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A limit with what is registered. Raises NotFound."""
    row = find(tx, key)
    if row is None:
        raise missing("limit", key)
    return row


def model(ctx: Context) -> rules.Model:
    """The cloud's model of enforcement: what is provided, flat by default."""
    found: rules.Model = ctx.provided.get(rules.Model, rules.FLAT)
    return found


def _view(ctx: Context, row: sa.Row[Any]) -> Limit:
    return Limit(
        id=row.id,
        project_id=None if row.is_domain else row.owner_id,
        domain_id=row.owner_id if row.is_domain else None,
        service_id=row.service_id,
        region_id=row.region_id,
        resource_name=row.resource_name,
        resource_limit=row.resource_limit,
        description=row.description,
        links=link(ctx, "limits", row.id),
    )


def of_projects(ctx: Context, keys: Sequence[str]) -> dict[str, list[Limit]]:
    """The limits that some projects have of their own, by project id."""
    found: dict[str, list[Limit]] = {key: [] for key in keys}
    for row in among(ctx.tx, _SELECT.order_by(table.c.id), table.c.owner_id, keys):
        found[row.owner_id].append(_view(ctx, row))
    return found


def in_force(tx: Tx, kind: str, region: str, owner_id: str | None) -> dict[str, int]:
    """What a project or domain may have of each resource of a type of service in a region, by the resource's name.

    Its own limit holds, else the registered one (that alone for None); one for the region goes before one for all.
    """
    service = services.table
    own = sa.and_(table.c.registered_limit_id == _registered.c.id, table.c.owner_id == owner_id)
    amount = sa.func.coalesce(table.c.resource_limit, _registered.c.default_limit).label("amount")
    query = (
        sa.select(_registered.c.resource_name, _registered.c.region_id, amount)
        .select_from(_registered.join(service, service.c.id == _registered.c.service_id).outerjoin(table, own))
        .where(service.c.type == kind, sa.or_(_registered.c.region_id == region, _registered.c.region_id.is_(None)))
    )
    rows = sorted(tx.all(query), key=lambda row: row.region_id is not None)
    return {row.resource_name: row.amount for row in rows}


def _seen(row: sa.Row[Any] | None) -> Mapping[str, Any] | None:
    """What policy rules see of a limit."""
    if row is None:
        return None
    if row.is_domain:
        return {"project_id": None, "domain.id": row.owner_id}
    return {"project_id": row.owner_id, "project.domain_id": row.owner_domain_id}


@resource.get("/limits/model", policy="identity:get_limit_model")
def show_model(ctx: Context) -> dict[str, dict[str, str]]:
    """Show the model of enforcement."""
    found = model(ctx)
    return {"model": {"name": found.name, "description": found.description}}


@resource.get("/limits", policy="identity:list_limits")
def list_all(ctx: Context) -> Page:
    """List limits: all for administrators, services and the system's readers, else those of the token's scope."""
    query, auth = _SELECT, ctx.auth
    if not (auth.system_scope or auth.roles & {"admin", "service"}):
        if auth.domain_id is not None:
            mine = projects.table.c.domain_id == auth.domain_id
            query = query.where(sa.or_(table.c.owner_id == auth.domain_id, mine))
        else:
            query = query.where(table.c.owner_id == (auth.project_id or ""))
    return page(ctx, _listing, query, _view)


@resource.get("/limits/{limit_id}", policy="identity:get_limit", guarded=True, wraps="limit")
def show(ctx: Context, limit_id: str) -> Limit:
    """Show a limit."""
    permit(ctx, ctx.operation, limit=_seen(find(ctx.tx, limit_id)))
    return _view(ctx, get(ctx.tx, limit_id))


@resource.post("/limits", policy="identity:create_limits", wraps="limits", status=201)
def create(ctx: Context, body: LimitsCreate) -> list[Limit]:
    """Create limits. Raises Forbidden for a resource that has no registered one, or beyond what the model allows."""
    made = [_insert(ctx, wanted) for wanted in body.limits]
    rows = [get(ctx.tx, key) for key in made]
    _check_model(ctx, rows)
    return [_view(ctx, row) for row in rows]


def _insert(ctx: Context, wanted: LimitCreate) -> str:
    registered_limits.check_places(ctx.tx, given(wanted))
    if (wanted.project_id is UNSET) == (wanted.domain_id is UNSET):
        raise BadRequest("Exactly one of project_id and domain_id must be given.")
    owner_id = given_or(wanted.project_id, given_or(wanted.domain_id, ""))
    find_owner = projects.find if wanted.domain_id is UNSET else projects.find_domain
    if find_owner(ctx.tx, owner_id) is None:
        raise BadRequest(f"Could not find project or domain: {owner_id}.")
    registered = registered_limits.find_for(
        ctx.tx, wanted.service_id, given_or(wanted.region_id, None), wanted.resource_name
    )
    if registered is None:
        raise Forbidden("Unable to create a limit that has no corresponding registered limit.")
    key = ctx.seams.hex()
    row = {"id": key, "registered_limit_id": registered.id, "owner_id": owner_id}
    values = {"resource_limit": wanted.resource_limit, "description": given_or(wanted.description, None)}
    if not ctx.tx.insert_missing(table, row | values, key=("registered_limit_id", "owner_id")):
        raise Conflict("Conflict occurred attempting to store limit - Duplicate entry.")
    ctx.tx.changed("identity.limit", key)
    return key


@resource.patch("/limits/{limit_id}", policy="identity:update_limit", accepts="limit", wraps="limit")
def update(ctx: Context, limit_id: str, body: LimitUpdate) -> Limit:
    """Change a limit. Raises Forbidden beyond what the model allows."""
    get(ctx.tx, limit_id)
    something(given(body), ctx, "limit")
    ctx.tx.execute(sa.update(table).where(table.c.id == limit_id).values(**given(body)))
    ctx.tx.changed("identity.limit", limit_id)
    row = get(ctx.tx, limit_id)
    _check_model(ctx, [row])
    return _view(ctx, row)


@resource.delete("/limits/{limit_id}", policy="identity:delete_limit")
def delete(ctx: Context, limit_id: str) -> None:
    """Delete a limit: the registered one holds again. Raises Forbidden where that is not what the model allows."""
    row = get(ctx.tx, limit_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == limit_id))
    ctx.tx.changed("identity.limit", limit_id)
    if row.is_domain:
        _check_model(ctx, [row])


def _check_model(ctx: Context, rows: Iterable[sa.Row[Any]]) -> None:
    """Raise Forbidden unless the limits in the domains that were touched are, as written, what the model allows."""
    if model(ctx).levels is None:
        return
    touched = {(row.registered_limit_id, row.owner_domain_id or row.owner_id): row for row in rows}
    for registered_id, domain_id in sorted(touched):
        row = touched[registered_id, domain_id]
        # Two requests that touch limits of one resource wait for each other here: neither misses the other's.
        same = _registered.c.id == registered_id
        ctx.tx.execute(sa.update(_registered).where(same).values(default_limit=_registered.c.default_limit))
        inside = sa.or_(projects.table.c.id == domain_id, projects.table.c.domain_id == domain_id)
        held = ctx.tx.all(_SELECT.where(table.c.registered_limit_id == registered_id, inside))
        ceiling = next((one.resource_limit for one in held if one.is_domain), row.default_limit)
        if rules.beyond(ceiling, (one.resource_limit for one in held if not one.is_domain)):
            raise Forbidden(
                f"Invalid resource limit: a limit of {row.resource_name} of a project in the domain {domain_id} would"
                f" pass that of the domain, which is {ceiling}."
            )

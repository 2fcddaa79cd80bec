"""Policies of endpoints (https://docs.openstack.org/api-ref/identity/v3-ext/#os-endpoint-policy-api).

A policy is associated with an endpoint, with a service, or with a service in a region.  The nearest one holds: that of
the endpoint itself, else that of its service in its region or in the nearest region above, else that of its service.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import NotFound
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.core.store import Tx, metadata
from pileus.services.identity.resources import endpoint as endpoints
from pileus.services.identity.resources import policy as policies
from pileus.services.identity.resources import region as regions
from pileus.services.identity.resources import service as services
from pileus.services.identity.resources.attribute import CLOUD_ADMIN, CLOUD_ADMIN_OR_SYSTEM_READER, page

table = sa.Table(
    "identity_policy_association",
    metadata,
    sa.Column("place", sa.String(400), primary_key=True),
    sa.Column(
        "policy_id", sa.String(64), sa.ForeignKey(policies.table.c.id, ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("endpoint_id", sa.String(64), sa.ForeignKey(endpoints.table.c.id, ondelete="CASCADE"), index=True),
    sa.Column("service_id", sa.String(64), sa.ForeignKey(services.table.c.id, ondelete="CASCADE"), index=True),
    sa.Column("region_id", sa.String(255), sa.ForeignKey(regions.table.c.id, ondelete="CASCADE"), index=True),
)
"""`place` is what the policy is for in one text: an endpoint, a service or a region of a service has one policy."""

resource = Resource(
    "policy",
    "policies",
    rules=[
        *(
            Rule(f"identity:{verb}_policy_association_for_{place}", check, f"{words} a policy with {place}")
            for place in ("endpoint", "service", "region_and_service")
            for verb, check, words in (
                ("create", CLOUD_ADMIN, "Associate"),
                ("check", CLOUD_ADMIN_OR_SYSTEM_READER, "Check the association of"),
                ("delete", CLOUD_ADMIN, "End the association of"),
            )
        ),
        Rule("identity:get_policy_for_endpoint", CLOUD_ADMIN_OR_SYSTEM_READER, "Show the policy for an endpoint"),
        Rule("identity:list_endpoints_for_policy", CLOUD_ADMIN_OR_SYSTEM_READER, "List the endpoints of a policy"),
    ],
)

_PLACE = "/policies/{policy_id}/OS-ENDPOINT-POLICY"
_ENDPOINT = f"{_PLACE}/endpoints/{{endpoint_id}}"
_SERVICE = f"{_PLACE}/services/{{service_id}}"
_REGION = f"{_SERVICE}/regions/{{region_id}}"


def _row(tx: Tx, policy_id: str, **place: str) -> dict[str, Any]:
    """The row of an association. Raises NotFound for a policy, endpoint, service or region that is not there."""
    policies.get(tx, policy_id)
    if "endpoint_id" in place:
        endpoints.get(tx, place["endpoint_id"])
    if "service_id" in place:
        services.get(tx, place["service_id"])
    if "region_id" in place:
        regions.get(tx, place["region_id"])
    return {"place": _place(**place), "policy_id": policy_id, **place}


def _place(*, endpoint_id: str | None = None, service_id: str | None = None, region_id: str | None = None) -> str:
    return "/".join(part for part in (endpoint_id and f"endpoint {endpoint_id}", service_id, region_id) if part)


def _associate(ctx: Context, row: dict[str, Any]) -> None:
    ctx.tx.upsert(table, row, key=("place",))
    ctx.tx.changed("identity.policy", row["policy_id"])


def _check(ctx: Context, row: dict[str, Any]) -> None:
    mine = (table.c.place == row["place"], table.c.policy_id == row["policy_id"])
    if ctx.tx.first(sa.select(table.c.place).where(*mine)) is None:
        raise NotFound("Could not find policy association.")


def _part(ctx: Context, row: dict[str, Any]) -> None:
    mine = (table.c.place == row["place"], table.c.policy_id == row["policy_id"])
    ctx.tx.execute(sa.delete(table).where(*mine))
    ctx.tx.changed("identity.policy", row["policy_id"])


@resource.put(_ENDPOINT, policy="identity:create_policy_association_for_endpoint", status=204)
def add_endpoint(ctx: Context, policy_id: str, endpoint_id: str) -> None:
    """Make a policy the one for an endpoint, in place of another."""
    _associate(ctx, _row(ctx.tx, policy_id, endpoint_id=endpoint_id))


@resource.get(_ENDPOINT, policy="identity:check_policy_association_for_endpoint", status=204)
def check_endpoint(ctx: Context, policy_id: str, endpoint_id: str) -> None:
    """Check whether a policy is associated with an endpoint itself."""
    _check(ctx, _row(ctx.tx, policy_id, endpoint_id=endpoint_id))


@resource.delete(_ENDPOINT, policy="identity:delete_policy_association_for_endpoint")
def remove_endpoint(ctx: Context, policy_id: str, endpoint_id: str) -> None:
    """End the association of a policy with an endpoint. Again changes nothing."""
    _part(ctx, _row(ctx.tx, policy_id, endpoint_id=endpoint_id))


@resource.put(_SERVICE, policy="identity:create_policy_association_for_service", status=204)
def add_service(ctx: Context, policy_id: str, service_id: str) -> None:
    """Make a policy the one for a service, in place of another."""
    _associate(ctx, _row(ctx.tx, policy_id, service_id=service_id))


@resource.get(_SERVICE, policy="identity:check_policy_association_for_service", status=204)
def check_service(ctx: Context, policy_id: str, service_id: str) -> None:
    """Check whether a policy is associated with a service."""
    _check(ctx, _row(ctx.tx, policy_id, service_id=service_id))


@resource.delete(_SERVICE, policy="identity:delete_policy_association_for_service")
def remove_service(ctx: Context, policy_id: str, service_id: str) -> None:
    """End the association of a policy with a service. Again changes nothing."""
    _part(ctx, _row(ctx.tx, policy_id, service_id=service_id))


@resource.put(_REGION, policy="identity:create_policy_association_for_region_and_service", status=204)
def add_region(ctx: Context, policy_id: str, service_id: str, region_id: str) -> None:
    """Make a policy the one for a service in a region, in place of another."""
    _associate(ctx, _row(ctx.tx, policy_id, service_id=service_id, region_id=region_id))


@resource.get(_REGION, policy="identity:check_policy_association_for_region_and_service", status=204)
def check_region(ctx: Context, policy_id: str, service_id: str, region_id: str) -> None:
    """Check whether a policy is associated with a service in a region."""
    _check(ctx, _row(ctx.tx, policy_id, service_id=service_id, region_id=region_id))


@resource.delete(_REGION, policy="identity:delete_policy_association_for_region_and_service")
def remove_region(ctx: Context, policy_id: str, service_id: str, region_id: str) -> None:
    """End the association of a policy with a service in a region. Again changes nothing."""
    _part(ctx, _row(ctx.tx, policy_id, service_id=service_id, region_id=region_id))


@resource.get(f"{_PLACE}/endpoints", policy="identity:list_endpoints_for_policy", wraps="endpoints")
def list_endpoints(ctx: Context, policy_id: str) -> Page:
    """List the endpoints with which a policy is associated in any way, even where another is nearer."""
    policies.get(ctx.tx, policy_id)
    endpoint = endpoints.table
    conditions: list[sa.ColumnElement[bool]] = []
    for row in ctx.tx.all(at(table, "policy_id"), {"value": policy_id}):
        if row.endpoint_id is not None:
            conditions.append(endpoint.c.id == row.endpoint_id)
        elif row.region_id is None:
            conditions.append(endpoint.c.service_id == row.service_id)
        else:
            inside = endpoint.c.region_id.in_(regions.below(ctx.tx, row.region_id))
            conditions.append(sa.and_(endpoint.c.service_id == row.service_id, inside))
    return page(ctx, endpoints.listing, sa.select(endpoint).where(sa.or_(sa.false(), *conditions)), endpoints.view)


@resource.get(f"{_PLACE}/policy", policy="identity:get_policy_for_endpoint", wraps="policy")
def show_associated(ctx: Context, policy_id: str) -> policies.PolicyView:
    """Show a policy that is associated with anything. The API reference has this path, upstream's server has not."""
    row = policies.get(ctx.tx, policy_id)
    if ctx.tx.first(sa.select(table.c.place).where(table.c.policy_id == policy_id)) is None:
        raise NotFound("Could not find policy association.")
    return policies.view(ctx, row)


@resource.get(
    "/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy", policy="identity:get_policy_for_endpoint", wraps="policy"
)
def show_effective(ctx: Context, endpoint_id: str) -> policies.PolicyView:
    """Show the policy that holds for an endpoint."""
    endpoint = endpoints.get(ctx.tx, endpoint_id)
    service_id = endpoint.service_id
    above = [] if endpoint.region_id is None else regions.above(ctx.tx, endpoint.region_id)
    places = [_place(endpoint_id=endpoint_id)]
    places += [_place(service_id=service_id, region_id=region_id) for region_id in above]
    places.append(_place(service_id=service_id))
    rows = ctx.tx.all(sa.select(table.c.place, table.c.policy_id).where(table.c.place.in_(places)))
    held = {row.place: row.policy_id for row in rows}
    for place in places:
        if place in held:
            return policies.view(ctx, policies.get(ctx.tx, held[place]))
    raise NotFound(f"No policy is associated with endpoint {endpoint_id}.")

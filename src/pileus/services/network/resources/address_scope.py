"""Address scopes: sets of subnet pools whose prefixes are unique.

https://docs.openstack.org/api-ref/network/v2/#address-scopes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.fields import Body, Guard, View, given
from pileus.core.listing import Filter, Listing, boolean, integer
from pileus.core.policy import Rule
from pileus.core.store import metadata
from pileus.services.network.resources.kind import Kind
from pileus.services.network.resources.standard_attribute import (
    ADMIN,
    ADMIN_OR_PROJECT_MEMBER,
    ADMIN_OR_PROJECT_READER,
    Name,
    Owned,
    change,
    columns,
    fresh,
    owner,
    page,
)
from pileus.services.network.rules.fault import AddressScopeInUse, AddressScopeNotFound, InvalidInput

TOPIC = "network.address_scope"

address_scope = sa.Table(
    "network_address_scope",
    metadata,
    *columns(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("shared", sa.Boolean, nullable=False),
)


class ScopeCreate(Owned, kw_only=True):
    """A new address scope: the value of `address_scope`."""

    name: Name = ""
    ip_version: Literal[4, 6]
    shared: Annotated[bool | UnsetType, Guard("create_address_scope:shared")] = UNSET


class ScopeUpdate(Body, kw_only=True):
    """What may be changed of an address scope."""

    name: Name | UnsetType = UNSET
    shared: Annotated[bool | UnsetType, Guard("update_address_scope:shared")] = UNSET


class ScopeView(View, kw_only=True):
    """An address scope in a response."""

    id: str
    project_id: str
    tenant_id: str
    name: str
    ip_version: int
    shared: bool


listing = Listing(
    address_scope,
    filters={
        **{name: Filter(address_scope.c[name]) for name in ("id", "name", "project_id")},
        "tenant_id": Filter(address_scope.c.project_id),
        "ip_version": Filter(address_scope.c.ip_version, integer),
        "shared": Filter(address_scope.c.shared, boolean),
    },
    sort={name: address_scope.c[name] for name in ("id", "name", "project_id", "ip_version", "shared")}
    | {"tenant_id": address_scope.c.project_id},
    maximum=None,
    view=ScopeView,
)

RULES = (
    Rule("shared_address_scopes", "True:%(shared)s", "Address scopes that are everybody's"),
    Rule("create_address_scope", ADMIN_OR_PROJECT_MEMBER, "Create an address scope"),
    Rule("create_address_scope:shared", ADMIN, "Create one that is everybody's"),
    Rule("get_address_scope", f"{ADMIN_OR_PROJECT_READER} or rule:shared_address_scopes", "Show an address scope"),
    Rule("update_address_scope", ADMIN_OR_PROJECT_MEMBER, "Update an address scope"),
    Rule("update_address_scope:shared", ADMIN, "Let everybody use an address scope"),
    Rule("delete_address_scope", ADMIN_OR_PROJECT_MEMBER, "Delete an address scope"),
)

resource = Resource("address_scope", "address_scopes", rules=RULES)
kind = Kind("address_scope", address_scope, AddressScopeNotFound)


def _view(row: Mapping[str, Any]) -> ScopeView:
    names = ("id", "project_id", "name", "ip_version", "shared")
    return ScopeView(tenant_id=row["project_id"], **{name: row[name] for name in names})


@resource.get("/address-scopes", policy="get_address_scope", guarded=True, wraps="address_scopes")
def index(ctx: Context) -> Page:
    """The address scopes that the caller sees."""
    rows, make = page(ctx, listing, sa.select(address_scope).where(kind.visible(ctx)))
    return make([_view(row) for row in rows])


@resource.get("/address-scopes/{scope_id}", policy="get_address_scope", guarded=True, wraps="address_scope")
def show(ctx: Context, scope_id: str) -> ScopeView:
    """An address scope."""
    return _view(kind.find(ctx, scope_id))


@resource.post(
    "/address-scopes",
    policy="create_address_scope",
    guarded=True,
    status=201,
    accepts="address_scope",
    wraps="address_scope",
)
def create(ctx: Context, body: ScopeCreate) -> ScopeView:
    """Make an address scope."""
    project_id = owner(ctx, body)
    kind.may_create(ctx, project_id)
    values = {"name": body.name, "ip_version": body.ip_version, "shared": bool(body.shared)}
    row = {**fresh(ctx.tx, project_id), **values}
    ctx.tx.insert(address_scope, row)
    ctx.tx.changed(TOPIC, row["id"])
    return _view(row)


@resource.put(
    "/address-scopes/{scope_id}",
    policy="update_address_scope",
    guarded=True,
    accepts="address_scope",
    wraps="address_scope",
)
def update(ctx: Context, scope_id: str, body: ScopeUpdate) -> ScopeView:
    """Change an address scope; one that is everybody's stays so."""
    row = kind.find(ctx, scope_id, "update")
    values = given(body)
    if row["shared"] and values.get("shared") is False:
        raise InvalidInput(f"address scope {scope_id} is everybody's, and others may use it")
    return _view(change(ctx, address_scope, TOPIC, row, values))


@resource.delete("/address-scopes/{scope_id}", policy="delete_address_scope", guarded=True)
def delete(ctx: Context, scope_id: str) -> None:
    """Delete an address scope. Raises AddressScopeInUse while subnet pools are in it."""
    kind.find(ctx, scope_id, "delete")
    # The pools' table has a foreign key to this one; whoever puts a pool in at the same time loses, or comes first.
    pools = sa.table("network_subnetpool", sa.column("address_scope_id"))
    if ctx.tx.first(sa.select(pools.c.address_scope_id).where(pools.c.address_scope_id == scope_id).limit(1)):
        raise AddressScopeInUse(scope_id)
    ctx.tx.execute(sa.delete(address_scope).where(address_scope.c.id == scope_id))
    ctx.tx.changed(TOPIC, scope_id)

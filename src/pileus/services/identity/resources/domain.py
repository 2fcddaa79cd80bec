"""Domains (https://docs.openstack.org/api-ref/identity/v3/#domains); their rows are those of projects at the root."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import OpenBody, View, given
from pileus.core.listing import Listing
from pileus.core.policy import Rule
from pileus.core.store import Tx
from pileus.services.identity.resources.attribute import (
    ADMIN_OR_SYSTEM_READER,
    CLOUD_ADMIN,
    Flags,
    Links,
    ShortName,
    Tags,
    extended,
    flags,
    further,
    given_or,
    link,
    missing,
    mutable,
    own_domain,
    permit,
    permit_list,
    same_id,
    something,
)
from pileus.services.identity.resources.project.operations.project import change, insert, listing, remove
from pileus.services.identity.resources.project.table import find_domain, set_tags, table, tags_of

_HEX_ID = re.compile(r"[0-9a-f]{32}")


class Domain(View):
    """A domain."""

    id: str
    name: str
    description: str
    enabled: bool
    tags: list[str]
    options: dict[str, Any]
    links: Links


class DomainCreate(OpenBody):
    """A new domain; its id may be chosen, 32 hexadecimal digits."""

    name: ShortName
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    tags: Tags | UnsetType = UNSET
    options: Flags | UnsetType = UNSET
    explicit_domain_id: str | UnsetType | None = UNSET


class DomainUpdate(OpenBody):
    """What is to be changed of a domain."""

    name: ShortName | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: Flags | UnsetType = UNSET


resource = Resource(
    "domain",
    "domains",
    rules=[
        Rule(
            "identity:get_domain",
            f"{ADMIN_OR_SYSTEM_READER} or domain_id:%(target.domain.id)s or project_domain_id:%(target.domain.id)s",
            "Show a domain",
        ),
        Rule(
            "identity:list_domains",
            f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.domain.id)s)",
            "List domains",
        ),
        Rule("identity:create_domain", CLOUD_ADMIN, "Create a domain"),
        Rule("identity:update_domain", CLOUD_ADMIN, "Update a domain"),
        Rule("identity:delete_domain", CLOUD_ADMIN, "Delete a domain"),
    ],
)

_listing = Listing(
    table,
    filters={name: one for name, one in listing.filters.items() if name not in ("domain_id", "parent_id", "is_domain")},
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """A domain. Raises NotFound."""
    row = find_domain(tx, key)
    if row is None:
        raise missing("domain", key)
    return row


def views(ctx: Context, rows: Sequence[sa.Row[Any]]) -> list[Domain]:
    """Rows as domains."""
    tags = tags_of(ctx.tx, [row.id for row in rows])
    return [
        extended(
            Domain(
                id=row.id,
                name=row.name,
                description=row.description,
                enabled=row.enabled,
                tags=tags[row.id],
                options=row.options,
                links=link(ctx, "domains", row.id),
            ),
            row.extra,
        )
        for row in rows
    ]


def _permitted(ctx: Context, key: str) -> sa.Row[Any]:
    """The domain of an id, once the operation's rule lets the caller. Raises NotFound first, and Forbidden."""
    row = get(ctx.tx, key)
    permit(ctx, ctx.operation, domain={"id": row.id})
    return row


@resource.get("/domains", policy="identity:list_domains", guarded=True)
def list_all(ctx: Context) -> Page:
    """List domains; with a domain's token, that one."""
    permit_list(ctx, ctx.operation, "target.domain.id")
    found = _listing.page(ctx, own_domain(ctx, sa.select(table).where(table.c.domain_id.is_(None)), table.c.id))
    return Page(views(ctx, found.rows), found.next_marker)


@resource.get("/domains/{domain_id}", policy="identity:get_domain", guarded=True, wraps="domain")
def show(ctx: Context, domain_id: str) -> Domain:
    """Show a domain."""
    row = find_domain(ctx.tx, domain_id)
    permit(ctx, ctx.operation, domain=None if row is None else {"id": row.id})
    return views(ctx, [get(ctx.tx, domain_id)])[0]


@resource.post("/domains", policy="identity:create_domain", accepts="domain", wraps="domain", status=201)
def create(ctx: Context, body: DomainCreate) -> Domain:
    """Create a domain."""
    wanted = given_or(body.explicit_domain_id, None)
    if wanted is not None and not _HEX_ID.fullmatch(wanted):
        raise BadRequest("Domain ID does not conform to required UUID format.")
    key = insert(
        ctx.tx,
        body.name.strip(),
        key=wanted,
        domain_id=None,
        description=given_or(body.description, ""),
        enabled=given_or(body.enabled, True),
        options=flags(body.options),
        extra=further(ctx),
    )
    set_tags(ctx.tx, key, given_or(body.tags, []))
    return views(ctx, [get(ctx.tx, key)])[0]


@resource.patch("/domains/{domain_id}", policy="identity:update_domain", guarded=True, accepts="domain", wraps="domain")
def update(ctx: Context, domain_id: str, body: DomainUpdate) -> Domain:
    """Change a domain. Disabling it makes all tokens of its users and for its projects void."""
    row = _permitted(ctx, domain_id)
    same_id(ctx, domain_id)
    wanted = given(body)
    something(wanted, ctx, "domain")
    mutable(row.options, "domain", domain_id, wanted | ctx.extra)
    change(ctx.tx, row, wanted, further(ctx))
    return views(ctx, [get(ctx.tx, domain_id)])[0]


@resource.delete("/domains/{domain_id}", policy="identity:delete_domain", guarded=True)
def delete(ctx: Context, domain_id: str) -> None:
    """Delete a disabled domain, with its users, groups, roles and projects."""
    remove(ctx.tx, _permitted(ctx, domain_id))

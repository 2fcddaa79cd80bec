"""Where a token leads: the catalog, and the scopes that it could be exchanged for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Page, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import Forbidden
from pileus.services.identity.resources import domain as domains
from pileus.services.identity.resources.assignment import table as assignments
from pileus.services.identity.resources.project import fields as project_fields
from pileus.services.identity.resources.project import table as projects
from pileus.services.identity.resources.project.operations import project as project_operations
from pileus.services.identity.resources.token.operations.registry import Tokens
from pileus.services.identity.resources.token.policy import REACH_RULES

resource = Resource("token", "tokens", rules=REACH_RULES)


@resource.get("/auth/catalog", policy="identity:get_auth_catalog")
def show_catalog(ctx: Context) -> Reply:
    """The catalog for the token's project. Raises Forbidden for other scopes."""
    if ctx.auth.project_id is None:
        raise Forbidden("A project-scoped token is required to produce a service catalog.")
    found = msgspec.Raw(ctx.of(Tokens).catalog(ctx.tx, ctx.auth))
    return Reply({"catalog": found, "links": _links(ctx, "catalog")})


def _links(ctx: Context, name: str) -> dict[str, str | None]:
    return {"next": None, "self": f"{ctx.url}/v3/auth/{name}", "previous": None}


@resource.get("/auth/projects", policy="identity:get_auth_projects", wraps="projects")
def list_projects(ctx: Context) -> Page:
    """The projects that the caller's token can be scoped to."""
    table = projects.table
    mine = assignments.targets(ctx.auth.user_id)
    query = sa.select(table).where(table.c.id.in_(mine), ~table.c.is_domain, table.c.enabled)
    found = project_operations.listing.page(ctx, query)
    return Page(project_fields.views(ctx, found.rows), found.next_marker)


@resource.get("/auth/domains", policy="identity:get_auth_domains", wraps="domains")
def list_domains(ctx: Context) -> Page:
    """The domains that the caller's token can be scoped to."""
    table = projects.table
    mine = assignments.targets(ctx.auth.user_id)
    rows = ctx.tx.all(sa.select(table).where(table.c.id.in_(mine), table.c.is_domain, table.c.enabled))
    return Page(domains.views(ctx, rows))


@resource.get("/auth/system", policy="identity:get_auth_system")
def show_system(ctx: Context) -> Mapping[str, Any]:
    """Whether the caller's token can be scoped to the system."""
    held = assignments.roles_of(ctx.tx, ctx.auth.user_id, "system", None)
    found = [{"all": True}] if held else []
    return {"system": found, "links": {"self": f"{ctx.url}/v3/auth/system"}}

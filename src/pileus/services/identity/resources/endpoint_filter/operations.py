"""Operations on endpoint groups and on projects' associations (…/api-ref/identity/v3-ext/#os-ep-filter-api)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.fields import given
from pileus.core.listing import Filter, Listing
from pileus.core.store import Tx
from pileus.services.identity.resources import endpoint as endpoints
from pileus.services.identity.resources import revision
from pileus.services.identity.resources.attribute import (
    Links,
    compared,
    found,
    given_or,
    page,
    same_id,
    something,
)
from pileus.services.identity.resources.endpoint_filter.fields import (
    EndpointGroup,
    EndpointGroupCreate,
    EndpointGroupUpdate,
    Filters,
    ProjectEndpointGroup,
    view,
)
from pileus.services.identity.resources.endpoint_filter.policy import ENDPOINT_RULES, GROUP_RULES
from pileus.services.identity.resources.endpoint_filter.table import (
    associated,
    described,
    matching,
    project_endpoint,
    project_group,
    projects_of,
    table,
)
from pileus.services.identity.resources.project import fields as project_fields
from pileus.services.identity.resources.project.operations import project as projects

resource = Resource("endpoint_group", "endpoint_groups", rules=GROUP_RULES)
endpoint_resource = Resource("endpoint", "endpoints", rules=ENDPOINT_RULES)

_listing = Listing(
    table,
    filters={"name": Filter(table.c.name), **compared(name=table.c.name)},
    sort={"id": table.c.id, "name": table.c.name},
    maximum=None,
)

_GROUPS = "/OS-EP-FILTER/endpoint_groups"
_GROUP = f"{_GROUPS}/{{endpoint_group_id}}"
_OF_PROJECT = "/OS-EP-FILTER/projects/{project_id}"
_GROUP_OF_PROJECT = f"{_GROUP}/projects/{{project_id}}"
_ENDPOINT_OF_PROJECT = f"{_OF_PROJECT}/endpoints/{{endpoint_id}}"


def get(tx: Tx, key: str) -> sa.Row[Any]:
    """An endpoint group. Raises NotFound."""
    return found(tx, table, "endpoint group", key)


def _filters(filters: Filters) -> dict[str, Any]:
    """The filters to keep. Raises BadRequest when there is none."""
    kept: dict[str, Any] = msgspec.to_builtins(filters)
    if not kept:
        raise BadRequest("filters field is required and cannot be empty")
    return kept


@resource.get(_GROUPS, policy="identity:list_endpoint_groups")
def list_all(ctx: Context) -> Page:
    """List endpoint groups."""
    return page(ctx, _listing, sa.select(table), view)


@resource.get(_GROUP, policy="identity:get_endpoint_group", wraps="endpoint_group")
def show(ctx: Context, endpoint_group_id: str) -> EndpointGroup:
    """Show an endpoint group."""
    return view(ctx, get(ctx.tx, endpoint_group_id))


@resource.post(
    _GROUPS, policy="identity:create_endpoint_group", accepts="endpoint_group", wraps="endpoint_group", status=201
)
def create(ctx: Context, body: EndpointGroupCreate) -> EndpointGroup:
    """Create an endpoint group."""
    key = ctx.seams.hex()
    row = {"name": body.name, "description": given_or(body.description, None), "filters": _filters(body.filters)}
    ctx.tx.insert(table, {"id": key, **row})
    ctx.tx.changed("identity.endpoint_group", key)
    return view(ctx, get(ctx.tx, key))


@resource.patch(_GROUP, policy="identity:update_endpoint_group", accepts="endpoint_group", wraps="endpoint_group")
def update(ctx: Context, endpoint_group_id: str, body: EndpointGroupUpdate) -> EndpointGroup:
    """Change an endpoint group; the catalogs of its projects change with it."""
    get(ctx.tx, endpoint_group_id)
    same_id(ctx, endpoint_group_id)
    changes = given(body)
    something(changes, ctx, "endpoint group")
    if body.filters is not UNSET:
        changes["filters"] = _filters(body.filters)
    ctx.tx.execute(sa.update(table).where(table.c.id == endpoint_group_id).values(**changes))
    ctx.tx.changed("identity.endpoint_group", endpoint_group_id)
    revision.grow(ctx.tx)
    return view(ctx, get(ctx.tx, endpoint_group_id))


@resource.delete(_GROUP, policy="identity:delete_endpoint_group")
def delete(ctx: Context, endpoint_group_id: str) -> None:
    """Delete an endpoint group; projects are no longer associated with it."""
    get(ctx.tx, endpoint_group_id)
    ctx.tx.execute(sa.delete(table).where(table.c.id == endpoint_group_id))
    ctx.tx.changed("identity.endpoint_group", endpoint_group_id)
    revision.grow(ctx.tx)


@resource.get(f"{_GROUP}/endpoints", policy="identity:list_endpoints_associated_with_endpoint_group", wraps="endpoints")
def list_endpoints(ctx: Context, endpoint_group_id: str) -> Page:
    """List the endpoints that an endpoint group describes."""
    group = get(ctx.tx, endpoint_group_id)
    return page(ctx, endpoints.listing, sa.select(endpoints.table).where(matching(group.filters)), endpoints.view)


@resource.get(f"{_GROUP}/projects", policy="identity:list_projects_associated_with_endpoint_group", wraps="projects")
def list_projects(ctx: Context, endpoint_group_id: str) -> Page:
    """List the projects that are associated with an endpoint group."""
    get(ctx.tx, endpoint_group_id)
    rows = projects_of(ctx.tx, project_group, "endpoint_group_id", endpoint_group_id)
    return Page(project_fields.views(ctx, rows))


@resource.get(f"{_OF_PROJECT}/endpoint_groups", policy="identity:list_endpoint_groups_for_project")
def list_of_project(ctx: Context, project_id: str) -> Page:
    """List the endpoint groups with which a project is associated."""
    projects.get(ctx.tx, project_id)
    mine = sa.select(project_group.c.endpoint_group_id).where(project_group.c.project_id == project_id)
    return page(ctx, _listing, sa.select(table).where(table.c.id.in_(mine)), view)


def _check_group(ctx: Context, endpoint_group_id: str, project_id: str) -> None:
    projects.get(ctx.tx, project_id)
    get(ctx.tx, endpoint_group_id)


@resource.get(_GROUP_OF_PROJECT, policy="identity:get_endpoint_group_in_project", wraps="project_endpoint_group")
def show_group_of_project(ctx: Context, endpoint_group_id: str, project_id: str) -> ProjectEndpointGroup:
    """Show that a project is associated with an endpoint group."""
    _check_group(ctx, endpoint_group_id, project_id)
    if not associated(ctx.tx, project_group, project_id, "endpoint_group_id", endpoint_group_id):
        raise _not_associated("Endpoint group", endpoint_group_id, project_id)
    where = f"{ctx.url}/v3{_GROUPS}/{endpoint_group_id}/projects/{project_id}"
    return ProjectEndpointGroup(endpoint_group_id=endpoint_group_id, project_id=project_id, links=Links(self=where))


@resource.put(_GROUP_OF_PROJECT, policy="identity:add_endpoint_group_to_project", status=204)
def add_group(ctx: Context, endpoint_group_id: str, project_id: str) -> None:
    """Associate a project with an endpoint group. Raises Conflict when it is already."""
    _check_group(ctx, endpoint_group_id, project_id)
    _associate(ctx.tx, project_group, {"project_id": project_id, "endpoint_group_id": endpoint_group_id})


@resource.delete(_GROUP_OF_PROJECT, policy="identity:remove_endpoint_group_from_project")
def remove_group(ctx: Context, endpoint_group_id: str, project_id: str) -> None:
    """End a project's association with an endpoint group."""
    _check_group(ctx, endpoint_group_id, project_id)
    if not _part(ctx.tx, project_group, {"project_id": project_id, "endpoint_group_id": endpoint_group_id}):
        raise _not_associated("Endpoint group", endpoint_group_id, project_id)


@endpoint_resource.get(
    "/OS-EP-FILTER/endpoints/{endpoint_id}/projects", policy="identity:list_projects_for_endpoint", wraps="projects"
)
def list_projects_of_endpoint(ctx: Context, endpoint_id: str) -> Page:
    """List the projects that are associated with an endpoint itself."""
    endpoints.get(ctx.tx, endpoint_id)
    return Page(project_fields.views(ctx, projects_of(ctx.tx, project_endpoint, "endpoint_id", endpoint_id)))


@endpoint_resource.get(f"{_OF_PROJECT}/endpoints", policy="identity:list_endpoints_for_project")
def list_endpoints_of_project(ctx: Context, project_id: str) -> Page:
    """List the endpoints with which a project is associated, itself or by a group."""
    projects.get(ctx.tx, project_id)
    condition = described(ctx.tx, project_id)
    query = sa.select(endpoints.table).where(sa.false() if condition is None else condition)
    return page(ctx, endpoints.listing, query, endpoints.view)


@endpoint_resource.get(_ENDPOINT_OF_PROJECT, policy="identity:check_endpoint_in_project", status=204)
def check_endpoint(ctx: Context, project_id: str, endpoint_id: str) -> None:
    """Check whether a project is associated with an endpoint itself."""
    endpoints.get(ctx.tx, endpoint_id)
    projects.get(ctx.tx, project_id)
    if not associated(ctx.tx, project_endpoint, project_id, "endpoint_id", endpoint_id):
        raise _not_associated("Endpoint", endpoint_id, project_id)


@endpoint_resource.put(_ENDPOINT_OF_PROJECT, policy="identity:add_endpoint_to_project", status=204)
def add_endpoint(ctx: Context, project_id: str, endpoint_id: str) -> None:
    """Associate a project with an endpoint. Raises Conflict when it is already."""
    endpoints.get(ctx.tx, endpoint_id)
    projects.get(ctx.tx, project_id)
    _associate(ctx.tx, project_endpoint, {"project_id": project_id, "endpoint_id": endpoint_id})


@endpoint_resource.delete(_ENDPOINT_OF_PROJECT, policy="identity:remove_endpoint_from_project")
def remove_endpoint(ctx: Context, project_id: str, endpoint_id: str) -> None:
    """End a project's association with an endpoint."""
    if not _part(ctx.tx, project_endpoint, {"project_id": project_id, "endpoint_id": endpoint_id}):
        raise _not_associated("Endpoint", endpoint_id, project_id)


def _not_associated(noun: str, key: str, project_id: str) -> NotFound:
    return NotFound(f"{noun} {key} not found in project {project_id}.")


def _associate(tx: Tx, association: sa.Table, row: Mapping[str, str]) -> None:
    if not tx.insert_missing(association, dict(row), key=tuple(row)):
        raise Conflict("Conflict occurred attempting to store project_endpoint - Duplicate entry.")
    _changed(tx, row)


def _part(tx: Tx, association: sa.Table, row: Mapping[str, str]) -> bool:
    """Delete an association; whether there was one."""
    mine = [association.c[name] == value for name, value in row.items()]
    gone = tx.execute(sa.delete(association).where(*mine)).rowcount == 1
    if gone:
        _changed(tx, row)
    return gone


def _changed(tx: Tx, row: Mapping[str, str]) -> None:
    tx.changed("identity.project", row["project_id"])
    revision.grow(tx)  # the project's catalog is another

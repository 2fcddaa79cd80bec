"""Operations on flavors."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.fields import UNSET
from pileus.core.listing import Filter, Listing, boolean
from pileus.services.compute.resources import project
from pileus.services.compute.resources.flavor.fields import (
    LIST_PARAMETERS,
    Access,
    ExtraSpecs,
    Flavor,
    FlavorCreate,
    FlavorUpdate,
    SpecValue,
    brief,
    view,
)
from pileus.services.compute.resources.flavor.policy import RULES
from pileus.services.compute.resources.flavor.table import access, extra_spec, extra_specs, flavor
from pileus.services.compute.rules import extra_spec as extra_spec_rules
from pileus.services.compute.rules.shape import MetaKey, is_true
from pileus.services.compute.versions import EXTRA_SPECS_CHECKED, FLAVOR_NAME_FILTER, PUBLIC_FLAVOR_REFUSES

resource = Resource("flavor", "flavors", rules=RULES)

listing = Listing(
    flavor,
    filters={"name": Filter(flavor.c.name, window=FLAVOR_NAME_FILTER)},
    sort={
        "flavorid": flavor.c.id,
        "id": flavor.c.id,
        "name": flavor.c.name,
        "memory_mb": flavor.c.ram,
        "vcpus": flavor.c.vcpus,
        "root_gb": flavor.c.disk,
        "ephemeral_gb": flavor.c.ephemeral,
        "swap": flavor.c.swap,
        "rxtx_factor": flavor.c.rxtx_factor,
        "is_public": flavor.c.is_public,
        "description": flavor.c.description,
        "created_at": flavor.c.created_at,
        "updated_at": flavor.c.updated_at,
    },
    order=("id",),
)


def _usable(project_id: str | None) -> sa.ColumnElement[bool]:
    granted = sa.select(access.c.flavor_id).where(access.c.project_id == project_id)
    return sa.or_(flavor.c.is_public, flavor.c.id.in_(granted))


def find(ctx: Context, flavor_id: str) -> sa.Row[Any]:
    """A flavor that the caller may use. Raises NotFound."""
    query = sa.select(flavor).where(flavor.c.id == flavor_id)
    row = ctx.tx.first(query if ctx.auth.is_admin else query.where(_usable(ctx.auth.project_id)))
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return row


def _number(ctx: Context, name: str) -> int | None:
    text = ctx.query.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise BadRequest(f"Invalid {name} filter [{text}]") from None


def _select(ctx: Context) -> sa.Select[Any]:
    query = sa.select(flavor)
    wanted = ctx.query.get("is_public")
    if not ctx.auth.is_admin or wanted is None or (wanted.lower() != "none" and boolean(wanted)):
        query = query.where(_usable(ctx.auth.project_id))
    elif wanted.lower() != "none":
        query = query.where(flavor.c.is_public.is_(False))
    if (ram := _number(ctx, "minRam")) is not None:
        query = query.where(flavor.c.ram >= ram)
    if (disk := _number(ctx, "minDisk")) is not None:
        query = query.where(flavor.c.disk >= disk)
    return query


@resource.get("/flavors", query=LIST_PARAMETERS)
def list_names(ctx: Context) -> Page:
    """Flavors in brief."""
    found = listing.page(ctx, _select(ctx))
    return Page([brief(ctx, row) for row in found.rows], found.next_marker)


@resource.get("/flavors/detail", query=LIST_PARAMETERS)
def list_details(ctx: Context) -> Page:
    """Flavors in full."""
    found = listing.page(ctx, _select(ctx))
    specs = extra_specs(ctx.tx, [row.id for row in found.rows])
    return Page([view(ctx, row, specs[row.id]) for row in found.rows], found.next_marker)


@resource.get("/flavors/{flavor_id}", wraps="flavor")
def show(ctx: Context, flavor_id: str) -> Flavor:
    """One flavor."""
    row = find(ctx, flavor_id)
    return view(ctx, row, extra_specs(ctx.tx, [row.id])[row.id])


@resource.post("/flavors", policy="os_compute_api:os-flavor-manage:create", accepts="flavor", wraps="flavor")
def create(ctx: Context, body: FlavorCreate) -> Flavor:
    """Make a flavor. Raises Conflict when its name or id is taken."""
    flavor_id = ctx.seams.uuid() if body.id is None else str(body.id)
    taken = ctx.tx.first(sa.select(flavor).where(sa.or_(flavor.c.id == flavor_id, flavor.c.name == body.name)))
    if taken is not None:
        what = f"name {body.name}" if taken.name == body.name else f"ID {flavor_id}"
        raise Conflict(f"Flavor with {what} already exists.")
    values = {
        "id": flavor_id,
        "name": body.name,
        "ram": body.ram,
        "vcpus": body.vcpus,
        "disk": body.disk,
        "ephemeral": body.ephemeral,
        "swap": body.swap,
        "rxtx_factor": 1.0 if body.rxtx_factor is UNSET else body.rxtx_factor,
        "is_public": is_true(body.is_public),
        "description": body.description,
        "created_at": ctx.now,
    }
    ctx.tx.insert(flavor, values)
    ctx.tx.changed("compute.flavor", flavor_id)
    return view(ctx, find(ctx, flavor_id), {})


@resource.put(
    "/flavors/{flavor_id}",
    policy="os_compute_api:os-flavor-manage:update",
    since="2.55",
    accepts="flavor",
    wraps="flavor",
)
def update(ctx: Context, flavor_id: str, body: FlavorUpdate) -> Flavor:
    """Change a flavor's description."""
    find(ctx, flavor_id)
    values = {"description": body.description, "updated_at": ctx.now}
    ctx.tx.execute(sa.update(flavor).where(flavor.c.id == flavor_id).values(values))
    ctx.tx.changed("compute.flavor", flavor_id)
    return show(ctx, flavor_id)


@resource.delete("/flavors/{flavor_id}", policy="os_compute_api:os-flavor-manage:delete", status=202)
def delete(ctx: Context, flavor_id: str) -> None:
    """Delete a flavor; servers keep their copies of it."""
    find(ctx, flavor_id)
    for table in (extra_spec, access):
        ctx.tx.execute(sa.delete(table).where(table.c.flavor_id == flavor_id))
    ctx.tx.execute(sa.delete(flavor).where(flavor.c.id == flavor_id))
    ctx.tx.changed("compute.flavor", flavor_id)


@resource.get(
    "/flavors/{flavor_id}/os-extra_specs", policy="os_compute_api:os-flavor-extra-specs:index", wraps="extra_specs"
)
def list_specs(ctx: Context, flavor_id: str) -> dict[str, str]:
    """A flavor's extra specs."""
    return extra_specs(ctx.tx, [find(ctx, flavor_id).id])[flavor_id]


@resource.post("/flavors/{flavor_id}/os-extra_specs", policy="os_compute_api:os-flavor-extra-specs:create")
def create_specs(ctx: Context, flavor_id: str, body: ExtraSpecs) -> ExtraSpecs:
    """Set extra specs; others stay. Raises BadRequest for what a known one cannot hold."""
    _set_specs(ctx, flavor_id, body.extra_specs)
    return body


@resource.get("/flavors/{flavor_id}/os-extra_specs/{key}", policy="os_compute_api:os-flavor-extra-specs:show")
def show_spec(ctx: Context, flavor_id: str, key: str) -> dict[str, str]:
    """One extra spec."""
    found = extra_specs(ctx.tx, [find(ctx, flavor_id).id])[flavor_id]
    if key not in found:
        raise NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
    return {key: found[key]}


@resource.put("/flavors/{flavor_id}/os-extra_specs/{key}", policy="os_compute_api:os-flavor-extra-specs:update")
def update_spec(ctx: Context, flavor_id: str, key: str, body: dict[MetaKey, SpecValue]) -> dict[str, SpecValue]:
    """Set one extra spec. Raises BadRequest when body and path name different ones."""
    if list(body) != [key]:
        raise BadRequest("Request body and URI mismatch")
    _set_specs(ctx, flavor_id, body)
    return body


@resource.delete(
    "/flavors/{flavor_id}/os-extra_specs/{key}", policy="os_compute_api:os-flavor-extra-specs:delete", status=200
)
def delete_spec(ctx: Context, flavor_id: str, key: str) -> None:
    """Delete one extra spec."""
    find(ctx, flavor_id)
    where = (extra_spec.c.flavor_id == flavor_id, extra_spec.c.key == key)
    if ctx.tx.execute(sa.delete(extra_spec).where(*where)).rowcount == 0:
        raise NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
    ctx.tx.changed("compute.flavor", flavor_id)


def _set_specs(ctx: Context, flavor_id: str, specs: dict[str, SpecValue]) -> None:
    for key, value in specs.items():
        if len(str(value)) > 255:
            raise BadRequest("extra_specs value has more than 255 characters.")
        if EXTRA_SPECS_CHECKED.covers(ctx.version):
            extra_spec_rules.check(key, str(value))
    find(ctx, flavor_id)
    for key, value in specs.items():
        values = {"flavor_id": flavor_id, "key": key, "value": str(value)}
        ctx.tx.upsert(extra_spec, values, key=("flavor_id", "key"))
    ctx.tx.changed("compute.flavor", flavor_id)


@resource.get("/flavors/{flavor_id}/os-flavor-access", policy="os_compute_api:os-flavor-access", wraps="flavor_access")
def list_access(ctx: Context, flavor_id: str) -> list[dict[str, str]]:
    """The projects that may use a private flavor."""
    if find(ctx, flavor_id).is_public:
        raise NotFound("Access list not available for public flavors.")
    return _granted(ctx, flavor_id)


@resource.action(
    "/flavors/{flavor_id}/action",
    "addTenantAccess",
    policy="os_compute_api:os-flavor-access:add_tenant_access",
    status=200,
    wraps="flavor_access",
)
def add_access(ctx: Context, flavor_id: str, body: Access) -> list[dict[str, str]]:
    """Let a project use a flavor. Raises BadRequest when there is no such project, Conflict when it may already."""
    project.check(ctx, body.tenant)
    if find(ctx, flavor_id).is_public and PUBLIC_FLAVOR_REFUSES.covers(ctx.version):
        raise Conflict("Can not add access to a public flavor.")
    values = {"flavor_id": flavor_id, "project_id": body.tenant}
    if not ctx.tx.insert_missing(access, values, key=("flavor_id", "project_id")):
        raise Conflict(f"Flavor access already exists for flavor {flavor_id} and project {body.tenant} combination.")
    ctx.tx.changed("compute.flavor", flavor_id)
    return _granted(ctx, flavor_id)


@resource.action(
    "/flavors/{flavor_id}/action",
    "removeTenantAccess",
    policy="os_compute_api:os-flavor-access:remove_tenant_access",
    status=200,
    wraps="flavor_access",
)
def remove_access(ctx: Context, flavor_id: str, body: Access) -> list[dict[str, str]]:
    """Let a project use a flavor no more. Raises NotFound when it may not anyway."""
    find(ctx, flavor_id)
    where = (access.c.flavor_id == flavor_id, access.c.project_id == body.tenant)
    if ctx.tx.execute(sa.delete(access).where(*where)).rowcount == 0:
        raise NotFound(f"Flavor access not found for {flavor_id} / {body.tenant} combination.")
    ctx.tx.changed("compute.flavor", flavor_id)
    return _granted(ctx, flavor_id)


def _granted(ctx: Context, flavor_id: str) -> list[dict[str, str]]:
    query = sa.select(access.c.project_id).where(access.c.flavor_id == flavor_id).order_by(access.c.project_id)
    return [{"flavor_id": flavor_id, "tenant_id": row.project_id} for row in ctx.tx.all(query)]

"""Resource classes: what there may be amounts of.

Source: https://docs.openstack.org/api-ref/placement/#resource-classes.  The standard names are those of
`os_resource_classes`; only custom ones have rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import os_resource_classes
import sqlalchemy as sa

from pileus.core.api import Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.fields import Body, View, accept
from pileus.core.store import Instant, Tx, metadata
from pileus.services.placement import versions
from pileus.services.placement.resources.policy import rules

custom_class = sa.Table(
    "placement_custom_class",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
)

STANDARD: tuple[str, ...] = tuple(os_resource_classes.STANDARDS)

_PLACES = {name: place for place, name in enumerate(STANDARD)}


def order(name: str) -> tuple[int, str]:
    """What classes are sorted by: the standard ones first, in their own order."""
    return _PLACES.get(name, len(STANDARD)), name


def unknown(tx: Tx, names: Iterable[str]) -> set[str]:
    """Those of the names that no class has."""
    left = set(names).difference(STANDARD)
    if not left:
        return set()
    return left - set(tx.execute(sa.select(custom_class.c.name).where(custom_class.c.name.in_(left))).scalars())


resource = Resource(
    "resource_class",
    "resource_classes",
    rules=rules(
        resource_classes__list="List resource classes",
        resource_classes__create="Create a resource class",
        resource_classes__show="Show a resource class",
        resource_classes__update="Create or rename a resource class",
        resource_classes__delete="Delete a resource class",
    ),
)


class ClassBody(Body):
    """A custom class."""

    name: Annotated[str, msgspec.Meta(pattern="^CUSTOM_[A-Z0-9_]+$", max_length=255)]


class ClassView(View):
    """A class."""

    name: str
    links: list[dict[str, str]]


class ClassesView(View):
    """Classes."""

    resource_classes: list[ClassView]


def _url(ctx: Context, name: str) -> str:
    return f"{ctx.url}/resource_classes/{name}"


def _view(ctx: Context, name: str) -> ClassView:
    return ClassView(name=name, links=[{"rel": "self", "href": urlsplit(_url(ctx, name)).path}])


def _insert(ctx: Context, name: str) -> bool:
    return ctx.tx.insert_missing(custom_class, {"name": name, "created_at": ctx.now}, key=("name",))


@resource.get("/resource_classes", policy="placement:resource_classes:list", since="1.2")
def index(ctx: Context) -> Reply:
    """All classes, the standard ones first."""
    custom = ctx.tx.execute(sa.select(custom_class.c.name).order_by(custom_class.c.created_at)).scalars()
    body = ClassesView(resource_classes=[_view(ctx, name) for name in (*STANDARD, *custom)])
    return Reply(body, versions.freshness(ctx.version, ctx.now))


@resource.post("/resource_classes", policy="placement:resource_classes:create", since="1.2", status=201)
def create(ctx: Context, body: ClassBody) -> Reply:
    """Make a custom class. Raises BadRequest and Conflict."""
    if not _insert(ctx, body.name):
        raise Conflict(f"Conflicting resource class already exists: {body.name}")
    return Reply(None, {"Location": _url(ctx, body.name)})


@resource.get("/resource_classes/{name}", policy="placement:resource_classes:show", since="1.2")
def show(ctx: Context, name: str) -> Reply:
    """One class. Raises NotFound."""
    if unknown(ctx.tx, [name]):
        raise NotFound(f"No such resource class {name}.")
    return Reply(_view(ctx, name), versions.freshness(ctx.version, ctx.now))


@resource.put("/resource_classes/{name}", policy="placement:resource_classes:update", since="1.2", until="1.6")
def rename(ctx: Context, name: str, body: ClassBody) -> ClassView:
    """Give a custom class another name. Raises BadRequest, NotFound and Conflict (taken, or in use)."""
    if name in STANDARD:
        raise BadRequest(f"Cannot update standard resource class {name}")
    if unknown(ctx.tx, [name]):
        raise NotFound(f"No such resource class {name}.")
    if name != body.name:
        if not unknown(ctx.tx, [body.name]):
            raise Conflict(f"Resource class already exists: {body.name}")
        ctx.tx.execute(sa.update(custom_class).where(custom_class.c.name == name).values(name=body.name))
    return _view(ctx, body.name)


@resource.put(
    "/resource_classes/{name}", policy="placement:resource_classes:update", since="1.7", status=201, successes=(204,)
)
def ensure(ctx: Context, name: str) -> Reply:
    """Let there be a custom class: 201 when it is new, 204 when it was there. Raises BadRequest."""
    accept({"name": name}, ClassBody)
    headers = {"Location": _url(ctx, name)}
    if _insert(ctx, name):
        return Reply(None, headers, 201)
    return Reply(None, headers | versions.freshness(ctx.version, ctx.now), 204)


@resource.delete("/resource_classes/{name}", policy="placement:resource_classes:delete", since="1.2")
def delete(ctx: Context, name: str) -> None:
    """Forget a custom class. Raises BadRequest (a standard one), NotFound and Conflict (in use)."""
    if name in STANDARD:
        raise BadRequest(f"Error in delete resource class: Cannot delete standard resource class {name}.")
    if unknown(ctx.tx, [name]):
        raise NotFound(f"No such resource class {name}.")
    used = sa.table("placement_inventory", sa.column("custom_class"))
    if ctx.tx.first(sa.select(used.c.custom_class).where(used.c.custom_class == name).limit(1)) is not None:
        raise Conflict("Error in delete resource class: Class is in use in inventory.")
    ctx.tx.execute(sa.delete(custom_class).where(custom_class.c.name == name))

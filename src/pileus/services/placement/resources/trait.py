"""Traits: what a provider is or can do.

Source: https://docs.openstack.org/api-ref/placement/#traits.  The standard names are those of `os_traits`; only custom
ones have rows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

import os_traits
import sqlalchemy as sa

from pileus.core.api import Parameters, Reply, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, NotFound
from pileus.core.fields import View
from pileus.core.store import Instant, Tx, metadata
from pileus.services.placement import versions
from pileus.services.placement.resources.policy import rules

custom_trait = sa.Table(
    "placement_custom_trait",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
)

_CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")


@functools.cache
def standard() -> frozenset[str]:
    """The names that everybody agrees on."""
    return frozenset(os_traits.get_traits())


def is_custom(name: str) -> bool:
    """Whether a name may be that of a custom trait."""
    return _CUSTOM.fullmatch(name) is not None


def unknown(tx: Tx, names: Iterable[str]) -> set[str]:
    """Those of the names that no trait has."""
    left = set(names) - standard()
    if not left:
        return set()
    return left - set(tx.execute(sa.select(custom_trait.c.name).where(custom_trait.c.name.in_(left))).scalars())


resource = Resource(
    "trait",
    "traits",
    rules=rules(
        traits__list="List traits",
        traits__show="Show a trait",
        traits__update="Create a trait",
        traits__delete="Delete a trait",
    ),
)


class Traits(View):
    """Names of traits."""

    traits: list[str]


_used = sa.table("placement_provider_trait", sa.column("trait"))


@resource.get("/traits", policy="placement:traits:list", since="1.6", query=Parameters("name", "associated"))
def index(ctx: Context) -> Reply:
    """Names of traits: all, those named, those that begin alike, those that some provider has. Raises BadRequest."""
    names = set(standard()) | set(ctx.tx.execute(sa.select(custom_trait.c.name)).scalars())
    if (text := ctx.query.get("name")) is not None:
        operator, colon, value = text.partition(":")
        if not colon:
            raise BadRequest(
                "Badly formatted name parameter. Expected name query string parameter in form: "
                f'?name=[in|startswith]:[name1,name2|prefix]. Got: "{text}"'
            )
        if operator == "in":
            names &= set(value.split(","))
        elif operator == "startswith":
            names = {name for name in names if name.startswith(value)}
    if (text := ctx.query.get("associated")) is not None:
        if text.lower() not in ("true", "false"):
            raise BadRequest('The query parameter "associated" only accepts "true" or "false"')
        held = set(ctx.tx.execute(sa.select(_used.c.trait).distinct()).scalars())
        names = names & held if text.lower() == "true" else names - held
    return Reply(Traits(traits=sorted(names)), versions.freshness(ctx.version, ctx.now))


@resource.get("/traits/{name}", policy="placement:traits:show", since="1.6", status=204)
def show(ctx: Context, name: str) -> Reply:
    """Whether there is a trait. Raises NotFound."""
    if unknown(ctx.tx, [name]):
        raise NotFound(f"No such trait(s): {name}.")
    return Reply(None, versions.freshness(ctx.version, ctx.now))


@resource.put("/traits/{name}", policy="placement:traits:update", since="1.6", status=201, successes=(204,))
def ensure(ctx: Context, name: str) -> Reply:
    """Let there be a custom trait: 201 when it is new, 204 when it was there. Raises BadRequest."""
    if not is_custom(name):
        raise BadRequest(
            "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix "
            '"CUSTOM_" and use following characters: "A"-"Z", "0"-"9" and "_"'
        )
    fresh = ctx.tx.insert_missing(custom_trait, {"name": name, "created_at": ctx.now}, key=("name",))
    headers = {"Location": f"{ctx.url}/traits/{name}"}
    return Reply(None, headers | versions.freshness(ctx.version, ctx.now), 201 if fresh else 204)


@resource.delete("/traits/{name}", policy="placement:traits:delete", since="1.6")
def delete(ctx: Context, name: str) -> None:
    """Forget a custom trait. Raises BadRequest (a standard one), NotFound and Conflict (some provider has it)."""
    if name in standard():
        raise BadRequest(f"Cannot delete standard trait {name}.")
    if unknown(ctx.tx, [name]):
        raise NotFound(f"No such trait(s): {name}.")
    if ctx.tx.first(sa.select(_used.c.trait).where(_used.c.trait == name).limit(1)) is not None:
        raise Conflict(f"The trait {name} is in use by a resource provider.")
    ctx.tx.execute(sa.delete(custom_trait).where(custom_trait.c.name == name))

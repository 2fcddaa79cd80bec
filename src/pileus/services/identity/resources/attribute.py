"""What the nouns of Identity share: names, options, links, further attributes, filters, and who may.

Identity keeps attributes that it does not know and gives them back beside its own.

Source: "Filtering" and "Resource Options" of https://docs.openstack.org/api-ref/identity/v3/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, cast

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page
from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Fault, Forbidden, NotFound
from pileus.core.fields import Body, View
from pileus.core.listing import Filter, Listing, few
from pileus.core.policy import Rule
from pileus.core.statement import at
from pileus.core.store import Tx
from pileus.services.identity.rules import name as names

V = TypeVar("V")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\S")]
"""A name of at most 255 characters, not all of them spaces."""

ShortName = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\S")]
"""The name of a project or domain."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9-]+$")]

Url = Annotated[str, msgspec.Meta(max_length=225)]

Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^,/]*$")]

Tags = Annotated[list[Tag], msgspec.Meta(max_length=80)]


class Flags(Body):
    """Options of projects, domains and roles."""

    immutable: bool | UnsetType | None = UNSET


class Links(View):
    """Where a thing is found."""

    self: str


ADMIN = "rule:admin_required"
ADMIN_OR_SYSTEM_READER = "rule:admin_required or (role:reader and system_scope:all)"
CLOUD_ADMIN = "rule:cloud_admin"
CLOUD_ADMIN_OR_SYSTEM_READER = "rule:cloud_admin or (role:reader and system_scope:all)"

RULES = (
    Rule("admin_required", "role:admin", "An administrator, whatever the scope of the token"),
    Rule(
        "cloud_admin",
        "rule:admin_required and domain_id:None",
        "An administrator whose token is not for a domain: for what concerns the whole cloud",
    ),
    Rule("service_role", "role:service", "Another service of this cloud"),
    Rule("owner", "user_id:%(user_id)s", "The user whom the path names"),
    Rule("admin_or_owner", "rule:admin_required or rule:owner"),
    Rule("token_subject", "user_id:%(target.token.user_id)s", "The user of the token that is asked about"),
    Rule(
        "domain_managed_target_role",
        "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s",
        "Roles that managers of a domain may give",
    ),
)
"""Rules that those of the nouns are made of."""


def link(ctx: Request, collection: str, key: str) -> Links:
    """The link of a thing to itself."""
    return Links(self=f"{ctx.url}/v3/{collection}/{key}")


def extended(view: V, extra: Mapping[str, Any]) -> V:
    """A view together with attributes that are no fields of it."""
    if not extra:
        return view
    return cast(V, {**extra, **msgspec.to_builtins(view)})


def further(ctx: Request, *drop: str) -> dict[str, Any]:
    """The attributes of the request's body that are no fields, but for those that Identity makes itself."""
    return {name: value for name, value in ctx.extra.items() if name not in ("id", "links", *drop)}


def found(tx: Tx, table: sa.Table, noun: str, key: str) -> sa.Row[Any]:
    """The row of a noun's table that has an id. Raises NotFound."""
    row = tx.first(at(table, "id"), {"value": key})
    if row is None:
        raise missing(noun, key)
    return row


def page(ctx: Context, listing: Listing, query: sa.Select[Any], view: Callable[[Context, sa.Row[Any]], Any]) -> Page:
    """The page of a list that a request asks for, each row as a view."""
    rows = listing.page(ctx, query)
    return Page([view(ctx, row) for row in rows.rows], rows.next_marker)


def save(ctx: Context, table: sa.Table, noun: str, row: sa.Row[Any], changes: Mapping[str, Any]) -> None:
    """Write changes of a row, together with the attributes of the request's body that are no fields."""
    values = {**changes, "extra": {**row.extra, **further(ctx)}}
    ctx.tx.execute(sa.update(table).where(table.c.id == row.id).values(**values))
    ctx.tx.changed(f"identity.{noun}", row.id)


PART = 10_000
"""How many keys one statement may name: SQLite takes 32,766 parameters, PostgreSQL 65,535."""


def among(tx: Tx, query: sa.Select[Any], column: sa.ColumnElement[Any], keys: Iterable[str]) -> list[sa.Row[Any]]:
    """The rows of a query whose column is one of the keys, however many these are."""
    wanted = list(keys)
    parts = [wanted[start : start + PART] for start in range(0, len(wanted), PART)]
    return [row for part in parts for row in tx.all(query.where(column.in_(part)))]


def same_id(ctx: Request, key: str) -> None:
    """Raise BadRequest when the body of an update names another id than the path."""
    if ctx.extra.get("id") not in (None, key):
        raise BadRequest("Cannot change ID")


def something(changes: Mapping[str, Any], ctx: Request, noun: str) -> None:
    """Raise BadRequest for an update that changes nothing."""
    if not changes and not ctx.extra:
        raise BadRequest(f"Nothing of the {noun} is to be changed.")


def given_or(value: Any, default: Any) -> Any:
    """A field of a body, or what stands for it when it was left out or null."""
    return default if value is UNSET or value is None else value


def permit(ctx: Request, rule: str, **targets: sa.Row[Any] | Mapping[str, Any] | None) -> None:
    """Raise Forbidden unless a rule lets the caller act on the named things, e.g. `user=row`.

    Of a thing that is not there nothing is known, so only those pass who may act on all of its kind.
    """
    target: dict[str, Any] = {}
    for noun, thing in targets.items():
        if thing is not None:
            fields = thing if isinstance(thing, Mapping) else thing._mapping
            target |= {f"target.{noun}.{name}": value for name, value in fields.items()}
    _enforce(ctx, rule, target)


def permit_target(ctx: Request, rule: str, target: Mapping[str, Any]) -> None:
    """Raise Forbidden unless a rule lets the caller act where the target's attributes are, e.g. `{"domain_id": …}`."""
    _enforce(ctx, rule, {f"target.{name}": value for name, value in target.items()})


def permit_list(ctx: Request, rule: str, key: str = "target.domain_id") -> None:
    """Raise Forbidden unless a rule lets the caller list; with a domain's token only that domain is listed."""
    _enforce(ctx, rule, {key: ctx.auth.domain_id} if ctx.auth.domain_id else {})


def _enforce(ctx: Request, rule: str, target: Mapping[str, Any]) -> None:
    """Raise Forbidden unless a rule lets the caller act; rules also know what the path names, as `%(user_id)s`."""
    if not ctx.allows(rule, {**ctx.arguments, **target}):
        raise Forbidden(f"You are not authorized to perform the requested action: {rule}.")


def missing(noun: str, key: str) -> Fault:
    """The fault of a thing that is not there."""
    return NotFound(f"Could not find {noun}: {key}.")


def mutable(options: Mapping[str, Any], noun: str, key: str, changes: Mapping[str, Any] | None = None) -> None:
    """Raise Forbidden when a thing is immutable, unless `changes` do nothing but make it mutable."""
    if not options.get("immutable"):
        return
    if changes is None:
        raise Forbidden(f"Cannot delete {noun} {key}, because it is immutable.")
    flags = changes.get("options")
    if set(changes) != {"options"} or not isinstance(flags, Flags) or flags.immutable not in (False, None):
        raise Forbidden(f"Cannot change {noun} {key}, because it is immutable.")


def flags(options: Flags | UnsetType, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The options to keep, of those given and those kept until now. An option that is null is forgotten."""
    found = dict(old or {})
    if isinstance(options, Flags) and options.immutable is not UNSET:
        found["immutable"] = options.immutable
    return {name: value for name, value in found.items() if value is not None}


def truth(text: str) -> bool:
    """A boolean filter as Identity reads it: all but the words for no mean yes, even nothing."""
    return text.strip().lower() not in ("0", "f", "false", "off", "n", "no")


def asked(ctx: Request, name: str) -> bool:
    """Whether a query parameter is there and is not `0`."""
    return name in ctx.query.names() and ctx.query.get(name) != "0"


class Comparison(Filter):
    """A filter that looks for text within a column, at its start or at its end, by SQLAlchemy's name of the way."""

    __slots__ = ("way",)

    def __init__(self, column: sa.ColumnElement[Any], way: str) -> None:
        super().__init__(column)
        self.way = way

    def condition(self, values: list[str] | tuple[str, ...] | Any) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        return sa.and_(*(getattr(self.column, self.way)(value, autoescape=True) for value in few(values)))


WAYS = ("contains", "icontains", "startswith", "istartswith", "endswith", "iendswith")


def compared(**columns: sa.ColumnElement[Any]) -> dict[str, Filter]:
    """Inexact filters of text attributes: `name__contains` and its like."""
    return {f"{name}__{way}": Comparison(column, way) for name, column in columns.items() for way in WAYS}


def named(column: sa.ColumnElement[Any]) -> Filter:
    """A filter by name, given the column of keys of names."""
    return Filter(column, names.key)


def own_domain(ctx: Context, query: sa.Select[Any], column: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """With a domain's token, only what belongs to that domain."""
    return query if ctx.auth.domain_id is None else query.where(column == ctx.auth.domain_id)

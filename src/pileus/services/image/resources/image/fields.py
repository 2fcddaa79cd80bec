"""An image as clients see it, and what lists may be filtered and sorted by.

Custom properties are keys of the image itself, so that a view is a plain object and not a struct.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from pileus.core.api import Parameters
from pileus.core.context import Context, Query
from pileus.core.errors import BadRequest
from pileus.core.listing import Rows, few, integer
from pileus.services.image.resources import place
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import Record, image, prop, tag
from pileus.services.image.rules import filter as language
from pileus.services.image.rules import listing, schema
from pileus.services.image.rules.listing import sorting

PAGE = 25
"""How many images a list gives when the request names no limit."""

MAXIMUM = 1000
"""How many it gives at most."""

_SHOWN = (
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "os_hidden",
    "owner",
    "container_format",
    "disk_format",
    "min_ram",
    "min_disk",
    "size",
    "virtual_size",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
)
_NUMBERS = ("size", "virtual_size", "min_ram", "min_disk")
_LISTED = ("id", "name", "status", "container_format", "disk_format")
_PLAIN = ("owner", "checksum", "os_hash_algo", "os_hash_value")
_MOMENTS = ("created_at", "updated_at")

_UNFILTERED = frozenset({"limit", "sort", "sort_key", "sort_dir", "visibility", "member_status"})
"""What a list may be asked for that is no filter of its own."""

PARAMETERS = Parameters(
    *(
        "limit",
        "marker",
        "sort",
        "sort_key",
        "sort_dir",
        "visibility",
        "member_status",
        "tag",
        "os_hidden",
        "protected",
    ),
    *(*_LISTED, *_PLAIN, *_NUMBERS, *_MOMENTS),
    *(f"{name}_{end}" for name in _NUMBERS for end in ("min", "max")),
)
"""What lists may be asked for; any other parameter is a custom property that images must have."""

_CONTROL = frozenset({"limit", "marker", "member_status", "sort", "sort_key", "sort_dir", "visibility", "tag"})


def view(ctx: Context, record: Record) -> dict[str, Any]:
    """The image as responses show it."""
    row = record.row._mapping
    found: dict[str, Any] = dict(record.properties)
    found.update((name, row[name]) for name in _SHOWN)
    path = f"/v2/images/{row['id']}"
    found.update(
        created_at=f"{row['created_at']:%Y-%m-%dT%H:%M:%SZ}",
        updated_at=f"{row['updated_at']:%Y-%m-%dT%H:%M:%SZ}",
        tags=record.tags,
        self=path,
        file=f"{path}/file",
        schema="/v2/schemas/image",
    )
    found.update(place.shown(ctx, record))
    return found


def conditions(query: Query) -> list[sa.ColumnElement[bool]]:
    """What the filters of a list demand. Raises BadRequest."""
    found: list[sa.ColumnElement[bool]] = [image.c.os_hidden == _truth("os_hidden", query.get("os_hidden", "false"))]
    words = [text.strip() for text in few(query.all("tag"))]
    found += [sa.exists().where(tag.c.image_id == image.c.id, tag.c.tag == word) for word in words]
    names = sorted(query.names() - _CONTROL - {"os_hidden"})
    return found + [_condition(name, query.get(name) or "") for name in names]


def _condition(name: str, text: str) -> sa.ColumnElement[bool]:
    if name == "changes-since":
        raise BadRequest('The "changes-since" filter is no longer available on v2.')
    if name == "protected":
        return image.c.protected == _truth(name, text)
    if name in _LISTED:
        return image.c[name].in_(language.values(text))
    if name in _PLAIN:
        return image.c[name] == text
    if name in _MOMENTS:
        return _moment(image.c[name], language.moment(text))
    if name in _NUMBERS:
        return image.c[name] == integer(text)
    bare, _, end = name.rpartition("_")
    if bare in _NUMBERS and end in ("min", "max"):
        return image.c[bare] >= integer(text) if end == "min" else image.c[bare] <= integer(text)
    return sa.exists().where(prop.c.image_id == image.c.id, prop.c.name == name, prop.c.value == text)


def _moment(column: sa.Column[Any], compared: language.Moment) -> sa.ColumnElement[bool]:
    """A comparison with a moment, by the whole seconds that responses show."""
    first = compared.moment.replace(microsecond=0)
    after = first + timedelta(seconds=1)
    if compared.operator in ("eq", "neq"):
        within = sa.false() if first != compared.moment else sa.and_(column >= first, column < after)
        return within if compared.operator == "eq" else sa.not_(within)
    upper = compared.operator in ("gt", "lte") or first != compared.moment
    bound = after if upper else first
    return column >= bound if compared.operator in ("gt", "gte") else column < bound


def _truth(name: str, text: str | None) -> bool:
    lowered = (text or "").lower()
    if lowered not in ("true", "false"):
        raise BadRequest(f"Invalid value '{text}' for '{name}' filter. Valid values are 'true' or 'false'.")
    return lowered == "true"


def page(ctx: Context, sight: policy.Sight) -> Rows:
    """The page that a request asks for. Raises BadRequest."""
    orders = _orders(ctx.query)
    wanted = integer(listing.limit(ctx.query, PAGE) or "")
    demanded = conditions(ctx.query)
    marker = ctx.query.get("marker")
    if marker is not None:
        demanded.append(_after(ctx, sight, orders, marker))
    if wanted == 0:
        return Rows([], None)
    limit = min(wanted, MAXIMUM)
    if ctx.query.names() <= _UNFILTERED:
        query = _unfiltered(sight, orders)
    else:
        query = _query(sight, orders, demanded, named=bool(ctx.query.names() & {"name", "id"}))
    rows = ctx.tx.execute(query, {"project": ctx.auth.project_id or "", "limit": limit}).all()
    return Rows(rows, rows[-1].id if len(rows) == limit else None)


@functools.lru_cache(maxsize=256)
def _unfiltered(sight: policy.Sight, orders: tuple[_Order, ...]) -> sa.Select[Any]:
    """The query of a list without filters; kept, for making it costs as much as running it."""
    return _query(sight, orders, conditions(Query([])), named=False)


def _query(
    sight: policy.Sight, orders: tuple[_Order, ...], demanded: list[sa.ColumnElement[bool]], *, named: bool
) -> sa.Select[Any]:
    """A query for a page of `limit` images.

    Each branch is ordered and limited by itself, so that an index serves it however many images there are; where names
    or ids are asked for (`named`), theirs serves all branches.
    """
    branches = policy.listed(sight)
    ordered = [order.by for order in orders]
    limit = sa.bindparam("limit", type_=sa.Integer)
    if named or len(branches) == 1:
        query = sa.select(image).where(sa.or_(*branches), *demanded)
    else:
        parts = (
            sa.select(image.c.id).where(branch, *demanded).order_by(*ordered).limit(limit).subquery()
            for branch in branches
        )
        query = sa.select(image).where(image.c.id.in_(sa.union(*(sa.select(part) for part in parts))))
    return query.order_by(*ordered).limit(limit)


class _Order(NamedTuple):
    column: sa.Column[Any]
    descending: bool

    @property
    def by(self) -> sa.ColumnElement[Any]:
        """The clause. Where values are missing they come first in ascending order, on every engine."""
        clause = self.column.desc() if self.descending else self.column.asc()
        if not self.column.nullable:
            return clause
        return clause.nulls_last() if self.descending else clause.nulls_first()


def _orders(query: Query) -> tuple[_Order, ...]:
    wanted = sorting(query.all("sort"), query.all("sort_key"), query.all("sort_dir"))
    # Ties are broken by the time of creation and then by the id, in the direction of the first key.
    for key in ("created_at", "id"):
        wanted.setdefault(key, next(iter(wanted.values())))
    return tuple(_Order(image.c[key], direction == "desc") for key, direction in wanted.items())


def _after(ctx: Context, sight: policy.Sight, orders: tuple[_Order, ...], marker: str) -> sa.ColumnElement[bool]:
    """What holds for images that come after the marker. Raises BadRequest when the caller sees no such image."""
    columns = (order.column for order in orders)
    query = sa.select(*columns).where(image.c.id == marker, sa.or_(*policy.listed(sight)))
    row = ctx.tx.execute(query, {"project": ctx.auth.project_id or ""}).first()
    if row is None:
        raise BadRequest(f"marker [{marker}] not found")
    arms = []
    equal: list[sa.ColumnElement[bool]] = []
    for (column, descending), value in zip(orders, row, strict=True):
        if descending:
            missing = column.is_(None) if column.nullable else sa.false()
            beyond = sa.false() if value is None else sa.or_(column < value, missing)
        else:
            beyond = column.is_not(None) if value is None else column > value
        arms.append(sa.and_(*equal, beyond))
        equal.append(column.is_(None) if value is None else column == value)
    return sa.or_(*arms)


def choice(ctx: Context, name: str, allowed: tuple[str, ...], default: str) -> str:
    """A query parameter that is one of some words. Raises BadRequest."""
    text = ctx.query.get(name) or default
    if text not in allowed:
        raise BadRequest(f"Invalid {name} value: {text}")
    return text


VISIBILITIES = (*schema.VISIBILITIES, "all")
MEMBER_STATUSES = (*schema.MEMBER_STATUSES, "all")

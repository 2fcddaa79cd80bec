"""Filter, sort and page: one way for all lists.

A `Listing` says for one resource which query parameters filter on which column, what may be sorted by, and how large
a page may be.  Pages are found by key (the marker's sort values), never by offset, so a page costs the same wherever
it starts.  Where values are missing they come first in ascending order, on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from pileus.core.context import Context, Query
from pileus.core.errors import BadQuery, BadRequest
from pileus.core.fields import View, W, plan_of

Convert = Callable[[str], Any]


def boolean(text: str) -> bool:
    """A boolean as OpenStack's clients write them. Raises BadRequest."""
    lowered = text.strip().lower()
    if lowered in ("1", "t", "true", "on", "y", "yes"):
        return True
    if lowered in ("0", "f", "false", "off", "n", "no"):
        return False
    raise BadRequest(f"{text!r} is not a boolean")


def integer(text: str) -> int:
    """A whole number. Raises BadRequest."""
    try:
        number = int(text)
    except ValueError:
        raise BadRequest(f"{text!r} is not an integer") from None
    if abs(number) >= 2**63:
        raise BadRequest(f"{text!r} is out of range")
    return number


def limit_of(text: str) -> int:
    """How many entries `limit` asks for: more than fit into a machine's word are all there are. Raises BadRequest."""
    if not text.isdecimal():
        raise BadRequest(f"limit must be a non-negative integer, not {text!r}")
    return int(text) if len(text) < 19 else 2**63 - 1


def instant(text: str) -> datetime:
    """A moment in ISO 8601, UTC where it names no zone. Raises BadRequest."""
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
    except ValueError:
        raise BadRequest(f"{text!r} is not a time of the form 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


MOST = 64
"""Values of a parameter, where each of them is a condition of its own: a statement grows with them."""

V = TypeVar("V", bound=Collection[str])


def few(values: V) -> V:
    """Values that are a condition each. Raises BadQuery for more of them than `MOST`."""
    if len(values) > MOST:
        raise BadQuery(f"A list is asked for by at most {MOST} values of this kind at once.")
    return values


class Filter:
    """A query parameter that narrows a list to rows whose column has (one of) the given values.

    `like` matches the value anywhere in the column (not a regular expression), `convert` makes a column's value of the
    text, `comma` takes several values in one, and `window` says in which microversions the parameter exists.
    """

    __slots__ = ("column", "comma", "convert", "like", "window")

    def __init__(
        self,
        column: sa.ColumnElement[Any],
        convert: Convert = str,
        *,
        like: bool = False,
        comma: bool = False,
        window: W | None = None,
    ) -> None:
        self.column = column
        self.convert = convert
        self.like = like
        self.comma = comma
        self.window = window

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        parts = [part for value in values for part in (value.split(",") if self.comma else [value])]
        if self.like:
            return sa.or_(*(self.column.icontains(part, autoescape=True) for part in few(parts)))
        return self.column.in_([self.convert(part) for part in parts])

    def among(self, ctx: Context, query: sa.Select[Any], values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition as a part of a query; for heirs that must look at what the query finds so far."""
        return self.condition(values)


class Rows(NamedTuple):
    """One page: its rows, and the key of the last one when there may be more."""

    rows: Sequence[sa.Row[Any]]
    next_marker: str | None


class _Order(NamedTuple):
    column: sa.ColumnElement[Any]
    descending: bool


class Listing:
    """How one resource is listed.

    `sort` maps names of the API to columns, `order` is the default (`"created_at:desc"`), `key` the unique column that
    markers name and that breaks ties.  A request without limit gives at most `maximum` rows (None: all).

    Who may not see a field may not ask about it either: what `view`, the struct that shows a row, guards by a policy
    rule is guarded as a filter and as a sort key of the same name too.  `guards` adds rules for other names.
    """

    def __init__(
        self,
        table: sa.FromClause,
        *,
        filters: Mapping[str, Filter],
        sort: Mapping[str, sa.ColumnElement[Any]],
        order: Sequence[str] = (),
        key: str = "id",
        maximum: int | None = 1000,
        view: type[View] | None = None,
        guards: Mapping[str, str] | None = None,
    ) -> None:
        self.view = view
        self.guards = dict(guards or {})
        self.table = table
        self.filters = dict(filters)
        self.sort = dict(sort)
        self.order = tuple(order)
        self.key = table.c[key]
        self.maximum = maximum

    def narrow(self, ctx: Context, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query with the conditions of the request's filters.

        Raises BadRequest for values that cannot be, and Forbidden for a filter on what the caller must not see.
        """
        for name in ctx.query.names():
            one = self.filters.get(name)
            if one is not None and (one.window is None or one.window.covers(ctx.version)):
                self._guard(ctx, name)
                query = query.where(one.among(ctx, query, self.given(ctx, name)))
        return query

    def given(self, ctx: Context, name: str) -> list[str]:
        """The values of a filter, of which a row may have any."""
        return ctx.query.all(name)

    def _guard(self, ctx: Context, name: str) -> None:
        """Raise Forbidden when the caller must not see the field of this name."""
        rules = [rule for _, key, rule in plan_of(self.view, ctx.version).guarded if key == name] if self.view else []
        for rule in [*rules, *([self.guards[name]] if name in self.guards else ())]:
            ctx.enforce(rule)

    def page(self, ctx: Context, query: sa.Select[Any]) -> Rows:
        """The page that the request asks for, of a query that holds what the caller may see.

        Raises BadRequest for what cannot be, and Forbidden for an order by what the caller must not see.
        """
        query = self.narrow(ctx, query)
        orders = self._orders(ctx)
        limit = self._limit(ctx.query)
        marker = ctx.query.get("marker")
        if boolean(ctx.query.get("page_reverse") or "false"):
            orders = [_Order(order.column, not order.descending) for order in orders]
        if marker:
            query = query.where(self._after(ctx, query, orders, marker))
        ordered = query.order_by(
            *(o.column.desc().nulls_last() if o.descending else o.column.asc().nulls_first() for o in orders)
        )
        rows = ctx.tx.all(ordered if limit is None else ordered.limit(limit))
        full = limit is not None and len(rows) == limit and limit > 0
        return Rows(rows, str(rows[-1]._mapping[self.key.name]) if full else None)

    def _orders(self, ctx: Context) -> list[_Order]:
        query = ctx.query
        wanted: list[tuple[str, str]] = []
        keyed = self.keyed(ctx)
        for entry in query.all("sort") or (() if keyed else self.order):
            for part in entry.split(","):
                name, _, direction = part.strip().partition(":")
                wanted.append((name, direction))
        wanted += keyed
        directions = query.all("sort_dir")
        if not query.all("sort_key") and directions and not query.all("sort"):
            wanted = [(name, directions[min(place, len(directions) - 1)]) for place, (name, _) in enumerate(wanted)]
        orders, seen = [], set()
        for name, direction in wanted:
            column = self.sort.get(name)
            if column is None or direction.lower() not in ("", "asc", "desc"):
                raise BadRequest(f"Cannot sort by {name!r} {direction!r}: sort keys are {', '.join(sorted(self.sort))}")
            if name not in seen:
                self._guard(ctx, name)
                seen.add(name)
                orders.append(_Order(column, direction.lower() == "desc"))
        return [*orders, _Order(self.key, bool(orders) and orders[-1].descending)]

    def keyed(self, ctx: Context) -> list[tuple[str, str]]:
        """The keys of `sort_key`, each with its direction, which is empty for the natural one."""
        return list(
            zip_longest(keys := ctx.query.all("sort_key"), ctx.query.all("sort_dir")[: len(keys)], fillvalue="")
        )

    def _limit(self, query: Query) -> int | None:
        text = query.get("limit")
        if text is None or text == "":
            return self.maximum
        limit = integer(text)
        if limit < 0:
            raise BadRequest(f"limit must be a non-negative integer, not {text!r}")
        if limit == 0:
            return self.maximum
        return limit if self.maximum is None else min(limit, self.maximum)

    def _after(self, ctx: Context, query: sa.Select[Any], orders: list[_Order], marker: str) -> sa.ColumnElement[bool]:
        columns = [order.column.label(f"sort_{place}") for place, order in enumerate(orders)]
        bare = query.with_only_columns(*columns).where(self.key == marker).order_by(None)
        row = ctx.tx.first(bare)
        if row is None:
            raise BadRequest(f"marker [{marker}] not found")
        arms = []
        equal: list[sa.ColumnElement[bool]] = []
        for order, value in zip(orders, row, strict=True):
            column = order.column
            if order.descending:
                beyond = sa.false() if value is None else sa.or_(column < value, column.is_(None))
            else:
                beyond = column.is_not(None) if value is None else column > value
            arms.append(sa.and_(*equal, beyond))
            equal.append(column.is_(None) if value is None else column == value)
        return sa.or_(*arms)

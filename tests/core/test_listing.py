"""Lists: pages put together are the whole, whatever is sorted by, in whatever direction, with values missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.core.context import Context, Query
from pileus.core.errors import BadRequest
from pileus.core.fields import Guard, View
from pileus.core.listing import Filter, Listing, boolean, integer
from pileus.core.seams import Seams
from pileus.core.store import Tx
from pileus.core.versions import parse

tables = sa.MetaData()
thing = sa.Table(
    "thing",
    tables,
    sa.Column("id", sa.String(8), primary_key=True),
    sa.Column("name", sa.String(8)),
    sa.Column("size", sa.Integer),
    sa.Column("good", sa.Boolean),
)
listing = Listing(
    thing,
    filters={
        "name": Filter(thing.c.name),
        "like": Filter(thing.c.name, like=True),
        "size": Filter(thing.c.size, integer),
        "good": Filter(thing.c.good, boolean),
    },
    sort={"name": thing.c.name, "size": thing.c.size, "id": thing.c.id},
    order=("name:asc",),
    maximum=7,
)

Row = tuple[str | None, int | None]
rows_of = st.lists(st.tuples(st.none() | st.sampled_from("abc"), st.none() | st.integers(0, 3)), max_size=25)


def context(connection: sa.Connection, pairs: Sequence[tuple[str, str]]) -> Context:
    ctx: Any = Mock(spec=Context)
    ctx.query = Query(list(pairs))
    ctx.tx = Tx(connection, Seams(), writable=False)
    ctx.version = None
    found: Context = ctx
    return found


def ids(connection: sa.Connection, *pairs: tuple[str, str]) -> list[str]:
    return [row.id for row in listing.page(context(connection, pairs), sa.select(thing)).rows]


def filled(rows: Sequence[Row]) -> sa.Connection:
    connection = sa.create_engine("sqlite://").connect()
    tables.create_all(connection)
    values = [
        {"id": f"{place:03}", "name": name, "size": size, "good": bool(place % 2)}
        for place, (name, size) in enumerate(rows)
    ]
    if values:
        connection.execute(sa.insert(thing), values)
    return connection


@settings(max_examples=60, deadline=None)
@given(
    rows=rows_of,
    keys=st.lists(st.tuples(st.sampled_from(["name", "size", "id"]), st.sampled_from(["asc", "desc"])), max_size=3),
    limit=st.integers(1, 7),
)
def test_pages_make_the_whole(rows: list[Row], keys: list[tuple[str, str]], limit: int) -> None:
    with filled(rows) as connection:
        pairs = [("sort_key", key) for key, _ in keys] + [("sort_dir", way) for _, way in keys]
        found: list[str] = []
        marker = ""
        while True:
            asked = [*pairs, ("limit", str(limit)), ("marker", marker)]
            page = listing.page(context(connection, asked), sa.select(thing))
            found += [row.id for row in page.rows]
            marker = page.next_marker or ""
            if not marker:
                break
        assert sorted(found) == [f"{place:03}" for place in range(len(rows))]
        if keys:
            name, way = keys[0]
            order = {f"{place:03}": (row[0] or "", row[1], f"{place:03}") for place, row in enumerate(rows)}
            index = {"name": 0, "size": 1, "id": 2}[name]
            values = [order[one][index] if order[one][index] is not None else -1 for one in found]
            assert values == sorted(values, key=lambda value: (str(type(value)), value), reverse=way == "desc")


def test_filters() -> None:
    with filled([("ab", 1), ("b", 2), (None, 3), ("a%", 1)]) as connection:
        assert ids(connection, ("name", "b")) == ["001"]
        assert ids(connection, ("name", "b"), ("name", "ab")) == ["000", "001"]
        assert ids(connection, ("like", "%")) == ["003"]
        assert ids(connection, ("size", "1"), ("good", "true")) == ["003"]
        assert ids(connection, ("unknown", "x"), ("sort_key", "id")) == ["000", "001", "002", "003"]


@pytest.mark.parametrize(
    "pair",
    [("limit", "-1"), ("limit", "x"), ("marker", "nobody"), ("sort_key", "secret"), ("size", "x"), ("good", "maybe"),
     ("size", "99999999999999999999")],
)  # fmt: skip
def test_nonsense_is_refused(pair: tuple[str, str]) -> None:
    with filled([("a", 1)]) as connection, pytest.raises(BadRequest):
        ids(connection, pair)


def test_a_bad_direction_is_refused() -> None:
    with filled([]) as connection, pytest.raises(BadRequest):
        ids(connection, ("sort_key", "name"), ("sort_dir", "sideways"))


def test_no_page_is_larger_than_the_maximum(tmp_path: Path) -> None:
    with filled([("a", 1)] * 20) as connection:
        assert len(ids(connection)) == 7
        assert len(ids(connection, ("limit", "100"))) == 7
        assert ids(connection, ("page_reverse", "true"))[0] == "019"


class _View(View):
    name: str
    size: Annotated[int, Guard("see_size")]
    good: Annotated[bool, Guard("see_good", until="2.5")]


@pytest.mark.parametrize(
    ("pair", "rule"),
    [
        (("size", "1"), "see_size"),
        (("sort", "name,size:desc"), "see_size"),
        (("sort_key", "size"), "see_size"),
        (("good", "true"), "see_good"),
        (("like", "a"), "see_names"),
    ],
)
def test_what_must_not_be_seen_is_not_asked_about(pair: tuple[str, str], rule: str) -> None:
    guarded = Listing(
        thing, filters=listing.filters, sort=listing.sort, view=_View, guards={"like": "see_names"}, order=("name",)
    )
    with filled([("a", 1), ("b", 2)]) as connection:
        for version, refused in (("2.1", True), ("2.9", rule != "see_good")):
            ctx: Any = context(connection, [pair])
            ctx.version = parse(version)
            guarded.page(ctx, sa.select(thing))
            asked = [call.args for call in ctx.enforce.call_args_list]
            assert asked == ([(rule,)] if refused else [])
        ctx = context(connection, [("name", "a")])
        guarded.page(ctx, sa.select(thing))
        ctx.enforce.assert_not_called()

"""What almost all nouns of Network have: id, project, description, times, revision and tags; and how they are listed.

https://docs.openstack.org/api-ref/network/v2/#standard-attributes-tag-extension
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from pileus.core.api import Page, Resource
from pileus.core.context import Context, Request
from pileus.core.fields import Body, View
from pileus.core.listing import Filter, Listing, boolean, few, instant
from pileus.core.policy import Rule
from pileus.core.statement import by
from pileus.core.store import Instant, Tx, metadata
from pileus.services.network.rules.fault import (
    InvalidInput,
    PolicyNotAuthorized,
    RevisionNumberConstraintFailed,
    TagNotFound,
)

Row = dict[str, Any]
"""A row by column name."""

Name = Annotated[str, msgspec.Meta(max_length=255)]
Text = Annotated[str, msgspec.Meta(max_length=255)]
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DnsName = Annotated[str, msgspec.Meta(max_length=255, pattern=rf"^({_LABEL}(\.{_LABEL})*\.?)?\Z")]
"""A name that the domain name system can hold (RFC 1123, section 2.1), or none."""
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Tags = Annotated[list[Tag], msgspec.Meta(max_length=50)]

SOME = msgspec.Meta(max_length=256)
"""How many things a request may list that belong to one. All of them are looked at while nobody else can write."""

BULK = msgspec.Meta(max_length=1000)
"""How many things a request may make at once; upstream leaves it to quotas, which are asked once all are looked at."""

tag = sa.Table(
    "network_tag",
    metadata,
    sa.Column("resource_id", sa.String(64), primary_key=True),
    sa.Column("tag", sa.String(255), primary_key=True),
)

_IF_MATCH = re.compile(r"revision_number=(\d{1,19})(?!\d)")


def columns() -> list[sa.Column[Any]]:
    """The columns of standard attributes, for a table of one's own."""
    return [
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("project_id", sa.String(255), nullable=False, index=True),
        sa.Column("description", sa.String(255), nullable=False, server_default=""),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("updated_at", Instant, nullable=False),
        sa.Column("revision_number", sa.BigInteger, nullable=False, server_default="0"),
    ]


def fresh(tx: Tx, project_id: str, description: str | UnsetType | None = "") -> Row:
    """The standard attributes of something that is made now."""
    return {
        "id": tx.seams.uuid(),
        "project_id": project_id,
        "description": description or "",
        "created_at": tx.now,
        "updated_at": tx.now,
        "revision_number": 0,
    }


def first_row(tx: Tx, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None) -> Row | None:
    """The first row of a query."""
    row = tx.first(query, parameters)
    return None if row is None else dict(row._mapping)


def every(tx: Tx, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None) -> list[Row]:
    """All rows of a query."""
    return as_dicts(tx.all(query, parameters))


def as_dicts(rows: Sequence[sa.Row[Any]]) -> list[Row]:
    """Rows of one query by their columns' names; quicker than the mapping that each row is, too."""
    names = rows[0]._fields if rows else ()
    return [dict(zip(names, row, strict=True)) for row in rows]


def time_text(moment: datetime) -> str:
    """A time as Network writes it: to the second, in UTC."""
    return f"{moment.isoformat()[:19]}Z"


class StandardView(View, kw_only=True):
    """The standard attributes in a response."""

    id: str
    project_id: str
    tenant_id: str
    description: str
    created_at: str
    updated_at: str
    revision_number: int
    tags: list[str]


def standard(row: Mapping[str, Any], tags: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments of a StandardView for a row."""
    return {
        "id": row["id"],
        "project_id": row["project_id"],
        "tenant_id": row["project_id"],
        "description": row["description"],
        "created_at": time_text(row["created_at"]),
        "updated_at": time_text(row["updated_at"]),
        "revision_number": row["revision_number"],
        "tags": list(tags),
    }


class Owned(Body, kw_only=True):
    """A body that may name the project that the new thing is for."""

    project_id: Id | UnsetType = UNSET
    tenant_id: Id | UnsetType = UNSET


class TagList(Body, kw_only=True):
    """All tags of a thing."""

    tags: Tags


ADMIN = "role:admin"
ADMIN_OR_SERVICE = "role:admin or role:service"
PROJECT_READER = "(role:reader and project_id:%(project_id)s)"
PROJECT_MEMBER = "(role:member and project_id:%(project_id)s)"
PROJECT_MANAGER = "(role:manager and project_id:%(project_id)s)"
ADMIN_OR_PROJECT_READER = f"{ADMIN} or {PROJECT_READER}"
ADMIN_OR_PROJECT_MEMBER = f"{ADMIN} or {PROJECT_MEMBER}"
ADMIN_OR_PROJECT_MANAGER = f"{ADMIN} or {PROJECT_MANAGER}"
NET_OWNER_READER = "(role:reader and rule:network_owner)"
NET_OWNER_MEMBER = "(role:member and rule:network_owner)"
NET_OWNER_MANAGER = "(role:manager and rule:network_owner)"

RULES = (
    Rule("network_owner", "project_id:%(network:project_id)s", "The project that owns the network of the thing"),
    Rule("shared", "True:%(network:shared)s", "What is on a shared network"),
    Rule("external", "True:%(network:router:external)s", "What is on an external network"),
)
"""Rules that those of the nouns are made of."""


def owner(ctx: Context, body: Owned) -> str:
    """The project that a new thing is for: the caller's own, and any for admins and services.

    Raises InvalidInput when there is none, or two, and PolicyNotAuthorized.  The rules of some nouns ask only who owns
    the network, so they would let its owner use up the quota of others.
    """
    given = {one for one in (body.project_id, body.tenant_id) if one is not UNSET}
    if len(given) > 1:
        raise InvalidInput("project_id and tenant_id differ")
    project_id = given.pop() if given else ctx.auth.project_id
    if not isinstance(project_id, str):
        raise InvalidInput("project_id must be given when the token is not scoped to a project")
    if project_id != ctx.auth.project_id and ctx.auth.roles.isdisjoint(("admin", "service")):
        raise PolicyNotAuthorized("project_id")
    return project_id


def enforce(ctx: Context, rule: str, target: Mapping[str, Any]) -> None:
    """Raise PolicyNotAuthorized unless a rule lets the caller act on the target."""
    if not ctx.allows(rule, target):
        raise PolicyNotAuthorized(rule)


NOBODY: Mapping[str, Any] = {"project_id": "", "tenant_id": "", "network:project_id": ""}
"""A target that is nobody's: who may see it may see everything."""


def sees_all(ctx: Context, rule: str) -> bool:
    """Whether a rule lets the caller see what belongs to others."""
    return ctx.allows(rule, NOBODY)


def change(ctx: Context, table: sa.Table, topic: str, row: Row, values: Mapping[str, Any]) -> Row:
    """Write what is new of `values`, with time and revision; the row as it is then.

    Raises Raced when the row is not at its revision any more, and RevisionNumberConstraintFailed when it is not at the
    one that the request's If-Match names.
    """
    check_revision(ctx, row)
    different = {name: value for name, value in values.items() if row[name] != value}
    if not different:
        return row
    return bump(ctx.tx, table, topic, row, different)


def bump(tx: Tx, table: sa.Table, topic: str, row: Row, values: Mapping[str, Any]) -> Row:
    """Write values to a row that is at its revision still, and count the revision up."""
    new = {**values, "updated_at": tx.now, "revision_number": row["revision_number"] + 1}
    tx.compare_and_set(table, {"id": row["id"], "revision_number": row["revision_number"]}, new)
    tx.changed(topic, row["id"])
    return {**row, **new}


def check_revision(ctx: Context, row: Row) -> None:
    """Raise RevisionNumberConstraintFailed when the request's If-Match names another revision."""
    header = ctx.headers.get(b"if-match")
    if header is None:
        return
    match = _IF_MATCH.search(header.decode("latin-1"))
    if match is None:
        raise InvalidInput("If-Match must be of the form revision_number=NUMBER")
    if int(match.group(1)) != row["revision_number"]:
        raise RevisionNumberConstraintFailed(match.group(1), row["revision_number"])


def tags_of(tx: Tx, ids: Collection[str]) -> dict[str, list[str]]:
    """The tags of things, sorted; an id without tags is not in the answer."""
    found: dict[str, list[str]] = {}
    if ids:
        for row in tx.all(by(tag, "resource_id", "tag"), {"values": ids}):
            found.setdefault(row.resource_id, []).append(row.tag)
    return found


def write_tags(tx: Tx, resource_id: str, tags: Iterable[str]) -> None:
    """Give a thing these tags, besides those that it has."""
    for one in dict.fromkeys(tags):
        tx.insert_missing(tag, {"resource_id": resource_id, "tag": one}, key=("resource_id", "tag"))


def drop_tags(tx: Tx, ids: Collection[str]) -> None:
    """Forget the tags of things that go."""
    tx.execute(sa.delete(tag).where(tag.c.resource_id.in_(ids)))


class TagFilter(Filter):
    """`tags`, `tags-any`, `not-tags` and `not-tags-any`: by all or any of some tags, or by the opposite."""

    __slots__ = ("all_of", "negate")

    def __init__(self, column: sa.ColumnElement[Any], *, all_of: bool, negate: bool) -> None:
        super().__init__(column)
        self.all_of = all_of
        self.negate = negate

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        wanted = few({part for value in values for part in value.split(",")})
        having = [self.column.in_(sa.select(tag.c.resource_id).where(tag.c.tag == one)) for one in sorted(wanted)]
        found = sa.and_(*having) if self.all_of else sa.or_(*having)
        return sa.not_(found) if self.negate else found


class Since(Filter):
    """`changed_since`: what was changed at a time or later."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        return self.column >= max(instant(value) for value in values)


class SecondFilter(Filter):
    """A time, as it is shown: to the second."""

    __slots__ = ()

    def condition(self, values: Sequence[str]) -> sa.ColumnElement[bool]:
        """The condition for the values of one parameter."""
        moments = [instant(value) for value in few(values)]
        return sa.or_(*(self.column.between(one, one.replace(microsecond=999_999)) for one in moments))


def filters(table: sa.Table, *texts: str, flags: Sequence[str] = ()) -> dict[str, Filter]:
    """Filters on the standard attributes, on columns of text (or numbers), and on columns that are true or false."""
    c = table.c
    found: dict[str, Filter] = {
        "id": Filter(c.id),
        "project_id": Filter(c.project_id),
        "tenant_id": Filter(c.project_id),
        "description": Filter(c.description),
        "revision_number": Filter(sa.cast(c.revision_number, sa.String)),
        "created_at": SecondFilter(c.created_at),
        "updated_at": SecondFilter(c.updated_at),
        "changed_since": Since(c.updated_at),
        "tags": TagFilter(c.id, all_of=True, negate=False),
        "tags-any": TagFilter(c.id, all_of=False, negate=False),
        "not-tags": TagFilter(c.id, all_of=True, negate=True),
        "not-tags-any": TagFilter(c.id, all_of=False, negate=True),
    }
    found |= {name: Filter(c[name]) for name in texts}
    return found | {name: Filter(c[name], boolean) for name in flags}


def sort_keys(table: sa.Table, *names: str) -> dict[str, sa.ColumnElement[Any]]:
    """Sort keys: the standard attributes, and columns by name."""
    shared = ("id", "project_id", "description", "created_at", "updated_at", "revision_number")
    return {name: table.c[name] for name in (*shared, *names)} | {"tenant_id": table.c.project_id}


@dataclass(slots=True)
class LinkedPage(Page):
    """A page with the way back, too."""

    previous_marker: str | None = None


def page(ctx: Context, listing: Listing, query: sa.Select[Any]) -> tuple[list[Row], Callable[[list[Any]], LinkedPage]]:
    """The rows of the page that the request asks for, and what makes a page of their views.

    Backwards (`page_reverse`) the rows come in the order of the list too.
    """
    found = listing.page(ctx, query)
    rows = as_dicts(found.rows)
    backwards = boolean(ctx.query.get("page_reverse") or "false")
    if backwards:
        rows.reverse()
    limited = bool(rows) and (ctx.query.get("limit") or "0") != "0"
    full = found.next_marker is not None
    following = rows[-1]["id"] if limited and (full or backwards) else None
    previous = rows[0]["id"] if limited and (full or not backwards) else None
    return rows, lambda views: LinkedPage(views, next_marker=following, previous_marker=previous)


def paging(request: Request, key: str, found: Page) -> dict[str, Any]:
    """Network's: `<plural>_links` with `next` and `previous`, when a limit was given."""
    links = []
    kept = [(name, value) for name, value in request.query.pairs() if name not in ("marker", "page_reverse")]
    here = request.url + request.path
    if found.next_marker is not None:
        links.append({"rel": "next", "href": f"{here}?{urlencode([*kept, ('marker', found.next_marker)])}"})
    if isinstance(found, LinkedPage) and found.previous_marker is not None:
        back = [*kept, ("marker", found.previous_marker), ("page_reverse", "True")]
        links.append({"rel": "previous", "href": f"{here}?{urlencode(back)}"})
    return {key: found.items, **found.more, **({f"{key}_links": links} if links else {})}


def _check_tags(wanted: Collection[str]) -> None:
    if len(set(wanted)) > 50:
        raise InvalidInput("there are at most 50 tags")
    if any(not 0 < len(one) <= 255 for one in wanted):
        raise InvalidInput("a tag has 1 to 255 characters")


def tag_operations(
    resource: Resource, path: str, table: sa.Table, topic: str, find: Callable[[Context, str, str], Row]
) -> None:
    """Hang the operations on tags on a resource.

    `find(ctx, id, verb)` gives the row, and raises what the resource's own operation of that verb (`get` or `update`)
    would: 404 when the caller must not see it, 403 when it may not be changed.
    """

    seen, changed = f"get_{resource.singular}", f"update_{resource.singular}"

    def settle(ctx: Context, row: Row, wanted: Collection[str]) -> None:
        before = tags_of(ctx.tx, [row["id"]]).get(row["id"], [])
        _check_tags(wanted)
        if set(before) == set(wanted):
            return
        gone = set(before) - set(wanted)
        if gone:
            ctx.tx.execute(sa.delete(tag).where(tag.c.resource_id == row["id"], tag.c.tag.in_(gone)))
        write_tags(ctx.tx, row["id"], set(wanted) - set(before))
        bump(ctx.tx, table, topic, row, {})

    @resource.get(f"{path}/{{key}}/tags", policy=seen, guarded=True)
    def list_tags(ctx: Context, key: str) -> dict[str, list[str]]:
        """All tags of a thing."""
        find(ctx, key, "get")
        return {"tags": tags_of(ctx.tx, [key]).get(key, [])}

    @resource.put(f"{path}/{{key}}/tags", policy=changed, guarded=True)
    def replace_tags(ctx: Context, key: str, body: TagList) -> dict[str, list[str]]:
        """Give a thing exactly these tags."""
        settle(ctx, find(ctx, key, "update"), body.tags)
        return {"tags": tags_of(ctx.tx, [key]).get(key, [])}

    @resource.post(f"{path}/{{key}}/tags", policy=changed, guarded=True, status=201)
    def add_tags(ctx: Context, key: str, body: TagList) -> dict[str, list[str]]:
        """Give a thing these tags, besides those that it has."""
        row = find(ctx, key, "update")
        settle(ctx, row, [*tags_of(ctx.tx, [key]).get(key, []), *body.tags])
        return {"tags": tags_of(ctx.tx, [key]).get(key, [])}

    @resource.delete(f"{path}/{{key}}/tags", policy=changed, guarded=True)
    def delete_tags(ctx: Context, key: str) -> None:
        """Take all tags from a thing."""
        settle(ctx, find(ctx, key, "update"), [])

    @resource.get(f"{path}/{{key}}/tags/{{one}}", policy=seen, guarded=True, status=204)
    def show_tag(ctx: Context, key: str, one: str) -> None:
        """Whether a thing has a tag. Raises TagNotFound."""
        find(ctx, key, "get")
        if one not in tags_of(ctx.tx, [key]).get(key, []):
            raise TagNotFound(one)

    @resource.put(f"{path}/{{key}}/tags/{{one}}", policy=changed, guarded=True, status=201)
    def add_tag(ctx: Context, key: str, one: str) -> None:
        """Give a thing a tag."""
        row = find(ctx, key, "update")
        settle(ctx, row, [*tags_of(ctx.tx, [key]).get(key, []), one])

    @resource.delete(f"{path}/{{key}}/tags/{{one}}", policy=changed, guarded=True)
    def delete_tag(ctx: Context, key: str, one: str) -> None:
        """Take a tag from a thing. Raises TagNotFound."""
        row = find(ctx, key, "update")
        before = tags_of(ctx.tx, [key]).get(key, [])
        if one not in before:
            raise TagNotFound(one)
        settle(ctx, row, [each for each in before if each != one])

"""Host aggregates: named sets of hosts with metadata.

https://docs.openstack.org/api-ref/compute/#host-aggregates-os-aggregates

Users see of them no more than availability zones: an aggregate whose metadata has `availability_zone` puts its hosts
into that zone.  A host may be in several aggregates but in one zone only, and never leaves it while it has servers.
Each aggregate is one of Placement's too, under its UUID, for the hosts that Placement knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest, Conflict, Fault, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.core.listing import integer
from pileus.core.policy import Rule
from pileus.core.statement import by, many
from pileus.core.store import Instant, Tx, metadata
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules.persona import ADMIN
from pileus.services.compute.rules.placing import ZONE
from pileus.services.compute.rules.shape import HostName, MetaKey, Name, Uuid, bare
from pileus.services.fleet import interface as fleet
from pileus.services.image import interface as image
from pileus.services.placement import interface as placement

aggregate = sa.Table(
    "compute_aggregate",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant),
    sqlite_autoincrement=True,
)

member = sa.Table(
    "compute_aggregate_host",
    metadata,
    sa.Column("aggregate_id", sa.Integer, sa.ForeignKey("compute_aggregate.id"), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True, index=True),
)
"""Hosts by name. The foreign key keeps an aggregate that has hosts from being deleted."""

entry = sa.Table(
    "compute_aggregate_metadata",
    metadata,
    sa.Column("aggregate_id", sa.Integer, sa.ForeignKey("compute_aggregate.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
)

ZONE_KEY = "availability_zone"

_INK = r"[^\x00-\x1f\x7f\s]"

LooseName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=255, pattern=rf"^[^\x00-\x1f\x7f]*{_INK}[^\x00-\x1f\x7f]*$")
]
"""Printable; white space at the ends is taken off."""

ZoneName = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f\s:]([^\x00-\x1f\x7f:]*[^\x00-\x1f\x7f\s:])?$"
    ),
]
"""Printable and without a colon, which separates zone and host where a server names both."""


class AggregateCreate(Body):
    """Body of create: the value of `aggregate`."""

    name: Name
    availability_zone: ZoneName | None = None


class AggregateUpdate(Body):
    """Body of update: the value of `aggregate`."""

    name: LooseName | UnsetType = UNSET
    availability_zone: ZoneName | UnsetType | None = UNSET


class Member(Body):
    """Body of add_host and remove_host."""

    host: HostName


class MetadataUpdate(Body):
    """Body of set_metadata: what to set, and with null what to take away; other keys stay."""

    metadata: dict[MetaKey, Annotated[str, msgspec.Meta(max_length=255)] | None]


class CachedImage(Body):
    """An image that hosts shall have."""

    id: Uuid


class ImageCaching(Body):
    """Body of cache_images."""

    cache: Annotated[list[CachedImage], msgspec.Meta(min_length=1)]


class NewAggregate(View, kw_only=True):
    """An aggregate that was just made."""

    id: int
    uuid: Annotated[str | UnsetType, W(since="2.41")]
    name: str
    availability_zone: str | None
    created_at: str | None
    updated_at: str | None
    deleted: bool = False
    deleted_at: None = None


class Aggregate(NewAggregate, kw_only=True):
    """An aggregate in full."""

    hosts: list[str]
    metadata: dict[str, str]


RULES = (
    Rule("os_compute_api:os-aggregates:index", ADMIN, "List aggregates"),
    Rule("os_compute_api:os-aggregates:show", ADMIN, "Show an aggregate"),
    Rule("os_compute_api:os-aggregates:create", ADMIN, "Make an aggregate"),
    Rule("os_compute_api:os-aggregates:update", ADMIN, "Change an aggregate's name or availability zone"),
    Rule("os_compute_api:os-aggregates:delete", ADMIN, "Delete an aggregate"),
    Rule("os_compute_api:os-aggregates:add_host", ADMIN, "Put a host into an aggregate"),
    Rule("os_compute_api:os-aggregates:remove_host", ADMIN, "Take a host out of an aggregate"),
    Rule("os_compute_api:os-aggregates:set_metadata", ADMIN, "Change an aggregate's metadata"),
    Rule("compute:aggregates:images", ADMIN, "Have images fetched ahead by an aggregate's hosts"),
)

resource = Resource("aggregate", "aggregates", rules=RULES)


class Known(NamedTuple):
    """An aggregate's row, its hosts by name and in order, and its metadata."""

    row: sa.Row[Any]
    hosts: list[str]
    metadata: dict[str, str]

    @property
    def zone(self) -> str | None:
        """The availability zone that it puts its hosts into."""
        return self.metadata.get(ZONE_KEY)


def forget_host(tx: Tx, host: fleet.Host) -> None:
    """Take a host that is no more out of its aggregates."""
    rows = tx.all(sa.select(member.c.aggregate_id).where(member.c.host == host.name))
    tx.execute(sa.delete(member).where(member.c.host == host.name))
    for row in rows:
        tx.changed("compute.aggregate", str(row.aggregate_id))


_ZONES = (
    sa.select(member.c.host, entry.c.value)
    .join(entry, member.c.aggregate_id == entry.c.aggregate_id)
    .where(entry.c.key == ZONE_KEY)
)
_ZONES_OF = _ZONES.where(member.c.host.in_(many("hosts")))


def zones(tx: Tx, hosts: Collection[str] | None = None, *, but: int | None = None) -> dict[str, str]:
    """The availability zones of hosts (None: of all), by host name; hosts that are put into none are left out.

    `but` is an aggregate that does not count.
    """
    query, given = _ZONES, {}
    if hosts is not None:
        query, given = _ZONES_OF, {"hosts": hosts}
    if but is not None:
        query = query.where(member.c.aggregate_id != but)
    return {row.host: row.value for row in tx.all(query, given)}


def zones_in_use(tx: Tx, hosts: Iterable[fleet.Host]) -> set[str]:
    """The availability zones of those hosts that nobody took out of use."""
    found = zones(tx)
    return {found.get(host.name, ZONE) for host in hosts if not host.disabled}


def zone_of(host: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The availability zone of the host that a column names, as part of a query of the column's table."""
    found = _ZONES.with_only_columns(entry.c.value).where(member.c.host == host).limit(1)
    return sa.func.coalesce(found.correlate_except(member, entry).scalar_subquery(), ZONE)


def _known(tx: Tx, aggregate_id: int | None = None) -> list[Known]:
    query = sa.select(aggregate).order_by(aggregate.c.id)
    rows = tx.all(query if aggregate_id is None else query.where(aggregate.c.id == aggregate_id))
    ids = [row.id for row in rows]
    found = {row.id: Known(row, [], {}) for row in rows}
    for row in tx.all(by(member, "aggregate_id", "host"), {"values": ids}):
        found[row.aggregate_id].hosts.append(row.host)
    for row in tx.all(by(entry, "aggregate_id", "key"), {"values": ids}):
        found[row.aggregate_id].metadata[row.key] = row.value
    return list(found.values())


def _find(ctx: Context, aggregate_id: str) -> Known:
    """Raises BadRequest for what is no number, NotFound."""
    found = _known(ctx.tx, integer(aggregate_id))
    if not found:
        raise NotFound(f"Aggregate {aggregate_id} could not be found.")
    return found[0]


def _find_to_change(ctx: Context, aggregate_id: str) -> Known:
    """`_find`, with no aggregate changing until the transaction ends.

    That a host is in one zone is a rule about several aggregates; there are few of them, so all are held.
    """
    ctx.tx.execute(sa.select(aggregate.c.id).order_by(aggregate.c.id).with_for_update())
    return _find(ctx, aggregate_id)


def _values(one: Known) -> dict[str, Any]:
    return {
        "id": one.row.id,
        "uuid": one.row.uuid,
        "name": one.row.name,
        "availability_zone": one.zone,
        "created_at": bare(one.row.created_at),
        "updated_at": bare(one.row.updated_at),
    }


def _view(one: Known) -> Aggregate:
    return Aggregate(**_values(one), hosts=one.hosts, metadata=one.metadata)


@resource.get("/os-aggregates", policy="os_compute_api:os-aggregates:index", wraps="aggregates")
def list_all(ctx: Context) -> list[Aggregate]:
    """All aggregates, the oldest first."""
    return [_view(one) for one in _known(ctx.tx)]


@resource.get("/os-aggregates/{aggregate_id}", policy="os_compute_api:os-aggregates:show", wraps="aggregate")
def show(ctx: Context, aggregate_id: str) -> Aggregate:
    """One aggregate."""
    return _view(_find(ctx, aggregate_id))


@resource.post("/os-aggregates", policy="os_compute_api:os-aggregates:create", accepts="aggregate", wraps="aggregate")
def create(ctx: Context, body: AggregateCreate) -> NewAggregate:
    """Make an aggregate. Raises Conflict when its name is taken."""
    _check_name(ctx.tx, body.name)
    values = {"uuid": ctx.seams.uuid(), "name": body.name, "created_at": ctx.now}
    number: int = ctx.tx.scalar(sa.insert(aggregate).values(values).returning(aggregate.c.id))
    if body.availability_zone is not None:
        _set(ctx.tx, number, {ZONE_KEY: body.availability_zone})
    ctx.tx.changed("compute.aggregate", str(number))
    return NewAggregate(**_values(_known(ctx.tx, number)[0]))


def _check_name(tx: Tx, name: str, but: int | None = None) -> None:
    row = tx.first(sa.select(aggregate.c.id).where(aggregate.c.name == name))
    if row is not None and row.id != but:
        raise Conflict(f"Aggregate {name} already exists.")


@resource.put(
    "/os-aggregates/{aggregate_id}",
    policy="os_compute_api:os-aggregates:update",
    accepts="aggregate",
    wraps="aggregate",
)
def update(ctx: Context, aggregate_id: str, body: AggregateUpdate) -> Aggregate:
    """Change an aggregate's name or zone.

    Raises Conflict when the name is taken, BadRequest for a zone that its hosts cannot be in.
    """
    if body.name is UNSET and body.availability_zone is UNSET:
        raise BadRequest("An update of an aggregate gives its name or its availability_zone.")
    one = _find_to_change(ctx, aggregate_id)
    values: dict[str, Any] = {"updated_at": ctx.now}
    if body.name is not UNSET:
        values["name"] = body.name.strip()
        _check_name(ctx.tx, values["name"], one.row.id)
    if body.availability_zone is not UNSET:
        _check_zone(ctx.tx, one, body.availability_zone)
        _set(ctx.tx, one.row.id, {ZONE_KEY: body.availability_zone})
    ctx.tx.execute(sa.update(aggregate).where(aggregate.c.id == one.row.id).values(values))
    ctx.tx.changed("compute.aggregate", aggregate_id)
    return show(ctx, aggregate_id)


@resource.delete("/os-aggregates/{aggregate_id}", policy="os_compute_api:os-aggregates:delete", status=200)
def delete(ctx: Context, aggregate_id: str) -> None:
    """Delete an aggregate. Raises BadRequest while it has hosts."""
    one = _find(ctx, aggregate_id)
    if one.hosts:
        raise BadRequest(f"Aggregate {aggregate_id} cannot be deleted: it has hosts.")
    ctx.tx.execute(sa.delete(aggregate).where(aggregate.c.id == one.row.id))
    ctx.tx.changed("compute.aggregate", aggregate_id)


@resource.action(
    "/os-aggregates/{aggregate_id}/action",
    "add_host",
    policy="os_compute_api:os-aggregates:add_host",
    status=200,
    wraps="aggregate",
)
def add_host(ctx: Context, aggregate_id: str, body: Member) -> Aggregate:
    """Put a host into an aggregate.

    Raises NotFound for a host that there is not, Conflict for one that is in it already, or in another zone, or that
    would change its zone and has servers.
    """
    host = _host(ctx, body.host)
    if host is None:
        raise NotFound(f"Compute host {body.host} could not be found.")
    one = _find_to_change(ctx, aggregate_id)
    if host.name in one.hosts:
        raise Conflict(f"Aggregate {aggregate_id} already has host {host.name}.")
    if one.zone is not None:
        other = zones(ctx.tx, [host.name]).get(host.name)
        if other not in (None, one.zone):
            raise Conflict(f"Host {host.name} is in availability zone {other}, and cannot also be in {one.zone}.")
        _check_move(ctx.tx, [host.name], other, one.zone, Conflict)
    ctx.tx.insert(member, {"aggregate_id": one.row.id, "host": host.name})
    _mirror(ctx.tx, host.id, add={one.row.uuid})
    ctx.tx.changed("compute.aggregate", aggregate_id)
    return show(ctx, aggregate_id)


@resource.action(
    "/os-aggregates/{aggregate_id}/action",
    "remove_host",
    policy="os_compute_api:os-aggregates:remove_host",
    status=200,
    wraps="aggregate",
)
def remove_host(ctx: Context, aggregate_id: str, body: Member) -> Aggregate:
    """Take a host out of an aggregate.

    Raises NotFound for one that is not in it, Conflict for one that would change its zone and has servers.
    """
    one = _find_to_change(ctx, aggregate_id)
    if body.host not in one.hosts:
        raise NotFound(f"Aggregate {aggregate_id} has no host {body.host}.")
    if one.zone is not None:
        left = zones(ctx.tx, [body.host], but=one.row.id).get(body.host)
        _check_move(ctx.tx, [body.host], one.zone, left, Conflict)
    where = (member.c.aggregate_id == one.row.id, member.c.host == body.host)
    ctx.tx.execute(sa.delete(member).where(*where))
    host = _host(ctx, body.host)
    if host is not None:
        _mirror(ctx.tx, host.id, remove={one.row.uuid})
    ctx.tx.changed("compute.aggregate", aggregate_id)
    return show(ctx, aggregate_id)


@resource.action(
    "/os-aggregates/{aggregate_id}/action",
    "set_metadata",
    policy="os_compute_api:os-aggregates:set_metadata",
    status=200,
    wraps="aggregate",
)
def set_metadata(ctx: Context, aggregate_id: str, body: MetadataUpdate) -> Aggregate:
    """Change an aggregate's metadata. Raises BadRequest for a zone that its hosts cannot be in."""
    one = _find_to_change(ctx, aggregate_id)
    if ZONE_KEY in body.metadata:
        _check_zone(ctx.tx, one, body.metadata[ZONE_KEY])
    _set(ctx.tx, one.row.id, body.metadata)
    ctx.tx.execute(sa.update(aggregate).where(aggregate.c.id == one.row.id).values(updated_at=ctx.now))
    ctx.tx.changed("compute.aggregate", aggregate_id)
    return show(ctx, aggregate_id)


@resource.post("/os-aggregates/{aggregate_id}/images", policy="compute:aggregates:images", since="2.81", status=202)
def cache_images(ctx: Context, aggregate_id: str, body: ImageCaching) -> None:
    """Let the hosts of an aggregate that are up fetch images; what is no image, or has no data, is passed over.

    Raises BadRequest for an image that is named twice.
    """
    ids = [one.id for one in body.cache]
    if len(set(ids)) != len(ids):
        raise BadRequest("Duplicate images in request")
    names = _find(ctx, aggregate_id).hosts
    hosts = [one for one in fleet.hosts(ctx.tx, ctx.of(fleet.Fleet)) if one.up and one.name in names]
    for found in [image.find(ctx, one) for one in ids]:
        if found is None or found.status != "active" or found.disk_format is None or found.sha512 is None:
            continue
        for host in hosts:
            fleet.fetch_image(ctx.tx, host.id, found.id, form=found.disk_format, sha512=found.sha512)


def _set(tx: Tx, aggregate_id: int, values: Mapping[str, str | None]) -> None:
    gone = [key for key, value in values.items() if value is None]
    if gone:
        tx.execute(sa.delete(entry).where(entry.c.aggregate_id == aggregate_id, entry.c.key.in_(gone)))
    for key, value in values.items():
        if value is not None:
            row = {"aggregate_id": aggregate_id, "key": key, "value": value}
            tx.upsert(entry, row, key=("aggregate_id", "key"))


def _check_zone(tx: Tx, one: Known, wanted: str | None) -> None:
    """Raise BadRequest unless all hosts of an aggregate can be in a zone. One that has a zone cannot lose it."""
    if not wanted:
        raise BadRequest(f"The availability zone of aggregate {one.row.name} cannot be empty.")
    others = sorted(set(zones(tx, one.hosts, but=one.row.id).values()) - {wanted})
    if others:
        raise BadRequest(f"Hosts of aggregate {one.row.name} are in other availability zones: {', '.join(others)}.")
    _check_move(tx, one.hosts, one.zone, wanted, BadRequest)


def _check_move(tx: Tx, hosts: Collection[str], old: str | None, new: str | None, fault: type[Fault]) -> None:
    """Raise the fault when hosts would go from one zone to another (None: where all others are) and have servers."""
    if (old or ZONE) == (new or ZONE):
        return
    query = sa.select(server.c.host).where(server.c.host.in_(hosts), server.c.deleted_at.is_(None)).limit(1)
    held = tx.scalar(query)
    if held is not None:
        raise fault(
            f"Host {held} has servers, and would move from availability zone {old or ZONE} to {new or ZONE}: "
            "delete them or move them to another host first."
        )


def _host(ctx: Context, name: str) -> fleet.Host | None:
    return next((one for one in fleet.hosts(ctx.tx, ctx.of(fleet.Fleet)) if one.name == name), None)


def _mirror(tx: Tx, host_id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
    """Let Placement's provider, if there is one, be in the same aggregates as its host."""
    for provider in placement.snapshot(tx, [host_id]):
        placement.set_aggregates(tx, host_id, (provider.aggregates | set(add)) - set(remove))

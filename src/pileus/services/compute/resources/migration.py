"""Migrations: what was moved or resized, and how far it came.

https://docs.openstack.org/api-ref/compute/#migrations-os-migrations
https://docs.openstack.org/api-ref/compute/#server-migrations-servers-migrations
"""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.fields import UnsetType, View, W
from pileus.core.listing import instant, limit_of
from pileus.core.policy import Rule
from pileus.core.store import Instant, Tx, metadata
from pileus.services.compute.resources.server.table import server
from pileus.services.compute.rules.persona import ADMIN, MANAGER
from pileus.services.compute.rules.shape import bare
from pileus.services.compute.versions import MIGRATION_CHANGES_BEFORE, MIGRATION_PAGES, MIGRATION_USERS

migration = sa.Table(
    "compute_migration",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("uuid", sa.String(64), nullable=False, unique=True),
    sa.Column("server_id", sa.String(64), sa.ForeignKey("compute_server.id"), nullable=False, index=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("source_host", sa.String(255)),
    sa.Column("dest_host", sa.String(255)),
    sa.Column("old_flavor_id", sa.String(255), nullable=False),
    sa.Column("new_flavor_id", sa.String(255), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant),
    sa.Index("ix_compute_migration_created_at", "created_at"),
)
"""`type` and `status` are upstream's words.  The uuid is the consumer in Placement that holds what a resized server had
before, until it is confirmed."""


def begin(tx: Tx, row: sa.Row[Any], kind: str, old: str, new: str, user_id: str) -> str:
    """Note that a server is being moved or resized, from and to its host; the migration's uuid."""
    uuid = tx.seams.uuid()
    values = {
        "uuid": uuid,
        "server_id": row.id,
        "project_id": row.project_id,
        "user_id": user_id,
        "type": kind,
        "status": "migrating",
        "source_host": row.host,
        "dest_host": row.host,
        "old_flavor_id": old,
        "new_flavor_id": new,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    tx.insert(migration, values)
    return uuid


def finish(tx: Tx, uuid: str, status: str) -> None:
    """Note how far a migration has come."""
    tx.execute(sa.update(migration).where(migration.c.uuid == uuid).values(status=status, updated_at=tx.now))


def of_server(tx: Tx, server_id: str, migration_id: str) -> sa.Row[Any] | None:
    """A migration of a server, by its number."""
    if not migration_id.isdecimal() or len(migration_id) > 9:
        return None
    query = sa.select(migration).where(migration.c.id == int(migration_id), migration.c.server_id == server_id)
    return tx.first(query)


# -- listing -----------------------------------------------------------------------------------------------------------


class Migration(View):
    """How a server was moved or resized. Hosts are for those who may see them."""

    id: int
    uuid: Annotated[str | UnsetType, W(since="2.59")]
    instance_uuid: str
    status: str
    migration_type: Annotated[str | UnsetType, W(since="2.23")]
    source_compute: str | None
    source_node: str | None
    dest_compute: str | None
    dest_node: str | None
    dest_host: str | None
    old_instance_type_id: int | None
    new_instance_type_id: int | None
    user_id: Annotated[str | UnsetType, W(since="2.80")]
    project_id: Annotated[str | UnsetType, W(since="2.80")]
    created_at: str | None
    updated_at: str | None


_POLICY = "os_compute_api:os-migrations"

RULES = (
    Rule(f"{_POLICY}:index", MANAGER, "List the migrations of one's own project"),
    Rule(f"{_POLICY}:index:all_projects", ADMIN, "List the migrations of all projects"),
    Rule(f"{_POLICY}:index:host", ADMIN, "See the hosts of migrations"),
)

resource = Resource("migration", "migrations", rules=RULES)

_MOST = 1000
_FILTERS = {
    "instance_uuid": migration.c.server_id,
    "source_compute": migration.c.source_host,
    "status": migration.c.status,
    "migration_type": migration.c.type,
}
_OF_WHOM = {"user_id": migration.c.user_id, "project_id": migration.c.project_id}
_QUERY = Parameters(
    *("hidden", "host", *_FILTERS),
    later={
        **dict.fromkeys(("limit", "marker", "changes-since"), "2.59"),
        "changes-before": "2.66",
        **dict.fromkeys(_OF_WHOM, "2.80"),
    },
    closed="2.59",
)


def _number(flavor_id: str) -> int | None:
    """Flavors have no numbers here besides their ids: that one, where it is a number."""
    return int(flavor_id) if flavor_id.isdecimal() else None


def _view(row: sa.Row[Any], *, hosts: bool) -> Migration:
    source, target = (row.source_host, row.dest_host) if hosts else (None, None)
    return Migration(
        id=row.id,
        uuid=row.uuid,
        instance_uuid=row.server_id,
        status=row.status,
        migration_type=row.type,
        source_compute=source,
        source_node=source,
        dest_compute=target,
        dest_node=target,
        dest_host=None,
        old_instance_type_id=_number(row.old_flavor_id),
        new_instance_type_id=_number(row.new_flavor_id),
        user_id=row.user_id,
        project_id=row.project_id,
        created_at=bare(row.created_at),
        updated_at=bare(row.updated_at),
    )


def _conditions(ctx: Context) -> list[sa.ColumnElement[bool]]:
    """What the query asks for, of servers that are there. Raises BadRequest for times that contradict each other."""
    known = {**_FILTERS, **(_OF_WHOM if MIGRATION_USERS.covers(ctx.version) else {})}
    found: list[sa.ColumnElement[bool]] = [
        server.c.deleted_at.is_(None),
        *(column == ctx.query.get(name) for name, column in known.items() if ctx.query.get(name)),
    ]
    if any(ctx.query.get(name) for name in ("host", "source_compute")):
        ctx.enforce(f"{_POLICY}:index:host")  # who may not see hosts may not ask about them either
    if host := ctx.query.get("host"):
        found.append(sa.or_(migration.c.source_host == host, migration.c.dest_host == host))
    since = ctx.query.get("changes-since") if MIGRATION_PAGES.covers(ctx.version) else None
    before = ctx.query.get("changes-before") if MIGRATION_CHANGES_BEFORE.covers(ctx.version) else None
    if since is not None:
        found.append(migration.c.updated_at >= instant(since))
    if before is not None:
        found.append(migration.c.updated_at <= instant(before))
    if since is not None and before is not None and instant(before) < instant(since):
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    return found


@resource.get("/os-migrations", policy=f"{_POLICY}:index", query=_QUERY, wraps="migrations")
def list_migrations(ctx: Context) -> Page:
    """Migrations of all projects, or of one's own when it is named (from 2.80 on); the newest first from 2.59 on."""
    project_id = ctx.query.get("project_id")
    if not project_id or project_id != ctx.auth.project_id:
        ctx.enforce(f"{_POLICY}:index:all_projects")
    hosts = ctx.allows(f"{_POLICY}:index:host")
    query = sa.select(migration).join(server, server.c.id == migration.c.server_id).where(*_conditions(ctx))
    if not MIGRATION_PAGES.covers(ctx.version):
        return Page([_view(row, hosts=hosts) for row in ctx.tx.all(query.order_by(migration.c.id))])
    if marker := ctx.query.get("marker"):
        last = ctx.tx.first(sa.select(migration.c.id).where(migration.c.uuid == marker))
        if last is None:
            raise BadRequest(f"Marker {marker} could not be found.")
        query = query.where(migration.c.id < last.id)
    limit = _limit(ctx)
    rows = ctx.tx.all(query.order_by(migration.c.id.desc()).limit(limit))
    return Page([_view(row, hosts=hosts) for row in rows], rows[-1].uuid if len(rows) == limit else None)


def _limit(ctx: Context) -> int:
    return min(limit_of(ctx.query.get("limit") or "0") or _MOST, _MOST)

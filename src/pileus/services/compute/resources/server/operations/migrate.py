"""Moving servers to other hosts: refused, as upstream refuses it where no other host can take them.

https://docs.openstack.org/api-ref/compute/#migrate-server-migrate-action
https://docs.openstack.org/api-ref/compute/#live-migrate-server-os-migratelive-action
https://docs.openstack.org/api-ref/compute/#evacuate-server-evacuate-action
https://docs.openstack.org/api-ref/compute/#server-migrations-servers-migrations

A guest's disks are files on its host, and no host reads another's.  So whatever is asked is checked and written down,
and ends as it does where the scheduler finds no valid host: the server stays where it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.config import Config
from pileus.core.context import Context
from pileus.core.errors import BadRequest, NotFound
from pileus.core.fields import UNSET, Body, UnsetType, View, W
from pileus.services.compute.resources import migration
from pileus.services.compute.resources.server.operations import source
from pileus.services.compute.resources.server.operations.hosting import check_up, up
from pileus.services.compute.resources.server.operations.row import allow, find, note, resource
from pileus.services.compute.resources.server.operations.transition import fault, reset
from pileus.services.compute.resources.server.table import finish_actions, server, want
from pileus.services.compute.rules.shape import HostName, Truth, is_true
from pileus.services.compute.versions import EVACUATION_HAS_NO_PASSWORD, LIVE_MIGRATION_LATER
from pileus.services.fleet import interface as fleet

_ACTION = "/servers/{server_id}/action"
_MANY = "/servers/{server_id}/migrations"
_ONE = "/servers/{server_id}/migrations/{migration_id}"
_POLICY = "os_compute_api:os-migrate-server"
_LIVE = "os_compute_api:servers:migrations"

NO_HOST = "No valid host was found. There are not enough hosts available."
WHY = "the disks of a guest are on its host, and no other host can read them"

_Maybe = Truth | Literal["auto"]


class Migrate(Body):
    """Where to."""

    host: Annotated[HostName | UnsetType | None, W(since="2.56")] = UNSET


class MigrateLive(Body):
    """Where to, and how."""

    host: HostName | None
    block_migration: Annotated[Any, W(Truth, until="2.24", strict=True), W(_Maybe, since="2.25", strict=True)]
    disk_over_commit: Annotated[Truth | UnsetType, W(Truth, until="2.24", need=True, strict=True)] = UNSET
    force: Annotated[Truth | UnsetType, W(Truth, since="2.30", until="2.67", strict=True)] = UNSET


class Evacuate(Body):
    """Where to, and with what password."""

    host: HostName | UnsetType = UNSET
    on_shared_storage: Annotated[Truth | UnsetType, W(Truth, until="2.13", need=True, strict=True)] = msgspec.field(
        name="onSharedStorage", default=UNSET
    )
    admin_pass: str | UnsetType = msgspec.field(name="adminPass", default=UNSET)
    force: Annotated[Truth | UnsetType, W(Truth, since="2.29", until="2.67", strict=True)] = UNSET


class LiveMigration(View):
    """A live migration that runs."""

    id: int
    uuid: Annotated[str | UnsetType, W(since="2.59")]
    server_uuid: str
    status: str


def _fail(ctx: Context, row: sa.Row[Any], kind: str, word: str, event: str, message: str) -> None:
    """Write down that a server was to be moved, and that no host can take it."""
    uuid = migration.begin(ctx.tx, row, kind, row.flavor_id, row.flavor_id, ctx.auth.user_id)
    migration.finish(ctx.tx, uuid, "error")
    note(ctx, row.id, row.project_id, word, event, row.host)
    finish_actions(ctx.tx, [row.id], "Error", f"{message} ({row.host}: {WHY})")
    values = {"fault": fault(ctx.tx, f"{row.host}: {WHY}", message), "updated_at": ctx.now}
    ctx.tx.execute(sa.update(server).where(server.c.id == row.id).values(values))
    ctx.tx.changed("compute.server", row.id)


def _known(ctx: Context, name: str) -> bool:
    return any(one.name == name for one in fleet.hosts(ctx.tx, ctx.of(fleet.Fleet)))


@resource.action(_ACTION, "migrate", policy=f"{_POLICY}:migrate")
def migrate(ctx: Context, server_id: str, body: Migrate | None) -> None:
    """Move a server that may be stopped meanwhile: its action and its fault say that no host can take it.

    Raises BadRequest for a host that is not there, or is its own.
    """
    row = find(ctx, server_id)
    host = None if body is None or body.host is UNSET else body.host
    if host:
        ctx.enforce(f"{_POLICY}:migrate:host", {"project_id": row.project_id, "user_id": row.user_id})
    allow(ctx, row, "migrate")
    check_up(ctx, row)
    if host and host == row.host:
        raise BadRequest("Cannot migrate to the host where the server exists.")
    if host and not _known(ctx, host):
        raise BadRequest(f"Compute host {host} could not be found.")
    message = "No valid host was found. No valid host found for cold migrate"
    _fail(ctx, row, "migration", "migrate", "cold_migrate", message)


@resource.action(_ACTION, "os-migrateLive", policy=f"{_POLICY}:migrate_live")
def migrate_live(ctx: Context, server_id: str, body: MigrateLive) -> None:
    """Move a server while it runs: refused until 2.33; from then on its action says that no host can take it.

    Raises BadRequest for a host that is not there.
    """
    row = find(ctx, server_id)
    if body.host:
        ctx.enforce(f"{_POLICY}:migrate_live:host", {"project_id": row.project_id, "user_id": row.user_id})
    if is_true(body.force) and not body.host:
        raise BadRequest("Can't force to a non-provided destination")
    allow(ctx, row, "os-migrateLive")
    if body.host and not _known(ctx, body.host):
        raise BadRequest(f"Compute host {body.host} could not be found.")
    message = NO_HOST
    if not up(ctx, row):
        message = f"Compute service of {row.host} is unavailable at this time."
    elif body.host == row.host:
        message = f"Unable to migrate instance ({row.id}) to current host ({row.host})."
    if not LIVE_MIGRATION_LATER.covers(ctx.version):
        raise BadRequest(message)
    _fail(ctx, row, "live-migration", "live-migration", "conductor_live_migrate_instance", message)


@resource.action(_ACTION, "evacuate", policy="os_compute_api:os-evacuate", status=200)
def evacuate(ctx: Context, server_id: str, body: Evacuate) -> dict[str, str] | None:
    """Make a server anew elsewhere whose host is down: it is in error, since no host can take it.

    Raises BadRequest while its host is up, and for its own host; NotFound for a host that is not there.
    """
    row = find(ctx, server_id)
    host = None if body.host is UNSET else body.host
    if is_true(body.force) and not host:
        raise BadRequest("Can't force to a non-provided destination")
    shared = is_true(body.on_shared_storage)
    if shared and body.admin_pass is not UNSET:
        raise BadRequest("admin password can't be changed on existing disk")
    if host is not None and not _known(ctx, host):
        raise NotFound(f"Compute host {host} not found.")
    if host is not None and host == row.host:
        raise BadRequest("The target host can't be the same one.")
    allow(ctx, row, "evacuate")
    if row.host_id is None or up(ctx, row):
        raise BadRequest(f"Compute service of {row.host} is still in use.")
    want(ctx.tx, row, **reset(ctx.tx, row, ctx.of(Config)))
    again = find(ctx, server_id)
    _fail(ctx, again, "evacuation", "evacuate", "rebuild_server", NO_HOST)
    ctx.tx.execute(sa.update(server).where(server.c.id == row.id).values(error=True))
    if EVACUATION_HAS_NO_PASSWORD.covers(ctx.version):
        return None
    secret = source.password(ctx) if body.admin_pass is UNSET else body.admin_pass
    return {} if shared else {"adminPass": secret}


@resource.get(_MANY, policy=f"{_LIVE}:index", since="2.23", wraps="migrations")
def list_live(ctx: Context, server_id: str) -> list[LiveMigration]:
    """The live migrations of a server that run: none ever does."""
    find(ctx, server_id)
    return []


@resource.get(_ONE, policy=f"{_LIVE}:show", since="2.23", wraps="migration")
def show_live(ctx: Context, server_id: str, migration_id: str) -> LiveMigration:
    """One of them. Raises NotFound: there is none."""
    row = find(ctx, server_id)
    known = migration.of_server(ctx.tx, row.id, migration_id)
    if known is None:
        raise NotFound(f"In-progress live migration {migration_id} is not found for server {row.id}.")
    if known.type != "live-migration":
        raise NotFound(f"Migration {migration_id} for server {row.id} is not live-migration.")
    raise NotFound(f"Live migration {migration_id} for server {row.id} is not in progress.")


@resource.action(f"{_ONE}/action", "force_complete", policy=f"{_LIVE}:force_complete", since="2.22")
def force_complete(ctx: Context, server_id: str, migration_id: str, body: Any) -> None:
    """Let a live migration end soon. Raises Conflict: no server is being moved."""
    row = find(ctx, server_id)
    allow(ctx, row, "force_complete")
    raise BadRequest(f"Migration {migration_id} not found for instance {row.id}")


@resource.delete(_ONE, policy=f"{_LIVE}:delete", since="2.24", status=202)
def abort(ctx: Context, server_id: str, migration_id: str) -> None:
    """End a live migration that runs. Raises Conflict: no server is being moved."""
    row = find(ctx, server_id)
    allow(ctx, row, "abort live migration")
    raise NotFound(f"Migration {migration_id} not found for instance {row.id}")

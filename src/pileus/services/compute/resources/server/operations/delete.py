"""Deleting servers: at once, or after a time in which they can be restored.

https://docs.openstack.org/api-ref/compute/#delete-server
https://docs.openstack.org/api-ref/compute/#force-delete-server-forcedelete-action
https://docs.openstack.org/api-ref/compute/#restore-soft-deleted-instance-restore-action
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.config import Config
from pileus.core.context import Context
from pileus.services.compute.resources.quota import QUOTA, take
from pileus.services.compute.resources.server.operations import ending
from pileus.services.compute.resources.server.operations.row import allow, find, note, resource
from pileus.services.compute.resources.server.operations.transition import reset
from pileus.services.compute.resources.server.table import want
from pileus.services.compute.rules import holding

_ACTION = "/servers/{server_id}/action"


@resource.delete("/servers/{server_id}", policy="os_compute_api:servers:delete")
def delete(ctx: Context, server_id: str) -> None:
    """Begin to delete a server; one that is being deleted already is left to it.

    Where the setting `reclaim_instance_interval` says so, a server that has run is stopped and waits.
    """
    row = find(ctx, server_id)
    allow(ctx, row, "delete")
    if row.mode == "soft_deleted" and row.task is None and row.deleting_at is None and not row.error:
        return
    waits = ctx.of(Config).reclaim_instance_interval > 0 and row.launched_at is not None and row.host_id is not None
    if waits and row.deleting_at is None and row.task != "shelving_offloading":
        _put_by(ctx, row)
    else:
        _begin(ctx, row)


@resource.action(_ACTION, "forceDelete", policy="os_compute_api:os-deferred-delete:force")
def force_delete(ctx: Context, server_id: str, body: Any) -> None:
    """Delete a server in any state, and for good."""
    row = find(ctx, server_id)
    allow(ctx, row, "force_delete")
    _begin(ctx, row)


@resource.action(_ACTION, "restore", policy="os_compute_api:os-deferred-delete:restore")
def restore(ctx: Context, server_id: str, body: Any) -> None:
    """Take a softly deleted server back, and let it run. Raises QuotaExceeded."""
    row = find(ctx, server_id)
    allow(ctx, row, "restore")
    take(ctx.tx, row.project_id, row.user_id, holding.quota(row.flavor))
    want(ctx.tx, row, task="restoring", power="running")
    note(ctx, row.id, row.project_id, "restore", "compute_restore_instance", row.host)


def _begin(ctx: Context, row: sa.Row[Any]) -> None:
    if row.deleting_at is not None:
        return
    ending.begin_deletion(ctx.tx, row)
    note(ctx, row.id, row.project_id, "delete", "compute_terminate_instance", row.host)
    ending.finish_deletions(ctx.tx, [row.id])


def _put_by(ctx: Context, row: sa.Row[Any]) -> None:
    """Stop a server and count it no more, whatever was under way."""
    values = reset(ctx.tx, row, ctx.of(Config)) | {"task": "soft-deleting", "power": "stopped"}
    want(ctx.tx, row, **values)
    QUOTA.give_back(ctx.tx, row.project_id, holding.quota(row.flavor))
    note(ctx, row.id, row.project_id, "delete", "compute_soft_delete_instance", row.host)

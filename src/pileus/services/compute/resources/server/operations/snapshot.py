"""Images that hosts make of servers' disks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import sqlalchemy as sa

from pileus.contracts.hypervisor import SnapshotSpec
from pileus.core.statement import by
from pileus.core.store import Tx
from pileus.services.compute.resources.server.table import snapshot
from pileus.services.fleet import interface as fleet
from pileus.services.image import interface as image

Purpose = Literal["image", "backup", "shelve"]


def begin(
    tx: Tx,
    row: sa.Row[Any],
    image_id: str,
    purpose: Purpose,
    *,
    format: Literal["qcow2", "raw"] = "qcow2",
    quiesce: bool = False,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Let a server's host make an image, which is there and waits for its data, of the server's root disk.

    The loop `compute.snapshot` ends it: with `ready` the image is active, with a failure it is gone, and the task that
    waits for it ends as `rules.task` says.
    """
    values = {
        "image_id": image_id,
        "server_id": row.id,
        "host_id": row.host_id,
        "purpose": purpose,
        "details": dict(details or {}),
        "created_at": tx.now,
    }
    tx.insert(snapshot, values)
    spec = SnapshotSpec(id=image_id, guest_id=row.id, format=format, quiesce=quiesce)
    fleet.assign(tx, [fleet.Spec(row.host_id, "snapshot", image_id, spec)])


def end(tx: Tx, image_ids: Collection[str]) -> None:
    """Let hosts forget these snapshots, and forget them here."""
    fleet.tombstone(tx, "snapshot", image_ids)
    tx.execute(sa.delete(snapshot).where(snapshot.c.image_id.in_(image_ids)))


def give_up(tx: Tx, server_ids: Collection[str]) -> None:
    """End all snapshots of servers that come to nothing, with their images."""
    rows = tx.all(by(snapshot, "server_id", "image_id"), {"values": server_ids})
    for row in rows:
        image.fail_snapshot(tx, row.image_id)
    if rows:
        end(tx, [row.image_id for row in rows])

"""Images that hosts make of servers' disks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa

from pileus.contracts.hypervisor import SnapshotSpec
from pileus.core.store import Tx
from pileus.services.compute.resources.server.table import snapshot
from pileus.services.fleet import interface as fleet

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
    tx.execute(sa.insert(snapshot).values(values))
    spec = SnapshotSpec(id=image_id, guest_id=row.id, format=format, quiesce=quiesce)
    fleet.assign(tx, [fleet.Spec(row.host_id, "snapshot", image_id, spec)])

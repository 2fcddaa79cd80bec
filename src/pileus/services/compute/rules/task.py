"""How each task of a server ends: the one table that the controllers go by.

A task waits for one thing, and then goes on to another or leaves the server in a mode; when its host cannot do it, the
server is in error, or is again what it was (upstream's `errors_out_instance`, `reverts_task_state` and
`InstanceFaultRollback` decide which).  So every task has an end, whatever comes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pileus.services.compute.rules.status import Mode, Task

Waits = Literal["guest", "host", "snapshot", "gone", "acts"]
"""What a task waits for.

`guest`: the newest spec is with the host, and the guest is as it says.  `host`: the scheduler has placed the server.
`snapshot`: an image was made of its disk.  `gone`: its host has let go of it.  `acts`: the host has come to all acts.
"""


class End(NamedTuple):
    """How a task ends."""

    waits: Waits
    then: Task | None = None
    """The task that follows."""
    mode: Mode | None = None
    """What the server is in then; None: in what it was."""
    failure: Literal["error", "back", "same"] = "error"
    """Whether a failure that is permanent leaves the server in error, or as it was before the task, or is all the
    same: what was asked for is there without the guest."""


ENDS: Mapping[Task, End] = {
    "image_snapshot_pending": End("snapshot", failure="back"),
    "image_snapshot": End("snapshot", failure="back"),
    "image_pending_upload": End("snapshot", failure="back"),
    "image_uploading": End("snapshot", failure="back"),
    "image_backup": End("snapshot", failure="back"),
    "updating_password": End("acts", failure="back"),
    "resize_prep": End("guest", mode="resized", failure="back"),
    "resize_migrating": End("guest", mode="resized", failure="back"),
    "resize_migrated": End("guest", mode="resized", failure="back"),
    "resize_finish": End("guest", mode="resized", failure="back"),
    "resize_reverting": End("guest", mode=""),
    "resize_confirming": End("guest", mode=""),
    "rescuing": End("guest", mode="rescued"),
    "unrescuing": End("guest", mode=""),
    "rebuilding": End("guest", mode=""),
    "rebuild_block_device_mapping": End("guest", mode=""),
    "rebuild_spawning": End("guest", mode=""),
    "migrating": End("guest", failure="back"),
    "soft-deleting": End("guest", mode="soft_deleted", failure="same"),
    "restoring": End("guest", mode=""),
    "shelving": End("guest", then="shelving_image_uploading", failure="back"),
    "shelving_image_pending_upload": End("snapshot", mode="shelved", failure="back"),
    "shelving_image_uploading": End("snapshot", mode="shelved", failure="back"),
    "shelving_offloading": End("gone", mode="shelved_offloaded", failure="same"),
    "unshelving": End("host", then="spawning", failure="back"),
    "spawning": End("guest", mode="", failure="back"),
}
"""Every task, and how it ends."""

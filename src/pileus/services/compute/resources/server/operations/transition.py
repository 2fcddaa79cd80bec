"""How a server goes on when what its task waited for is there, or never will be: `rules.task`, put into rows.

Everything here is done by controllers, in the transaction that holds the server's row, and gives the columns that
change; so a crash leaves a server before or after a step, never within one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.config import Config
from pileus.core.store import Tx
from pileus.services.compute.resources.migration import finish
from pileus.services.compute.resources.quota import QUOTA
from pileus.services.compute.resources.server.operations import snapshot
from pileus.services.compute.resources.server.table import next_reboot, server
from pileus.services.compute.rules import disk, holding, placing
from pileus.services.compute.rules.shape import instant
from pileus.services.compute.rules.status import Task
from pileus.services.compute.rules.task import ENDS
from pileus.services.fleet import interface as fleet
from pileus.services.image import interface as image
from pileus.services.network import interface as network
from pileus.services.placement import interface as placement

log = logging.getLogger(__name__)

Values = dict[str, Any]
Hook = Callable[[Tx, sa.Row[Any], Config], Values]

TOLD = frozenset({"power", "disks", "flavor", "image", "rescue", "reboot_nonce", "acts", "admin_pass", "host_id"})
"""Columns of what the host is told: whoever changes them makes a new revision."""


def fault(tx: Tx, reason: str, message: str = "The host could not make the guest as it is wanted.") -> Values:
    """A fault as servers keep it."""
    return {"code": 500, "message": message, "details": reason, "created": instant(tx.now)}


def write(tx: Tx, row: sa.Row[Any], values: Mapping[str, Any]) -> None:
    """Write columns of a server whose row is locked; the loops that care hear of it."""
    if not values:
        return
    changes = {**values, "updated_at": tx.now}
    if TOLD & values.keys():
        changes["revision"] = row.revision + 1
        tx.changed("compute.intent", row.id)
    tx.execute(sa.update(server).where(server.c.id == row.id).values(changes))
    tx.changed("compute.server", row.id)


def ended(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    """What changes when the task that is under way has come to its end."""
    task: Task = row.task
    end = ENDS[task]
    values: Values = {"task": end.then, "error": False, "fault": None}
    if end.mode is not None:
        values |= {"mode": end.mode, "mode_at": tx.now}
    hook = _AFTER.get(task)
    return values if hook is None else values | hook(tx, row, config)


def failed(tx: Tx, row: sa.Row[Any], config: Config, reason: str) -> Values:
    """What changes when the task that is under way can never come to its end."""
    task: Task = row.task
    end = ENDS[task]
    if end.failure == "same":
        return ended(tx, row, config)
    values: Values = {"task": None, "fault": fault(tx, reason)}
    if end.failure == "error":
        values["error"] = True
        if end.mode == "":
            # What is wanted of the host is what the mode says already: there is nothing more to come back from.
            values |= {"mode": "", "mode_at": tx.now}
    hook = _INSTEAD.get(task)
    return values if hook is None else values | hook(tx, row, config)


# -- resize ----------------------------------------------------------------------------------------------------------


def hold(tx: Tx, row: sa.Row[Any], flavor: Mapping[str, Any]) -> None:
    """Let a server hold on its host what a flavor needs, instead of what it holds.

    Where even that does not fit any more, since the host lost what it offered, the server keeps what it holds.
    """
    amounts = placing.resources(flavor, row.image.get("virtual_size"))
    claim = placement.Claim(
        consumer_uuid=row.id,
        provider_uuid=row.host_id,
        resources={name: amount for name, amount in amounts.items() if amount},
        project_id=row.project_id,
        user_id=row.user_id,
    )
    for reason in placement.claim_many(tx, [claim]).values():
        log.warning("server %s keeps what it held on %s: %s", row.id, row.host, reason)


def settle_quota(tx: Tx, row: sa.Row[Any], flavor: Mapping[str, Any]) -> None:
    """Count a server that has two flavors as one of this one alone."""
    before, after = holding.quota(row.flavor, row.previous), holding.quota(flavor)
    QUOTA.take(tx, row.project_id, holding.difference(before, after))


def _resized(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    finish(tx, row.previous["migration"], "finished")
    return {}


def _confirmed(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    settle_quota(tx, row, row.flavor)
    placement.release(tx, row.previous["migration"])
    finish(tx, row.previous["migration"], "confirmed")
    return {"previous": None}


def _reverted(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    # The row's flavor is the old one already; `previous` is what was given up.
    settle_quota(tx, row, row.flavor)
    placement.release(tx, row.previous["migration"])
    hold(tx, row, row.flavor)
    finish(tx, row.previous["migration"], "reverted")
    return {"previous": None}


def _roll_back(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    """A resize that the host cannot do: what was before is wanted again."""
    old = row.previous
    settle_quota(tx, row, old["flavor"])
    placement.release(tx, old["migration"])
    hold(tx, row, old["flavor"])
    finish(tx, old["migration"], "error")
    return {
        "flavor_id": old["flavor_id"],
        "flavor": old["flavor"],
        "disks": disk.reverted(row.disks, old["disks"]),
        "reboot_nonce": next_reboot(row),
        "reboot_kind": "HARD",
        "previous": None,
    }


# -- rescue ----------------------------------------------------------------------------------------------------------


def _unrescued(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    """A rescue that the host cannot do: the server shall start from its own disk."""
    return {
        "rescue": None,
        "disks": disk.retired(row.disks, [disk.RESCUE]),
        "reboot_nonce": next_reboot(row),
        "reboot_kind": "HARD",
    }


# -- shelve ----------------------------------------------------------------------------------------------------------


def _take(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    """The guest is at rest: its disk becomes an image."""
    snapshot.begin(tx, row, row.shelf["image_id"], "shelve")
    return {}


def _shelved(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    return offload(tx, row) if config.shelved_offload_time == 0 else {}


def offload(tx: Tx, row: sa.Row[Any]) -> Values:
    """Let the host of a shelved server let go of it."""
    fleet.tombstone(tx, "guest", [row.id])
    return {"task": "shelving_offloading"}


def _offloaded(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    network.unbind_ports(tx, [row.id])
    placement.release(tx, row.id)
    return {"host_id": None, "host": None, "state": "stopped", "power": "stopped"}


def _kept(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    """A shelving that failed: the server is again as it was, and no image of it is left."""
    drop_image(tx, row.shelf["image_id"])
    return {"power": row.shelf["power"], "shelf": None}


def _unshelved(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    image.delete(tx, row.shelf["image_id"])
    return {"shelf": None}


def _still_shelved(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    """An unshelving that the host cannot do: off the host again, where it was off it."""
    values: Values = {"power": "stopped"}
    if row.mode == "shelved_offloaded" and row.host_id is not None:
        values |= offload(tx, row)
    return values


# -- whatever is under way -------------------------------------------------------------------------------------------


def reset(tx: Tx, row: sa.Row[Any], config: Config) -> Values:
    """What changes when an admin says that nothing is under way: the server is what it comes closest to.

    A resize counts as confirmed, one that is going back as reverted; a rescued server starts from its own disk the next
    time.  What its host is letting go of stays on its way: its disks may be gone.
    """
    if row.task == "shelving_offloading":
        return {}
    values: Values = {"task": None, "mode": "", "mode_at": tx.now, "error": False, "fault": None}
    if row.previous is not None:
        values |= (_reverted if row.task == "resize_reverting" else _confirmed)(tx, row, config)
        values["disks"] = disk.settled(row.disks)
    if row.task is not None and ENDS[row.task].waits == "snapshot":
        snapshot.give_up(tx, [row.id])
    if row.rescue is not None:
        values |= {"rescue": None, "disks": disk.retired(row.disks, [disk.RESCUE])}
    if row.mode == "shelved_offloaded" and row.host_id is None:
        return values | {"mode": row.mode, "mode_at": row.mode_at, "power": "stopped"}
    if row.shelf is not None:
        drop_image(tx, row.shelf["image_id"])
        values["shelf"] = None
    if not holding.counted(row.mode, row.task):
        QUOTA.take(tx, row.project_id, holding.quota(row.flavor))
    return values


def drop_image(tx: Tx, image_id: str) -> None:
    """Delete the image of a shelved server, whether all of it is there or not."""
    if not image.fail_snapshot(tx, image_id):
        image.delete(tx, image_id)


def forget(tx: Tx, row: sa.Row[Any]) -> None:
    """Give back what a server that ends holds besides its ports, its own allocation and its quota."""
    if row.previous is not None:
        placement.release(tx, row.previous["migration"])
        finish(tx, row.previous["migration"], "reverted" if row.task == "resize_reverting" else "confirmed")
    if row.shelf is not None:
        drop_image(tx, row.shelf["image_id"])


_AFTER: Mapping[Task, Hook] = {
    **dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), _resized),
    "resize_confirming": _confirmed,
    "resize_reverting": _reverted,
    "shelving": _take,
    "shelving_image_pending_upload": _shelved,
    "shelving_image_uploading": _shelved,
    "shelving_offloading": _offloaded,
    "spawning": _unshelved,
}
"""What else happens when a task has come to its end."""

_INSTEAD: Mapping[Task, Hook] = {
    **dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), _roll_back),
    "resize_confirming": _confirmed,
    "resize_reverting": _reverted,
    "rescuing": _unrescued,
    "shelving": _kept,
    "shelving_image_pending_upload": _kept,
    "shelving_image_uploading": _kept,
    "unshelving": _still_shelved,
    "spawning": _still_shelved,
}
"""What else happens when it never can."""

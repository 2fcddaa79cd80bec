"""Resizing: what is wanted of a server's host at its beginning, its confirmation and its way back.

A resized server holds on its host what its new flavor needs, and under the migration's name what the old one did, until
it is confirmed (upstream's way).  Its disks begin as copies of what they were; those are kept until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.store import Tx
from pileus.services.compute.resources import migration, quota
from pileus.services.compute.resources.server.table import next_reboot, want
from pileus.services.compute.rules import disk, holding, placing
from pileus.services.compute.rules.guest import disk_names
from pileus.services.compute.rules.machine import machine, objection
from pileus.services.fleet import interface as fleet
from pileus.services.placement import interface as placement


def begin(tx: Tx, row: sa.Row[Any], flavor_id: str, flavor: Mapping[str, Any], user_id: str) -> str | None:
    """Let a server have another flavor on its host; why not, when there is no room for it.

    Raises QuotaExceeded.
    """
    uuid = migration.begin(tx, row, "resize", row.flavor_id, flavor_id, user_id)
    before = disk.known(row.disks, disk_names(row.flavor))
    previous = {"flavor_id": row.flavor_id, "flavor": row.flavor, "disks": before, "migration": uuid}
    now, then = holding.quota(row.flavor), holding.quota(flavor, previous)
    quota.take(tx, row.project_id, row.user_id, holding.difference(now, then))
    reason = _unfit(tx, row, flavor) or _claim(tx, row, uuid, flavor)
    if reason is not None:
        quota.QUOTA.take(tx, row.project_id, holding.difference(then, now))
        migration.finish(tx, uuid, "error")
        return reason
    want(
        tx,
        row,
        flavor_id=flavor_id,
        flavor=dict(flavor),
        disks=grown(before, row.flavor, flavor),
        previous=previous,
        task="resize_finish",
        reboot_nonce=next_reboot(row),
        reboot_kind="SOFT",
    )
    return None


def grown(before: disk.Disks, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The disks of a server that gets another flavor.

    What both have begins as a copy, but for swap, in which nothing stays; what only one has is made, or waits unseen.
    """
    names, had = disk_names(new), disk_names(old)
    copies = [name for name in names if name in had and name != disk.SWAP]
    return disk.renewed(disk.copied(before, copies), [name for name in names if name not in copies])


def _unfit(tx: Tx, row: sa.Row[Any], flavor: Mapping[str, Any]) -> str | None:
    """Why the server's host cannot give the machine that the flavor asks for."""
    wanted = machine(flavor, row.image.get("properties") or {})
    for host in fleet.hosts(tx, fleet.Fleet(tx.seams.clock), [row.host_id]):
        return objection(wanted, flavor["vcpus"], host.facts)
    return None


def _claim(tx: Tx, row: sa.Row[Any], uuid: str, flavor: Mapping[str, Any]) -> str | None:
    """Hold what both flavors need; why that cannot be."""
    size = row.image.get("virtual_size")
    for consumer, one in ((row.id, flavor), (uuid, row.flavor)):
        claim = placement.Claim(
            consumer_uuid=consumer,
            provider_uuid=row.host_id,
            resources={name: amount for name, amount in placing.resources(one, size).items() if amount},
            project_id=row.project_id,
            user_id=row.user_id,
        )
        refused = placement.claim_many(tx, [claim])
        if refused:
            if consumer == uuid:
                old = claim.resources
                placement.claim(tx, row.id, row.host_id, old, project_id=row.project_id, user_id=row.user_id)
            return str(next(iter(refused.values())))
    return None


def confirm(tx: Tx, row: sa.Row[Any]) -> None:
    """Let a resized server stay as it is: what it could go back to goes."""
    kept = {name for name in row.previous["disks"] if name not in disk_names(row.flavor)}
    migration.finish(tx, row.previous["migration"], "confirming")
    want(tx, row, task="resize_confirming", disks=disk.retired(disk.settled(row.disks), kept))


def revert(tx: Tx, row: sa.Row[Any]) -> None:
    """Let a resized server be again what it was."""
    old = row.previous
    migration.finish(tx, old["migration"], "reverting")
    want(
        tx,
        row,
        task="resize_reverting",
        flavor_id=old["flavor_id"],
        flavor=old["flavor"],
        disks=disk.reverted(row.disks, old["disks"]),
        previous={**old, "flavor_id": row.flavor_id, "flavor": row.flavor},
        reboot_nonce=next_reboot(row),
        reboot_kind="SOFT",
    )

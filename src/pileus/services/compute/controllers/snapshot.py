"""Ending the making of images of servers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from pileus.core.config import Config
from pileus.core.reconcile import DONE, KeyController, Outcome
from pileus.core.store import Tx
from pileus.services.compute.resources.server.operations.snapshot import end
from pileus.services.compute.resources.server.operations.transition import drop_image, ended, failed, write
from pileus.services.compute.resources.server.table import finish_actions, server, snapshot
from pileus.services.compute.rules.task import ENDS
from pileus.services.fleet import interface as fleet
from pileus.services.image import interface as image

_SHELVING = ("shelving_image_pending_upload", "shelving_image_uploading")


class Snapshots(KeyController):
    """Ends the task of a server whose image is there, or never will be; old backups go."""

    name = "compute.snapshot"
    topics = frozenset({"fleet.snapshot"})
    interval = 20.0

    def __init__(self, config: Config) -> None:
        self._config = config

    def keys(self, tx: Tx) -> Iterable[str]:
        """All that are being made."""
        return [row.image_id for row in tx.all(sa.select(snapshot.c.image_id))]

    def work(self, tx: Tx, key: str) -> Outcome:
        """End one of which the host has said that it is there, or that it cannot be."""
        made = tx.first(sa.select(snapshot).where(snapshot.c.image_id == key).with_for_update())
        if made is None:
            return DONE
        row = tx.first(sa.select(server).where(server.c.id == made.server_id).with_for_update())
        seen = _seen(made, fleet.observed(tx, "snapshot", [key]).get(key, ()))
        info = image.by_id(tx, key)
        there = info is not None and info.status == "active"
        if there and (seen is None or seen.state != "ready"):
            # The host has sent all of it and has not said so yet, or the image came to be all the same.
            there = seen is None or seen.state == "failed"
            if not there:
                return DONE
        if there:
            self._finish(tx, row, made)
        elif info is None or info.status in ("deleted", "killed", "pending_delete"):
            self._fail(tx, row, made, "The image was deleted while it was being made.")
        elif seen is None:
            self._fail(tx, row, made, "The host that was to make the image is gone.")
        elif seen.state == "failed" and seen.permanent and seen.current:
            self._fail(tx, row, made, seen.detail or "The host could not make the image.")
        return DONE

    def _finish(self, tx: Tx, row: sa.Row[Any] | None, made: sa.Row[Any]) -> None:
        end(tx, [made.image_id])
        if made.purpose == "backup":
            rotate(tx, made)
        if row is None or not _waits(row, made):
            if made.purpose == "shelve":
                drop_image(tx, made.image_id)
            return
        values = ended(tx, row, self._config)
        write(tx, row, values)
        if values["task"] is None:
            finish_actions(tx, [row.id], "Success")

    def _fail(self, tx: Tx, row: sa.Row[Any] | None, made: sa.Row[Any], reason: str) -> None:
        image.fail_snapshot(tx, made.image_id)
        end(tx, [made.image_id])
        if row is not None and _waits(row, made):
            finish_actions(tx, [row.id], "Error", reason)
            write(tx, row, failed(tx, row, self._config, reason))


def _seen(made: sa.Row[Any], entries: Sequence[fleet.Observed]) -> fleet.Observed | None:
    for one in entries:
        if one.host_id == made.host_id and not one.tombstone:
            return one
    return None


def _waits(row: sa.Row[Any], made: sa.Row[Any]) -> bool:
    """Whether a server waits for this very image: an admin may have said meanwhile that it waits for nothing."""
    if row.deleting_at is not None or row.task is None or ENDS[row.task].waits != "snapshot":
        return False
    if made.purpose == "shelve":
        return row.task in _SHELVING and row.shelf is not None and row.shelf["image_id"] == made.image_id
    return row.task not in _SHELVING


def rotate(tx: Tx, made: sa.Row[Any]) -> None:
    """Delete the oldest backups of a type, but for as many as are to stay."""
    active = [one for one in image.backups(tx, made.server_id, made.details["backup_type"]) if one.status == "active"]
    for one in active[made.details["rotation"] :]:
        image.delete(tx, one.id)

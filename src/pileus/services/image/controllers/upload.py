"""Ends uploads that died, and forgets tasks whose time is over."""

from __future__ import annotations

from collections.abc import Iterable

from pileus.core.reconcile import DONE, KeyController, Outcome
from pileus.core.store import Tx
from pileus.services.image.resources import data, task


class DeadUploads(KeyController):
    """Ends uploads that show no sign of life: their images wait for data again. A key is an image's id."""

    name = "image-upload"
    interval = 15.0

    def keys(self, tx: Tx) -> Iterable[str]:
        """Images whose upload was not renewed in time."""
        return [row.id for row in data.expired(tx)]

    def work(self, tx: Tx, key: str) -> Outcome:
        """End the upload, unless it was renewed meanwhile."""
        for row in data.expired(tx):
            if row.id == key:
                data.abandon(tx, row.id, row.upload_key)
        return DONE


class OldTasks(KeyController):
    """Forgets finished tasks, when they expire. A key is a task's id."""

    name = "image-task-expiry"
    interval = 300.0

    def keys(self, tx: Tx) -> Iterable[str]:
        """Tasks that have expired."""
        return task.expired(tx)

    def work(self, tx: Tx, key: str) -> Outcome:
        """Forget the task."""
        task.forget(tx, key)
        return DONE

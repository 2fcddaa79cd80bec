"""What servers do by themselves after some time: deleted for good, confirmed, off their host."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from pileus.core.config import Config
from pileus.core.reconcile import DONE, KeyController, Outcome
from pileus.core.store import Tx
from pileus.services.compute.resources.server.operations.ending import begin_deletion, finish_deletions
from pileus.services.compute.resources.server.operations.resizing import confirm
from pileus.services.compute.resources.server.operations.transition import offload
from pileus.services.compute.resources.server.table import record, server, want


class Deadlines(KeyController):
    """Acts on servers that have been softly deleted, resized or shelved for as long as the settings say."""

    name = "compute.deadline"
    interval = 10.0

    def __init__(self, config: Config) -> None:
        self._after = {
            "soft_deleted": config.reclaim_instance_interval,
            "resized": config.resize_confirm_window,
            "shelved": config.shelved_offload_time,
        }

    def _due(self, tx: Tx) -> list[sa.ColumnElement[bool]]:
        arms = [
            sa.and_(server.c.mode == mode, server.c.mode_at <= tx.now - timedelta(seconds=seconds))
            for mode, seconds in self._after.items()
            if seconds > 0
        ]
        return [sa.or_(sa.false(), *arms), server.c.task.is_(None), server.c.deleting_at.is_(None)]

    def keys(self, tx: Tx) -> Iterable[str]:
        """Servers whose time has come."""
        return [row.id for row in tx.all(sa.select(server.c.id).where(*self._due(tx)))]

    def work(self, tx: Tx, key: str) -> Outcome:
        """Do what is due for one, if it still is."""
        row = tx.first(sa.select(server).where(server.c.id == key, *self._due(tx)).with_for_update())
        if row is not None:
            {"soft_deleted": _reclaim, "resized": _confirm, "shelved": _offload}[row.mode](tx, row)
        return DONE


def _note(tx: Tx, row: sa.Row[Any], word: str, event: str) -> None:
    request_id = f"req-{tx.seams.uuid()}"
    record(tx, row.id, row.project_id, word, event, request_id=request_id, user_id=row.user_id, host=row.host)


def _reclaim(tx: Tx, row: sa.Row[Any]) -> None:
    _note(tx, row, "delete", "compute_terminate_instance")
    begin_deletion(tx, row)
    finish_deletions(tx, [row.id])


def _confirm(tx: Tx, row: sa.Row[Any]) -> None:
    if not row.error:
        _note(tx, row, "confirmResize", "compute_confirm_resize")
        confirm(tx, row)


def _offload(tx: Tx, row: sa.Row[Any]) -> None:
    if not row.error:
        _note(tx, row, "shelveOffload", "compute_shelve_offload_instance")
        want(tx, row, **offload(tx, row))

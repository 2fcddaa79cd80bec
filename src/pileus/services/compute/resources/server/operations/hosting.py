"""Whether a server's host answers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context
from pileus.core.errors import Conflict
from pileus.services.fleet import interface as fleet


def up(ctx: Context, row: sa.Row[Any]) -> bool:
    """Whether the host of a server answers, and nobody said that it is down."""
    if row.host_id is None:
        return False
    return any(one.up and not one.forced_down for one in fleet.hosts(ctx.tx, ctx.of(fleet.Fleet), [row.host_id]))


def check_up(ctx: Context, row: sa.Row[Any]) -> None:
    """Raise Conflict when it does not."""
    if row.host_id is None:
        raise Conflict(f"Instance {row.id} is not ready")
    if not up(ctx, row):
        raise Conflict("Service is unavailable at this time.")

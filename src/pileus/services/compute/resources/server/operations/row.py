"""Finding a server for its caller, and judging whether a verb is lawful now."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from pileus.core.api import Resource
from pileus.core.config import Config
from pileus.core.context import Context
from pileus.core.errors import Conflict, NotFound
from pileus.core.statement import at
from pileus.services.compute.resources.server.operations.transition import reset
from pileus.services.compute.resources.server.policy import RULES
from pileus.services.compute.resources.server.table import facts, record, server
from pileus.services.compute.rules.status import GUARDS, Verb, objection

resource = Resource("server", "servers", rules=RULES)


def find(ctx: Context, server_id: str, *, deleted: bool = False) -> sa.Row[Any]:
    """A server that the caller may do this operation to.

    Raises NotFound, also for servers of other projects, and Forbidden for the own project's where the policy says so.
    """
    row = ctx.tx.first(at(server, "id"), {"value": server_id})
    missing = NotFound(f"Instance {server_id} could not be found.")
    if row is None or (row.deleted_at is not None and not deleted):
        raise missing
    ctx.guard({"project_id": row.project_id, "user_id": row.user_id}, missing)
    return row


def allow(ctx: Context, row: sa.Row[Any], verb: Verb) -> None:
    """Raise Conflict unless the verb is lawful in the server's state, and no lock holds it back."""
    if GUARDS[verb].lock and row.locked_by is not None and not ctx.auth.is_admin:
        raise Conflict(f"Instance {row.id} is locked")
    reason = objection(verb, facts(row), row.id)
    if reason is not None:
        raise Conflict(reason)


def recovered(ctx: Context, row: sa.Row[Any]) -> dict[str, Any]:
    """What changes besides when a server that may be in error is told to be something again.

    Raises Conflict for one that is on no host: an ERROR says nothing of what it would need.
    """
    if row.host_id is None:
        raise Conflict(f"Instance {row.id} is not ready")
    return reset(ctx.tx, row, ctx.of(Config)) if row.error else {}


def for_project(ctx: Context, row: sa.Row[Any]) -> Context:
    """The same request as if it were made in the server's project: what the server gets there belongs to that."""
    if ctx.auth.project_id == row.project_id:
        return ctx
    return ctx.acting_as(auth=msgspec.structs.replace(ctx.auth, project_id=row.project_id))


def note(ctx: Context, row_id: str, project_id: str, word: str, event: str | None, host: str | None = None) -> None:
    """Write down what was asked of a server; without an event on the host it is done at once."""
    who = {"request_id": ctx.request_id, "user_id": ctx.auth.user_id}
    record(ctx.tx, row_id, project_id, word, event, **who, host=host)

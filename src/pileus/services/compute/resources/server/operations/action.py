"""Acts on servers. Each changes what is wanted and answers; the host's part follows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa

from pileus.core.config import Config
from pileus.core.context import Context
from pileus.core.errors import Forbidden
from pileus.core.fields import UNSET, Body, UnsetType, given
from pileus.services.compute.resources.server.operations.row import allow, find, note, recovered, resource
from pileus.services.compute.resources.server.operations.transition import reset
from pileus.services.compute.resources.server.table import next_reboot, server, want

_ACTION = "/servers/{server_id}/action"


class Reboot(Body):
    """How to reboot."""

    type: Literal["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]


class ResetState(Body):
    """What an admin says of a server."""

    state: Literal["active", "error"]


Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Lock(Body):
    """Why a server is locked."""

    locked_reason: Reason | UnsetType = UNSET


def _power(ctx: Context, server_id: str, verb: Literal["pause", "unpause", "suspend", "resume"], to: str) -> None:
    """Want another power of a server, if the verb is lawful."""
    row = find(ctx, server_id)
    allow(ctx, row, verb)
    want(ctx.tx, row, power=to)
    note(ctx, row.id, row.project_id, verb, f"compute_{verb}_instance", row.host)


@resource.action(_ACTION, "os-start", policy="os_compute_api:servers:start")
def start(ctx: Context, server_id: str, body: Any) -> None:
    """Let a stopped server run.

    It is a boot of its own, told apart by its number: the host may never have been told that a guest which turned
    itself off is to be off, and what it knows is then what is wanted again.
    """
    row = find(ctx, server_id)
    allow(ctx, row, "start")
    want(ctx.tx, row, power="running", reboot_nonce=next_reboot(row), reboot_kind="START")
    note(ctx, row.id, row.project_id, "start", "compute_start_instance", row.host)


@resource.action(_ACTION, "os-stop", policy="os_compute_api:servers:stop")
def stop(ctx: Context, server_id: str, body: Any) -> None:
    """Let a server stop; one in error is then no more in error."""
    row = find(ctx, server_id)
    allow(ctx, row, "stop")
    want(ctx.tx, row, **recovered(ctx, row) | {"power": "stopped"})
    note(ctx, row.id, row.project_id, "stop", "compute_stop_instance", row.host)


@resource.action(_ACTION, "reboot", policy="os_compute_api:servers:reboot")
def reboot(ctx: Context, server_id: str, body: Reboot) -> None:
    """Reboot a server; HARD also starts one that is stopped, paused or in error."""
    row = find(ctx, server_id)
    kind = body.type.upper()
    allow(ctx, row, "reboot_soft" if kind == "SOFT" else "reboot_hard")
    values = {"power": "running", "reboot_nonce": next_reboot(row), "reboot_kind": kind}
    want(ctx.tx, row, **recovered(ctx, row) | values)
    note(ctx, row.id, row.project_id, "reboot", "compute_reboot_instance", row.host)


@resource.action(_ACTION, "pause", policy="os_compute_api:os-pause-server:pause")
def pause(ctx: Context, server_id: str, body: Any) -> None:
    """Let a server stand still in memory."""
    _power(ctx, server_id, "pause", "paused")


@resource.action(_ACTION, "unpause", policy="os_compute_api:os-pause-server:unpause")
def unpause(ctx: Context, server_id: str, body: Any) -> None:
    """Let a paused server go on."""
    _power(ctx, server_id, "unpause", "running")


@resource.action(_ACTION, "suspend", policy="os_compute_api:os-suspend-server:suspend")
def suspend(ctx: Context, server_id: str, body: Any) -> None:
    """Let a server's memory go to its host's disk."""
    _power(ctx, server_id, "suspend", "suspended")


@resource.action(_ACTION, "resume", policy="os_compute_api:os-suspend-server:resume")
def resume(ctx: Context, server_id: str, body: Any) -> None:
    """Let a suspended server go on where it was."""
    _power(ctx, server_id, "resume", "running")


@resource.action(_ACTION, "os-resetState", policy="os_compute_api:os-admin-actions:reset_state")
def reset_state(ctx: Context, server_id: str, body: ResetState) -> None:
    """Say that a server is in error, or is not, and that nothing is under way.

    What the host reports next may say otherwise: the state is computed.
    """
    row = find(ctx, server_id)
    allow(ctx, row, "reset_state")
    values = reset(ctx.tx, row, ctx.of(Config)) | {"error": body.state == "error", "fault": None}
    want(ctx.tx, row, **values)
    ctx.tx.changed("compute.waiting", row.id)
    note(ctx, row.id, row.project_id, "resetState", None)


@resource.action(_ACTION, "lock", policy="os_compute_api:os-lock-server:lock", until="2.72")
def lock_silently(ctx: Context, server_id: str, body: Any) -> None:
    """Hold back whoever is no admin from changing a server; whatever is said of it is passed over."""
    _lock(ctx, server_id, {})


@resource.action(_ACTION, "lock", policy="os_compute_api:os-lock-server:lock", since="2.73")
def lock(ctx: Context, server_id: str, body: Lock | None) -> None:
    """The same, with a reason; a lock that is there keeps its own when none is given."""
    _lock(ctx, server_id, {} if body is None else given(body))


def _lock(ctx: Context, server_id: str, said: dict[str, Any]) -> None:
    row = find(ctx, server_id)
    allow(ctx, row, "lock")
    owner = row.project_id == ctx.auth.project_id
    if owner and row.locked_by is not None:
        return  # else the owner would make an admin's lock its own, and could take it away
    values = {"locked_by": "owner" if owner else "admin", "updated_at": ctx.now, **said}
    ctx.tx.execute(sa.update(server).where(server.c.id == row.id).values(values))
    ctx.tx.changed("compute.server", row.id)
    note(ctx, row.id, row.project_id, "lock", "api_lock", row.host)


@resource.action(_ACTION, "unlock", policy="os_compute_api:os-lock-server:unlock")
def unlock(ctx: Context, server_id: str, body: Any) -> None:
    """Take a lock away. Raises Forbidden for an admin's lock, unless the policy lets the caller."""
    row = find(ctx, server_id)
    allow(ctx, row, "unlock")
    target = {"project_id": row.project_id, "user_id": row.user_id}
    if row.locked_by == "admin" and not ctx.allows("os_compute_api:os-lock-server:unlock:unlock_override", target):
        raise Forbidden("Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed.")
    values = {"locked_by": None, "locked_reason": None, "updated_at": ctx.now}
    ctx.tx.execute(sa.update(server).where(server.c.id == row.id).values(values))
    ctx.tx.changed("compute.server", row.id)
    note(ctx, row.id, row.project_id, "unlock", "api_unlock", row.host)

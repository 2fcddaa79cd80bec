"""Tasks: work on an image's data that goes on after the request that asked for it.

Source: https://docs.openstack.org/api-ref/image/v2/#tasks, #interoperable-image-import ("Show tasks associated with
image")

A task's status is computed of what its row says: how often its work was begun, and how it ended.  The row also holds
the lease of the loop that works on it; one that is not renewed any more lets another begin anew, a few times.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from pileus.core.api import Page, Parameters, Resource
from pileus.core.context import Context, Query
from pileus.core.errors import BadRequest, MethodNotAllowed, NotFound
from pileus.core.listing import Listing, integer
from pileus.core.policy import Rule
from pileus.core.store import Instant, Tx, metadata
from pileus.services.image.resources.image import policy
from pileus.services.image.resources.image.table import image
from pileus.services.image.rules.schema import TASK_STATUSES, TASK_TYPES

TTL = timedelta(seconds=60)
"""How long the loop that works on a task may give no sign of life."""

SHARE = 2
"""How many tasks of one project are worked on at a time: a loop works on four, and they may take hours."""

ATTEMPTS = 3
"""How often the work of a task is begun: more deaths are no accident."""

PAGE, MOST = 25, 1000


task = sa.Table(
    "image_task",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("owner", sa.String(255)),
    sa.Column("user_id", sa.String(64)),
    sa.Column("request_id", sa.String(64)),
    sa.Column("image_id", sa.String(64), index=True),
    sa.Column("input", sa.JSON, nullable=False),
    sa.Column("source_id", sa.String(64), comment="image whose data is taken, which the caller may read"),
    sa.Column("form", sa.String(16), comment="format that the staged data was converted to"),
    sa.Column("result", sa.JSON),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("worker", sa.String(64), comment="the process whose loop works on it"),
    sa.Column("worker_until", Instant, comment="when that loop counts as dead unless this is renewed"),
    sa.Column("outcome", sa.String(16), index=True, comment="success or failure; empty while it is not finished"),
    sa.Column("created_at", Instant, nullable=False, index=True),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, index=True, comment="when it is forgotten"),
)

resource = Resource(
    "task",
    "tasks",
    rules=[Rule("tasks_api_access", policy.ADMIN, "Create, list and show tasks")],
)

_LISTING = Listing(
    task,
    filters={},
    sort={name: task.c[name] for name in ("id", "type", "created_at", "updated_at", "expires_at")},
    order=("created_at:desc",),
    maximum=MOST,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a request asks to be done. `source_id` is an image that the caller may read."""

    type: str
    image_id: str
    input: dict[str, Any]
    source_id: str | None = None


def create(ctx: Context, draft: Draft) -> str:
    """Write a task down, in the transaction that lets its image wait for it; its id."""
    number = ctx.seams.uuid()
    values = {
        "id": number,
        "type": draft.type,
        "owner": ctx.auth.project_id,
        "user_id": ctx.auth.user_id,
        "request_id": ctx.request_id,
        "image_id": draft.image_id,
        "input": draft.input,
        "source_id": draft.source_id,
        "created_at": ctx.now,
        "updated_at": ctx.now,
    }
    ctx.tx.insert(task, values)
    ctx.tx.changed("image.task", number)
    return number


def status(row: sa.Row[Any]) -> str:
    """A task's status, of what its row says."""
    if row.outcome is not None:
        return str(row.outcome)
    return "processing" if row.attempts else "pending"


def _where(wanted: str) -> sa.ColumnElement[bool]:
    """Holds for the tasks of a status."""
    if wanted in ("success", "failure"):
        return task.c.outcome == wanted
    begun = task.c.attempts > 0 if wanted == "processing" else task.c.attempts == 0
    return sa.and_(task.c.outcome.is_(None), begun)


def _stub(row: sa.Row[Any]) -> dict[str, Any]:
    found = {
        "id": row.id,
        "type": row.type,
        "status": status(row),
        "owner": row.owner,
        "created_at": f"{row.created_at:%Y-%m-%dT%H:%M:%SZ}",
        "updated_at": f"{row.updated_at:%Y-%m-%dT%H:%M:%SZ}",
        "self": f"/v2/tasks/{row.id}",
        "schema": "/v2/schemas/task",
    }
    if row.expires_at is not None:
        found["expires_at"] = f"{row.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    return found


def view(row: sa.Row[Any]) -> dict[str, Any]:
    """A task as responses show it."""
    return {
        **_stub(row),
        "input": row.input,
        "result": row.result,
        "message": row.message,
        "image_id": row.image_id,
        "request_id": row.request_id,
        "user_id": row.user_id,
    }


def _kept(tx: Tx) -> sa.ColumnElement[bool]:
    return sa.or_(task.c.expires_at.is_(None), task.c.expires_at >= tx.now)


@resource.get(
    "/tasks",
    policy="tasks_api_access",
    query=Parameters("limit", "marker", "sort_key", "sort_dir", "status", "type"),
)
def index(ctx: Context) -> Page:
    """All tasks, newest first unless the request says otherwise. Raises BadRequest and Forbidden."""
    query = sa.select(task).where(_kept(ctx.tx))
    for name, known, condition in (
        ("status", TASK_STATUSES, _where),
        ("type", TASK_TYPES, lambda word: task.c.type == word),
    ):
        word = ctx.query.get(name)
        if word:
            if word not in known:
                raise BadRequest(f"Invalid {name} value: {word}")
            query = query.where(condition(word))
    paging = _paging(ctx.query)
    if paging is None:
        return Page([])
    page = _LISTING.page(ctx.acting_as(query=paging), query)
    return Page([_stub(row) for row in page.rows], page.next_marker)


def _paging(query: Query) -> Query | None:
    """Sort key, limit and marker in one form; None for a page of nothing. Raises BadRequest."""
    direction = query.get("sort_dir") or "desc"
    if direction not in ("asc", "desc"):
        raise BadRequest(f"Invalid sort direction: {direction}")
    limit = query.get("limit")
    number = PAGE if limit is None else integer(limit)
    if number < 0:
        raise BadRequest("limit param must be positive")
    if number == 0:
        return None
    pairs = [("sort", f"{query.get('sort_key') or 'created_at'}:{direction}"), ("limit", str(number))]
    marker = query.get("marker")
    return Query([*pairs, ("marker", marker)] if marker else pairs)


@resource.get("/tasks/{task_id}", policy="tasks_api_access")
def show(ctx: Context, task_id: str) -> dict[str, Any]:
    """One task. Raises Forbidden and NotFound."""
    return view(find(ctx, task_id))


def find(ctx: Context, task_id: str) -> sa.Row[Any]:
    """A task that has not expired. Raises NotFound."""
    row = ctx.tx.first(sa.select(task).where(task.c.id == task_id, _kept(ctx.tx)))
    if row is None:
        raise NotFound(f"No task found with ID {task_id}")
    return row


@resource.delete("/tasks/{task_id}", policy="tasks_api_access", faults=(405,))
def delete(ctx: Context, task_id: str) -> None:
    """Tasks go by themselves, when they expire. Raises Forbidden and MethodNotAllowed."""
    raise MethodNotAllowed(
        "Tasks cannot be deleted: a finished one goes by itself at its expires_at.", headers={"allow": "GET"}
    )


@resource.get("/images/{image_id}/tasks", policy="get_image", guarded=True)
def of_image(ctx: Context, image_id: str) -> dict[str, Any]:
    """The tasks on an image's data, oldest first, for those who see the image. Raises NotFound."""
    policy.get(ctx, image_id)
    query = sa.select(task).where(task.c.image_id == image_id, _kept(ctx.tx))
    if not policy.is_admin(ctx):
        query = query.where(task.c.owner == ctx.auth.project_id)
    return {"tasks": [view(row) for row in ctx.tx.all(query.order_by(task.c.created_at, task.c.id))]}


class Lost(Exception):
    """The image is gone, or is not this task's any more."""


def owned(tx: Tx, todo: sa.Row[Any]) -> sa.Row[Any]:
    """The image of a task. Raises Lost."""
    row = tx.first(sa.select(image).where(image.c.id == todo.image_id, image.c.import_task == todo.id))
    if row is None:
        raise Lost(f"The image {todo.image_id} is gone, or another task works on it.")
    return row


# -- what the loop writes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that a loop may work on. `spent` is whether too many loops have died of it to try once more."""

    row: sa.Row[Any]
    spent: bool


def unfinished(tx: Tx) -> list[str]:
    """Ids of all tasks that are being worked on, or may be: not of those that wait until their project has a share."""
    query = sa.select(task.c.id, task.c.owner, task.c.worker_until).where(task.c.outcome.is_(None))
    rows = tx.all(query.order_by(task.c.created_at, task.c.id))
    held = {row.id for row in rows if row.worker_until is not None and row.worker_until >= tx.now}
    running = Counter(row.owner for row in rows if row.id in held)
    found = []
    for row in rows:
        if row.id not in held:
            if row.owner is not None and running[row.owner] >= SHARE:
                continue
            running[row.owner] += 1
        found.append(row.id)
    return found


def claim(tx: Tx, task_id: str, worker: str, *, alone: bool) -> Claim | None:
    """Take a task's lease, for a process that calls itself `worker`; None when there is nothing to do, or not yet,
    as when the project has its share.

    `alone` says that no other process works on this store: whoever held the lease is dead.
    """
    row = tx.first(sa.select(task).where(task.c.id == task_id, task.c.outcome.is_(None)))
    if row is None or not (alone or row.worker in (None, worker) or row.worker_until < tx.now):
        return None
    if row.owner is not None and _running(tx, row) >= SHARE:
        return None
    values = {"worker": worker, "worker_until": tx.now + TTL, "attempts": row.attempts + 1, "updated_at": tx.now}
    tx.compare_and_set(task, {"id": task_id, "attempts": row.attempts, "worker": row.worker}, values)
    return Claim(row, row.attempts >= ATTEMPTS)


def _running(tx: Tx, row: sa.Row[Any]) -> int:
    """How many other tasks of the same project are being worked on."""
    query = sa.select(sa.func.count()).where(
        task.c.owner == row.owner, task.c.outcome.is_(None), task.c.worker_until >= tx.now, task.c.id != row.id
    )
    return int(tx.scalar(query) or 0)


def call_next(tx: Tx, owner: str | None) -> None:
    """Tell the loop of the task of a project that has waited longest, now that one has ended."""
    waiting = sa.select(task.c.id).where(task.c.owner == owner, task.c.outcome.is_(None), task.c.worker.is_(None))
    task_id = tx.scalar(waiting.order_by(task.c.created_at, task.c.id).limit(1))
    if task_id is not None:
        tx.changed("image.task", task_id)


def renew(tx: Tx, claimed: Claim, worker: str, message: str) -> bool:
    """Give a sign of life, and say how far the work is; False when the task is another's by now."""
    mine = task.c.id == claimed.row.id, task.c.worker == worker, task.c.outcome.is_(None)
    values = {"worker_until": tx.now + TTL, "updated_at": tx.now, "message": message}
    return tx.execute(sa.update(task).where(*mine).values(values)).rowcount == 1


def hand_over(tx: Tx, claimed: Claim, worker: str) -> None:
    """Let another loop go on with a task: this one is asked to stop, which is no failure."""
    mine = task.c.id == claimed.row.id, task.c.worker == worker, task.c.outcome.is_(None)
    values = {"worker": None, "worker_until": None, "attempts": claimed.row.attempts, "updated_at": tx.now}
    tx.execute(sa.update(task).where(*mine).values(values))


def end(tx: Tx, row: sa.Row[Any], outcome: str, message: str, lifetime: timedelta) -> None:
    """Write down how a task ended."""
    values = {
        "outcome": outcome,
        "message": message,
        "result": {"image_id": row.image_id} if outcome == "success" else None,
        "worker": None,
        "worker_until": None,
        "updated_at": tx.now,
        "expires_at": tx.now + lifetime,
    }
    tx.execute(sa.update(task).where(task.c.id == row.id, task.c.outcome.is_(None)).values(values))
    tx.changed("image.task", row.id)


def expired(tx: Tx) -> list[str]:
    """Ids of the tasks that are to be forgotten."""
    return [row.id for row in tx.all(sa.select(task.c.id).where(task.c.expires_at < tx.now))]


def forget(tx: Tx, task_id: str) -> None:
    """Forget a task that has expired."""
    tx.execute(sa.delete(task).where(task.c.id == task_id, task.c.expires_at < tx.now))

"""Servers' tables: what is wanted, what was observed, and what was done about it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from pileus.core.statement import many
from pileus.core.store import Instant, Tx, metadata
from pileus.services.compute.rules.status import OWN_TASK, STATUSES, TASK_STATES, VM_STATES, Facts, Row

server = sa.Table(
    "compute_server",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("hostname", sa.String(255), nullable=False),
    sa.Column("description", sa.String(255)),
    sa.Column("image_id", sa.String(64)),
    sa.Column("image", sa.JSON, nullable=False),
    sa.Column("flavor_id", sa.String(255), nullable=False),
    sa.Column("flavor", sa.JSON, nullable=False),
    sa.Column("key_name", sa.String(255)),
    sa.Column("key", sa.JSON),
    sa.Column("user_data", sa.Text),
    sa.Column("admin_pass", sa.String(255)),
    sa.Column("config_drive", sa.Boolean, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("disk_config", sa.String(16), nullable=False),
    sa.Column("access_ip_v4", sa.String(64)),
    sa.Column("access_ip_v6", sa.String(64)),
    sa.Column("reservation_id", sa.String(64), nullable=False),
    sa.Column("launch_index", sa.Integer, nullable=False),
    sa.Column("availability_zone", sa.String(255)),
    sa.Column("target", sa.JSON, nullable=False),
    sa.Column("scheduler_hints", sa.JSON, nullable=False),
    sa.Column("locked_by", sa.String(16)),
    sa.Column("locked_reason", sa.String(255)),
    sa.Column("power", sa.String(16), nullable=False),
    sa.Column("reboot_nonce", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("reboot_kind", sa.String(8), nullable=False, server_default="HARD"),
    sa.Column("host_id", sa.String(64), index=True),
    sa.Column("host", sa.String(255)),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("written", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("state", sa.String(16), nullable=False, server_default=""),
    sa.Column("reboot_done", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("error", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("fault", sa.JSON),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant),
    sa.Column("launched_at", Instant),
    sa.Column("deleting_at", Instant),
    sa.Column("deleted_at", Instant),
    sa.Column("mode", sa.String(24), nullable=False, server_default=""),
    sa.Column("mode_at", Instant),
    sa.Column("task", sa.String(40)),
    sa.Column("disks", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("acts", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("acts_done", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("rescue", sa.JSON),
    sa.Column("previous", sa.JSON),
    sa.Column("shelf", sa.JSON),
    sa.Column("nic_tags", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("sealed_pass", sa.Text),
    sa.Column("files", sa.JSON),
    sa.Index("ix_compute_server_project_id_created_at", "project_id", "created_at"),
)
"""`flavor`, `image` and `key` are copies from the day of creation.  `target` holds `host`, `node` and whether the
scheduler's filters are passed over (`forced`).  Users own what is wanted, of which `revision` counts the changes;
`written` is the revision that the host was told.  `state`, `reboot_done`, `error`, `fault` and `launched_at` are folded
from what the host reports, by the controllers alone.  A deleted server keeps its row.

`mode` (since `mode_at`) and `task` are `rules.status.Mode` and `Task`: tasks are begun by requests, and ended by the
controllers as `rules.task` says.  `disks` are the incarnations of `rules.disk`; `acts` the nonces of acts that were
asked for, `acts_done` those that the host has come to.  `rescue` is the disk that a rescued server starts from,
`previous` what a resized one goes back to, `shelf` the image of one that is shelved.

`nic_tags` are the tags of cards by the port's id, `sealed_pass` the password that the guest made, sealed.
`files` are those that the guest shall put in place: `path` and `contents`, in base 64."""

tag = sa.Table(
    "compute_server_tag",
    metadata,
    sa.Column("server_id", sa.String(64), sa.ForeignKey("compute_server.id"), primary_key=True),
    sa.Column("tag", sa.String(60), primary_key=True),
)

action = sa.Table(
    "compute_server_action",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("server_id", sa.String(64), sa.ForeignKey("compute_server.id"), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("event", sa.String(64)),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("result", sa.String(16)),
    sa.Column("message", sa.String(255)),
    sa.Column("details", sa.Text),
    sa.Column("host", sa.String(255)),
    sa.Index("ix_compute_server_action_server_id_started_at", "server_id", "started_at"),
)
"""What was asked of a server, and the one event that it caused on the host; `event` is None where it caused none."""

snapshot = sa.Table(
    "compute_snapshot",
    metadata,
    sa.Column("image_id", sa.String(64), primary_key=True),
    sa.Column("server_id", sa.String(64), sa.ForeignKey("compute_server.id"), nullable=False, index=True),
    sa.Column("host_id", sa.String(64), nullable=False),
    sa.Column("purpose", sa.String(16), nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
)
"""Images that hosts are making of servers' disks, until they are there or never will be.  `purpose` is `image`,
`backup` or `shelve`; `details` is its own."""

decision = sa.Table(
    "compute_server_decision",
    metadata,
    sa.Column("server_id", sa.String(64), sa.ForeignKey("compute_server.id"), primary_key=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("chosen", sa.String(255)),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("best", sa.JSON, nullable=False),
    sa.Column("hosts", sa.JSON),
)
"""The scheduler's last decision on a server: hosts refused by each filter, the best few with weights and generations,
and the table by host when none was found."""


# -- the status, in Python and in SQL --------------------------------------------------------------------------------


def facts(row: sa.Row[Any]) -> Facts:
    """What the status of a row depends on."""
    return Facts(
        "done" if row.deleted_at is not None else "asked" if row.deleting_at is not None else "",
        row.error,
        row.host_id is not None,
        row.launched_at is not None,
        row.power,
        row.state,
        row.reboot_kind if row.reboot_nonce > row.reboot_done else "",
        row.mode,
        row.task,
    )


_FACTS: Mapping[str, sa.ColumnElement[Any]] = {
    "deletion": sa.case(
        (server.c.deleted_at.is_not(None), "done"), (server.c.deleting_at.is_not(None), "asked"), else_=""
    ),
    "error": server.c.error,
    "placed": server.c.host_id.is_not(None),
    "launched": server.c.launched_at.is_not(None),
    "power": server.c.power,
    "state": server.c.state,
    "reboot": sa.case((server.c.reboot_nonce > server.c.reboot_done, server.c.reboot_kind), else_=""),
    "mode": server.c.mode,
    "task": server.c.task,
}


def _holds(name: str, values: tuple[Any, ...]) -> sa.ColumnElement[bool]:
    fact = _FACTS[name]
    if isinstance(values[0], bool):
        return sa.or_(*(fact.is_(value) if name == "error" else fact if value else sa.not_(fact) for value in values))
    return fact.in_(values)


def _case(rows: tuple[Row, ...]) -> sa.ColumnElement[Any]:
    whens = [
        (sa.and_(*(_holds(name, values) for name, values in row.when.items())), _word(row.then))
        for row in rows
        if row.when
    ]
    return sa.case(*whens, else_=_word(rows[-1].then))


def _word(text: str | None) -> sa.ColumnElement[Any]:
    if text == OWN_TASK:
        return server.c.task
    return sa.null() if text is None else sa.literal(text, sa.String)


vm_state_sql = _case(VM_STATES)
task_state_sql = _case(TASK_STATES)
"""The same tables of rules as `rules.status` has in Python."""


def has_status(wanted: str) -> sa.ColumnElement[bool]:
    """The condition for servers of a status (in upper case)."""
    arms: list[sa.ColumnElement[bool]] = []
    for vm_state, row in STATUSES.items():
        for task_state, word in row.items():
            if word != wanted:
                continue
            named = [one for one in row if one is not None]
            if task_state is not None:
                arms.append(sa.and_(vm_state_sql == vm_state, task_state_sql == task_state))
            elif named:
                arms.append(
                    sa.and_(vm_state_sql == vm_state, sa.or_(task_state_sql.is_(None), task_state_sql.not_in(named)))
                )
            else:
                arms.append(vm_state_sql == vm_state)
    return sa.or_(sa.false(), *arms)


# -- reading and writing ---------------------------------------------------------------------------------------------


_TAGS = sa.select(tag.c.server_id, tag.c.tag).where(tag.c.server_id.in_(many("ids"))).order_by(tag.c.tag)


def tags_of(tx: Tx, ids: Collection[str]) -> dict[str, list[str]]:
    """Servers' tags, in order, by server id."""
    found: dict[str, list[str]] = {one: [] for one in ids}
    for row in tx.all(_TAGS, {"ids": ids}) if ids else ():
        found[row.server_id].append(row.tag)
    return found


def next_reboot(row: sa.Row[Any]) -> int:
    """The nonce of one more reboot: above what the host did, which may know more than a store that was restored."""
    return int(max(row.reboot_nonce, row.reboot_done)) + 1


def next_act(row: sa.Row[Any], name: str) -> dict[str, int]:
    """`acts` with one more of a name, likewise."""
    return {**row.acts, name: max(row.acts.get(name, 0), row.acts_done.get(name, 0)) + 1}


def want(tx: Tx, row: sa.Row[Any], **values: Any) -> None:
    """Change what is wanted of a server, as it was read. Raises Raced when it is not as it was read."""
    where = {"id": row.id, "revision": row.revision}
    tx.compare_and_set(server, where, {"revision": row.revision + 1, "updated_at": tx.now, **values})
    tx.changed("compute.intent", row.id)
    tx.changed("compute.server", row.id)


def set_each(tx: Tx, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each of several servers, whose rows are locked, values of its own: by id, all for the same columns."""
    tx.update_each(server, "id", changes)


def record(
    tx: Tx,
    server_id: str,
    project_id: str,
    word: str,
    event: str | None,
    *,
    request_id: str,
    user_id: str,
    host: str | None = None,
) -> None:
    """Write down what is asked of a server; without an event on the host it is done at once.

    Upstream names an event after who takes part in it: what is the API's own (`api_…`) no host has to end.
    """
    done = event is None or event.startswith("api_")
    values = {
        "server_id": server_id,
        "action": word,
        "event": event,
        "request_id": request_id,
        "user_id": user_id,
        "project_id": project_id,
        "started_at": tx.now,
        "updated_at": tx.now,
        "finished_at": tx.now if done else None,
        "result": "Success" if done else None,
        "host": host,
    }
    tx.insert(action, values)


@functools.cache
def _finishing(*columns: str) -> sa.Update:
    unfinished = sa.update(action).where(action.c.server_id.in_(many("ids")), action.c.finished_at.is_(None))
    return unfinished.values({name: sa.bindparam(name) for name in columns})


def finish_actions(tx: Tx, ids: Collection[str], result: str, details: str | None = None) -> None:
    """Note that what was asked of servers is done (`Success`) or never will be (`Error`)."""
    values: dict[str, Any] = {"finished_at": tx.now, "updated_at": tx.now, "result": result, "details": details}
    if result == "Error":
        values["message"] = "Error"
    tx.execute(_finishing(*values), {"ids": ids, **values})


_PLACING = (
    sa.update(action)
    .where(action.c.server_id.in_(many("ids")), action.c.finished_at.is_(None), action.c.host.is_(None))
    .values(host=sa.select(server.c.host).where(server.c.id == action.c.server_id).scalar_subquery())
)


def place_actions(tx: Tx, ids: Collection[str]) -> None:
    """Note the host in what was asked of servers before they had it."""
    tx.execute(_PLACING, {"ids": ids})

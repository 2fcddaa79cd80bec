"""A server's status: complete, and the same in Python and in SQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pytest
import sqlalchemy as sa

from pileus.core.store import Store
from pileus.services.compute.resources.server.table import facts, has_status, server, task_state_sql, vm_state_sql
from pileus.services.compute.rules import status
from pileus.services.compute.rules.status import Facts

NOW = datetime(2030, 1, 1, tzinfo=UTC)

DELETIONS: tuple[Literal["", "asked", "done"], ...] = ("", "asked", "done")
POWER: tuple[status.Verb, ...] = ("start", "stop", "reboot_soft", "reboot_hard", "pause", "unpause")

EVERY = [
    Facts(*one)
    for one in itertools.product(
        DELETIONS,
        (False, True),
        (False, True),
        (False, True),
        ("running", "stopped", "paused", "suspended"),
        ("", "running", "stopped", "paused", "suspended"),
        ("", "SOFT", "HARD"),
    )
]
"""All facts that can be written down, also those that no server reaches."""

EVERY += [
    known._replace(mode=mode, task=task)
    for known in EVERY[::37]
    for mode, task in itertools.product(status.MODES, (None, *status.TASKS[::5], "unshelving"))
    if mode or task
]


def row(number: int, known: Facts) -> dict[str, Any]:
    """A row of which `facts` gives the facts."""
    return {
        "id": f"server-{number}",
        "project_id": "p",
        "user_id": "u",
        "name": "s",
        "hostname": "s",
        "image": {},
        "flavor_id": "1",
        "flavor": {},
        "config_drive": False,
        "metadata": {},
        "disk_config": "AUTO",
        "reservation_id": "r",
        "launch_index": 0,
        "target": {},
        "scheduler_hints": {},
        "created_at": NOW,
        "power": known.power,
        "state": known.state,
        "error": known.error,
        "host_id": "host" if known.placed else None,
        "launched_at": NOW if known.launched else None,
        "deleting_at": NOW if known.deletion else None,
        "deleted_at": NOW if known.deletion == "done" else None,
        "reboot_nonce": 1 if known.reboot else 0,
        "reboot_kind": known.reboot or "HARD",
        "mode": known.mode,
        "task": known.task,
    }


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    store.create()
    rows = [row(number, known) for number, known in enumerate(EVERY)]
    store.write_here(lambda tx: tx.execute(sa.insert(server), rows).rowcount)
    yield store
    store.close()


def test_every_state_has_a_status() -> None:
    for known in EVERY:
        assert status.vm_state(known) in status.STATUSES
        assert status.status(known) in status.ALL_STATUSES
        task = status.task_state(known)
        assert (task is None) is status.settled(known)


def test_sql_and_python_agree(store: Store) -> None:
    query = sa.select(server, vm_state_sql.label("vm_word"), task_state_sql.label("task_word"))
    rows = store.read_here(lambda tx: tx.all(query))
    assert len(rows) == len(EVERY)
    for one in rows:
        known = EVERY[int(one.id.removeprefix("server-"))]
        assert facts(one) == known
        assert (one.vm_word, one.task_word) == (status.vm_state(known), status.task_state(known)), known


def test_lists_filter_by_what_they_show(store: Store) -> None:
    seen: set[str] = set()
    for word in sorted(status.ALL_STATUSES):
        query = sa.select(server.c.id).where(has_status(word))
        found = {one.id for one in store.read_here(lambda tx, query=query: tx.all(query))}  # type: ignore[misc] # bound now
        expected = {f"server-{number}" for number, known in enumerate(EVERY) if status.status(known) == word}
        assert found == expected, word
        seen |= found
    assert len(seen) == len(EVERY)


def test_every_verb_has_a_guard() -> None:
    assert set(status.GUARDS) == set(get_args(status.Verb))
    for verb, guard in status.GUARDS.items():
        assert (guard.vm_states or set()) <= set(status.STATUSES), verb


def test_guards_name_only_states_that_exist() -> None:
    tasks = {one.then for one in status.TASK_STATES} | set(status.TASKS)
    for verb, guard in status.GUARDS.items():
        assert (guard.task_states or set()) <= tasks, verb


REST = Facts("", False, True, True, "running", "running", "")

LAWFUL = {
    "ACTIVE": {"stop", "reboot_soft", "reboot_hard", "pause"},
    "SHUTOFF": {"start", "reboot_hard"},
    "PAUSED": {"unpause", "reboot_hard"},
    "ERROR": {"stop", "reboot_hard"},
    "BUILD": set(),
    "REBOOT": {"reboot_hard"},
    "HARD_REBOOT": {"reboot_hard"},
}
"""Upstream's table of which verbs of power are lawful when."""

EXAMPLES = {
    "ACTIVE": REST,
    "SHUTOFF": REST._replace(power="stopped", state="stopped"),
    "PAUSED": REST._replace(power="paused", state="paused"),
    "ERROR": REST._replace(error=True),
    "BUILD": REST._replace(launched=False, state=""),
    "REBOOT": REST._replace(reboot="SOFT"),
    "HARD_REBOOT": REST._replace(reboot="HARD"),
}


@pytest.mark.parametrize("word", sorted(LAWFUL))
def test_power_verbs(word: str) -> None:
    known = EXAMPLES[word]
    assert status.status(known) == word
    assert {verb for verb in POWER if status.objection(verb, known, "x") is None} == LAWFUL[word]


def test_nothing_can_be_asked_of_what_is_under_way() -> None:
    for known in EVERY:
        if known.deletion != "asked":
            continue
        for verb in POWER:
            assert status.objection(verb, known, "x") is not None, (verb, known)


def test_deleting_is_always_lawful() -> None:
    for known in EVERY:
        assert status.objection("delete", known, "x") is None
        assert status.objection("force_delete", known, "x") is None


def test_the_message_is_upstreams() -> None:
    assert status.objection("start", REST, "ID") == "Cannot 'start' instance ID while it is in vm_state active"
    busy = REST._replace(reboot="SOFT")
    assert status.objection("stop", busy, "ID") == "Cannot 'stop' instance ID while it is in task_state rebooting"

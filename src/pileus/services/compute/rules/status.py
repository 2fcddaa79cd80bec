"""A server's status, computed of what is wanted and what was observed; and which verb is lawful in which state.

The states are upstream's (Compute API guide, "Server concepts", and its `vm_state` and `task_state`), as far as what is
built here can reach them.  Each table is read from the top, and the first row whose conditions hold decides; the same
rows make the SQL by which lists are filtered (`resources/server/table.py`), so that filters agree with what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Facts(NamedTuple):
    """All that a status depends on."""

    deletion: Literal["", "asked", "done"]
    error: bool
    """Whether a controller gave up, or an admin said so."""
    placed: bool
    """Whether the server has a host."""
    launched: bool
    """Whether it ran at least once."""
    power: str
    """Wanted: `running`, `stopped` or `paused`."""
    state: str
    """Seen last: one of the same, or empty."""
    reboot: str
    """`SOFT` or `HARD` while a reboot is asked for and not done; else empty."""


class Row(NamedTuple):
    """Conditions (fact to the values that it may have), and what holds then."""

    when: Mapping[str, tuple[Any, ...]]
    then: str | None


VM_STATES = (
    Row({"deletion": ("done",)}, "deleted"),
    Row({"error": (True,)}, "error"),
    Row({"launched": (False,)}, "building"),
    Row({"state": ("running",)}, "active"),
    Row({"state": ("paused",)}, "paused"),
    Row({}, "stopped"),
)

TASK_STATES = (
    Row({"deletion": ("done",)}, None),
    Row({"deletion": ("asked",)}, "deleting"),
    Row({"error": (True,)}, None),
    Row({"launched": (False,), "placed": (False,)}, "scheduling"),
    Row({"launched": (False,)}, "spawning"),
    Row({"reboot": ("SOFT",)}, "rebooting"),
    Row({"reboot": ("HARD",)}, "rebooting_hard"),
    Row({"power": ("stopped",), "state": ("running", "paused")}, "powering-off"),
    Row({"power": ("running",), "state": ("paused",)}, "unpausing"),
    Row({"power": ("running", "paused"), "state": ("stopped", "")}, "powering-on"),
    Row({"power": ("paused",), "state": ("running",)}, "pausing"),
    Row({}, None),
)

STATUSES: Mapping[str, Mapping[str | None, str]] = {
    "active": {None: "ACTIVE", "rebooting": "REBOOT", "rebooting_hard": "HARD_REBOOT"},
    "building": {None: "BUILD"},
    "stopped": {None: "SHUTOFF"},
    "paused": {None: "PAUSED"},
    "error": {None: "ERROR"},
    "deleted": {None: "DELETED"},
}
"""The word that users see, by vm_state and task_state; None stands for every task_state that is not named."""

ALL_STATUSES = frozenset(status for row in STATUSES.values() for status in row.values()) | {
    "MIGRATING", "PASSWORD", "REBUILD", "RESCUE", "RESIZE", "REVERT_RESIZE", "SHELVED", "SHELVED_OFFLOADED",
    "SOFT_DELETED", "SUSPENDED", "VERIFY_RESIZE",
}  # fmt: skip
"""Every status of the API; those that nothing here reaches are lawful filters, and find nothing."""

POWER_STATES = {"running": 1, "paused": 3, "stopped": 4}
"""The API's `power_state` of what was seen last; 0 (no state) for everything else."""


def _first(rows: tuple[Row, ...], facts: Facts) -> str | None:
    for row in rows:
        if all(getattr(facts, name) in values for name, values in row.when.items()):
            return row.then
    raise AssertionError("each table ends with a row that always holds")


def vm_state(facts: Facts) -> str:
    """The stable half of a state."""
    return _first(VM_STATES, facts) or "error"


def task_state(facts: Facts) -> str | None:
    """What is under way, None when nothing is."""
    return _first(TASK_STATES, facts)


def status(facts: Facts) -> str:
    """The word that users see."""
    row = STATUSES[vm_state(facts)]
    return row.get(task_state(facts), row[None])


def power_state(facts: Facts) -> int:
    """The API's number for what was seen last."""
    return POWER_STATES.get(facts.state, 0) if facts.launched else 0


def settled(facts: Facts) -> bool:
    """Whether nothing is under way."""
    return task_state(facts) is None


class Guard(NamedTuple):
    """When a verb is lawful. None for a set: in every state."""

    vm_states: frozenset[str] | None = None
    task_states: frozenset[str | None] | None = frozenset({None})
    launched: bool = True
    """Whether the server must have run."""
    placed: bool = False
    """Whether the server must have a host."""
    lock: bool = True
    """Whether a lock holds it back."""


Verb = Literal[
    "start", "stop", "reboot_soft", "reboot_hard", "pause", "unpause", "delete", "force_delete", "reset_state",
    "get_console_output", "lock", "unlock", "update", "update metadata", "delete metadata", "update tag", "update tags",
    "delete tag", "delete tags", "add_security_group", "remove_security_group",
]  # fmt: skip

_AT_REST = frozenset({"active", "paused", "stopped"})
_REBOOTABLE: frozenset[str | None] = frozenset({None, "rebooting", "rebooting_hard", "pausing", "unpausing"})
_ALWAYS = Guard(task_states=None, launched=False)

GUARDS: Mapping[Verb, Guard] = {
    "start": Guard(frozenset({"stopped"}), placed=True),
    "stop": Guard(frozenset({"active", "error"}), placed=True),
    "reboot_soft": Guard(frozenset({"active"})),
    "reboot_hard": Guard(frozenset({"active", "stopped", "paused", "error"}), _REBOOTABLE),
    "pause": Guard(frozenset({"active"})),
    "unpause": Guard(frozenset({"paused"})),
    "delete": _ALWAYS,
    "force_delete": _ALWAYS,
    "reset_state": _ALWAYS._replace(lock=False),
    "get_console_output": _ALWAYS._replace(placed=True, lock=False),
    "lock": _ALWAYS._replace(lock=False),
    "unlock": _ALWAYS._replace(lock=False),
    "update": _ALWAYS._replace(lock=False),
    "update metadata": Guard(_AT_REST, None, launched=True),
    "delete metadata": Guard(_AT_REST, None, launched=True),
    "update tag": Guard(_AT_REST, None, launched=False, lock=False),
    "update tags": Guard(_AT_REST, None, launched=False, lock=False),
    "delete tag": Guard(_AT_REST, None, launched=False, lock=False),
    "delete tags": Guard(_AT_REST, None, launched=False, lock=False),
    "add_security_group": _ALWAYS._replace(lock=False),
    "remove_security_group": _ALWAYS._replace(lock=False),
}
"""Each verb, and when it is lawful."""


def objection(verb: Verb, facts: Facts, server_id: str) -> str | None:
    """Why a verb is not lawful now, for the person who asked; None when it is."""
    guard, vm, task = GUARDS[verb], vm_state(facts), task_state(facts)
    word = verb.removesuffix("_soft").removesuffix("_hard") if verb.startswith("reboot") else verb
    if guard.vm_states is not None and vm not in guard.vm_states:
        return f"Cannot '{word}' instance {server_id} while it is in vm_state {vm}"
    if guard.task_states is not None and task not in guard.task_states:
        return f"Cannot '{word}' instance {server_id} while it is in task_state {task}"
    if guard.launched and not facts.launched:
        return f"Cannot '{word}' instance {server_id} while it is in launched_at None"
    if guard.placed and not facts.placed:
        return f"Instance {server_id} is not ready"
    return None

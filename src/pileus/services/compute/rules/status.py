"""A server's status, computed of what is wanted and what was observed; and which verb is lawful in which state.

The states are upstream's (Compute API guide, "Server concepts", and its `vm_state` and `task_state`), as far as what is
built here can reach them.  Each table is read from the top, and the first row whose conditions hold decides; the same
rows make the SQL by which lists are filtered (`resources/server/table.py`), so that filters agree with what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

Mode = Literal["", "rescued", "resized", "shelved", "shelved_offloaded", "soft_deleted"]
"""The stable part of a server's state beyond its power; what a task leaves it in (`rules.task`)."""

MODES: tuple[Mode, ...] = get_args(Mode)

Task = Literal[
    "image_snapshot_pending", "image_snapshot", "image_pending_upload", "image_uploading", "image_backup",
    "updating_password", "resize_prep", "resize_migrating", "resize_migrated", "resize_finish", "resize_reverting",
    "resize_confirming", "rescuing", "unrescuing", "rebuilding", "rebuild_block_device_mapping", "rebuild_spawning",
    "migrating", "soft-deleting", "restoring", "shelving", "shelving_image_pending_upload", "shelving_image_uploading",
    "shelving_offloading", "unshelving", "spawning",
]  # fmt: skip
"""What may be under way beyond power; upstream's words.  `spawning` here is the second half of unshelving."""

TASKS: tuple[Task, ...] = get_args(Task)


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
    """Wanted: `running`, `stopped`, `paused` or `suspended`."""
    state: str
    """Seen last: one of the same, or empty."""
    reboot: str
    """`SOFT` or `HARD` while a reboot is asked for and not done, `START` for a start; else empty."""
    mode: Mode = ""
    task: Task | None = None


class Row(NamedTuple):
    """Conditions (fact to the values that it may have), and what holds then."""

    when: Mapping[str, tuple[Any, ...]]
    then: str | None


OWN_TASK = "="
"""In place of a word in TASK_STATES: the task that the server itself names."""

VM_STATES = (
    Row({"deletion": ("done",)}, "deleted"),
    Row({"error": (True,)}, "error"),
    Row({"launched": (False,)}, "building"),
    Row({"mode": ("rescued",)}, "rescued"),
    Row({"mode": ("resized",)}, "resized"),
    Row({"mode": ("shelved",)}, "shelved"),
    Row({"mode": ("shelved_offloaded",)}, "shelved_offloaded"),
    Row({"mode": ("soft_deleted",)}, "soft-delete"),
    Row({"state": ("running",)}, "active"),
    Row({"state": ("paused",)}, "paused"),
    Row({"state": ("suspended",)}, "suspended"),
    Row({}, "stopped"),
)

TASK_STATES = (
    Row({"deletion": ("done",)}, None),
    Row({"deletion": ("asked",)}, "deleting"),
    Row({"task": TASKS}, OWN_TASK),
    Row({"error": (True,)}, None),
    Row({"launched": (False,), "placed": (False,)}, "scheduling"),
    Row({"launched": (False,)}, "spawning"),
    Row({"placed": (False,)}, None),
    Row({"reboot": ("SOFT",)}, "rebooting"),
    Row({"reboot": ("HARD",)}, "rebooting_hard"),
    Row({"power": ("stopped",), "state": ("running", "paused", "suspended")}, "powering-off"),
    Row({"power": ("suspended",), "state": ("running", "paused")}, "suspending"),
    Row({"power": ("running",), "state": ("paused",)}, "unpausing"),
    Row({"power": ("running", "paused"), "state": ("suspended",)}, "resuming"),
    Row({"power": ("running", "paused"), "state": ("stopped", "")}, "powering-on"),
    Row({"power": ("paused",), "state": ("running",)}, "pausing"),
    Row({}, None),
)

_RESIZING: Mapping[str | None, str] = dict.fromkeys(
    ("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE"
)
_REBUILDING: Mapping[str | None, str] = dict.fromkeys(
    ("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD"
)

STATUSES: Mapping[str, Mapping[str | None, str]] = {
    "active": {
        None: "ACTIVE",
        "rebooting": "REBOOT",
        "rebooting_hard": "HARD_REBOOT",
        "updating_password": "PASSWORD",
        "migrating": "MIGRATING",
        **_RESIZING,
        **_REBUILDING,
    },
    "building": {None: "BUILD"},
    "stopped": {None: "SHUTOFF", **_RESIZING, **_REBUILDING},
    "resized": {None: "VERIFY_RESIZE", "resize_reverting": "REVERT_RESIZE"},
    "paused": {None: "PAUSED", "migrating": "MIGRATING"},
    "suspended": {None: "SUSPENDED"},
    "rescued": {None: "RESCUE"},
    "error": {None: "ERROR", **_REBUILDING},
    "deleted": {None: "DELETED"},
    "soft-delete": {None: "SOFT_DELETED"},
    "shelved": {None: "SHELVED"},
    "shelved_offloaded": {None: "SHELVED_OFFLOADED"},
}
"""The word that users see, by vm_state and task_state; None stands for every task_state that is not named."""

ALL_STATUSES = frozenset(status for row in STATUSES.values() for status in row.values())
"""Every status of the API."""

POWER_STATES = {"running": 1, "paused": 3, "stopped": 4, "suspended": 4}
"""The API's `power_state` of what was seen last; 0 (no state) for everything else.  Of a guest whose memory is in a
file there is no process: upstream's driver says that it is shut down."""


def _first(rows: tuple[Row, ...], facts: Facts) -> str | None:
    for row in rows:
        if all(getattr(facts, name) in values for name, values in row.when.items()):
            return facts.task if row.then == OWN_TASK else row.then
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
    return POWER_STATES.get(facts.state, 0) if facts.launched and facts.deletion != "done" else 0


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
    barred: frozenset[str] = frozenset()
    """Task states that forbid it."""


Verb = Literal[
    "start", "stop", "reboot_soft", "reboot_hard", "pause", "unpause", "suspend", "resume",
    "rescue", "unrescue", "rebuild", "resize", "confirmResize", "revertResize",
    "migrate", "os-migrateLive", "evacuate", "force_complete", "abort live migration",
    "shelve", "shelveOffload", "unshelve",
    "delete", "soft_delete", "force_delete", "restore", "reset_state", "lock", "unlock", "update",
    "createImage", "createBackup", "changePassword", "trigger_crash_dump",
    "attach_interface", "detach_interface", "add_fixed_ip", "remove_fixed_ip", "inject_network_info",
    "attach_volume", "detach_volume", "swap_volume",
    "get_console_output", "get_diagnostics",
    "get_vnc_console", "get_spice_console", "get_serial_console", "get_mks_console",
    "update metadata", "delete metadata", "update tag", "update tags", "delete tag", "delete tags",
    "add_security_group", "remove_security_group",
]  # fmt: skip
"""Each verb by the word that its refusal names; reboots are two verbs of one word."""

_AT_REST = frozenset({"active", "paused", "stopped"})
_SAVED = _AT_REST | {"suspended"}
_PLUGGABLE = _AT_REST | {"resized", "soft-delete", "shelved", "shelved_offloaded"}
_REBOOTABLE: frozenset[str | None] = frozenset(
    {None, "rebooting", "rebooting_hard", "pausing", "unpausing", "suspending", "resuming"}
)
_ALWAYS = Guard(task_states=None, launched=False)
_UNLOCKED = _ALWAYS._replace(lock=False)
_TAGGED = Guard(None, None, launched=False, lock=False)
_SEEN = _UNLOCKED._replace(placed=True)
_CONSOLE = _SEEN._replace(barred=frozenset({"deleting", "migrating"}))


def _in(*vm_states: str) -> Guard:
    return Guard(frozenset(vm_states))


GUARDS: Mapping[Verb, Guard] = {
    "start": _in("stopped")._replace(placed=True),
    "stop": _in("active", "error")._replace(placed=True),
    "reboot_soft": _in("active"),
    "reboot_hard": Guard(frozenset({"active", "stopped", "paused", "suspended", "error"}), _REBOOTABLE),
    "pause": _in("active"),
    "unpause": _in("paused"),
    "suspend": _in("active"),
    "resume": _in("suspended"),
    "rescue": _in("active", "stopped", "error"),
    "unrescue": _in("rescued"),
    "rebuild": _in("active", "stopped", "error"),
    "resize": _in("active", "stopped"),
    "confirmResize": _in("resized"),
    "revertResize": _in("resized"),
    "migrate": _in("active", "stopped"),
    "os-migrateLive": _in("active", "paused"),
    "evacuate": Guard(frozenset({"active", "stopped", "error"}), None, lock=False),
    "force_complete": Guard(frozenset({"active"}), frozenset({"migrating"})),
    "abort live migration": Guard(None, frozenset({"migrating"})),
    "shelve": Guard(_SAVED),
    "shelveOffload": _in("shelved"),
    "unshelve": _in("shelved", "shelved_offloaded"),
    "delete": _ALWAYS,
    "soft_delete": _ALWAYS._replace(launched=True),
    "force_delete": _ALWAYS,
    "restore": _in("soft-delete"),
    "reset_state": _UNLOCKED,
    "lock": _UNLOCKED,
    "unlock": _UNLOCKED,
    "update": _UNLOCKED,
    "createImage": Guard(_SAVED, lock=False),
    "createBackup": Guard(_SAVED, lock=False),
    "changePassword": _in("active"),
    "trigger_crash_dump": _in("active", "paused", "rescued", "resized", "error")._replace(placed=True),
    "attach_interface": Guard(_AT_REST),
    "detach_interface": Guard(_AT_REST),
    "add_fixed_ip": _ALWAYS,
    "remove_fixed_ip": _ALWAYS,
    "inject_network_info": _ALWAYS,
    "attach_volume": Guard(_PLUGGABLE),
    "detach_volume": Guard(_PLUGGABLE),
    "swap_volume": _in("active", "paused", "resized"),
    "get_console_output": _SEEN,
    "get_diagnostics": _SEEN,
    "get_vnc_console": _CONSOLE,
    "get_spice_console": _CONSOLE,
    "get_serial_console": _CONSOLE,
    "get_mks_console": _CONSOLE,
    "update metadata": Guard(_SAVED, None),
    "delete metadata": Guard(_SAVED, None),
    "update tag": _TAGGED._replace(vm_states=_SAVED),
    "update tags": _TAGGED._replace(vm_states=_SAVED),
    "delete tag": _TAGGED._replace(vm_states=_SAVED),
    "delete tags": _TAGGED._replace(vm_states=_SAVED),
    "add_security_group": _UNLOCKED,
    "remove_security_group": _UNLOCKED,
}
"""Each verb, and when it is lawful: what upstream's Compute checks before it takes a request on."""


def objection(verb: Verb, facts: Facts, server_id: str) -> str | None:
    """Why a verb is not lawful now, for the person who asked; None when it is."""
    guard, vm, task = GUARDS[verb], vm_state(facts), task_state(facts)
    word = verb.removesuffix("_soft").removesuffix("_hard") if verb.startswith("reboot") else verb
    if guard.placed and not facts.placed:
        return f"Instance {server_id} is not ready"
    if guard.vm_states is not None and vm not in guard.vm_states:
        return f"Cannot '{word}' instance {server_id} while it is in vm_state {vm}"
    if (guard.task_states is not None and task not in guard.task_states) or task in guard.barred:
        return f"Cannot '{word}' instance {server_id} while it is in task_state {task}"
    if guard.launched and not facts.launched:
        return f"Instance {server_id} is in an invalid state for '{word}'"
    return None

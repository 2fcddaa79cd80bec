"""Which verb is lawful when: each guard against what upstream's Compute checks before it takes a request on."""

from __future__ import annotations

from typing import NamedTuple, get_args

import pytest

from pileus.services.compute.rules import status
from pileus.services.compute.rules.status import Facts, Verb


class Check(NamedTuple):
    """What upstream checks: vm_states and task_states by words (`*`: any; `-`: none), and three things besides."""

    vm_states: str = "*"
    task_states: str = "-"
    launched: bool = True
    host: bool = False
    lock: bool = True
    barred: str = ""


SAVED = "active stopped paused suspended"
PLUGGABLE = "active paused stopped resized soft-delete shelved shelved_offloaded"
CONSOLE = Check("*", "*", launched=False, host=True, lock=False, barred="deleting migrating")
FREE = Check("*", "*", launched=False, lock=False)
TAG = Check(SAVED, "*", launched=False, lock=False)

UPSTREAM: dict[Verb, Check] = {
    "start": Check("stopped", host=True),
    "stop": Check("active error", host=True),
    "reboot_soft": Check("active"),
    "reboot_hard": Check(f"{SAVED} error", "- rebooting rebooting_hard pausing unpausing suspending resuming"),
    "pause": Check("active"),
    "unpause": Check("paused"),
    "suspend": Check("active"),
    "resume": Check("suspended"),
    "rescue": Check("active stopped error"),
    "unrescue": Check("rescued"),
    "rebuild": Check("active stopped error"),
    "resize": Check("active stopped"),
    "confirmResize": Check("resized"),
    "revertResize": Check("resized"),
    "migrate": Check("active stopped"),
    "os-migrateLive": Check("active paused"),
    "evacuate": Check("active stopped error", "*", lock=False),
    "force_complete": Check("active", "migrating"),
    "abort live migration": Check("*", "migrating"),
    "shelve": Check(SAVED),
    "shelveOffload": Check("shelved"),
    "unshelve": Check("shelved shelved_offloaded"),
    "delete": Check("*", "*", launched=False),
    "soft_delete": Check("*", "*"),
    "force_delete": Check("*", "*", launched=False),
    "restore": Check("soft-delete"),
    "reset_state": FREE,
    "lock": FREE,
    "unlock": FREE,
    "update": FREE,
    "createImage": Check(SAVED, lock=False),
    "createBackup": Check(SAVED, lock=False),
    "changePassword": Check("active"),
    "trigger_crash_dump": Check("active paused rescued resized error", host=True),
    "attach_interface": Check("active paused stopped"),
    "detach_interface": Check("active paused stopped"),
    "add_fixed_ip": Check("*", "*", launched=False),
    "remove_fixed_ip": Check("*", "*", launched=False),
    "inject_network_info": Check("*", "*", launched=False),
    "attach_volume": Check(PLUGGABLE),
    "detach_volume": Check(PLUGGABLE),
    "swap_volume": Check("active paused resized"),
    "get_console_output": Check("*", "*", launched=False, host=True, lock=False),
    "get_diagnostics": Check("*", "*", launched=False, host=True, lock=False),
    "get_vnc_console": CONSOLE,
    "get_spice_console": CONSOLE,
    "get_serial_console": CONSOLE,
    "get_mks_console": CONSOLE,
    "update metadata": Check(SAVED, "*"),
    "delete metadata": Check(SAVED, "*"),
    "update tag": TAG,
    "update tags": TAG,
    "delete tag": TAG,
    "delete tags": TAG,
    "add_security_group": FREE,
    "remove_security_group": FREE,
}
"""Of nova 2025's `nova/compute/api.py` and `nova/api/openstack/compute/server_tags.py`."""

REST = Facts("", False, True, True, "running", "running", "")

VM_STATES = {
    "active": REST,
    "paused": REST._replace(power="paused", state="paused"),
    "suspended": REST._replace(power="suspended", state="suspended"),
    "stopped": REST._replace(power="stopped", state="stopped"),
    "error": REST._replace(error=True),
    "rescued": REST._replace(mode="rescued"),
    "resized": REST._replace(mode="resized"),
    "shelved": REST._replace(mode="shelved", power="stopped", state="stopped"),
    "shelved_offloaded": REST._replace(mode="shelved_offloaded", power="stopped", state="stopped"),
    "soft-delete": REST._replace(mode="soft_deleted", power="stopped", state="stopped"),
    "building": REST._replace(launched=False, state=""),
}
"""A server in each vm_state."""

TASKS = {
    "rebooting": {"reboot": "SOFT"},
    "rebooting_hard": {"reboot": "HARD"},
    "powering-off": {"power": "stopped", "state": "running"},
    "powering-on": {"power": "running", "state": "stopped"},
    "pausing": {"power": "paused", "state": "running"},
    "unpausing": {"power": "running", "state": "paused"},
    "suspending": {"power": "suspended", "state": "running"},
    "resuming": {"power": "running", "state": "suspended"},
    "deleting": {"deletion": "asked"},
}
"""What makes each task_state that no column names."""

EVERY = [
    *VM_STATES.values(),
    *(known._replace(task=task) for known in VM_STATES.values() for task in status.TASKS),
    *(known._replace(**change) for known in VM_STATES.values() for change in TASKS.values()),  # type: ignore[arg-type] # names of facts
]
EVERY += [known._replace(placed=False) for known in EVERY]


def test_every_state_is_among_these() -> None:
    seen = {status.vm_state(known) for known in EVERY}
    assert seen == set(status.STATUSES) - {"deleted"}
    for word, known in VM_STATES.items():
        assert status.vm_state(known) == word
    tasks = {status.task_state(known) for known in EVERY}
    assert tasks >= {None, *status.TASKS, *TASKS}


@pytest.mark.parametrize("verb", get_args(Verb))
def test_guard(verb: Verb) -> None:
    check = UPSTREAM[verb]
    assert status.GUARDS[verb].lock is check.lock
    for known in EVERY:
        vm_state, task_state = status.vm_state(known), status.task_state(known) or "-"
        lawful = (check.vm_states in ("*", vm_state) or vm_state in check.vm_states.split()) and (
            check.task_states == "*" or task_state in check.task_states.split()
        )
        lawful = lawful and task_state not in check.barred.split()
        lawful = lawful and (known.launched or not check.launched) and (known.placed or not check.host)
        reason = status.objection(verb, known, "ID")
        assert (reason is None) is lawful, (verb, known, reason)
        if reason is not None:
            word = {"reboot_soft": "reboot", "reboot_hard": "reboot"}.get(verb, verb)
            assert reason.startswith(f"Cannot '{word}' instance ID while it is in ") or reason in (
                "Instance ID is not ready",
                f"Instance ID is in an invalid state for '{word}'",
            )

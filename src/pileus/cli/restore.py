"""`pileus restore FILE`: bring the cloud back to a backup, whether it runs or not."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pileus.cli.accept_store import forget
from pileus.cli.client import Api, ApiFailure
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings
from pileus.cli.progress import Progress
from pileus.cli.status import REFUSED, server_counts
from pileus.cli.supervise import PROCESSES, claim, end, hold, runs, undisturbed

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers

TIMEOUT = 60.0
"""Seconds that the cloud may take to serve again."""

SETTLE = 10.0
"""Seconds after the first host was heard in which the others are waited for."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "restore",
        help="bring the cloud back to a backup",
        description="Checks all of a backup, then puts it in the place of store, keys and credentials; what is "
        "replaced is kept aside. Servers go on meanwhile. Those that the backup does not know are left alone and "
        "shown, and so it is with networks and routers.",
    )
    add_state(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="what `pileus backup` wrote")
    parser.add_argument("--settings", action="store_true", help="also bring back pileus.toml where there is one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    state, progress = arguments.state, Progress()
    file: Path = arguments.file.absolute()
    with progress.step("backup") as step:
        step.result(roles.examine_backup(file, step.say))
    running = runs(state)
    with progress.step("store, keys and credentials") as step, resting(state):
        aside = roles.restore(state, file, arguments.settings, step.say)
        forget(settings(state))
        step.result(f"what was there is in {aside}")
    if not running:
        print("The cloud is down; `pileus up` starts it on the restored store.")
        return 0
    with progress.step("control plane and agent"):
        fleet = _wait(state)
    for line in findings(fleet, server_counts(Api(state))):
        print(line)
    return 0


@contextmanager
def resting(state: Path) -> Iterator[None]:
    """Keep control plane and agent from running while the block does; whoever supervises them starts them after it.

    Guests go on.  Raises CommandFailure while another does the same.
    """
    locks: list[int] = []
    try:
        undisturbed(state)
        locks.append(claim(state, "restore"))
        for name in PROCESSES:
            while (lock := hold(state, name)) is None:
                end(state, name)
            locks.append(lock)
        yield
    finally:
        for lock in locks:
            os.close(lock)


def _wait(state: Path) -> dict[str, Any]:
    """The hosts, once they have said what they hold."""
    deadline = time.monotonic() + TIMEOUT
    heard = 0.0
    while time.monotonic() < deadline:
        try:
            found: dict[str, Any] = Api(state).get("/fleet/v1/hosts")
        except ApiFailure as failure:
            if failure.code:
                raise
            found = {}
        hosts = [one["free_disk_gib"] is not None for one in found.get("hosts", ()) if one["up"]]
        if any(hosts) and not heard:
            heard = time.monotonic()
        if heard and (all(hosts) or time.monotonic() - heard > SETTLE):
            return found
        time.sleep(0.2)
    raise CommandFailure(f"the cloud does not serve after {TIMEOUT:.0f} s; see {state / 'log' / 'control.log'}")


def findings(fleet: dict[str, Any], servers: dict[str, int]) -> list[str]:
    """What is there after a restoration, for people."""
    counts = ", ".join(f"{count} {status}" for status, count in sorted(servers.items())) or "none"
    lines = [f"The cloud serves the restored store. Servers that it knows: {counts}."]
    for host in fleet["hosts"]:
        if not host["up"]:
            lines.append(f"  host {host['name']} is not heard")
        lines += [
            f"  host {host['name']} holds {one['kind']} {one['id']}, which the backup does not know: it is left alone"
            for one in host["unknown"]
        ]
    lines += [f"  host {one['host']} REFUSES this store: {one['reason']}" for one in fleet["refusals"]]
    if fleet["refusals"]:
        lines.append(f"    → {REFUSED}")
    return lines

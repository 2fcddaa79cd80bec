"""`pileus down`: stop the cloud and its servers, and leave nothing of it running on the host."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pileus.cli import systemd
from pileus.cli.main import CommandFailure
from pileus.cli.place import add_state, settings
from pileus.cli.progress import Progress
from pileus.cli.supervise import PROCESSES, end, grace, supervisor, undisturbed

if TYPE_CHECKING:
    from pileus.cli.main import Roles, Subparsers

EX_USAGE = 64
"""Exit status of a command that was used in a way that makes no sense (sysexits.h)."""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "down",
        help="stop the cloud and its servers",
        description="Stops control plane, agent and servers, and takes networks, addresses and rules off the host. "
        "What was made is kept, and `up` brings it back.",
    )
    add_state(parser)
    parser.add_argument(
        "--keep-servers",
        action="store_true",
        help="stop control plane and agent alone, as before an upgrade; servers and their networks go on",
    )
    parser.add_argument(
        "--purge", action="store_true", help="also delete everything that the cloud kept, but its backups"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, roles: Roles) -> int:
    """Run the command; exit status."""
    state: Path = arguments.state
    progress = Progress()
    if not state.exists():
        progress.line(f"  ✓ there is no cloud in {state}")
        return 0
    undisturbed(state)
    if arguments.purge and arguments.keep_servers:
        raise CommandFailure("--purge deletes the disks of servers: they cannot be kept", status=EX_USAGE)
    if arguments.purge and systemd.serves(state):
        raise CommandFailure("systemd starts this cloud at boot: `pileus uninstall` first, then `down --purge`")
    with progress.step("control plane and agent"):
        _stop(state)
    if arguments.keep_servers:
        return 0
    with progress.step("servers and networks") as step:
        step.result(roles.teardown(arguments, step.say))
    if arguments.purge:
        with progress.step("state") as step:
            step.result(f"{state} {_purge(state)}")
    return 0


def _stop(state: Path) -> None:
    pid = supervisor(state)
    if systemd.keeps(state):
        systemd.systemctl("stop", systemd.TARGET, *systemd.SERVICES.values())
    if pid:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace(settings(state)) + 20
        while supervisor(state) is not None:
            if time.monotonic() > deadline:
                raise CommandFailure(f"the supervisor (process {pid}) does not end")
            time.sleep(0.05)
    for name in PROCESSES:
        end(state, name)


def _delete(directory: Path) -> None:
    """Delete a directory in which a child of the agent that is just ending may still take its own files away."""
    while directory.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)


def _purge(state: Path) -> str:
    """Delete what the cloud kept, but its backups; what became of the directory."""
    if not (state / "pileus.toml").exists():
        raise CommandFailure(f"{state} does not look like a cloud's state (no pileus.toml in it): nothing was deleted")
    kept = {"images", "cache", "metadefs", "backups"}
    for entry in state.iterdir():
        # What `prepare` fetched and built is not the cloud's, and cannot be had again offline.
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            _delete(entry)
        else:
            entry.unlink(missing_ok=True)
    left = {entry.name for entry in state.iterdir()}
    with contextlib.suppress(OSError):  # where a disk of its own is mounted
        if not left:
            state.rmdir()
            return "is gone"
    said = ["what `prepare` made"] if left - {"backups"} else []
    said += ["its backups"] if "backups" in left else []
    return f"is gone, but for {' and '.join(said)}" if said else "is empty"
